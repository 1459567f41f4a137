"""The archive's storage, tried out: a scratch object of its own is written, refused a second time, read and removed."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from archiver_pipeline.doctor import clock
from archiver_pipeline.doctor.finding import Finding, fault, good
from archiver_pipeline.doctor.patient import Patient
from archiver_pipeline.errors import StorageError
from archiver_pipeline.storage.base import Storage
from archiver_pipeline.storage.staging import translated

FOLDER = "_doctor"
"""Where the scratch objects lie, below the archive: readers pass over names that begin with `_`."""

_OLD_SECONDS = 3600.0
_CONTENT = b"archiver doctor\n"


def storage(patient: Patient) -> Iterator[Finding]:
    """Whether the archive can be written as a batch does it, and by how much the storage's clock is off.

    Raises:
        StorageError: it refuses or does not answer.
    """
    target = patient.archive.storage
    made = _make_folder(target)
    try:
        with translated(target.uri):
            yield from _tried(target)
    finally:
        for path in made:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()


def _tried(target: Storage) -> Iterator[Finding]:
    mark = uuid.uuid4().hex[:12]
    moved, claimed = f"{FOLDER}/{mark}-moved", f"{FOLDER}/{mark}-claimed"
    room = target.workroom(FOLDER)
    room.mkdir(parents=True, exist_ok=True)
    try:
        source = room / f"{mark}-source"
        source.write_bytes(_CONTENT)
        target.put(source, moved)
        before = time.time()
        first = target.create(claimed, _CONTENT, room / f"{mark}-1")
        after = time.time()
        second = target.create(claimed, b"another", room / f"{mark}-2")
        found, names = target.fetch(claimed), target.names(FOLDER)
        written = target.modified(claimed)
    finally:
        with suppress(OSError):
            for path in room.glob(f"{mark}-*"):
                path.unlink()
        target.remove({moved, claimed, *_left(target)})
        with suppress(OSError):
            room.rmdir()  # Another doctor may be at work in it.
    if not first or second or found is None or found.data != _CONTENT:
        told = f"{target.uri} lets a name be taken twice: two runs would both commit, and messages be lost or doubled"
        yield fault("storage", told, "Take a store that honours If-None-Match, or a file system with hard links")
        return
    if not {moved.rpartition("/")[2], claimed.rpartition("/")[2]} <= set(names):
        told = f"{target.uri} does not list what was just written"
        yield fault("storage", told, "Take a store that lists what it has: a batch finds by that what others left")
        return
    yield good("storage", f"{target.uri} can be written, listed, read and cleaned, and refuses a name that is taken")
    yield from clock.compared("the storage", before, after, written)


def _left(target: Storage) -> list[str]:
    """What doctors that were killed have left: one that is at work beside this one keeps its own."""
    found = []
    for name in target.names(FOLDER):
        with suppress(FileNotFoundError):
            if target.modified(f"{FOLDER}/{name}") < time.time() - _OLD_SECONDS:
                found.append(f"{FOLDER}/{name}")
    return found


def _make_folder(target: Storage) -> list[Path]:
    """Make the folder of an archive that is not there yet; return what was made, the deepest first."""
    if "://" in target.uri:
        return []
    path = Path(target.uri)
    missing = [each for each in (path, *path.parents) if not each.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        hint = "Make the folder writable, or check ARCHIVER_URI and BASE_DIR"
        raise StorageError(
            f"the archive's folder cannot be made: {error.strerror}", path=str(path), hint=hint
        ) from error
    return missing
