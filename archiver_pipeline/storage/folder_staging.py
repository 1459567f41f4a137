"""Staging in a folder: files are written aside and moved into place, so that a kill leaves nothing half-written behind.

_staging/<attempt>.lock       held by flock(2) as long as the process lives, so that nobody cleans behind a live one
_staging/<attempt>/<n>        files being written
_staging/<attempt>/scratch/   what a rewrite needs meanwhile
_staging/<attempt>/commit     the commit, before it has its place in the log
_staging/<attempt>/manifest   written before the first move: where each file goes
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

from archiver_pipeline import envelope
from archiver_pipeline.durable import force, is_held
from archiver_pipeline.errors import SUPERSEDED, Superseded
from archiver_pipeline.storage.staging import ATTEMPT, SCRATCH, Leftover, Staging, translated

_MANIFEST = "manifest"
_UNNAMED = ".lock-"


class FolderStaging(Staging):
    """The files of one attempt, in the archive's own file system.

    Attributes:
        placed: paths relative to the archive, as far as they have been moved into place.
    """

    def __init__(self, archive: Path, scope: str) -> None:
        """Begin: from now on nobody cleans behind this attempt as long as the process lives."""
        super().__init__(archive / envelope.STAGING, scope)
        self.placed: list[str] = []
        self._archive = archive
        self._root = archive / envelope.STAGING
        with translated(self._root):
            self._root.mkdir(parents=True, exist_ok=True)
            self._lock = _held_lock(self._root, self.attempt)
            self._folder.mkdir()

    def sync(self) -> None:
        """As `Staging.sync`."""
        with translated(self._folder):
            force([self._staged(number) for number in range(len(self._files))])

    def place(self) -> None:
        """As `Staging.place`: a rename each, once a manifest says where to."""
        if not self._files:
            return
        with translated(self._archive):
            try:
                self._write_manifest()
                folders = {self._archive / os.path.dirname(path) for path in self._files}
                for folder in folders:
                    folder.mkdir(parents=True, exist_ok=True)
                for number, path in enumerate(self._files):
                    self._move(self._staged(number), self._archive / path)
                    self.placed.append(path)
            except FileNotFoundError as error:
                raise Superseded(
                    "another run took this one for dead and removed its files", path=str(self._folder), hint=SUPERSEDED
                ) from error
            parents = {parent for folder in folders for parent in (folder, *folder.parents[:3])}
            force([path for path in parents if path.is_relative_to(self._archive)])

    def finish(self) -> None:
        """As `Staging.finish`."""
        with translated(self._root):
            _remove_attempt(self._root, self.attempt)
        self._lock.close()

    def discard(self) -> None:
        """As `Staging.discard`."""
        remove(self._archive, Leftover("", self.attempt, tuple(self._files)), keep=())
        self._lock.close()

    def release(self) -> None:
        """As `Staging.release`."""
        self._lock.close()

    def _move(self, source: Path, target: Path) -> None:
        try:
            os.rename(source, target)
        except FileNotFoundError:
            # Another run that cleans up may have taken the folder while it was empty.
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(source, target)

    def _write_manifest(self) -> None:
        path = self._folder / _MANIFEST
        path.write_text("\n".join(self._files), "utf-8")
        force([path, self._folder])


def leftovers(archive: Path, mine: Callable[[str], bool]) -> list[Leftover]:
    """List what dead attempts of the scopes that are `mine` left; one whose process lives is passed over.

    Lock files of runs that were killed before they had named it are removed at once: they stand for nothing.
    """
    found = []
    with translated(archive / envelope.STAGING):
        for unnamed in (archive / envelope.STAGING).glob(f"{_UNNAMED}*"):
            if _is_dead(unnamed):
                unnamed.unlink(missing_ok=True)
        for scope, attempt in _attempts(archive):
            if mine(scope) and _is_dead(archive / envelope.STAGING / f"{attempt}.lock"):
                found.append(Leftover(scope, attempt, manifest(archive, attempt)))
    return found


def living(archive: Path, mine: Callable[[str], bool]) -> set[str]:
    """The attempts of the scopes that are `mine` whose process lives."""
    root = archive / envelope.STAGING
    return {name for scope, name in _attempts(archive) if mine(scope) and not _is_dead(root / f"{name}.lock")}


def in_flight(archive: Path) -> set[str]:
    """Return the places below the archive that any attempt, dead or alive, may have moved files to."""
    return {path for _, attempt in _attempts(archive) for path in manifest(archive, attempt)}


def manifest(archive: Path, attempt: str) -> tuple[str, ...]:
    """Return where an attempt's files go; empty while it has moved none."""
    path = archive / envelope.STAGING / attempt / _MANIFEST
    try:
        return tuple(line for line in path.read_text("utf-8").split("\n") if line)
    except FileNotFoundError:
        return ()


def remove(archive: Path, leftover: Leftover, keep: Collection[str]) -> int:
    """Remove what an attempt left, but for the files to `keep` (those the log accounts for), and return how many went.

    The staged files go first: a process that wakes up now can move none of them into place any more.
    """
    root = archive / envelope.STAGING
    folder = root / leftover.attempt
    removed = 0
    with translated(folder):
        with suppress(FileNotFoundError):  # Another run may be at the same leftover, or have been killed here.
            shutil.rmtree(folder / SCRATCH, ignore_errors=True)
            for path in folder.iterdir():
                if path.name != _MANIFEST:
                    path.unlink(missing_ok=True)
        # Read again: a process taken for dead may have moved its files after it was listed.
        for file in sorted({*leftover.files, *manifest(archive, leftover.attempt)}):
            # A manifest that was cut short may end in the name of a folder.
            if file not in keep and (archive / file).is_file():
                (archive / file).unlink(missing_ok=True)
                removed += 1
            remove_empty_folders(archive, (archive / file).parent)
        _remove_attempt(root, leftover.attempt)
    return removed


def _attempts(archive: Path) -> list[tuple[str, str]]:
    root = archive / envelope.STAGING
    names = [path.stem for path in root.glob("*.lock")] if root.exists() else []
    return [(match.group(1), name) for name in sorted(names) if (match := ATTEMPT.fullmatch(name))]


def _held_lock(root: Path, attempt: str) -> Lock:
    """Make the lock file under another name first: by its own name it is never seen unlocked by mistake."""
    while True:
        handle, name = tempfile.mkstemp(prefix=_UNNAMED, dir=root)
        fcntl.flock(handle, fcntl.LOCK_EX)
        try:
            os.rename(name, root / f"{attempt}.lock")
            return Lock(handle)
        except FileNotFoundError:
            os.close(handle)  # Another run took it for one that a kill kept from getting its name.


class Lock:
    """An open file descriptor that holds a flock(2)."""

    def __init__(self, handle: int) -> None:
        self._handle: int | None = handle

    def close(self) -> None:
        """Let go of the lock."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def _is_dead(path: Path) -> bool:
    """Tell whether the process that held the lock is gone."""
    return is_held(path) is False


def _remove_attempt(root: Path, attempt: str) -> None:
    shutil.rmtree(root / attempt, ignore_errors=True)
    (root / f"{attempt}.lock").unlink(missing_ok=True)


def remove_empty_folders(archive: Path, folder: Path) -> None:
    """Remove a folder of the archive and those above it, as far as they are empty."""
    while folder != archive:
        try:
            folder.rmdir()
        except FileNotFoundError:
            pass  # It was never made, but those above may have been.
        except OSError:
            return
        folder = folder.parent
