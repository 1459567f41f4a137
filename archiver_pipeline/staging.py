"""Staging: a batch's files are written aside, then moved into place, so that a kill leaves nothing half-written behind.

_staging/<attempt>.lock       held by flock(2) as long as the process lives, so that nobody cleans behind a live one
_staging/<attempt>/<n>        files being written
_staging/<attempt>/scratch/   what a rewrite needs meanwhile
_staging/<attempt>/commit     the commit, before it has its place in the log
_staging/<attempt>/manifest   written before the first move: where each file goes
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from archiver_pipeline import envelope
from archiver_pipeline.durable import force
from archiver_pipeline.errors import StorageError, Superseded

_ATTEMPT = re.compile(r"(lane\d+|replay-[0-9a-f]{16}|(?:seal|mend)-(?:_unknown|\d{4}-\d\d-\d\dT\d\d))-[0-9a-f]{12}")
_MANIFEST = "manifest"
_SCRATCH = "scratch"
_COMMIT = "commit"
_UNNAMED = ".lock-"


@dataclass(frozen=True)
class Leftover:
    """What a dead attempt left behind.

    Attributes:
        scope: what it was at: `lane0`, or `seal-2019-08-01T03`.
        attempt: its name.
        files: the places in the archive that it may have moved files to.
    """

    scope: str
    attempt: str
    files: tuple[str, ...]


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turn an operating system error into a StorageError that names the path and the remedy."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"the archive cannot be written: {error.strerror or error}",
            path=str(error.filename or path),
            hint="Free space, or make the folder writable, and run again: what is archived is untouched",
        ) from error


class Staging:
    """The files of one attempt to commit a batch.

    Attributes:
        attempt: the attempt's unique name, the beginning of its files' names.
        placed: paths relative to the archive, as far as they have been moved into place.
    """

    def __init__(self, archive: Path, scope: str) -> None:
        self.attempt = f"{scope}-{uuid.uuid4().hex[:12]}"
        self.placed: list[str] = []
        self._archive = archive
        self._root = archive / envelope.STAGING
        self._folder = self._root / self.attempt
        self._files: list[str] = []
        with translated(self._root):
            self._root.mkdir(parents=True, exist_ok=True)
            self._lock = _held_lock(self._root, self.attempt)
            self._folder.mkdir()

    @property
    def scratch(self) -> Path:
        """A folder for what is needed only meanwhile; it goes with the attempt."""
        path = self._folder / _SCRATCH
        with translated(path):
            path.mkdir(exist_ok=True)
        return path

    @property
    def commit_file(self) -> Path:
        """Where the commit is written before it is put in the log."""
        return self._folder / _COMMIT

    def write(self, folder: str, content: bytes) -> str:
        """Write one file and return the path it will have below the archive."""
        target = self._folder / str(len(self._files))
        with translated(target):
            target.write_bytes(content)
        return self._named(folder, hashlib.sha256(content).hexdigest())

    def take(self, folder: str, written: Path) -> str:
        """Take a file that was written to the scratch folder, and return the path it will have below the archive."""
        with translated(written):
            with open(written, "rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            os.rename(written, self._folder / str(len(self._files)))
        return self._named(folder, digest)

    def _named(self, folder: str, digest: str) -> str:
        path = f"{folder}/{envelope.file_name(self.attempt, len(self._files), digest)}"
        self._files.append(path)
        return path

    def sync(self) -> None:
        """Force what was written to the disk."""
        with translated(self._folder):
            force([self._folder / str(number) for number in range(len(self._files))])

    def place(self) -> None:
        """Move the files to where readers look for them; nothing lists them yet.

        Raises:
            Superseded: another run has taken this attempt for dead and removed its staging folder.
            StorageError: the disk refused.
        """
        if not self._files:
            return
        with translated(self._archive):
            try:
                self._write_manifest()
                folders = {self._archive / os.path.dirname(path) for path in self._files}
                for folder in folders:
                    folder.mkdir(parents=True, exist_ok=True)
                for number, path in enumerate(self._files):
                    self._move(self._folder / str(number), self._archive / path)
                    self.placed.append(path)
            except FileNotFoundError as error:
                raise Superseded("another run removed this attempt's files", path=str(self._folder)) from error
            parents = {parent for folder in folders for parent in (folder, *folder.parents[:3])}
            force([path for path in parents if path.is_relative_to(self._archive)])

    def finish(self) -> None:
        """Forget the attempt after its commit: only its empty staging folder goes."""
        with translated(self._root):
            _remove_attempt(self._root, self.attempt)
        self._lock.close()

    def discard(self) -> None:
        """Remove everything of an attempt that was not committed."""
        remove(self._archive, Leftover("", self.attempt, tuple(self._files)), keep=())
        self._lock.close()

    def release(self) -> None:
        """Leave everything to the next run, as if this process were dead."""
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
            shutil.rmtree(folder / _SCRATCH, ignore_errors=True)
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
    return [(match.group(1), name) for name in sorted(names) if (match := _ATTEMPT.fullmatch(name))]


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
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    finally:
        os.close(handle)


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
