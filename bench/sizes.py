"""How throughput depends on the size of the messages, and on the number of lanes, each next to bare `consume()`.

Lanes are archived side by side, a process each; on few cores that shows what they cost, not what they gain.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from rich.console import Console
from rich.table import Table

from archiver_pipeline_tests.kafka.broker import KafkaBroker
from bench.process import measure
from bench.results import record
from bench.turns import fill_topic, take

SIZES = (50, 100, 284, 1_000, 10_000, 100_000)
LANES = (1, 2, 4)
TOTAL_BYTES, MOST_MESSAGES = 600_000_000, 2_000_000
LANES_MESSAGES, LANES_SIZE = 2_000_000, 284


def main() -> None:
    """Measure sizes and lanes, print and record them."""
    parser = argparse.ArgumentParser(prog="python -m bench.sizes", description=__doc__)
    parser.add_argument("--turns", type=int, default=3, help="of each (default 3)")
    given = parser.parse_args()
    console = Console()
    with KafkaBroker(heap="1g") as broker:
        servers = broker.bootstrap_servers
        sizes = [_size(console, servers, size, given.turns) for size in SIZES]
        fill_topic(servers, "lanes", LANES_MESSAGES, LANES_SIZE)
        lanes = [_lanes(console, servers, count, given.turns) for count in LANES]
    shown = Table("lanes", "messages/s, whole processes")
    for item in lanes:
        shown.add_row(str(item["lanes"]), f"{item['messages_per_second']:,}")
    console.print(shown)
    console.print(f"recorded in {record('sizes', 'python -m bench.sizes', {'sizes': sizes, 'lanes': lanes})}")


def _size(console: Console, servers: str, size: int, turns: int) -> dict[str, Any]:
    messages = min(MOST_MESSAGES, TOTAL_BYTES // size)
    topic = f"size-{size}"
    console.print(f"{messages:,} messages of {size:,} bytes ...")
    fill_topic(servers, topic, messages, size)
    found = take(servers, topic, messages, size, turns)
    console.print(found.table())
    return found.figures()


def _lanes(console: Console, servers: str, lanes: int, turns: int) -> dict[str, Any]:
    """Messages a second of all lanes together, the start of their processes with them: the best of some turns."""
    console.print(f"{lanes} lanes ...")
    rates = []
    for _ in range(turns):
        with tempfile.TemporaryDirectory(prefix="archiver-bench-") as folder, ThreadPoolExecutor(lanes) as pool:
            ours = {"KAFKA_BOOTSTRAP_SERVERS": servers, "ARCHIVER_TOPICS": "lanes", "BASE_DIR": folder}
            began = time.monotonic()
            environments = [{**ours, "ARCHIVER_LANES": str(lanes), "BENCH_LANE": str(lane)} for lane in range(lanes)]
            runs = list(pool.map(lambda each: measure("bench.archive", environment=each), environments))
            seconds = time.monotonic() - began
        found = sum(run.report["messages"] for run in runs)
        if found != LANES_MESSAGES:
            raise RuntimeError(f"{found:,} messages were archived, but there are {LANES_MESSAGES:,}")
        rates.append(round(found / seconds))
    return {"lanes": lanes, "messages_per_second": max(rates)}


if __name__ == "__main__":
    main()
