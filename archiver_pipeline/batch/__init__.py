"""A micro-batch: planned, read, split by type and hour, written, committed."""
