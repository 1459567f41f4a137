"""A file of messages, a line each, as events to be produced."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import IO

from archiver_pipeline.errors import WrongUsage
from archiver_pipeline.events import Event

_GZIP = b"\x1f\x8b"


def events_of(path: Path, topic: str) -> Iterator[Event]:
    """Yield each line of a file as a message to a topic, without key, stamped as it is sent; empty lines are none.

    Args:
        path: the file, compressed by gzip or not; `-` is standard input.
        topic: where the messages go.

    Raises:
        WrongUsage: the file cannot be read.
    """
    try:
        with nullcontext(sys.stdin.buffer) if str(path) == "-" else open(path, "rb") as raw:
            for line in _lines(raw):
                if value := line.rstrip(b"\r\n"):
                    yield Event(topic, value, None, 0, None)
    except (OSError, EOFError) as error:
        why = getattr(error, "strerror", None) or error
        raise WrongUsage(f"--file is {str(path)!r}: it cannot be read: {why}") from error


def _lines(raw: IO[bytes]) -> Iterable[bytes]:
    """The lines of a stream, decompressed where its first bytes say so."""
    # Both kinds of stream are buffered, and so can be looked at without taking anything.
    start: bytes = raw.peek(2)[:2]  # type: ignore[attr-defined]
    return gzip.open(raw) if start == _GZIP else raw
