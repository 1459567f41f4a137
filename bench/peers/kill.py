"""SIGKILL each of them in the middle of its work, three times, let it end, and count what is lost and what is doubled.

All commit every 50,000 messages or every second here, so that each has several commits to be killed between. Every kill
comes when the first new data file of that run has appeared: at once, 0.2 and 0.4 seconds later. The whole group of
processes is killed, so that nothing is left to end in order.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from archiver_pipeline_tests.kafka.jars import last_lines
from bench.peers.count import copies
from bench.peers.systems import Job, Maker, Task, started
from bench.results import recorded

DELAYS = (0.0, 0.2, 0.4)
"""Seconds from a run's first new data file to its kill."""

LIMIT_SECONDS = 300.0


@dataclass(frozen=True)
class Outcome:
    """What is left of a topic copied under kills.

    Attributes:
        kills: how many came before a run had ended by itself.
        seconds: from the start of the last run, which was let be, to its end.
        lost: messages that a reader of the table does not find.
        doubled: rows too many for a reader of the table.
        plain_lost: the same for a reader of all visible Parquet files, without the table's log.
        plain_doubled: the same.
        torn_files: visible files that no Parquet reader can open.
    """

    kills: int
    seconds: float
    lost: int
    doubled: int
    plain_lost: int
    plain_doubled: int
    torn_files: int


def killed(makers: Mapping[str, Maker], servers: str, scratch: Path, messages: int) -> dict[str, Any]:
    """Let each copy the topic under kills; return what `bench.results` records, with those that were killed before."""
    outcomes: dict[str, Any] = {}
    for name, maker in makers.items():
        folder = scratch / f"{name}-killed"
        folder.mkdir()
        outcomes[name] = asdict(_under_kills(maker(Task(servers, folder, messages, small=True)), folder, messages))
        print(name, outcomes[name], flush=True)
    before = recorded("peers_kill") or {}
    others = before["systems"] if before.get("messages") == messages else {}
    return {"messages": messages, "kill_delays_seconds": DELAYS, "systems": {**others, **outcomes}}


def _under_kills(job: Job, folder: Path, messages: int) -> Outcome:
    kills = sum(_run(job, folder, delay) for delay in DELAYS)
    began = time.monotonic()
    _run(job, folder, None)
    seconds = time.monotonic() - began
    found = copies(folder / "archive")
    return Outcome(
        kills,
        round(seconds, 1),
        lost=messages - found["table_messages"],
        doubled=found["table_rows"] - found["table_messages"],
        plain_lost=messages - found["plain_messages"],
        plain_doubled=found["plain_rows"] - found["plain_messages"],
        torn_files=found["torn_files"],
    )


def _run(job: Job, folder: Path, delay: float | None) -> bool:
    """Run the job and kill it; without a delay let it end by itself. Return whether the kill came in time.

    Raises:
        RuntimeError: it failed by itself, or took longer than `LIMIT_SECONDS`; the text has its last lines.
    """
    before, log = _data_files(folder), folder / "output"
    deadline = time.monotonic() + LIMIT_SECONDS
    with started(job, log) as process:
        while process.poll() is None and time.monotonic() < deadline:
            if delay is not None and _data_files(folder) - before:
                time.sleep(delay)
                break
            time.sleep(0.005 if delay is not None else 0.05)
        in_time = process.poll() is None
    if (delay is None and in_time) or (not in_time and process.returncode):
        raise RuntimeError(f"{job.command} failed or was not done:\n{last_lines(log.read_text(errors='replace'))}")
    return in_time


def _data_files(folder: Path) -> set[str]:
    """All files that are or become Parquet: of no table's log, checkpoint or spill."""
    return {
        name
        for path, folders, names in os.walk(folder / "archive")
        for name in names
        if ("parquet" in name or name.startswith((".part-", "part-"))) and not name.endswith(".crc")
        if "_delta_log" not in path and "_spark_metadata" not in path
    }


def table(found: Mapping[str, Any]) -> Table:
    """Lost, doubled and torn of each."""
    title = f"{found['messages']:,} messages, killed {len(found['kill_delays_seconds'])} times"
    shown = Table(title=title, caption="plain: a reader of all visible Parquet files, without the log", box=box.SIMPLE)
    names = ("", "kills", "lost", "doubled", "plain: lost", "plain: doubled", "torn files", "last run s")
    for name in names:
        shown.add_column(name, justify="right" if name else "left")
    for name, each in found["systems"].items():
        counts = ("kills", "lost", "doubled", "plain_lost", "plain_doubled", "torn_files")
        shown.add_row(name, *(f"{each[count]:,}" for count in counts), f"{each['seconds']:.1f}")
    return shown
