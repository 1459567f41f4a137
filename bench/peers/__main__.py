"""`make bench-peers`: the archiver against Spark, Flink, Kafka Connect and a hand-written loop, in turns.

Each is one process that copies a topic with a backlog into Parquet by type, date and hour, and is measured as a
whole; messages per second are given without start-up (of the JVM, of a session or cluster, of imports: each module
says what it leaves out) and with it. What each has written is read back with DuckDB after each turn: messages by type,
every offset once, the bytes of every payload, type and hour as they must be; else there are no figures. At the end the
archive's hours are sealed, and their bytes compared with those of the others. The peers are fetched with pip and Maven
the first time, into .cache/peers/; kafka-delta-ingest is measured where DELTA_INGEST names its program. With
--kill each of them is killed three times on the way instead, and lost and doubled messages are counted; with --poison
each is given bad messages. Figures go to bench/results/peers.json (peers_NAME.json where not all are measured),
peers_kill.json or peers_poison.json.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.jars import BrokerError
from archiver_pipeline_tests.kafka.produce import create_topic
from bench.load import TYPES, fill_apart
from bench.peers import kill, poison
from bench.peers.report import Run, figures, sizes, speed
from bench.peers.systems import OURS, PARTITIONS, PEERS, TOPIC, USUAL, Maker, Task, archiver, run, seal
from bench.process import Measured, measure
from bench.results import record


def main() -> None:
    """Fill a topic, let each copy it in turns or be killed, check what they wrote, print and record."""
    given = _arguments()
    console = Console()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that nothing outlives it
    try:
        ours = {OURS: archiver} if OURS in given.peers else {}
        makers = ours | {name: PEERS[name]() for name in given.peers if name != OURS}
    except BrokerError as error:
        sys.exit(f"bench.peers: {error}")
    with KafkaBroker(heap="1g") as broker, tempfile.TemporaryDirectory(prefix="archiver-peers-") as scratch:
        create_topic(broker.bootstrap_servers, TOPIC, PARTITIONS)
        if given.poison:
            name, found = "peers_poison", poison.poisoned(makers, broker.bootstrap_servers, Path(scratch))
            console.print(poison.table(found))
        else:
            name, found = _measured(makers, broker.bootstrap_servers, Path(scratch), given, console)
    command = "make bench-peers" + (f" ARGS='{' '.join(sys.argv[1:])}'" if sys.argv[1:] else "")
    console.print(f"Recorded in {record(name, command, found).relative_to(Path(__file__).parents[2])}")


def _measured(
    makers: Mapping[str, Maker], servers: str, scratch: Path, given: argparse.Namespace, console: Console
) -> tuple[str, dict[str, Any]]:
    """Fill the topic; measure how fast each is, or what kills do to it; return the results' name and figures."""
    console.print(f"Producing {given.messages:,} messages of {given.size} bytes ...")
    fill_apart(servers, TOPIC, PARTITIONS, given.messages, given.size)
    if given.kill:
        found = kill.killed(makers, servers, scratch, given.messages)
        console.print(kill.table(found))
        return "peers_kill", found
    found = figures(given.size, *_turns(makers, servers, scratch, given, console))
    console.print(speed(found))
    console.print(sizes(found))
    console.print(f"Steps of the archiver's last turn, seconds: {found['archiver_step_seconds']}")
    others = [name for name in given.peers if name != OURS]
    return "peers" if set(others) >= set(USUAL) else "peers_" + "_".join(sorted(others)), found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--messages", type=int, help="4,000,000, or 400,000 with --kill; fewer flatter the archiver")
    parser.add_argument("--size", type=int, default=284, help="bytes of a message")
    parser.add_argument("--turns", type=int, default=3, help="how often each copies the topic")
    parser.add_argument("--peers", nargs="+", choices=[OURS, *PEERS], default=[OURS, *USUAL], help="which")
    parser.add_argument("--kill", action="store_true", help="kill each three times on the way, and count")
    parser.add_argument("--poison", action="store_true", help="give each messages that are no JSON, no UTF-8, too long")
    given = parser.parse_args()
    if not given.kill and not given.poison and OURS not in given.peers:
        given.peers.insert(0, OURS)
    given.messages = given.messages or (400_000 if given.kill else 4_000_000)
    return given


def _turns(
    makers: Mapping[str, Maker], servers: str, scratch: Path, given: argparse.Namespace, console: Console
) -> tuple[dict[str, list[Run]], Run]:
    """Let each copy the topic, one after the other, again and again; return its turns, and the archive sealed."""
    runs: dict[str, list[Run]] = {name: [] for name in makers}
    for turn in range(1, given.turns + 1):
        for name, maker in makers.items():
            folder = scratch / f"{name}-{turn}"
            folder.mkdir()
            os.sync()  # nobody pays for what the one before has left to be written
            runs[name].append(_checked(name, run(maker(Task(servers, folder, given.messages))), folder, given))
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
