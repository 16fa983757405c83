"""Text and synthetic tasks: readers, tokenizers and LightningDataModules."""
