"""Messages to send, moments to act at, and ranges to look at, for tests of batches."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable

from archiver_pipeline.batch.batch import Batch
from archiver_pipeline_tests.kafka.produce import Sent

FIRST_MS = 1_564_628_400_000  # 2019-08-01T03:00:00Z
SMALL_FETCHES = {
    "queued.min.messages": "1",
    "fetch.max.bytes": "20000",
    "fetch.message.max.bytes": "20000",
    "message.max.bytes": "20000",
}
"""librdkafka properties under which a consumer is only a few messages ahead of what was taken from it."""


def numbered(numbers: Iterable[int], partition: int = 0, kind: str = "object.one", size: int = 0) -> list[Sent]:
    """Messages with a number each, a second apart."""
    return [
        Sent(
            json.dumps({"type": kind, "seq": n, "fill": "x" * size}).encode(),
            b"k%d" % n,
            timestamp_ms=FIRST_MS + n * 1000,
            partition=partition,
        )
        for n in numbers
    ]


def at_step(wanted: str, action: Callable[[], object]) -> Callable[[str], None]:
    """A callback that does something once, when the step begins for the first time."""
    done: list[str] = []

    def on_step(name: str) -> None:
        if name == wanted and not done:
            done.append(name)
            action()

    return on_step


def ranges(batches: Iterable[Batch]) -> list[list[tuple[int, int, int]]]:
    """Partition, start and end of what each batch archived."""
    return [[(item.at.partition, item.start, item.end) for item in batch.ranges] for batch in batches]
