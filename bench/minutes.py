"""Events per minute: a file of JSON frames from `archiver generate --file` to the results topic; or what history costs.

The frames have a user and a time in seconds. Users per minute come out of the results topic, and are compared with the
same counted in Python. With --history no broker is needed: one more batch after a day, and after thirty.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import resource
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from archiver_pipeline_tests.kafka.broker import KafkaBroker
from bench.process import Measured, measure

FIRST = 1_468_244_384
"""The time of the first frame, in seconds since 1970."""

HOUR_MS = 3_600_000
NAME = "events_per_minute"


def main() -> None:
    """Measure what is asked for and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.minutes", description=__doc__)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--history", action="store_true", help="only: one more batch after a day and after thirty")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="archiver-minutes-") as folder:
        if given.history:
            _history(Path(folder))
        else:
            _task(Path(folder), given.frames, given.users)


def _task(folder: Path, frames: int, users: int) -> None:
    expected = _write(folder / "stream.jsonl.gz", frames, users)
    with KafkaBroker(heap="1g") as broker:
        environment = {
            "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
            "ARCHIVER_TOPICS": "frames",
            "ARCHIVER_TIME_PATH": "$.ts",
            "ARCHIVER_CONFIG": os.devnull,
            "BASE_DIR": str(folder / "data"),
        }
        began = time.monotonic()
        command = ["generate", "--rate", "0", "--topics", "frames", "--file", str(folder / "stream.jsonl.gz"), "--json"]
        steps = {
            "generate --file": measure("archiver_pipeline.cli", *command, environment=environment),
            "archive": measure("bench.archive", environment=environment),
            "minutes and topic": measure("bench.minutes_follow", NAME, environment=environment),
        }
        seconds = time.monotonic() - began
        found = _results(broker.bootstrap_servers)
    for name, measured in steps.items():
        _show(name, measured, frames)
    print(f"from the file to the topic: {seconds:.1f} s, {frames / seconds:,.0f} frames a second")
    print(f"{len(found):,} minutes in the topic, {'all' if found == expected else 'NOT'} as counted in Python")
    sys.exit(found != expected)


def _write(path: Path, frames: int, users: int) -> dict[str, tuple[int, int]]:
    """Write frames, a thousand a second of their own time and a little out of order; events and users per minute."""
    chance = random.Random(1)
    events: Counter[int] = Counter()
    seen: defaultdict[int, set[int]] = defaultdict(set)
    with gzip.open(path, "wt", compresslevel=5) as lines:
        for number in range(frames):
            stamp, user = FIRST + number // 1000 - chance.randrange(5), int(chance.paretovariate(0.6)) % users
            lines.write(json.dumps({"uid": f"{user:016x}", "ts": stamp, "url": f"/item/{number % 977}"}) + "\n")
            events[stamp // 60] += 1
            seen[stamp // 60].add(user)
    form = "%Y-%m-%dT%H:%M:%SZ"
    return {
        time.strftime(form, time.gmtime(minute * 60)): (count, len(seen[minute])) for minute, count in events.items()
    }


def _results(servers: str) -> dict[str, tuple[int, int]]:
    from archiver_pipeline_tests.kafka.produce import read_all

    found: dict[str, tuple[int, int]] = {}
    for messages in read_all(servers, NAME).values():
        for message in messages:
            value = json.loads(message.value or b"")
            found[value["minute"]] = (value["events"], value["users"])
    return found


def _history(folder: Path) -> None:
    """Measure one more batch of 50,000 messages after one day of history and after thirty."""
    medians = {}
    for days in (1, 30):
        measured = [measure("bench.minutes_history", str(days), environment={"BASE_DIR": str(folder / f"{days}")})]
        report = measured[0].report
        medians[days] = statistics.median(report["seconds"])
        print(
            f"{days} days, {report['messages']:,} messages of history: one more batch {medians[days]:.3f} s "
            f"({', '.join(f'{seconds:.3f}' for seconds in report['seconds'])}), peak {_peak():.0f} MiB"
        )
    print(f"ratio {medians[30] / medians[1]:.2f}")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def _show(name: str, measured: Measured, frames: int) -> None:
    print(
        f"{name}: {measured.seconds:.1f} s ({frames / measured.seconds:,.0f} frames a second), "
        f"{measured.cpu_seconds:.1f} CPU s, peak {measured.peak_bytes / 1024**2:.0f} MiB"
    )


if __name__ == "__main__":
    main()
