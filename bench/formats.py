"""Avro, Protobuf and JSON Schema against JSON of the same content: bytes on the wire and in the archive, messages a
second, and whether every row, type and field is what was produced.

The schema changes twice in mid-topic. Needs Java 17 and, for the first fetch of the registry and the broker, Maven.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from rich.console import Console
from rich.table import Table

from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.produce import create_topic
from archiver_pipeline_tests.registry.apicurio import Apicurio
from bench.formats_events import FIRST_MS, VERSIONS, encoder, expected, schema
from bench.process import measure
from bench.results import record

KINDS = ("json", "json-schema", "avro", "avro-nested", "protobuf")
"""`avro-nested` has a record that may be null, which is decoded message by message."""

PARTITIONS = 4


def main() -> None:
    """Produce, archive in turns, compare side by side, print and record."""
    parser = argparse.ArgumentParser(prog="python -m bench.formats", description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=KINDS, help="some of: " + " ".join(KINDS))
    given = parser.parse_args()
    console = Console()
    with KafkaBroker(heap="1g") as broker, Apicurio() as registry:
        ids = {kind: _register(registry.url, kind) for kind in given.only}
        for kind in given.only:
            console.print(f"producing {given.messages:,} messages of {kind} ...")
            create_topic(broker.bootstrap_servers, kind, partitions=PARTITIONS)
        found = {kind: _made(broker, kind, given.messages, ids[kind]) for kind in given.only}
        for turn in range(given.turns):
            for kind in given.only:
                last = turn == given.turns - 1
                _archive(broker, registry, kind, given.messages, found[kind], ids[kind] if last else None)
                console.print(f"turn {turn + 1} of {kind}: {found[kind]['rates'][-1]:,} messages/s")
    figures = {kind: _figures(found[kind], given.messages) for kind in given.only}
    console.print(_table(figures))
    if tuple(given.only) == KINDS:
        line = f"python -m bench.formats --messages {given.messages} --turns {given.turns}"
        console.print(f"recorded in {record('formats', line, figures)}")


def version_of(number: int, messages: int) -> int:
    """The version of the schema that an event is written with: a third of the topic each."""
    return min(VERSIONS - 1, number * VERSIONS // messages)


def _register(url: str, kind: str) -> list[int]:
    if kind == "json":
        return [0] * VERSIONS
    with SchemaRegistryClient({"url": url}) as client:
        return [
            client.register_schema(f"{kind}-{version}", Schema(text, name))
            for version in range(VERSIONS)
            for name, text in [schema(kind, version)]
        ]


def _made(broker: KafkaBroker, kind: str, messages: int, ids: list[int]) -> dict[str, Any]:
    """Produce in a process of its own, and count the bytes of payloads and of the broker's log."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        size = pool.submit(_produce, broker.bootstrap_servers, kind, messages, ids).result()
    logs = [path for path in broker.data.rglob("*.log") if path.parent.name.rpartition("-")[0] == kind]
    return {"payload": size, "log": sum(path.stat().st_size for path in logs), "rates": [], "peaks": [], "cpu": []}


def _produce(servers: str, kind: str, messages: int, ids: list[int]) -> int:
    producer = Producer(
        {"bootstrap.servers": servers, "linger.ms": 50, "batch.size": 1_000_000, "compression.type": "lz4"}
    )
    write = [encoder(kind, version, ids[version]) for version in range(VERSIONS)]
    size = 0
    for number in range(messages):
        payload = write[version_of(number, messages)](number)
        size += len(payload)
        while True:
            try:
                producer.produce(kind, payload, partition=number % PARTITIONS, timestamp=FIRST_MS + number)
                break
            except BufferError:
                producer.poll(0.1)
    if producer.flush(120):
        raise RuntimeError("not every message was delivered")
    return size


def _archive(
    broker: KafkaBroker, registry: Apicurio, kind: str, messages: int, found: dict[str, Any], check: list[int] | None
) -> None:
    """Archive a topic anew, and in the end compare what the archive has with what was produced."""
    with tempfile.TemporaryDirectory(prefix="archiver-formats-") as folder:
        environment = {
            "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
            "ARCHIVER_TOPICS": kind,
            "BASE_DIR": folder,
            "ARCHIVER_REGISTRY_URL": registry.url,
            "ARCHIVER_PAYLOAD_FORMAT": "json" if kind == "json" else "registry",
        }
        run = measure("bench.archive", environment=environment)
        if run.report["messages"] != messages:
            raise RuntimeError(f"{run.report['messages']:,} messages of {kind} were archived")
        found["rates"].append(round(messages / run.report["seconds"]))
        found["peaks"].append(run.peak_bytes)
        found["cpu"].append(run.cpu_seconds)
        found["archive"] = sum(path.stat().st_size for path in Path(folder, "archive").rglob("*.parquet"))
        if check is not None:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                found["right"] = pool.submit(_compare, folder, kind, messages, check).result()


def _compare(folder: str, kind: str, messages: int, ids: list[int]) -> int:
    """How many messages have type, fields and payload as they were produced. Raises at a wrong one."""
    import orjson
    import polars as pl

    write = [encoder(kind, version, ids[version]) for version in range(VERSIONS)]
    rows = pl.scan_delta(f"{folder}/archive").select("partition", "offset", "type", "value", "value_bytes").collect()
    seen = 0
    for partition, offset, name, value, raw in rows.iter_rows():
        number = offset * PARTITIONS + partition
        version = version_of(number, messages)
        payload = write[version](number)
        wanted = expected(kind, number, version)
        if (name, orjson.loads(value)) != (wanted["type"], wanted) or (
            value.encode() if raw is None else raw
        ) != payload:
            raise RuntimeError(f"{kind}, number {number}: {name}, {value}, and not {wanted}")
        seen += 1
    if seen != messages or rows.select("partition", "offset").n_unique() != messages:
        raise RuntimeError(f"{kind}: {seen:,} rows")
    return seen


def _figures(found: dict[str, Any], messages: int) -> dict[str, Any]:
    rates = found["rates"]
    return {
        "messages": messages,
        "compared_and_right": found["right"],
        "payload_bytes_of_a_message": round(found["payload"] / messages, 1),
        "broker_log_bytes_of_a_message_lz4": round(found["log"] / messages, 1),
        "archive_bytes_of_a_message": round(found["archive"] / messages, 1),
        "messages_per_second": {"median": round(statistics.median(rates)), "min": min(rates), "max": max(rates)},
        "cpu_seconds": round(statistics.median(found["cpu"]), 2),
        "peak_mib": round(max(found["peaks"]) / 1024**2),
    }


def _table(figures: dict[str, Any]) -> Table:
    shown = Table(
        "format", "payload, bytes", "broker's log, lz4", "archive", "messages/s", "min to max", "CPU s", "peak MiB"
    )
    for kind, item in figures.items():
        rates = item["messages_per_second"]
        shown.add_row(
            kind,
            *(
                str(item[f"{name}_of_a_message{end}"])
                for name, end in (("payload_bytes", ""), ("broker_log_bytes", "_lz4"), ("archive_bytes", ""))
            ),
            f"{rates['median']:,}",
            f"{rates['min']:,} to {rates['max']:,}",
            str(item["cpu_seconds"]),
            str(item["peak_mib"]),
        )
    return shown


if __name__ == "__main__":
    main()
