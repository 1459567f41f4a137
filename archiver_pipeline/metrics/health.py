"""Whether archiving goes on: pure decisions over what the sources found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from archiver_pipeline.amounts import counted
from archiver_pipeline.metrics.source import Health

NEEDED = ("archive", "broker")
"""The sources without which nobody knows whether archiving goes on."""


def reasons(faults: Mapping[str, str | None], health: Health, now: float, max_lag_seconds: float) -> list[str]:
    """Why archiving does not go on as it should; none where it does.

    A backlog is no fault as long as it shrinks and batches come.

    Args:
        faults: by source why it tells nothing, None where it does.
        health: what the sources found.
        now: the time, in seconds since 1970.
        max_lag_seconds: how long a message may wait, and how old the newest batch may be while one waits.
    """
    found = [f"{name}: {faults[name]}" for name in NEEDED if faults.get(name) is not None]
    if found or health.waited <= max_lag_seconds:
        return found
    waits = f"{counted(health.lag, 'offset is', 'offsets are')} not archived, the oldest for {health.waited:.0f} s"
    if health.last_batch is None or now - health.last_batch > max_lag_seconds:
        age = "none was" if health.last_batch is None else f"the newest was {now - health.last_batch:.0f} s ago"
        return [f"{waits}, and no batch is committed: {age}"]
    before = health.lags[0][1] if health.lags else health.lag
    if health.lag >= before and len(health.lags) > 1:
        return [f"{waits}, and they do not become fewer: there were {before:,} before"]
    return []


def report(faults: Mapping[str, str | None], health: Health, now: float, max_lag_seconds: float) -> dict[str, Any]:
    """What `/readyz` answers: ready, reasons, sources (by name null, or why it tells nothing), lag and lag_seconds."""
    why = reasons(faults, health, now, max_lag_seconds)
    return {
        "ready": not why,
        "reasons": why,
        "sources": dict(faults),
        "lag": None if faults.get("broker") else health.lag,
        "lag_seconds": None if faults.get("broker") else round(health.waited, 3),
        "last_batch": health.last_batch,
    }
