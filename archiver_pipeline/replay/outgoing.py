"""Messages on their way out, as a producer takes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import TYPE_CHECKING, Any

from archiver_pipeline.frames import original
from archiver_pipeline.stored.selected import Stretch

if TYPE_CHECKING:
    import polars as pl

Row = tuple[str, int, bytes | None, bytes | None, int, list[tuple[str, bytes | None]] | None]
"""Topic, partition (-1 to leave it to the partitioner), key, payload, time in ms (-1 for none), headers."""

_NO_TIME = -1


@dataclass(frozen=True, eq=False)
class Outgoing:
    """Messages of a stretch, in order.

    Attributes:
        stretch: where they are from.
        frame: `n` (the place of their topic partition), `offset`, `target` (a topic), `partition`, and `time` in
            milliseconds, which never decreases.
        rows: the messages.
    """

    stretch: Stretch
    frame: pl.DataFrame
    rows: Sequence[Row]

    def first(self, count: int) -> Outgoing:
        """The first ones."""
        return self if count >= len(self.rows) else replace(self, frame=self.frame[:count], rows=self.rows[:count])

    def after(self, count: int) -> Outgoing:
        """Those behind the first ones."""
        return replace(self, frame=self.frame[count:], rows=self.rows[count:])

    def edges(self) -> list[int]:
        """Which rows are the first or the last of their partition."""
        import polars as pl

        row = pl.col("row")
        edges = self.frame.with_row_index("row").group_by("target", "partition").agg(row.min(), last=row.max())
        return sorted({*edges["row"], *edges["last"]})


def outgoing(stretch: Stretch, ranges: Sequence[tuple[int, int]], to_topic: str, *, by_key: bool) -> Outgoing:
    """Make the messages of a stretch ready.

    Args:
        stretch: the messages.
        ranges: the offsets `[next, end)` of each place that are to be sent.
        to_topic: the topic that they go to, empty for their own.
        by_key: leave the partition to the partitioner.
    """
    import polars as pl

    n = stretch.frame["n"]
    low, high = (pl.Series([item[side] for item in ranges], dtype=pl.Int64).gather(n) for side in (0, 1))
    chosen = stretch.frame.filter(pl.col("offset") >= low, pl.col("offset") < high)
    frame = chosen.select(
        "n", "offset", "partition", target=pl.lit(to_topic) if to_topic else pl.col("topic"), time=pl.col("ms")
    )
    columns: list[Iterable[Any]] = [
        repeat(to_topic) if to_topic else frame["target"].to_list(),
        repeat(-1) if by_key else frame["partition"].to_list(),
        chosen["key"].to_list(),
        chosen.select(original()).to_series().to_list(),
        # librdkafka takes 0 for now: whoever sends it has agreed to send it without a time.
        (chosen["timestamp"].cast(pl.Int64) // 1000).replace(0, None).fill_null(_NO_TIME).to_list(),
        _headers(chosen["headers"]),
    ]
    return Outgoing(stretch, frame, list(zip(*columns, strict=False)) if frame.height else [])


def _headers(rows: pl.Series) -> Iterable[Any]:
    if rows.null_count() == len(rows):
        return repeat(None)
    return [None if row is None else [(each["key"], each["value"]) for each in row] for row in rows.to_list()]
