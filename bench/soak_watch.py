"""What `bench.soak` looks at all the time: how fresh the DuckDB file is, memory, disk, runs."""

from __future__ import annotations

import statistics
import threading
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from bench.soak_stack import TOPICS, Stack

FRESH_SECONDS = 1.0
MEMORY_SECONDS = 10.0
DISK_SECONDS = 60.0

POINT_SECONDS = 20.0
"""A plot has a point for each of these."""

Offsets = dict[tuple[str, int], int]
Value = TypeVar("Value")
Series = list[tuple[float, Value]]
"""Values at moments of the monotonic clock."""


class Watch:
    """Samples in two threads of their own until it is left: one asks Kafka and DuckDB, one the system."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=each, daemon=True) for each in (self._freshness, self._sizes)]
        self._ends: Series[Offsets] = []
        self._visible: Series[Offsets] = []
        self._memory: dict[str, Series[float]] = defaultdict(list)
        self._disk: list[tuple[float, dict[str, float], dict[str, int]]] = []
        self._cpu = (time.monotonic(), stack.cpu_seconds())

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join(30)

    def line(self) -> str:
        """How things are, for somebody who watches."""
        ends = sum(self._ends[-1][1].values()) if self._ends else 0
        visible = sum(self._visible[-1][1].values()) if self._visible else 0
        memory = ", ".join(f"{name} {each[-1][1]:.0f}" for name, each in self._memory.items())
        return f"{ends:,} in Kafka, {visible:,} visible; MiB: {memory}; {self._disk[-1:] and self._disk[-1][2]}"

    def found(self) -> dict[str, Any]:
        """All figures: seconds until visible, MiB by program, growth, CPU."""
        began, cpu = self._cpu
        waits = waited(self._ends, self._visible)
        return {
            "freshness_seconds": freshness([seconds for _, seconds in waits]),
            "freshness_over_time": over_time(waits, began),
            "memory_over_time": {name: over_time(samples, began) for name, samples in self._memory.items()},
            "memory_mib": {name: memory(samples) for name, samples in self._memory.items()},
            "storage": self._growth(),
            "cpu_seconds_per_minute": round((self._stack.cpu_seconds() - cpu) / (time.monotonic() - began) * 60, 1),
        }

    def _growth(self) -> dict[str, Any]:
        """What Dagster's storage and the disk grew by, and how many runs there were, from the second sample on."""
        (_, first, before), (_, last, after) = self._disk[1 if len(self._disk) > 2 else 0], self._disk[-1]
        runs = sum(after.values()) - sum(before.values())
        grown = {name: round(last[name] - first[name], 1) for name in last}
        per_run = grown["dagster"] / max(1, runs)
        return {"runs": after, "mib_grown": grown, "dagster_mib_per_1000_runs": round(1000 * per_run, 1)}

    def _freshness(self) -> None:
        view, known = self._stack.base / "archive.duckdb", None
        while not self._stopped.wait(FRESH_SECONDS):
            now = time.monotonic()
            with suppress(Exception):  # While the broker is away there is nothing to be told.
                self._ends.append((now, _ends(self._stack.kafka.bootstrap_servers)))
            if view.exists() and (is_now := view.stat().st_mtime_ns) != known:
                known = is_now
                self._visible.append((time.monotonic(), _visible(view)))

    def _sizes(self) -> None:
        looked = float("-inf")
        while not self._stopped.wait(MEMORY_SECONDS):
            now = time.monotonic()
            for name, mib in self._stack.memory().items():
                self._memory[name].append((now, mib))
            if now - looked >= DISK_SECONDS:
                looked = now
                with suppress(Exception):  # PostgreSQL may be away.
                    self._disk.append((now, self._stack.disk(), self._stack.runs()))


def waited(ends: Series[Offsets], visible: Series[Offsets]) -> Series[float]:
    """Seconds from each moment that end offsets were seen in Kafka to the one that all before them was visible.

    Args:
        ends: times, and the end offset of each partition then.
        visible: times, and the next offset of each partition that the DuckDB file had from then on.
    """
    waits: Series[float] = []
    position = 0
    for moment, offsets in ends:
        while position < len(visible) and any(visible[position][1].get(at, 0) < end for at, end in offsets.items()):
            position += 1
        if position == len(visible):
            break
        waits.append((moment, max(0.0, visible[position][0] - moment)))
    return waits


def freshness(waits: list[float]) -> dict[str, float]:
    """Median, 95th percentile and worst of such seconds."""
    waits = sorted(waits)
    return {
        "samples": len(waits),
        "median": round(statistics.median(waits), 2),
        "p95": round(waits[len(waits) * 95 // 100], 2),
        "worst": round(waits[-1], 2),
    }


def over_time(samples: Series[float], began: float) -> list[tuple[float, float]]:
    """The most of each stretch of `POINT_SECONDS`, by minutes since the beginning."""
    most: dict[int, float] = {}
    for moment, value in samples:
        stretch = int((moment - began) // POINT_SECONDS)
        most[stretch] = max(value, most.get(stretch, 0.0))
    return [(round(stretch * POINT_SECONDS / 60, 2), round(value, 1)) for stretch, value in sorted(most.items())]


def memory(samples: Series[float]) -> dict[str, float]:
    """MiB over time: median and most, and by how much the last third's median is above that of the middle third."""
    sizes = [mib for _, mib in samples if mib]
    if not sizes:
        return {}
    third = max(1, len(sizes) // 3)
    later, last = statistics.median(sizes[third : 2 * third] or sizes), statistics.median(sizes[-third:])
    return {
        "median": round(statistics.median(sizes)),
        "most": round(max(sizes)),
        "last_third_above_middle_third": round(last - later, 1),
    }


def _ends(servers: str) -> Offsets:
    from archiver_pipeline_tests.kafka.topics import end_offsets

    return {(topic, number): end for topic in TOPICS for number, end in end_offsets(servers, topic).items()}


def _visible(path: Path) -> Offsets:
    import duckdb

    with duckdb.connect(str(path), read_only=True) as connection:
        return {(topic, number): following for topic, number, following in connection.execute(
            "SELECT topic, partition, next FROM offsets"
        ).fetchall()}  # fmt: skip
