"""The peak of memory of a run over what takes most of it: many small messages, many folders at once, large messages."""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.produce import create_topic
from bench.load import fill_apart
from bench.process import measure
from bench.results import record
from bench.targets import Target, table
from bench.turns import PARTITIONS

MOST_MIB = 1024.0


@dataclass(frozen=True)
class Case:
    """Messages of `size` bytes, spread over so many hours and types, in the order of time."""

    name: str
    messages: int
    size: int
    hours: int = 3
    types: int = 5


CASES = (
    Case("tiny", 5_000_000, 50),
    Case("usual", 2_000_000, 284),
    Case("folders", 1_500_000, 284, hours=10, types=200),
    Case("large", 1_500, 1_000_000),
)


def main() -> None:
    """Measure each case in a process of its own, print and record the peaks; exit with 1 where one is too high."""
    argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__).parse_args()
    console = Console()
    with KafkaBroker(heap="1g") as broker:
        found = [_measured(console, broker.bootstrap_servers, case) for case in CASES]
    targets = [
        Target(f"{item['case']}: {item['messages']:,} × {item['bytes_of_a_message']:,} bytes, {item['files']:,} files",
               item["peak_mib"], MOST_MIB, "MiB")
        for item in found
    ]  # fmt: skip
    console.print(table("peak memory", targets))
    console.print(f"recorded in {record('memory', 'python -m bench.memory', found)}")
    sys.exit(not all(target.is_met for target in targets))


def _measured(console: Console, servers: str, case: Case) -> dict[str, Any]:
    console.print(f"{case.messages:,} messages of {case.size:,} bytes ...")
    topic = f"memory-{case.name}"
    create_topic(servers, topic, PARTITIONS, {"max.message.bytes": "2000000"})
    fill_apart(servers, topic, PARTITIONS, case.messages, case.size, case.hours, case.types)
    with tempfile.TemporaryDirectory(prefix="archiver-bench-") as folder:
        run = measure("bench.archive", environment={"KAFKA_BOOTSTRAP_SERVERS": servers, "ARCHIVER_TOPICS": topic,
                                                    "BASE_DIR": folder})  # fmt: skip
    if run.report["messages"] != case.messages:
        raise RuntimeError(f"{run.report['messages']:,} messages were archived, but there are {case.messages:,}")
    return {
        "case": case.name,
        "messages": case.messages,
        "bytes_of_a_message": case.size,
        "files": run.report["files"],
        "seconds": round(run.report["seconds"], 2),
        "peak_mib": run.peak_bytes >> 20,
    }


if __name__ == "__main__":
    main()
