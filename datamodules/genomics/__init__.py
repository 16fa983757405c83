"""Genomes and labelled sequences: readers and LightningDataModules."""
