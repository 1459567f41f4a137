"""What has been written, forced to the disk: a rename or a commit must not outlive the data that it speaks of."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

_SYNC_ALL_FROM = 256
"""From this many files on, one sync(2) writes them out together and each fsync(2) only reports its errors."""


def force(paths: Collection[Path]) -> None:
    """Force files and folders to the disk with fsync(2). Raises OSError if one is gone or was not written."""
    if len(paths) >= _SYNC_ALL_FROM:
        os.sync()
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
