"""Copies: offsets that replays wrote, whose messages the archive has under their first offsets already. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from archiver_pipeline.plan import OffsetRange, TopicPartition

if TYPE_CHECKING:
    import polars as pl

Stretches = Sequence[tuple[int, int]]
"""Offsets `[start, end)`, in order."""

Copies = Mapping[TopicPartition, Stretches]


def within(copies: Stretches, of: OffsetRange) -> Stretches:
    """Those that have offsets of a range."""
    return [(start, end) for start, end in copies if start < of.end and end > of.start]


def without(
    frame: pl.DataFrame, copies: Sequence[Stretches], first: Mapping[int, int], last: Mapping[int, int]
) -> pl.DataFrame | None:
    """Leave out the copies of a frame of `RangeReader.frames`; None where it has none.

    Args:
        frame: the messages.
        copies: those of each range.
        first, last: the offsets of each range with which the frame begins and ends.
    """
    import polars as pl

    offset = pl.col("offset")
    conditions = [
        (pl.col("range") == number) & (offset >= start) & (offset < end)
        for number, reached in last.items()
        for start, end in copies[number]
        if start <= reached and first[number] < end
    ]
    return frame.filter(~pl.any_horizontal(conditions)) if conditions else None
