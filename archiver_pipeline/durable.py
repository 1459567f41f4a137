"""Files that must outlive a power cut, or that processes share."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

_SYNC_ALL_FROM = 256
"""From this many files on, one sync(2) writes them out together and each fsync(2) only reports its errors."""


def force(paths: Collection[Path]) -> None:
    """Force files and folders to the disk with fsync(2): what speaks of data must not outlive it.

    Raises:
        OSError: one is gone or was not written.
    """
    if len(paths) >= _SYNC_ALL_FROM:
        os.sync()
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Let no other process make or replace a file meanwhile, by flock(2) on `<file>.lock`; by default waits for its
    turn.

    Raises:
        BlockingIOError: another process holds it, and it was not to wait.
        OSError: the folder cannot be written.
    """
    handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(handle)


def is_locked(path: Path) -> bool:
    """Tell whether a process holds a file by `locked` now; nothing is made or held."""
    return is_held(path.with_name(path.name + ".lock")) is True


def is_held(lock: Path) -> bool | None:
    """Tell whether a process holds a lock file by flock(2) now; None where there is no such file."""
    try:
        handle = os.open(lock, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
