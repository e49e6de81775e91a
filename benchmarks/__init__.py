"""Measurements: `make bench`. Every figure is a ratio to a reference that was measured in the same run."""
