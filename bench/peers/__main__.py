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
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.jars import BrokerError, java
from archiver_pipeline_tests.kafka.produce import create_topic
from bench.load import TYPES, fill
from bench.peers import fetch
from bench.process import Measured, measure, measure_command
from bench.results import record

TOPIC, PARTITIONS = "bench", 4
OURS = "archiver"
TARGETS = {"spark": 4.0, "flink": 3.0}
"""How many times as fast as these the archiver has to be, start-up excluded."""

SEALED_TARGET = 0.85
"""What the sealed archive may have of Spark's bytes."""

# What the launcher of Flink's distribution sets for Java 17, as far as this job needs it.
FLINK_JAVA = (
    "-Xms3g",
    "-Xmx3g",
    "-XX:+UseParallelGC",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
    "--add-opens=java.base/java.util=ALL-UNNAMED",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
)


@dataclass(frozen=True)
class Run:
    """One turn of one of them: what it took, and what it left as `bench.peers.count` reports it."""

    measured: Measured
    left: Mapping[str, Any]

    @property
    def messages(self) -> int:
        """How many messages were found in its files."""
        return sum(found["messages"] for found in self.left["types"])


def main() -> None:
    """Fill a topic, let each copy it in turns, check what they wrote, print and record."""
    given = _arguments()
    console = Console()
    try:
        runners = {OURS: archiver, **{name: PEERS[name]() for name in given.peers}}
    except BrokerError as error:
        sys.exit(f"bench.peers: {error}")
    runs: dict[str, list[Run]] = {name: [] for name in runners}
    with KafkaBroker(heap="1g") as broker, tempfile.TemporaryDirectory(prefix="archiver-peers-") as scratch:
        servers = broker.bootstrap_servers
        create_topic(servers, TOPIC, PARTITIONS)
        console.print(f"Producing {given.messages:,} messages of {given.size} bytes ...")
        fill(servers, TOPIC, PARTITIONS, given.messages, given.size)
        for turn in range(given.turns):
            for name, runner in runners.items():
                folder = Path(scratch) / name
                folder.mkdir()
                os.sync()  # nobody pays for what the one before has left to be written
                measured = runner(servers, folder)
                runs[name].append(checked(name, measured, folder, given))
                rate = given.messages / measured.report["seconds"]
                console.print(f"turn {turn + 1}, {name}: {rate:,.0f} messages/s (load {os.getloadavg()[0]:.1f})")
                if name == OURS and turn == given.turns - 1:
                    sealed = checked(f"{name}, sealed", _seal(folder), folder, given)
                shutil.rmtree(folder)
    figures = _figures(given, runs, sealed)
    console.print(_speed(figures))
    console.print(_sizes(figures))
    console.print(f"Recorded in {record('peers', 'make bench-peers ' + _as_given(), figures)}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=4_000_000, help="messages of the topic")
    parser.add_argument("--size", type=int, default=284, help="bytes of a message")
    parser.add_argument("--turns", type=int, default=3, help="how often each copies the topic")
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS), help="whom to compare with")
    return parser.parse_args()


def _as_given() -> str:
    return f"ARGS='{' '.join(sys.argv[1:])}'" if sys.argv[1:] else ""


def archiver(servers: str, folder: Path) -> Measured:
    """One pass of the archiver; its start-up is that of Python with its imports, and its settings."""
    return measure("bench.archive", environment=_environment(folder) | {"KAFKA_BOOTSTRAP_SERVERS": servers})


def _seal(folder: Path) -> Measured:
    return measure("bench.peers.seal", environment=_environment(folder))


def _environment(folder: Path) -> dict[str, str]:
    return {"ARCHIVER_TOPICS": TOPIC, "ARCHIVER_CONFIG": os.devnull, "BASE_DIR": str(folder)}


Runner = Callable[[str, Path], Measured]
"""Copies the topic of a broker (bootstrap servers) into `archive/` of a folder, and measures that."""


def _spark() -> Runner:
    home = fetch.spark()
    script = str(Path(__file__).with_name("spark.py"))
    environment = {"JAVA_HOME": str(Path(java()).resolve().parents[1])}

    def run(servers: str, folder: Path) -> Measured:
        arguments = [servers, TOPIC, str(folder / "archive"), str(folder / "scratch"), str(home / "jars")]
        return measure_command([str(home / "venv" / "bin" / "python"), "-I", script, *arguments], environment)

    return run


def _flink() -> Runner:
    home = fetch.flink()

    def run(servers: str, folder: Path) -> Measured:
        program = [java(), *FLINK_JAVA, "-cp", f"{home / 'classes'}:{home / 'jars'}/*", "Archive"]
        return measure_command([*program, servers, TOPIC, str(folder / "archive"), str(folder / "checkpoints")])

    return run


def _loop() -> Runner:
    def run(servers: str, folder: Path) -> Measured:
        return measure("bench.peers.loop", servers, TOPIC, str(PARTITIONS), str(folder / "archive"))

    return run


PEERS: Mapping[str, Callable[[], Runner]] = {"spark": _spark, "flink": _flink, "loop": _loop}


def checked(name: str, measured: Measured, folder: Path, given: argparse.Namespace) -> Run:
    """Read back what one of them has written. Raises SystemExit where that is not what was produced."""
    left = measure("bench.peers.count", str(folder / "archive")).report
    expected = []
    for number, type_name in enumerate(TYPES):
        count = len(range(number, given.messages, len(TYPES)))
        expected.append(
            {
                "type": type_name,
                "messages": count,
                "distinct_offsets": count,
                "payload_bytes": count * given.size,
                "misplaced": 0,
            }
        )
    if left["types"] != sorted(expected, key=lambda each: str(each["type"])):
        raise SystemExit(f"{name} has not archived what was produced: {left['types']} and not {expected}")
    return Run(measured, left)


def _figures(given: argparse.Namespace, runs: Mapping[str, Sequence[Run]], sealed: Run) -> dict[str, Any]:
    figures: dict[str, Any] = {
        "messages": given.messages,
        "bytes_of_a_message": given.size,
        "turns": given.turns,
        "peer_versions": {name: fetch.version(name) for name in ("spark", "flink")},
        "systems": {name: _of(turns) for name, turns in runs.items()},
    }
    ours = figures["systems"][OURS]
    for name in runs:
        theirs = figures["systems"][name]
        theirs["times_as_fast"] = {
            each: round(ours[each]["median"] / theirs[each]["median"], 2)
            for each in ("messages_per_second", "messages_per_second_with_start_up")
        }
        theirs["times_as_fast"]["target"] = TARGETS.get(name)
        theirs["sealed_to_its_bytes"] = round(sealed.left["bytes"] / theirs["bytes_on_disk"]["median"], 3)
    figures["sealed"] = {
        "bytes": sealed.left["bytes"],
        "files": sealed.left["files"],
        "seconds": round(sealed.measured.report["seconds"], 2),
        "cpu_seconds": round(sealed.measured.cpu_seconds, 2),
        "target_to_spark": SEALED_TARGET,
    }
    return figures


def _of(turns: Sequence[Run]) -> dict[str, Any]:
    found = {
        "messages_per_second": [run.messages / run.measured.report["seconds"] for run in turns],
        "messages_per_second_with_start_up": [run.messages / run.measured.seconds for run in turns],
        "cpu_seconds": [run.measured.cpu_seconds for run in turns],
        "peak_mib": [run.measured.peak_bytes / 1024**2 for run in turns],
        "bytes_on_disk": [run.left["bytes"] for run in turns],
        "files": [run.left["files"] for run in turns],
    }
    return {
        name: {
            "median": round(statistics.median(each), 1),
            "min": round(min(each), 1),
            "max": round(max(each), 1),
        }
        for name, each in found.items()
    }


def _speed(figures: Mapping[str, Any]) -> Table:
    table = Table(
        "", "messages/s", "with start-up", "CPU s", "peak MiB", "MB on disk", "files", "archiver is",
        title=f"{figures['messages']:,} messages, {figures['turns']} turns: median (min to max)",
    )  # fmt: skip
    for name, found in figures["systems"].items():
        times, with_start_up, target = found["times_as_fast"].values()
        table.add_row(
            name,
            _spread(found["messages_per_second"]),
            _spread(found["messages_per_second_with_start_up"]),
            _spread(found["cpu_seconds"], ",.1f"),
            _spread(found["peak_mib"]),
            f"{found['bytes_on_disk']['median'] / 1e6:,.0f}",
            f"{found['files']['median']:,.0f}",
            "" if name == OURS else f"{times} x as fast" + (f" (target {target})" if target else "")
            + f", {with_start_up} with start-up",
        )  # fmt: skip
    return table


def _spread(found: Mapping[str, float], form: str = ",.0f") -> str:
    return f"{found['median']:{form}}\n({found['min']:{form}} to {found['max']:{form}})"


def _sizes(figures: Mapping[str, Any]) -> Table:
    sealed = figures["sealed"]
    table = Table("", "MB", "sealed archive to it", title="bytes on disk after the archive's hours are sealed")
    table.add_row(f"{OURS}, sealed: {sealed['files']} files", f"{sealed['bytes'] / 1e6:,.0f}", "")
    for name, found in figures["systems"].items():
        target = f" (target {sealed['target_to_spark']})" if name == "spark" else ""
        table.add_row(name, f"{found['bytes_on_disk']['median'] / 1e6:,.0f}", f"{found['sealed_to_its_bytes']}{target}")
    return table


if __name__ == "__main__":
    main()
