"""The benchmark: every figure is a ratio of two measurements of one run, on a real broker."""
