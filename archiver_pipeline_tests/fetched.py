"""What tests fetch or build once for a checkout, however many of their processes want it."""

from __future__ import annotations

import fcntl
import tempfile
from collections.abc import Callable
from pathlib import Path


def once(target: Path, make: Callable[[Path], Path]) -> Path:
    """The target, which is made if this checkout has none yet; processes that want it together make it once.

    Args:
        target: a file or folder, in a folder of its own kind below `.cache`.
        make: given an empty folder to work in, makes it there and returns where; what it raises is raised.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=".make-") as scratch:
                make(Path(scratch)).rename(target)
    return target
