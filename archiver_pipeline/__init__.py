"""Copies Kafka topics into a Hive-partitioned Parquet archive, exactly once, in micro-batches driven by Dagster."""
