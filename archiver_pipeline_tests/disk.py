"""A disk of a few megabytes that can be filled up or made read-only (tmpfs; takes root on Linux)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class Disk:
    """A mounted tmpfs.

    Attributes:
        path: where it is mounted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self, leave: int = 0) -> None:
        """Use up all space but for so many bytes."""
        self.free()
        state = os.statvfs(self.path)
        with self._filler.open("wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, max(1, state.f_bavail * state.f_frsize - leave))

    def free(self) -> None:
        """Give the space back."""
        self._filler.unlink(missing_ok=True)

    @contextmanager
    def read_only(self, folder: str = "") -> Iterator[None]:
        """Make a folder of it, or all of it, read-only for a while; only a folder below can be while files are open."""
        path = self.path / folder
        if folder:
            _mount("--bind", str(path), str(path))
        _mount("-o", "remount,bind,ro", str(path))
        try:
            yield
        finally:
            if folder:
                subprocess.run(["umount", str(path)], check=True)
            else:
                _mount("-o", "remount,bind,rw", str(path))


@contextmanager
def mounted(path: Path, megabytes: int) -> Iterator[Disk]:
    """Mount a disk of that size; skips the test where that is not allowed."""
    path.mkdir()
    try:
        _mount("-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path))
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small disk takes root")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)
