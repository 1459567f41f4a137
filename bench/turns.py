"""The archiver and a bare `consume()` loop over one topic, in turns."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from archiver_pipeline_tests.kafka.produce import create_topic
from bench.load import fill_apart
from bench.process import Measured, measure

PARTITIONS = 4


@dataclass(frozen=True)
class Turns:
    """What both took, turn by turn.

    Attributes:
        messages: how many each copied, in a turn.
        size: their size in bytes.
        bare, archiver: what each turn took.
    """

    messages: int
    size: int
    bare: tuple[Measured, ...]
    archiver: tuple[Measured, ...]

    @property
    def rate_ratio(self) -> float:
        """How fast the archiver is, measured by the loop; start-up is left out on both sides."""
        return _median(self.archiver, _rate) / _median(self.bare, _rate)

    @property
    def cpu_ratio(self) -> float:
        """How much of the processor the archiver takes, measured by the loop; start-up counts."""
        return _median(self.archiver, _cpu) / _median(self.bare, _cpu)

    def figures(self) -> dict[str, Any]:
        """What is recorded."""
        return {
            "messages": self.messages,
            "bytes_of_a_message": self.size,
            "turns": len(self.bare),
            "rate_ratio": round(self.rate_ratio, 3),
            "cpu_ratio": round(self.cpu_ratio, 3),
            **{name: _figures(runs) for name, runs in (("bare", self.bare), ("archiver", self.archiver))},
        }

    def table(self) -> Table:
        """The figures for people."""
        shown = Table("", "messages/s", "min", "max", "CPU s", "peak MiB", title=f"medians of {len(self.bare)} turns")
        for name, runs in (("bare consume()", self.bare), ("archiver", self.archiver)):
            found = _figures(runs)
            rate = found["messages_per_second"]
            cells = [f"{rate[key]:,}" for key in ("median", "min", "max")]
            shown.add_row(name, *cells, f"{found['cpu_seconds']['median']:.1f}", f"{found['peak_mib']}")
        shown.add_row("ratio", f"{self.rate_ratio:.2f}", "", "", f"{self.cpu_ratio:.2f}", "")
        return shown


def fill_topic(servers: str, topic: str, messages: int, size: int) -> None:
    """Make a topic of `PARTITIONS` partitions with so many messages of `size` bytes."""
    create_topic(servers, topic, PARTITIONS)
    fill_apart(servers, topic, PARTITIONS, messages, size)


def take(
    servers: str, topic: str, messages: int, size: int, turns: int, settings: Mapping[str, str] | None = None
) -> Turns:
    """Let both read the topic, one after the other, time and again.

    Args:
        servers, topic: where `messages` of `size` bytes are.
        messages, size: as `fill_topic` was told.
        turns: how often.
        settings: of the archiver, besides.

    Raises:
        RuntimeError: one of them read more or fewer messages.
    """
    bare, archiver = [], []
    for _ in range(turns):
        bare.append(measure("bench.consume", servers, topic, str(PARTITIONS)))
        with tempfile.TemporaryDirectory(prefix="archiver-bench-") as folder:
            ours = {"KAFKA_BOOTSTRAP_SERVERS": servers, "ARCHIVER_TOPICS": topic, "BASE_DIR": str(Path(folder))}
            archiver.append(measure("bench.archive", environment={**ours, **(settings or {})}))
        for run in (bare[-1], archiver[-1]):
            if run.report["messages"] != messages:
                raise RuntimeError(f"{run.report['messages']:,} messages were read, but there are {messages:,}")
    return Turns(messages, size, tuple(bare), tuple(archiver))


def _rate(run: Measured) -> float:
    return float(run.report["messages"] / run.report["seconds"])


def _cpu(run: Measured) -> float:
    return run.cpu_seconds


def _median(runs: Iterable[Measured], of: Callable[[Measured], float]) -> float:
    return statistics.median(map(of, runs))


def _figures(runs: Iterable[Measured]) -> dict[str, Any]:
    rates, seconds = [round(_rate(run)) for run in runs], [round(_cpu(run), 2) for run in runs]
    return {
        "messages_per_second": {"median": round(statistics.median(rates)), "min": min(rates), "max": max(rates)},
        "cpu_seconds": {"median": round(statistics.median(seconds), 2), "min": min(seconds), "max": max(seconds)},
        "peak_mib": max(run.peak_bytes for run in runs) >> 20,
    }
