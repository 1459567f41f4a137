"""`make bench-peers`: the archiver against Spark, Flink and a hand-written loop, over the same topic, in turns.

Each is one process that copies a topic with a backlog into zstd Parquet by type, date and hour, and is measured as a
whole; messages per second are given without start-up (of the JVM, of a session or cluster, of imports: each module
says what it leaves out) and with it. What each has written is read back with DuckDB after each turn: messages by type,
every offset once, every payload byte, type and hour as they must be; else there are no figures. At the end the
archive's hours are sealed, and their bytes compared with those of the others. Spark and Flink are fetched with pip and
Maven the first time, into .cache/peers/. Figures go to bench/results/peers.json.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.jars import BrokerError
from archiver_pipeline_tests.kafka.produce import create_topic
from bench.load import TYPES, fill
from bench.peers.report import Run, figures, sizes, speed
from bench.peers.systems import OURS, PARTITIONS, PEERS, TOPIC, Runner, archiver, seal
from bench.process import Measured, measure
from bench.results import record


def main() -> None:
    """Fill a topic, let each copy it in turns, check what they wrote, print and record."""
    given = _arguments()
    console = Console()
    try:
        runners = {OURS: archiver, **{name: PEERS[name]() for name in given.peers}}
    except BrokerError as error:
        sys.exit(f"bench.peers: {error}")
    with KafkaBroker(heap="1g") as broker, tempfile.TemporaryDirectory(prefix="archiver-peers-") as scratch:
        create_topic(broker.bootstrap_servers, TOPIC, PARTITIONS)
        console.print(f"Producing {given.messages:,} messages of {given.size} bytes ...")
        fill(broker.bootstrap_servers, TOPIC, PARTITIONS, given.messages, given.size)
        runs, sealed = _turns(runners, broker.bootstrap_servers, Path(scratch), given, console)
    found = figures(given.size, runs, sealed)
    console.print(speed(found))
    console.print(sizes(found))
    console.print(f"Steps of the archiver's last turn, seconds: {found['archiver_step_seconds']}")
    command = "make bench-peers" + (f" ARGS='{' '.join(sys.argv[1:])}'" if sys.argv[1:] else "")
    console.print(f"Recorded in {record('peers', command, found).relative_to(Path(__file__).parents[2])}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=4_000_000, help="fewer flatter the archiver: a JVM warms up")
    parser.add_argument("--size", type=int, default=284, help="bytes of a message")
    parser.add_argument("--turns", type=int, default=3, help="how often each copies the topic")
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS), help="whom to compare with")
    return parser.parse_args()


def _turns(
    runners: Mapping[str, Runner], servers: str, scratch: Path, given: argparse.Namespace, console: Console
) -> tuple[dict[str, list[Run]], Run]:
    """Let each copy the topic, one after the other, again and again; return its turns, and the archive sealed."""
    runs: dict[str, list[Run]] = {name: [] for name in runners}
    for turn in range(1, given.turns + 1):
        for name, runner in runners.items():
            folder = scratch / name
            folder.mkdir()
            os.sync()  # nobody pays for what the one before has left to be written
            runs[name].append(_checked(name, runner(servers, folder), folder, given))
            rate, load = runs[name][-1].rate, os.getloadavg()[0]
            console.print(f"turn {turn}, {name}: {rate:,.0f} messages/s (load {load:.1f})")
            if name == OURS and turn == given.turns:
                sealed = _checked(f"{name}, sealed", seal(folder), folder, given)
            shutil.rmtree(folder)
    return runs, sealed


def _checked(name: str, measured: Measured, folder: Path, given: argparse.Namespace) -> Run:
    """Read back what one of them has written. Raises SystemExit where that is not what was produced."""
    left = measure("bench.peers.count", str(folder / "archive")).report
    expected = []
    for type_name in sorted(TYPES):
        messages = len(range(TYPES.index(type_name), given.messages, len(TYPES)))
        payload = messages * given.size
        expected.append([type_name, messages, messages, payload, 0])
    if [list(found.values()) for found in left["types"]] != expected:
        raise SystemExit(f"{name} has not archived what was produced: {left['types']} and not {expected}")
    return Run(measured, left)


if __name__ == "__main__":
    main()
