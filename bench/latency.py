"""From produce to visible in DuckDB at a steady rate under `dagster dev`: a run a batch, and runs that stay.

Messages carry the time of their produce() as Kafka timestamp. A reader looks for a new DuckDB file every 100 ms, opens
it read-only and takes the next offset of each partition; in the end each message is in `messages` once. CPU seconds are
those of the whole tree of `dagster dev` with all runs, over the measured time. `idle`: nothing comes in.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.produce import create_topic
from bench.dev import Dev, prepare
from bench.results import record, recorded
from bench.targets import Target, table

PARTITIONS = 4
POLL_SECONDS = 0.1
SETTINGS: Mapping[str, Mapping[str, object]] = {
    "idle": {"ARCHIVER_INTERVAL_SECONDS": 5},
    "batches": {"ARCHIVER_INTERVAL_SECONDS": 5},
    "staying": {"ARCHIVER_INTERVAL_SECONDS": 2, "ARCHIVER_RUN_SECONDS": 300},
}
"""What is measured, and with what settings; all others are the defaults, followers included."""

Seen = list[tuple[float, dict[int, int]]]
"""Times in seconds since 1970, and the next offset of each partition that was visible from then on."""


def main() -> None:
    """Measure what is asked for, keep the figures of the rest, and print all of them next to their targets."""
    parser = argparse.ArgumentParser(prog="python -m bench.latency", description=__doc__)
    parser.add_argument("what", nargs="*", default=[], help=f"any of {', '.join(SETTINGS)} (default all)")
    parser.add_argument("--rate", type=int, default=1000, help="messages a second (default 1000)")
    parser.add_argument("--seconds", type=float, default=120, help="measured time (default 120)")
    parser.add_argument("--warm-up", type=float, default=25, help="seconds before it (default 25)")
    parser.add_argument("--run-seconds", type=float, help="another ARCHIVER_RUN_SECONDS for `staying`, not recorded")
    given = parser.parse_args()
    if unknown := set(given.what) - SETTINGS.keys():
        parser.error(f"there is no {unknown.pop()}")
    figures: dict[str, Any] = recorded("latency") or {}
    with KafkaBroker() as broker, tempfile.TemporaryDirectory(prefix="archiver-bench-") as folder:
        for name in given.what or SETTINGS:
            settings = dict(SETTINGS[name])
            if name == "staying" and given.run_seconds:
                settings["ARCHIVER_RUN_SECONDS"] = given.run_seconds
            environment = prepare(Path(folder) / name, broker.bootstrap_servers, name, **settings)
            create_topic(broker.bootstrap_servers, name, PARTITIONS)
            rate = 0 if name == "idle" else given.rate
            figures[name] = _measure(environment, name, rate, given.warm_up, given.seconds)
    console = Console()
    console.print(table("latency", _targets(figures)))
    console.print(figures)
    if not given.run_seconds:
        record("latency", "python -m bench.latency", figures)


def _targets(figures: Mapping[str, Any]) -> list[Target]:
    found = []
    for name, median, worst in (("batches", 7.0, 12.0), ("staying", 2.0, 5.0)):
        if name in figures:
            seconds = figures[name]["latency_seconds"]
            found.append(Target(f"{name}: produce to visible, median", seconds["median"], median, "s"))
            found.append(Target(f"{name}: produce to visible, worst", seconds["worst"], worst, "s"))
    cpu = {name: sum(each["cpu_seconds_per_minute"].values()) for name, each in figures.items()}
    if {"batches", "staying"} <= cpu.keys():
        found.append(Target("CPU of staying ÷ batches", cpu["staying"] / cpu["batches"], 1 / 3, "×"))
    found.extend(Target(f"{name}: CPU seconds a minute", each, None, "s") for name, each in cpu.items())
    return found


def _measure(environment: Mapping[str, str], topic: str, rate: int, warm_up: float, seconds: float) -> dict[str, Any]:
    """Run the stack for so long at so many messages a second."""
    base = Path(environment["BASE_DIR"])
    stop = multiprocessing.get_context("spawn").Event()
    servers = environment["KAFKA_BOOTSTRAP_SERVERS"]
    producer = multiprocessing.get_context("spawn").Process(target=produce, args=(servers, topic, rate, stop))
    with Dev(environment, base / "dev.log") as dev:
        try:
            if rate:
                producer.start()
            time.sleep(warm_up)
            before, began = dev.cpu_seconds(), time.time()
            seen = _watch(base / "archive.duckdb", began + seconds)
            after, ended = dev.cpu_seconds(), time.time()
        finally:
            if rate:
                stop.set()
                producer.join(30)
        if rate:
            # What came last in the measured time becomes visible after it.
            seen += _watch(base / "archive.duckdb", time.time() + 20, until=_total(servers, topic))
    minutes = (ended - began) / 60
    cpu = {kind: round((after[kind] - before.get(kind, 0.0)) / minutes, 2) for kind in after}
    found: dict[str, Any] = {"cpu_seconds_per_minute": cpu}
    if rate:
        found |= _latencies(base, seen, began, ended, _total(servers, topic))
    return found


def produce(servers: str, topic: str, rate: int, stop: Any) -> None:
    """Produce at a rate until told to stop: in steps of 10 ms, each partition in turn."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": servers, "linger.ms": 5, "acks": "all"})
    began, number = time.time(), 0
    while not stop.is_set():
        due = int((time.time() - began) * rate)
        while number < due:
            body = {"type": f"object.{number % 5}", "uid": f"u{number % 977}", "url": f"/p/{number % 101}"}
            now_ms = int(time.time() * 1000)
            producer.produce(topic, json.dumps(body), partition=number % PARTITIONS, timestamp=now_ms)
            number += 1
        producer.poll(0)
        time.sleep(0.01)
    producer.flush(20)


def _watch(path: Path, deadline: float, until: int | None = None) -> Seen:
    """Note what is visible, whenever the file is another one, until a moment or so many messages."""
    seen: Seen = []
    known = None
    while time.time() < deadline:
        if path.exists() and (is_now := (path.stat().st_ino, path.stat().st_mtime_ns)) != known:
            known = is_now
            offsets = dict(_ask(path, "SELECT partition, next FROM offsets"))
            seen.append((time.time(), offsets))
            if until is not None and sum(offsets.values()) >= until:
                break
        time.sleep(POLL_SECONDS)
    return seen


def _latencies(base: Path, seen: Seen, began: float, ended: float, total: int) -> dict[str, Any]:
    """Seconds from produce to visible of each message that was produced in the measured time.

    Raises:
        RuntimeError: not every message is in the archive once, or one was never visible.
    """
    query = 'SELECT partition, "offset", epoch_ms("timestamp") FROM messages ORDER BY 1, 2'
    rows = _ask(base / "archive.duckdb", query)
    if len(rows) != total or len({row[:2] for row in rows}) != total:
        raise RuntimeError(f"{total:,} messages were produced, {len(rows):,} are in the archive")
    found = []
    for partition in range(PARTITIONS):
        steps = iter(seen)
        moment, offsets = next(steps)
        for offset, stamp in (row[1:] for row in rows if row[0] == partition):
            if not began <= stamp / 1000 < ended:
                continue
            while offsets.get(partition, 0) <= offset:
                moment, offsets = next(steps)
            found.append(moment - stamp / 1000)
    found.sort()
    return {
        "messages": len(found),
        "latency_seconds": {
            "median": round(statistics.median(found), 2),
            "p95": round(found[len(found) * 95 // 100], 2),
            "worst": round(found[-1], 2),
        },
        "refreshes_seen": len(seen),
    }


def _total(servers: str, topic: str) -> int:
    from archiver_pipeline_tests.kafka.topics import end_offsets

    return sum(end_offsets(servers, topic).values())


def _ask(path: Path, query: str) -> list[tuple[Any, ...]]:
    """Ask the DuckDB file, opened for this question only."""
    import duckdb

    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute(query).fetchall()


if __name__ == "__main__":
    main()
