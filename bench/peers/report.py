"""What the turns come to: figures to be recorded, and tables."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.table import Table

from bench.peers import fetch
from bench.peers.systems import OURS
from bench.process import Measured

TARGETS = {"spark": 4.0, "flink": 3.0}
"""How many times as fast as these the archiver has to be, start-up excluded."""

SEALED_TARGET = 0.85
"""How much of Spark's bytes the sealed archive may have."""


@dataclass(frozen=True)
class Run:
    """One turn of one of them: what it took, and what it left as `bench.peers.count` reports it."""

    measured: Measured
    left: Mapping[str, Any]

    @property
    def messages(self) -> int:
        """How many messages were found in its files."""
        return sum(int(found["messages"]) for found in self.left["types"])

    @property
    def rate(self) -> float:
        """Messages per second, start-up excluded."""
        return self.messages / float(self.measured.report["seconds"])


def figures(size: int, runs: Mapping[str, Sequence[Run]], sealed: Run) -> dict[str, Any]:
    """What `bench.results` records of messages of `size` bytes; `runs` has the turns of each."""
    systems = {name: _of(turns) for name, turns in runs.items()}
    ours = systems[OURS]
    for name, theirs in systems.items():
        if name != OURS:
            theirs["archiver_is_times_as_fast"] = _ratio(ours, theirs, "messages_per_second")
            theirs["target_times_as_fast"] = TARGETS.get(name)
            theirs["archiver_is_times_as_fast_with_start_up"] = _ratio(
                ours, theirs, "messages_per_second_with_start_up"
            )
        theirs["sealed_archive_to_its_bytes"] = round(sealed.left["bytes"] / theirs["bytes_on_disk"]["median"], 3)
    return {
        "messages": sealed.messages,
        "bytes_of_a_message": size,
        "turns": len(runs[OURS]),
        "peer_versions": {name: fetch.version(name) for name in ("spark", "flink", "connect")},
        "systems": systems,
        "sealed": {
            "bytes": sealed.left["bytes"],
            "files": sealed.left["files"],
            "seconds": round(sealed.measured.report["seconds"], 2),
            "cpu_seconds": round(sealed.measured.cpu_seconds, 2),
            "target_to_spark": SEALED_TARGET,
        },
        "archiver_step_seconds": {
            name: round(seconds, 3) for name, seconds in runs[OURS][-1].measured.report["steps"].items()
        },
    }


def _ratio(ours: Mapping[str, Any], theirs: Mapping[str, Any], name: str) -> float:
    return round(float(ours[name]["median"] / theirs[name]["median"]), 2)


def _of(turns: Sequence[Run]) -> dict[str, Any]:
    found = {
        "messages_per_second": [run.rate for run in turns],
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


def speed(found: Mapping[str, Any]) -> Table:
    """Messages per second, CPU, memory and bytes on disk of each."""
    title = f"{found['messages']:,} messages, {found['turns']} turns: median, below it min and max"
    caption = f"{OURS} is: how many times as fast, without and with start-up"
    table = Table(title=title, caption=caption, box=box.SIMPLE)
    for name in ("", "messages/s", "start-up in", "CPU s", "peak MiB", "MB", f"{OURS} is"):
        table.add_column(name, no_wrap=True)
    for name, each in found["systems"].items():
        table.add_row(
            name,
            _spread(each["messages_per_second"]),
            _spread(each["messages_per_second_with_start_up"]),
            _spread(each["cpu_seconds"], ",.1f"),
            _spread(each["peak_mib"]),
            _spread({kind: size / 1e6 for kind, size in each["bytes_on_disk"].items()}, ",.1f"),
            _times(each),
        )
    return table


def _spread(found: Mapping[str, float], form: str = ",.0f") -> str:
    return "\n".join(f"{found[kind]:{form}}" for kind in ("median", "min", "max"))


def _times(each: Mapping[str, Any]) -> str:
    if "archiver_is_times_as_fast" not in each:
        return ""
    target = each["target_times_as_fast"]
    times = f"{each['archiver_is_times_as_fast']:.2f} x\n{each['archiver_is_times_as_fast_with_start_up']:.2f} x"
    return times + (f"\ntarget {target:.1f}" if target else "")


def sizes(found: Mapping[str, Any]) -> Table:
    """Bytes on disk of each beside those of the sealed archive."""
    sealed = found["sealed"]
    table = Table("", "MB", "sealed to it", title="bytes on disk, the archive's hours sealed", box=box.SIMPLE)
    table.add_row(f"{OURS}, sealed", f"{sealed['bytes'] / 1e6:,.1f}", "")
    for name, each in found["systems"].items():
        target = f" (target {sealed['target_to_spark']})" if name == "spark" else ""
        size = f"{each['bytes_on_disk']['median'] / 1e6:,.1f}"
        table.add_row(name, size, f"{each['sealed_archive_to_its_bytes']:.3f}{target}")
    return table
