"""`python -m bench.soak`: half an hour of everything at once, with rates that change and servers that go.

Two topics at 5,000 messages a second, some of them late and some broken, into a bucket; aggregates and MariaDB
follow, hours are sealed, Dagster keeps its record in PostgreSQL, Prometheus asks for metrics. On the way the rate rises
to 20,000 a second, falls to 10 and to nothing, the broker is restarted three times, and store and PostgreSQL are gone
for a while. What it has to show: memory that stays flat, what grows with runs, how old the newest visible message is at
any time, and in the end Kafka, archive, aggregates and MariaDB with the same messages.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from archiver_pipeline_tests.kafka.topics import end_offsets
from archiver_pipeline_tests.waiting import wait_for
from bench.results import record
from bench.soak_stack import TOPICS, Stack
from bench.soak_watch import Watch

MINUTES = 30
RATES = ((8, 5_000), (2, 20_000), (2, 10), (1, 0), (17, 5_000))
"""Minutes, and messages a second."""

SETTINGS: Mapping[str, str] = {
    "ARCHIVER_INTERVAL_SECONDS": "5",
    "ARCHIVER_RUN_SECONDS": "120",
    "ARCHIVER_SEAL_GRACE_MINUTES": "1",
}
LATE, UGLY = 0.01, 0.001
CATCH_UP_SECONDS = 600.0


@dataclass(frozen=True)
class Fault:
    """What goes wrong: a server is gone from a minute on, for so many seconds."""

    minute: float
    server: str
    seconds: float


FAULTS = (
    Fault(5, "kafka", 0),
    Fault(15, "kafka", 0),
    Fault(17, "store", 120),
    Fault(21.5, "postgres", 60),
    Fault(25, "kafka", 0),
)


def main() -> None:
    """Run it, print what was found, and record it; exit with 1 where something is missing or doubled."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help=f"all times are scaled to it (default {MINUTES})"
    )
    parser.add_argument("--keep", type=Path, help="where logs and data go and stay; by default nowhere")
    given = parser.parse_args()
    scale = given.minutes / MINUTES
    console = Console()
    with tempfile.TemporaryDirectory(prefix="archiver-soak-") as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        stack = Stack(folder, SETTINGS)
        with stack.running():
            found = _soak(stack, scale, console)
    command = "python -m bench.soak"
    if scale == 1:
        console.print(f"recorded in {record('soak', command, found)}")
    if not found["equal"]["all"]:
        raise SystemExit(1)


def _soak(stack: Stack, scale: float, console: Console) -> dict[str, Any]:
    """Produce while servers go and come back, then wait until all is archived, and compare."""
    rates = [(minutes * 60 * scale, rate) for minutes, rate in RATES]
    context = multiprocessing.get_context("spawn")
    producer = context.Process(target=produce, args=(stack.kafka.bootstrap_servers, rates))
    with Watch(stack) as watch:
        producer.start()
        began = time.monotonic()
        _go_wrong(stack, scale, console, watch)
        while producer.is_alive():
            producer.join(30)
            console.print(f"{(time.monotonic() - began) / 60:5.1f} min: {watch.line()}")
        ended = time.monotonic()
        if producer.exitcode:
            raise RuntimeError("the producer failed")
        total = sum(sum(end_offsets(stack.kafka.bootstrap_servers, topic).values()) for topic in TOPICS)
        wait_for("all to be archived and followed", lambda: _is_caught_up(stack), CATCH_UP_SECONDS)
        caught_up = time.monotonic()
        found = watch.found()
    found |= {
        "minutes": round((ended - began) / 60, 1),
        "messages": total,
        "faults": [asdict(fault) for fault in FAULTS],
        "caught_up_seconds_after_the_last_message": round(caught_up - ended, 1),
        "equal": _equal(stack),
    }
    console.print({name: what for name, what in found.items() if not name.endswith("over_time")})
    return found


def produce(servers: str, rates: list[tuple[float, int]]) -> None:
    """Produce at one rate after the other; a broker that is away is waited for."""
    from archiver_pipeline.generator import Generator, generate

    for seconds, rate in rates:
        began = time.monotonic()
        if rate:
            kafka = {"bootstrap.servers": servers, "message.timeout.ms": 300_000}
            made = Generator(kafka, TOPICS, rate=rate, seconds=seconds, late_share=LATE, ugly_share=UGLY, timeout=120)
            summary = generate(made)
            if summary.failed:
                raise RuntimeError(f"{summary.failed:,} messages were not taken: {summary.error}")
        time.sleep(max(0.0, seconds - (time.monotonic() - began)))


def _go_wrong(stack: Stack, scale: float, console: Console, watch: Watch) -> None:
    """Stop and start servers when it is their time, in the main thread: they end with the one that started them."""
    began = time.monotonic()
    for fault in FAULTS:
        while (left := fault.minute * 60 * scale - (time.monotonic() - began)) > 0:
            time.sleep(min(left, 30))
            console.print(f"{(time.monotonic() - began) / 60:5.1f} min: {watch.line()}")
        server = getattr(stack, fault.server)
        console.print(f"{fault.server} is stopped for {fault.seconds * scale:.0f} s")
        server.stop()
        time.sleep(fault.seconds * scale)
        server.start()
        console.print(f"{fault.server} is back")


def _is_caught_up(stack: Stack) -> bool:
    """Whether nothing is left to be archived, and followers have all of it."""
    done = stack.archiver("status", "--json", seconds=60)
    if done.returncode == 2 or not done.stdout:
        raise RuntimeError(f"archiver status: {done.stderr}")
    status = json.loads(done.stdout)
    return status["lag"] == 0 and all((each["lag"], each["hours"]) == (0, 0) for each in status["followers"])


def _equal(stack: Stack) -> dict[str, Any]:
    """Compare Kafka, archive, MariaDB and aggregates."""
    verify = stack.archiver("verify", "--against-kafka", seconds=1800)
    archived = stack.archiver("sql", "SELECT count(*) FROM messages", "--csv").stdout.split()[-1]
    in_kafka = sum(sum(end_offsets(stack.kafka.bootstrap_servers, topic).values()) for topic in TOPICS)
    (stored,) = stack.mysql.ask("SELECT COUNT(*) FROM messages", stack.database)[0]
    counted = stack.archiver(
        "sql",
        "SELECT count(*) FROM (SELECT date_trunc('minute', m.timestamp) AS minute, m.topic, m.type, count(*) AS n"
        " FROM messages m WHERE m.timestamp < (SELECT max(minute) FROM events_per_minute) GROUP BY ALL) a"
        " FULL JOIN (SELECT * FROM events_per_minute WHERE minute < (SELECT max(minute) FROM events_per_minute)) e"
        " USING (minute, topic, type) WHERE a.n IS DISTINCT FROM e.events",
        "--csv",
    )
    differing = counted.stdout.split()[-1] if counted.stdout else counted.stderr
    numbers = {"kafka": in_kafka, "archive": int(archived), "mysql": stored, "minutes_that_differ": differing}
    same = in_kafka == int(archived) == stored and differing == "0"
    return {**numbers, "verify": verify.stdout.splitlines()[-3:], "all": same and verify.returncode == 0}


if __name__ == "__main__":
    main()
