"""A Kafka topic into a Delta table by type and hour with kafka-delta-ingest, whose program DELTA_INGEST names.

The last line printed is a JSON object whose `seconds` are those from the first line of its log until every message is
committed. What comes before is start-up, of which it has next to none.

It makes no table: this makes one first, with a column for each field. It cannot compute a partition from Kafka's time,
so date and hour are those of the field `ts`. Set beside the defaults: a commit every ten seconds at the latest (300),
batches of 50,000 rows (5,000), larger fetches from Kafka, sessions of six seconds (45).
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable

from bench.peers.until import run_until

SCHEMA = pa.schema(
    [
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("timestamp", pa.int64()),
        ("type", pa.string()),
        ("uid", pa.string()),
        ("ts", pa.int64()),
        ("url", pa.string()),
        ("seq", pa.int64()),
        ("pad", pa.string()),
        ("dt", pa.string()),
        ("hr", pa.string()),
    ]
)

TRANSFORMS = {
    "partition": "kafka.partition",
    "offset": "kafka.offset",
    "timestamp": "kafka.timestamp",
    "dt": "substr(epoch_millis_to_iso8601(ts), `0`, `10`)",
    "hr": "substr(epoch_millis_to_iso8601(ts), `11`, `2`)",
}

KAFKA = {
    "fetch.queue.backoff.ms": 5,
    "queued.max.messages.kbytes": 65536,
    "session.timeout.ms": 6000,
}


def main() -> None:
    """Copy the topic and print messages and seconds."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers.delta_ingest", description=__doc__)
    parser.add_argument("servers")
    parser.add_argument("topic")
    parser.add_argument("folder", type=Path, help="for the table")
    parser.add_argument("messages", type=int, help="as many as the topic has")
    parser.add_argument("--small", action="store_true", help="commit every second")
    given = parser.parse_args()
    table = given.folder / "archive"
    if not (table / "_delta_log").exists():
        DeltaTable.create(str(table), SCHEMA, partition_by=["type", "dt", "hr"])
    name = f"bench-{given.folder.name}"
    command = [os.environ["DELTA_INGEST"], "ingest", given.topic, str(table), "--kafka", given.servers]
    command += ["--app_id", name, "--consumer_group", name, "--auto_offset_reset", "earliest"]
    command += ["--allowed_latency", "1" if given.small else "10", "--max_messages_per_batch", "50000"]
    command += [part for target, source in TRANSFORMS.items() for part in ("--transform", f"{target}: {source}")]
    command += [part for setting, value in KAFKA.items() for part in ("--kafka_setting", f"{setting}={value}")]
    run_until(command, given.folder / "log", "Ingesting messages from", Rows(table).count, given.messages)


class Rows:
    """Counts what a table's log has added, reading each of its commits once."""

    def __init__(self, table: Path) -> None:
        """Begin at the first commit."""
        self._log = table / "_delta_log"
        self._next = 0
        self._rows = 0

    def count(self) -> int:
        """The rows of all commits up to now."""
        while (commit := self._log / f"{self._next:020}.json").exists():
            for line in commit.read_text().splitlines():
                added = json.loads(line).get("add")
                if added:
                    self._rows += int(json.loads(added["stats"])["numRecords"])
            self._next += 1
        return self._rows


if __name__ == "__main__":
    main()
