"""A Kafka topic into an Iceberg table by type and hour with Kafka Connect, standalone, and Apache Iceberg's sink.

The last line printed is a JSON object whose `seconds` are those from the start of the first task until every message is
committed. What comes before is start-up: the JVM, Connect's scan of its class path, its web server.

Set beside the defaults: two tasks, 3 GiB of heap and the parallel collector, larger fetches from Kafka, a commit every
five seconds (five minutes as it ships) and offsets stored every second (a minute), so that little time is spent on
waiting; sessions of ten seconds (45), so that after a kill it goes on sooner.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from archiver_pipeline_tests.kafka.jars import java
from archiver_pipeline_tests.kafka.topics import create_topic, end_offsets
from archiver_pipeline_tests.processes import HOST, free_ports
from bench.peers import fetch
from bench.peers.until import run_until

TABLE = "archive"
CONTROL = "control-iceberg"
JAVA = ("-Xms3g", "-Xmx3g", "-XX:+UseParallelGC")


def main() -> None:
    """Copy the topic and print messages and seconds."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers.connect", description=__doc__)
    parser.add_argument("servers")
    parser.add_argument("topic")
    parser.add_argument("folder", type=Path, help="for the table and Connect's own files")
    parser.add_argument("messages", type=int, help="as many as the topic has")
    parser.add_argument("--small", action="store_true", help="commit every second")
    given = parser.parse_args()
    state = given.folder / "connect"
    state.mkdir(parents=True, exist_ok=True)
    _make_control_topic(given.servers, given.folder)
    files = [state / "worker.properties", state / "connector.properties"]
    _write(files[0], worker(given.servers, state))
    _write(files[1], connector(given.topic, given.folder, 1 if given.small else 5))
    command = [java(), *JAVA, "-cp", f"{fetch.connect() / 'jars'}/*", "org.apache.kafka.connect.cli.ConnectStandalone"]
    run_until(
        [*command, *map(str, files)],
        state / "connect.log",
        "Sink task finished initialization and start",
        lambda: rows(given.folder / TABLE),
        given.messages,
    )


def worker(servers: str, state: Path) -> dict[str, str]:
    """The properties of the process."""
    (port,) = free_ports(1)
    json_converter = "org.apache.kafka.connect.json.JsonConverter"
    return {
        "bootstrap.servers": servers,
        "listeners": f"http://{HOST}:{port}",
        "offset.storage.file.filename": str(state / "offsets"),
        "key.converter": "org.apache.kafka.connect.converters.ByteArrayConverter",
        "value.converter": json_converter,
        "value.converter.schemas.enable": "false",
        "plugin.discovery": "only_scan",
        # A task without news hears of a commit only as often as it stores its offsets: every minute as it ships.
        "offset.flush.interval.ms": "1000",
        "consumer.max.poll.records": "10000",
        "consumer.max.partition.fetch.bytes": str(8 * 1024**2),
        "consumer.receive.buffer.bytes": str(1024**2),
        "consumer.session.timeout.ms": "10000",
    }


def connector(topic: str, folder: Path, commit_seconds: int) -> dict[str, str]:
    """The properties of the sink: message time, partition and offset become fields, type and hour the partitions."""
    return {
        "name": f"iceberg-{folder.name}",
        "connector.class": "org.apache.iceberg.connect.IcebergSinkConnector",
        "tasks.max": "2",
        "topics": topic,
        "transforms": "kafka,time",
        "transforms.kafka.type": "org.apache.kafka.connect.transforms.InsertField$Value",
        "transforms.kafka.topic.field": "topic",
        "transforms.kafka.partition.field": "partition",
        "transforms.kafka.offset.field": "offset",
        "transforms.kafka.timestamp.field": "timestamp",
        "transforms.time.type": "org.apache.kafka.connect.transforms.TimestampConverter$Value",
        "transforms.time.field": "timestamp",
        "transforms.time.target.type": "Timestamp",
        "iceberg.tables": TABLE,
        "iceberg.tables.auto-create-enabled": "true",
        "iceberg.tables.default-partition-by": "type,hour(timestamp)",
        "iceberg.control.topic": control_topic(folder),
        "iceberg.control.commit.interval-ms": str(commit_seconds * 1000),
        "iceberg.kafka.session.timeout.ms": "10000",
        "iceberg.catalog.type": "hadoop",
        "iceberg.catalog.warehouse": str(folder),
    }


def control_topic(folder: Path) -> str:
    """The topic by which tasks and coordinator agree: one for each table."""
    return f"{CONTROL}-{folder.name}"


def rows(table: Path) -> int:
    """How many rows the newest snapshot has, as its summary says."""
    metadata = newest(table)
    if metadata is None:
        return 0
    snapshots = {each["snapshot-id"]: each for each in metadata.get("snapshots", [])}
    current = snapshots.get(metadata.get("current-snapshot-id"))
    return int(current["summary"]["total-records"]) if current else 0


def newest(table: Path) -> dict[str, Any] | None:
    """The table's metadata of the newest version; None where there is no table yet."""
    versions = [int(path.name[1:].split(".")[0]) for path in (table / "metadata").glob("v*.metadata.json")]
    if not versions:
        return None
    found: dict[str, Any] = json.loads((table / "metadata" / f"v{max(versions)}.metadata.json").read_text())
    return found


def _make_control_topic(servers: str, folder: Path) -> None:
    if not end_offsets(servers, control_topic(folder)):
        create_topic(servers, control_topic(folder), 1)


def _write(path: Path, properties: Mapping[str, str]) -> None:
    path.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))


if __name__ == "__main__":
    main()
