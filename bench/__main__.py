"""`make bench`: a run over a backlog, against a bare `consume()` loop over the same topic, in turns.

`python -m bench.sealing` measures sealing, `python -m bench.flights` archives real input.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.produce import create_topic
from bench.load import fill
from bench.process import Measured, measure

PARTITIONS = 4


def main() -> None:
    """Fill a topic, run both in turns, and print medians and ratios."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--messages", type=int, default=4_000_000)
    parser.add_argument("--size", type=int, default=300, help="bytes of a message")
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    console = Console()
    with KafkaBroker(heap="1g") as broker, tempfile.TemporaryDirectory(prefix="archiver-bench-") as folder:
        servers = broker.bootstrap_servers
        create_topic(servers, "bench", PARTITIONS)
        console.print(f"Producing {given.messages:,} messages of {given.size} bytes ...")
        fill(servers, "bench", PARTITIONS, given.messages, given.size)
        bare, archived = [], []
        for turn in range(given.turns):
            bare.append(measure("bench.consume", servers, "bench", str(PARTITIONS)))
            environment = {
                "KAFKA_BOOTSTRAP_SERVERS": servers,
                "ARCHIVER_TOPICS": "bench",
                "BASE_DIR": str(Path(folder) / str(turn)),
            }
            archived.append(measure("bench.archive", environment=environment))
    console.print(_table(bare, archived))
    console.print(f"Steps of the last run, seconds: {archived[-1].report['steps']}")


def _table(bare: list[Measured], archived: list[Measured]) -> Table:
    table = Table(
        "", "messages", "messages/s", "CPU s", "peak MiB", title="medians; start-up of Python excluded from messages/s"
    )
    for name, runs in (("bare consume()", bare), ("archiver", archived)):
        table.add_row(
            name,
            f"{runs[0].report['messages']:,}",
            f"{_rate(runs):,.0f}",
            f"{_cpu(runs):.1f}",
            f"{max(run.peak_bytes for run in runs) / 1024**2:.0f}",
        )
    table.add_row("ratio", "", f"{_rate(archived) / _rate(bare):.2f}", f"{_cpu(archived) / _cpu(bare):.2f}", "")
    return table


def _rate(runs: list[Measured]) -> float:
    return statistics.median(run.report["messages"] / run.report["seconds"] for run in runs)


def _cpu(runs: list[Measured]) -> float:
    return statistics.median(run.cpu_seconds for run in runs)


if __name__ == "__main__":
    main()
