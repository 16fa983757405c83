"""Time series: readers, panels, windows, the benchmark's protocol and the LightningDataModule."""
