"""A local folder that goes with its process: an archive in a bucket needs it for files on their way."""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from archiver_pipeline.durable import is_held
from archiver_pipeline.storage.bucket_errors import NoObject, ScratchError, Unreachable

_PREFIX, _UNNAMED = "run-", ".run-"
_UNNAMED_SECONDS = 3600
"""A folder that has no name yet is being made; after so long it is that of a process that was killed then."""

_LOCK = "lock"


class Scratch:
    """A folder below `parent`, made when it is first needed; those of processes that are dead are removed then."""

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._made: Path | None = None
        self._lock = threading.Lock()

    @property
    def path(self) -> Path:
        """The folder. Raises ScratchError where it cannot be made."""
        with self._lock:
            if self._made is None:
                try:
                    self._parent.mkdir(parents=True, exist_ok=True)
                    self._sweep()
                    self._made = _held(self._parent)
                except OSError as error:
                    raise ScratchError(error, self._parent) from error
            return self._made

    def _sweep(self) -> None:
        for folder in self._parent.glob(f"{_PREFIX}*"):
            if not is_held(folder / _LOCK):
                shutil.rmtree(folder, ignore_errors=True)
        for folder in self._parent.glob(f"{_UNNAMED}*"):
            if folder.stat().st_mtime < time.time() - _UNNAMED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


def _held(parent: Path) -> Path:
    """Make a folder that is held by flock(2) as long as the process lives, and that is removed at its end."""
    # Under another name first: by its own it is never seen without a lock.
    made = Path(tempfile.mkdtemp(prefix=_UNNAMED, dir=parent))
    handle = os.open(made / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    path = parent / made.name.removeprefix(".")
    os.rename(made, path)
    owner = os.getpid()

    def leave() -> None:
        if os.getpid() == owner:  # A fork has a copy of this, and is not the one that ends.
            shutil.rmtree(path, ignore_errors=True)
            os.close(handle)

    atexit.register(leave)
    return path


class LocalCopies:
    """Copies of files on the local disk: as long as they are used, and after that as long as there is room."""

    def __init__(self, folder: Callable[[], Path], limit_bytes: int) -> None:
        """Know of no copy yet.

        Args:
            folder: tells where they lie.
            limit_bytes: so much of them is kept that nobody uses.
        """
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self._users: dict[Path, int] = {}
        self._unused: OrderedDict[Path, int] = OrderedDict()

    @contextmanager
    def use(self, name: str, mark: str, download: Callable[[Path], None]) -> Iterator[Path]:
        """A copy of a file, which `download` makes unless there is one with that mark.

        Raises:
            ScratchError: the local disk is at fault; what `download` says of the store is raised as it is.
        """
        path = self._folder() / (sha256(f"{mark}\n{name}".encode()).hexdigest() + Path(name).suffix)
        with self._lock:
            self._users[path] = self._users.get(path, 0) + 1
            self._unused.pop(path, None)
        try:
            if not path.exists():
                self._make(path, download)
            try:
                yield path
            except FileNotFoundError as error:
                if path.exists():
                    raise
                raise ScratchError(error, path) from error
        finally:
            self._let_go(path)

    def _make(self, path: Path, download: Callable[[Path], None]) -> None:
        try:
            path.parent.mkdir(exist_ok=True)
            handle, partial = tempfile.mkstemp(dir=path.parent)
            os.close(handle)
            try:
                download(Path(partial))
                os.rename(partial, path)
            finally:
                Path(partial).unlink(missing_ok=True)
        except (Unreachable, NoObject):
            raise
        except OSError as error:
            raise ScratchError(error, path.parent) from error

    def _let_go(self, path: Path) -> None:
        with self._lock:
            self._users[path] -= 1
            if self._users[path]:
                return
            del self._users[path]
            with suppress(FileNotFoundError):
                self._unused[path] = path.stat().st_size
            while sum(self._unused.values()) > self._limit_bytes:
                oldest, _ = self._unused.popitem(last=False)
                oldest.unlink(missing_ok=True)
