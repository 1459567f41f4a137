"""A Kafka topic, up to the end offsets of now, into Parquet by type and hour with Spark Structured Streaming.

It is run by the Python of Spark's own virtual environment. The last line printed is a JSON object whose `seconds` are
those from the start of the query until it has ended, its commit included. What comes before is start-up: Python, the
JVM, the session. Python waits for the JVM's end, so that who measures this process measures the JVM with it.

Set beside the defaults: 3 GiB of heap and the parallel collector, which is the faster one here; times as 64-bit numbers
instead of INT96; larger fetches from Kafka; a task writes the files of its types and hours side by side, which spares
the sort before them; no web pages.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

from pyspark.sql import SparkSession
from pyspark.sql import functions as f


def main() -> None:
    """Copy the topic and print messages and seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("servers")
    parser.add_argument("topic")
    parser.add_argument("folder", type=Path, help="for the Parquet")
    parser.add_argument("scratch", type=Path, help="for the checkpoint and what Spark spills")
    parser.add_argument("jars", type=Path, help="the folder with the Kafka source")
    parser.add_argument("--each", type=int, help="messages of a micro-batch; without it all there are")
    given = parser.parse_args()
    os.environ.pop("SPARK_HOME", None)  # another Spark, which pyspark would start instead of its own
    session = _session(given.jars, given.scratch)
    messages = (
        session.readStream.format("kafka")
        .option("kafka.bootstrap.servers", given.servers)
        .option("subscribe", given.topic)
        .option("startingOffsets", "earliest")
        .option("kafka.max.poll.records", 10_000)
        .option("kafka.max.partition.fetch.bytes", 8 * 1024**2)
        .option("kafka.receive.buffer.bytes", 1024**2)
        .options(**({"maxOffsetsPerTrigger": given.each} if given.each else {}))
        .load()
    )
    value = f.col("value").cast("string")
    columns = messages.select(
        "topic",
        "partition",
        "offset",
        "timestamp",
        "key",
        value.alias("value"),
        f.get_json_object(value, "$.type").alias("type"),
        f.date_format("timestamp", "yyyy-MM-dd").alias("dt"),
        f.date_format("timestamp", "HH").alias("hr"),
    )
    began = time.monotonic()
    query = (
        columns.writeStream.format("parquet")
        .partitionBy("type", "dt", "hr")
        .option("path", str(given.folder))
        .option("checkpointLocation", str(given.scratch / "checkpoint"))
        .trigger(availableNow=True)
        .start()
    )
    query.awaitTermination()
    seconds = time.monotonic() - began
    count = sum(progress.numInputRows for progress in query.recentProgress)  # the newest hundred batches
    _stop(session)
    print(json.dumps({"messages": count, "seconds": seconds}))


def _session(jars: Path, scratch: Path) -> SparkSession:
    builder = SparkSession.builder.master("local[2]").appName("bench")
    settings = {
        "spark.jars": ",".join(str(jar) for jar in sorted(jars.glob("*.jar"))),
        "spark.driver.memory": "3g",
        "spark.driver.extraJavaOptions": "-XX:+UseParallelGC",
        "spark.local.dir": str(scratch),
        "spark.sql.warehouse.dir": str(scratch / "warehouse"),
        "spark.sql.maxConcurrentOutputFileWriters": "100",
        "spark.sql.parquet.compression.codec": "zstd",
        "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS",
        "spark.sql.session.timeZone": "UTC",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
    }
    for name, setting in settings.items():
        builder = builder.config(name, setting)
    return builder.getOrCreate()


def _stop(session: SparkSession) -> None:
    """End the JVM, which would otherwise outlive Python for a moment, and wait for it."""
    gateway = session.sparkContext._gateway
    session.stop()
    gateway.shutdown()
    gateway.proc.stdin.close()
    gateway.proc.wait()


if __name__ == "__main__":
    main()
