"""Python's collector of cycles, kept away from work that makes very many objects and no cycle."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Switch the collector off for a while: it would go through every object that is made, time and again.

    Over ten thousand partitions it takes as long as all else that a tick of a sensor does.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
