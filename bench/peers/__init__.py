"""Peers of the archiver: others that copy the same topic into Parquet, measured in turns with it."""
