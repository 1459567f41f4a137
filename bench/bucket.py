"""`python -m bench.bucket`: an archive in a bucket of a real S3 server beside one in a folder, and a store with faults.

Messages per second of both in turns; then one run after the other, as the sensor starts them, while the store is gone,
slow, overloaded or refuses to write: what each run said, and that all was archived in the end.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from archiver_pipeline.table.archive import Archive
from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.objects.gateway import Gateway
from archiver_pipeline_tests.objects.proxy import PASS, proxy
from bench.process import Measured, measure
from bench.results import record
from bench.turns import fill_topic

TOPIC = "bench"
DELAY_SECONDS = 0.2
BUSY_SHARE = 0.1
PAUSE_SECONDS = 5.0
LIMIT_SECONDS = 600.0


def main() -> None:
    """Measure both, then the faults, print tables and record the figures."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.bucket", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=1_000_000, help="(default 1,000,000)")
    parser.add_argument("--size", type=int, default=284, help="bytes of a message (default 284)")
    parser.add_argument("--turns", type=int, default=3, help="of each (default 3)")
    parser.add_argument("--gone", type=float, default=120, help="seconds for which the store is gone (default 120)")
    given = parser.parse_args()
    console = Console()
    with KafkaBroker(heap="1g") as broker, Gateway() as gateway:
        console.print(f"Producing {given.messages:,} messages of {given.size} bytes ...")
        fill_topic(broker.bootstrap_servers, TOPIC, given.messages, given.size)
        figures: dict[str, Any] = {"messages": given.messages, "bytes_of_a_message": given.size, "turns": given.turns}
        figures |= throughput(console, broker.bootstrap_servers, gateway, given.messages, given.turns)
        figures["faults"] = faults(console, broker.bootstrap_servers, gateway, given.messages, given.gone)
    command = f"python -m bench.bucket --messages {given.messages} --size {given.size} --turns {given.turns}"
    console.print(f"recorded in {record('bucket', command, figures)}")


def throughput(console: Console, servers: str, gateway: Gateway, messages: int, turns: int) -> dict[str, Any]:
    """Archive the topic to a folder and to a bucket in turns."""
    taken: dict[str, list[Measured]] = {"folder": [], "bucket": []}
    for turn in range(turns):
        for kind, runs in taken.items():
            with _place(servers, gateway if kind == "bucket" else None, f"turn{turn}") as environment:
                runs.append(measure("bench.archive", environment=environment))
                assert runs[-1].report["messages"] == messages
    shown = Table("", "messages/s", "min", "max", "CPU s", "peak MiB", "place ms", "commit ms", title=f"{turns} turns")
    found: dict[str, Any] = {}
    for kind, runs in taken.items():
        rates = [run.report["messages"] / run.report["seconds"] for run in runs]
        last = runs[-1].report
        found[kind] = {
            "messages_per_second": {
                "median": round(statistics.median(rates)), "min": round(min(rates)), "max": round(max(rates))
            },
            "cpu_seconds": round(statistics.median(run.cpu_seconds for run in runs), 1),
            "peak_mib": round(max(run.peak_bytes for run in runs) / 1024**2),
            "seconds_by_step": {name: round(seconds, 3) for name, seconds in last["steps"].items()},
        }  # fmt: skip
        rate, steps = found[kind]["messages_per_second"], found[kind]["seconds_by_step"]
        cells = [f"{rate[key]:,}" for key in ("median", "min", "max")]
        cells += [str(found[kind]["cpu_seconds"]), str(found[kind]["peak_mib"])]
        shown.add_row(kind, *cells, *(f"{1000 * steps[name]:.0f}" for name in ("place", "commit")))
    found["ratio"] = round(
        found["bucket"]["messages_per_second"]["median"] / found["folder"]["messages_per_second"]["median"], 3
    )
    console.print(shown)
    console.print(f"bucket ÷ folder: {found['ratio']:.2f}")
    return found


def faults(console: Console, servers: str, gateway: Gateway, messages: int, gone: float) -> dict[str, Any]:
    """Let runs go on while the store has a fault, and until all is archived."""
    chance = random.Random(1)

    def slowly(*_: str) -> int:
        time.sleep(DELAY_SECONDS)
        return PASS

    kinds: dict[str, Callable[[], Any]] = {
        f"gone for {gone:.0f} s": lambda: _gone(gateway, gone),
        f"slow: {DELAY_SECONDS * 1000:.0f} ms a call": lambda: proxy(gateway.endpoint, slowly),
        f"503 to {BUSY_SHARE:.0%} of the calls": lambda: proxy(
            gateway.endpoint, lambda *_: 503 if chance.random() < BUSY_SHARE else PASS
        ),
        "no permission to write, for 20 s": lambda: _read_only(gateway, 20),
    }
    shown = Table("fault", "seconds", "runs", "failed", "seconds of each", "archived", "what a failed run said")
    found: dict[str, Any] = {}
    for kind, fault in kinds.items():
        with _place(servers, gateway, "fault") as environment:
            found[kind] = _endured(fault, environment, messages)
        each = found[kind]
        took = ", ".join(f"{seconds:.0f}" for seconds in each["seconds_of_failed_runs"])
        shown.add_row(
            kind, f"{each['seconds']:.0f}", str(each["runs"]), str(len(each["seconds_of_failed_runs"])), took,
            f"{each['archived']:,}", "\n".join(each["errors"]),
        )  # fmt: skip
    console.print(shown)
    return found


def _endured(fault: Callable[[], Any], environment: Mapping[str, str], messages: int) -> dict[str, Any]:
    """Start runs, one when the other is over and a pause has passed, until all is archived."""
    began, runs, failed, errors = time.monotonic(), 0, list[float](), list[str]()
    with fault() as endpoint:
        variables = {**os.environ, **environment, **({"AWS_ENDPOINT_URL": endpoint} if endpoint else {})}
        variables["ARCHIVER_BATCH_MESSAGES"] = str(messages // 10)
        while time.monotonic() - began < LIMIT_SECONDS:
            since = time.monotonic()
            command = [sys.executable, "-m", "bench.archive"]
            done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
            runs += 1
            if done.returncode == 0:
                break
            failed.append(time.monotonic() - since)
            # Where it was is another file each time.
            said = done.stderr.strip().splitlines()[-1].partition("errors.")[2]
            errors.append(re.sub(r" \(s3://[^)]*\)", "", said)[:300])
            time.sleep(PAUSE_SECONDS)
        seconds = time.monotonic() - began
    os.environ.update({name: value for name, value in environment.items() if name.startswith("AWS_")})
    archived = Archive(environment["ARCHIVER_URI"]).ledger().messages
    return {
        "seconds": round(seconds, 1),
        "runs": runs,
        "seconds_of_failed_runs": [round(each, 1) for each in failed],
        "archived": archived,
        "errors": list(dict.fromkeys(errors)),
    }


@contextmanager
def _place(servers: str, gateway: Gateway | None, name: str) -> Iterator[dict[str, str]]:
    """The settings of an archive in a folder, or in a bucket of its own."""
    with tempfile.TemporaryDirectory(prefix="archiver-bench-") as folder:
        found = {"KAFKA_BOOTSTRAP_SERVERS": servers, "ARCHIVER_TOPICS": TOPIC, "BASE_DIR": folder}
        if gateway is not None:
            bucket = f"{name}-{Path(folder).name[-8:].lower().replace('_', '0')}"
            found |= {"ARCHIVER_URI": f"{gateway.make_bucket(bucket)}/archive", **gateway.environment()}
        yield found


@contextmanager
def _gone(gateway: Gateway, seconds: float) -> Iterator[None]:
    """A store that dies two seconds after the first run began, and comes back."""
    over = threading.Event()

    def meddle() -> None:
        time.sleep(2)
        gateway.kill()
        time.sleep(seconds)
        gateway.start()
        over.wait()  # It dies with the thread that started it.

    yield from _meddled(gateway, meddle, over)


@contextmanager
def _read_only(gateway: Gateway, seconds: float) -> Iterator[None]:
    """A store that refuses to write, and then takes it."""
    over = threading.Event()

    def meddle() -> None:
        gateway.read_only = True
        gateway.restart()
        time.sleep(seconds)
        gateway.read_only = False
        gateway.restart()
        over.wait()

    yield from _meddled(gateway, meddle, over)


def _meddled(gateway: Gateway, meddle: Callable[[], None], over: threading.Event) -> Iterator[None]:
    thread = threading.Thread(target=meddle, daemon=True)
    thread.start()
    time.sleep(1)
    try:
        yield None
    finally:
        over.set()
        thread.join()
        gateway.restart()


if __name__ == "__main__":
    main()
