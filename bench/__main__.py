"""`make bench`: a run over a backlog, against a bare `consume()` loop over the same topic, in turns.

`make bench-quick` is the same in small, and compares the ratios with those of the last time; `make bench-peers` has
Spark and Flink beside it. `bench.sizes`, `bench.sealing`, `bench.hour`, `bench.startup`, `bench.latency`,
`bench.minutes`, `bench.mysql` and `bench.flights` measure the rest: `python -m bench.NAME --help`.
"""

from __future__ import annotations

import argparse

from rich.console import Console

from archiver_pipeline_tests.kafka.broker import KafkaBroker
from bench.results import record
from bench.targets import Target, table
from bench.turns import Turns, fill_topic, take

LEAST_RATE, MOST_CPU, MOST_MIB = 0.55, 2.2, 1024.0


def main() -> None:
    """Fill a topic, run both in turns, print medians and ratios, and record them."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=4_000_000, help="(default 4,000,000)")
    parser.add_argument("--size", type=int, default=284, help="bytes of a message (default 284)")
    parser.add_argument("--turns", type=int, default=3, help="of each (default 3)")
    given = parser.parse_args()
    console = Console()
    with KafkaBroker(heap="1g") as broker:
        console.print(f"Producing {given.messages:,} messages of {given.size} bytes ...")
        fill_topic(broker.bootstrap_servers, "bench", given.messages, given.size)
        found = take(broker.bootstrap_servers, "bench", given.messages, given.size, given.turns)
    console.print(found.table())
    console.print(f"Steps of the last run, seconds: {_steps(found)}")
    targets = [
        Target("time ÷ that of bare consume()", 1 / found.rate_ratio, 1 / LEAST_RATE, "×"),
        Target("CPU seconds ÷ those of bare consume()", found.cpu_ratio, MOST_CPU, "×"),
        Target("peak memory", max(run.peak_bytes for run in found.archiver) / 1024**2, MOST_MIB, "MiB"),
    ]
    console.print(table("targets", targets))
    command = f"make bench ARGS='--messages {given.messages} --size {given.size} --turns {given.turns}'"
    console.print(f"recorded in {record('throughput', command, found.figures())}")


def _steps(found: Turns) -> dict[str, float]:
    return {name: round(seconds, 2) for name, seconds in found.archiver[-1].report["steps"].items()}


if __name__ == "__main__":
    main()
