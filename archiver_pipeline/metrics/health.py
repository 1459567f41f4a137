"""Whether archiving goes on: pure decisions over what the sources found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from archiver_pipeline.metrics.source import Standing

NEEDED = ("archive", "broker")
"""The sources without which nobody knows whether archiving goes on."""


def reasons(faults: Mapping[str, str | None], standing: Standing, now: float, max_lag_seconds: float) -> list[str]:
    """Why archiving does not go on as it should; none where it does.

    A backlog is no fault as long as it shrinks and batches come.

    Args:
        faults: by source why it tells nothing, None where it does.
        standing: what the sources found.
        now: the time, in seconds since 1970.
        max_lag_seconds: how long a message may wait, and how old the newest batch may be while one waits.
    """
    found = [f"{name}: {faults[name]}" for name in NEEDED if faults.get(name) is not None]
    if found or standing.waited <= max_lag_seconds:
        return found
    waits = f"{standing.lag:,} offsets are not archived, the oldest for {standing.waited:.0f} s"
    if standing.last_batch is None or now - standing.last_batch > max_lag_seconds:
        age = "none was" if standing.last_batch is None else f"the newest was {now - standing.last_batch:.0f} s ago"
        return [f"{waits}, and no batch is committed: {age}"]
    before = standing.lags[0][1] if standing.lags else standing.lag
    if standing.lag >= before and len(standing.lags) > 1:
        return [f"{waits}, and they do not become fewer: there were {before:,} before"]
    return []


def report(faults: Mapping[str, str | None], standing: Standing, now: float, max_lag_seconds: float) -> dict[str, Any]:
    """What `/readyz` answers: ready, reasons, sources (by name null, or why it tells nothing), lag and lag_seconds."""
    why = reasons(faults, standing, now, max_lag_seconds)
    return {
        "ready": not why,
        "reasons": why,
        "sources": dict(faults),
        "lag": standing.lag,
        "lag_seconds": round(standing.waited, 3),
        "last_batch": standing.last_batch,
    }
