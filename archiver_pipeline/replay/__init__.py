"""Replay: archived messages sent back to Kafka, in order, once, and never archived a second time."""
