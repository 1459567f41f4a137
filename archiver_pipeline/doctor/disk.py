"""The local disks: what BASE_DIR, scratch files and an archive in a folder have left."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from archiver_pipeline.doctor.finding import Finding, fault, good, warning
from archiver_pipeline.doctor.patient import Patient

BATCHES = 10
"""Room for fewer batches than that is worth a warning, and for less than one a fault."""

SHARE = 0.05
"""So is less than this share of a disk, or of its inodes."""

_TEMPORARY = "temporary files"


def disk(patient: Patient) -> Iterator[Finding]:
    """Whether each local disk that is written has room, inodes, and lets itself be written."""
    settings = patient.settings
    places = {"BASE_DIR": settings.base_dir.absolute()}
    if "://" not in settings.archive_uri:
        places["the archive"] = Path(settings.archive_uri)
    places[_TEMPORARY] = Path(tempfile.gettempdir())
    seen: set[int] = set()
    for name, path in places.items():
        there = next(each for each in (path, *path.parents) if each.exists())
        if not os.access(there, os.W_OK | os.X_OK):
            yield fault("disk", f"{there} ({name}) cannot be written", "Make it writable for this user")
        if (device := there.stat().st_dev) not in seen:
            seen.add(device)
            # A batch is not written there: only what commands spill.
            needed = 0 if name == _TEMPORARY else int(settings.batch_bytes) * settings.lanes
            yield room(name, there, needed)


def room(name: str, path: Path, batch_bytes: int) -> Finding:
    """Judge the room on the disk of a folder by the size of a batch."""
    found = os.statvfs(path)
    free, size = found.f_bavail * found.f_frsize, max(1, found.f_blocks * found.f_frsize)
    shown = f"{free / 1e9:,.1f} GB" if free >= 1e9 else f"{free / 1e6:,.1f} MB"
    told = f"{shown} ({free / size:.0%}) free at {path} ({name})"
    remedy = "Free space, or take a larger disk; a batch that finds it full fails, and nothing is lost"
    if found.f_files and found.f_favail / found.f_files < SHARE:
        told += f", and only {found.f_favail:,} of {found.f_files:,} inodes"
        return (fault if found.f_favail < 1000 else warning)("disk", told, remedy)
    if free < batch_bytes:
        return fault("disk", f"{told}: less than one batch of {batch_bytes / 1e9:.2f} GB", remedy)
    if free < BATCHES * batch_bytes or free / size < SHARE:
        return warning("disk", told, remedy)
    return good("disk", told)
