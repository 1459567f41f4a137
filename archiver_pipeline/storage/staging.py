"""Staging: a batch's files are written aside, on the local disk, then put into place, and then there is the commit."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from archiver_pipeline import envelope
from archiver_pipeline.errors import StorageError

ATTEMPT = re.compile(r"(lane\d+|replay-[0-9a-f]{16}|(?:seal|mend)-(?:_unknown|\d{4}-\d\d-\d\dT\d\d))-[0-9a-f]{12}")
"""The name of an attempt: its scope, and what makes it unique."""

SCRATCH = "scratch"
_COMMIT = "commit"


@dataclass(frozen=True)
class Leftover:
    """What a dead attempt left behind.

    Attributes:
        scope: what it was at: `lane0`, or `seal-2019-08-01T03`.
        attempt: its name.
        files: the places in the archive that it may have put files into.
    """

    scope: str
    attempt: str
    files: tuple[str, ...]


@contextmanager
def translated(path: Path | str) -> Iterator[None]:
    """Turn an operating system error into a StorageError that names the path and the remedy."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path) from error


def storage_error(error: OSError, path: Path | str) -> StorageError:
    """Say what an error of a disk or an object store means for the archive, and what to do."""
    why, hint = error.strerror or str(error), getattr(error, "hint", None)
    if error.errno == errno.ENOTDIR:
        hint = "A file stands where a folder has to be: move it away, or check BASE_DIR and ARCHIVER_URI"
        why = f"the archive cannot be reached: {why}"
    return StorageError(
        why if hint else f"the archive cannot be written: {why}",
        path=str(error.filename or path),
        hint=hint or "Free space, or make the folder writable, and run again: what is archived is untouched",
    )


class Staging(ABC):
    """The files of one attempt to commit a batch.

    Attributes:
        attempt: the attempt's unique name, the beginning of its files' names.
    """

    def __init__(self, root: Path, scope: str) -> None:
        """Name the attempt; its folder below `root`, on the local disk, is not made yet."""
        self.attempt = f"{scope}-{uuid.uuid4().hex[:12]}"
        self._folder = root / self.attempt
        self._files: list[str] = []

    @property
    def scratch(self) -> Path:
        """A folder for what is needed only meanwhile; it goes with the attempt."""
        path = self._folder / SCRATCH
        with translated(path):
            path.mkdir(exist_ok=True)
        return path

    @property
    def commit_file(self) -> Path:
        """Where the commit is written before it is put in the log."""
        return self._folder / _COMMIT

    def write(self, folder: str, content: bytes) -> str:
        """Write one file and return the path it will have below the archive."""
        target = self._staged(len(self._files))
        with translated(target):
            target.write_bytes(content)
        return self._named(folder, hashlib.sha256(content).hexdigest())

    def take(self, folder: str, written: Path) -> str:
        """Take a file that was written to the scratch folder, and return the path it will have below the archive."""
        with translated(written):
            with open(written, "rb") as content:
                digest = hashlib.file_digest(content, "sha256").hexdigest()
            os.rename(written, self._staged(len(self._files)))
        return self._named(folder, digest)

    def _staged(self, number: int) -> Path:
        """Where a file of the attempt lies before it is put into place."""
        return self._folder / str(number)

    def _named(self, folder: str, digest: str) -> str:
        path = f"{folder}/{envelope.file_name(self.attempt, len(self._files), digest)}"
        self._files.append(path)
        return path

    @abstractmethod
    def sync(self) -> None:
        """Force what was written to the disk, where it goes from there by its name alone."""

    @abstractmethod
    def place(self) -> None:
        """Put the files where readers look for them; nothing lists them yet.

        Raises:
            Superseded: another run has taken this attempt for dead and removed what it staged.
            StorageError: disk or object store refused.
        """

    @abstractmethod
    def finish(self) -> None:
        """Forget the attempt after its commit: only what it staged goes."""

    @abstractmethod
    def discard(self) -> None:
        """Remove everything of an attempt that was not committed."""

    @abstractmethod
    def release(self) -> None:
        """Leave everything to the next run, as if this process were dead."""
