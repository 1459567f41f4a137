"""`make bench-quick`: has the archiver become slower? Three turns over a million messages, against bare `consume()`.

It compares the ratios with those recorded the last time, and fails where one is worse by more than a fifth. Run it
before and after a change of what reads or writes messages; `--record` takes what is found for the next comparison.
"""

from __future__ import annotations

import argparse
import sys

from rich.console import Console

from archiver_pipeline_tests.kafka.broker import KafkaBroker
from bench.results import record, recorded
from bench.targets import Target, table
from bench.turns import fill_topic, take

MESSAGES, SIZE = 1_500_000, 284
LOSS = 1.2
"""By how much a ratio may be worse: the noise of a machine that does nothing else is half of it."""


def main() -> None:
    """Measure, compare, and exit with 1 for a loss."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.quick", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--record", action="store_true", help="record what is found, whatever it is")
    parser.add_argument("--turns", type=int, default=5, help="of each (default 5)")
    given = parser.parse_args()
    console = Console()
    with KafkaBroker(heap="1g") as broker:
        fill_topic(broker.bootstrap_servers, "bench", MESSAGES, SIZE)
        found = take(broker.bootstrap_servers, "bench", MESSAGES, SIZE, given.turns)
    console.print(found.table())
    before = recorded("quick")
    if given.record or before is None:
        console.print(f"recorded in {record('quick', 'make bench-quick ARGS=--record', found.figures())}")
        return
    targets = [
        Target("time ÷ that of bare consume()", 1 / found.rate_ratio, LOSS / before["rate_ratio"], "×"),
        Target("CPU seconds ÷ those of bare consume()", found.cpu_ratio, LOSS * before["cpu_ratio"], "×"),
    ]
    console.print(table("against the last recorded ones, and a fifth more", targets))
    sys.exit(not all(target.is_met for target in targets))


if __name__ == "__main__":
    main()
