"""A Kafka topic into Parquet by type and hour with a loop as one writes it by hand: consume, json.loads, pyarrow.

Every so many messages it writes a file of each type and hour, then commits its offsets, and it begins where these say:
a crash between the two doubles messages. The last line printed is a JSON object whose `seconds` are those from the
making of the consumer until the last file is written. What comes before is start-up: Python and its imports.
"""

from __future__ import annotations

import argparse
import json
import time
import uuid
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
from confluent_kafka import OFFSET_STORED, Consumer, KafkaError, Message, TopicPartition

SCHEMA = pa.schema(
    [
        ("topic", pa.string()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("timestamp", pa.timestamp("ms", "UTC")),
        ("key", pa.binary()),
        ("value", pa.string()),
    ]
)
HOUR_MS = 3_600_000

Rows = defaultdict[tuple[str, int], list[tuple[Any, ...]]]


def main() -> None:
    """Copy the topic and print messages and seconds."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers.loop", description=__doc__)
    parser.add_argument("servers")
    parser.add_argument("topic")
    parser.add_argument("partitions", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--each", type=int, default=250_000, help="messages that are held before they are written")
    given = parser.parse_args()
    began = time.monotonic()
    consumer = Consumer(
        {
            "bootstrap.servers": given.servers,
            "group.id": f"loop-{given.folder.parent.name}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "fetch.queue.backoff.ms": 5,
            "queued.max.messages.kbytes": 65536,
            "queued.min.messages": 200_000,
        }
    )
    consumer.assign([TopicPartition(given.topic, number, OFFSET_STORED) for number in range(given.partitions)])
    messages = _copy(consumer, given.partitions, given.folder, given.each)
    print(json.dumps({"messages": messages, "seconds": time.monotonic() - began}))
    consumer.close()


def _copy(consumer: Consumer, partitions: int, folder: Path, each: int) -> int:
    rows: Rows = defaultdict(list)
    messages = held = ended = 0
    while ended < partitions:
        for message in consumer.consume(10_000, 1.0):
            error = message.error()
            if error is None:
                _take(message, rows)
                held += 1
            elif error.code() == KafkaError._PARTITION_EOF:
                ended += 1
            else:
                raise RuntimeError(error.str())
        if held >= each or (held and ended == partitions):
            messages += held
            _write(rows, folder, f"{uuid.uuid4()}.parquet")
            consumer.commit(asynchronous=False)
            rows, held = defaultdict(list), 0
    return messages


def _take(message: Message, rows: Rows) -> None:
    value = message.value()
    stamp = message.timestamp()[1]
    rows[json.loads(value)["type"], stamp // HOUR_MS].append(
        (message.topic(), message.partition(), message.offset(), stamp, message.key(), value.decode())
    )


def _write(rows: Rows, folder: Path, name: str) -> None:
    for (type_name, hour), group in rows.items():
        moment = datetime.fromtimestamp(hour * HOUR_MS // 1000, UTC)
        path = folder / f"type={quote(type_name)}" / f"{moment:dt=%Y-%m-%d}" / f"{moment:hr=%H}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        columns = [pa.array(column, field.type) for column, field in zip(zip(*group, strict=True), SCHEMA, strict=True)]
        pq.write_table(pa.table(columns, schema=SCHEMA), path, compression="zstd")


if __name__ == "__main__":
    main()
