"""The clock, against those of others: leases in a bucket, hours and minutes go by it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from archiver_pipeline.doctor.finding import Finding, fault, good, warning
from archiver_pipeline.doctor.patient import Patient
from archiver_pipeline.table.delta_log import commit_name
from archiver_pipeline.view.tables import commit_info

OFF_SECONDS, WRONG_SECONDS = 5.0, 60.0
"""From when on a clock is worth a warning, and from when on it is a fault."""

_REMEDY = "Set the clock of this machine by NTP (chrony, systemd-timesyncd), and look at that of the other"


def judged(whose: str, ahead: float) -> Finding:
    """Judge a clock by how far it is ahead of this machine's, in seconds; below 0 it is behind."""
    if abs(ahead) < OFF_SECONDS:
        return good("clock", f"this machine and {whose} agree to {max(0.1, abs(ahead)):.1f} s")
    told = f"the clock of this machine is {abs(ahead):,.0f} s {'behind' if ahead > 0 else 'ahead of'} that of {whose}"
    return fault("clock", told, _REMEDY) if abs(ahead) > WRONG_SECONDS else warning("clock", told, _REMEDY)


def compared(whose: str, before: float, after: float, theirs: float) -> Iterator[Finding]:
    """Judge a clock by what it said at some moment between two of ours; it may tell whole seconds only."""
    early, late = theirs - after, theirs + 1.0 - before
    yield judged(whose, early if early > 0 else late if late < 0 else 0.0)


def of_commit(patient: Patient) -> Iterator[Finding]:
    """Whether the newest commit is from the future: it was made by the clock of the machine that ran the batch."""
    if patient.standing is None:
        return
    state, _ = patient.standing
    try:
        info: dict[str, Any] | None = commit_info(patient.archive.storage, state.version)
    except FileNotFoundError:
        return
    said = info["timestamp"] / 1000 if info else patient.archive.storage.modified(commit_name(state.version))
    ahead = said - time.time()
    if ahead > OFF_SECONDS:
        yield judged("whoever made the newest commit", ahead)
