"""How long a run goes on: one pass up to the end offsets seen at its start, or batch after batch for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from archiver_pipeline.batch.batch import Archiver, Batch
from archiver_pipeline.batch.planner import Targets


def drain(archiver: Archiver, targets: Targets | None = None, limit_seconds: float = float("inf")) -> Iterator[Batch]:
    """Archive in bounded batches up to the targets, by default the end offsets seen now.

    After `limit_seconds` no further batch is begun: the sensor starts another run for what is left.
    """
    wanted = archiver.look().end_offsets() if targets is None else targets
    began = time.monotonic()
    try:
        while (batch := archiver.batch(wanted, read_on=time.monotonic() - began < limit_seconds)) is not None:
            yield batch
            if time.monotonic() - began > limit_seconds:
                return
    finally:
        archiver.rest()


def stay(
    archiver: Archiver,
    seconds: float,
    interval_seconds: float,
    sleep: Callable[[float], None] = time.sleep,
    idle: Callable[[], object] = lambda: None,
) -> Iterator[Batch]:
    """Archive whatever comes for some time: a batch each interval, and at once while more is left than one holds.

    `idle` is called each time that nothing has come.
    """
    began = time.monotonic()
    try:
        while True:
            started = time.monotonic()
            batch = archiver.batch(read_on=True)
            if batch is not None:
                yield batch
            else:
                idle()
            now = time.monotonic()
            if now - began >= seconds:
                return
            if batch is None or batch.lag == 0:
                sleep(max(0.0, min(interval_seconds - (now - started), began + seconds - now)))
    finally:
        archiver.rest()
