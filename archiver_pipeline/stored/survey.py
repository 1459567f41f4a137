"""What a selection comes to: counted and measured in buckets of offsets, and cut into stretches of a good size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from archiver_pipeline.frames import original
from archiver_pipeline.hours import MiB
from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.stored.parquet import Ranges
from archiver_pipeline.stored.runs import PLACE

if TYPE_CHECKING:
    import polars as pl

STRETCH_MESSAGES, STRETCH_BYTES = 100_000, 32 * MiB
"""About so much is held in memory and sorted at once."""

_BUCKET = 256
_RECORD_BYTES = 76
"""What a record and its batch cost beside key, payload and headers (Kafka record batch, version 2)."""


@dataclass(frozen=True)
class Measures:
    """What some messages have in common.

    Attributes:
        messages, bytes: how many, and the size of their keys, payloads and headers.
        largest: the size of the largest as a record, None without one.
        first_ms, last_ms: the earliest and the latest time in milliseconds since 1970, None without one.
        keyless: how many have no key.
        timeless: how many have a time that no client can send: 0, or past the year 294247.
    """

    messages: int
    bytes: int
    largest: int | None
    first_ms: int | None
    last_ms: int | None
    keyless: int
    timeless: int


class Survey:
    """The messages of a selection, counted in buckets of offsets."""

    def __init__(self, buckets: pl.DataFrame) -> None:
        """Take the sum of the answers of `measured`."""
        import polars as pl

        self._buckets = buckets.group_by(*PLACE, "bucket").agg(
            pl.col("messages", "bytes", "keyless", "timeless").sum(),
            pl.col("largest", "last_ms", "past").max(),
            pl.col("first_ms", "first").min(),
        )

    @property
    def messages(self) -> int:
        """How many there are."""
        return int(self._buckets["messages"].sum())

    @property
    def bytes(self) -> int:
        """The size of their keys, payloads and headers."""
        return int(self._buckets["bytes"].sum())

    @property
    def places(self) -> list[TopicPartition]:
        """The topic partitions that have any, in order."""
        return [TopicPartition(*row) for row in self._buckets.select(PLACE).unique().sort(PLACE).iter_rows()]

    def last(self, at: TopicPartition) -> int:
        """The offset past the last one of a topic partition that has any."""
        import polars as pl

        own = [pl.col(name) == getattr(at, name) for name in PLACE]
        return int(self._buckets.filter(own)["past"].max())  # type: ignore[arg-type]

    def measures(self, topic: str) -> Measures:
        """What the messages of a topic come to."""
        import polars as pl

        sums = pl.col("messages", "bytes", "keyless", "timeless").sum()
        extremes = pl.col("largest", "last_ms").max(), pl.col("first_ms").min()
        own = self._buckets.filter(pl.col("topic") == topic).select(sums, *extremes)
        return Measures(**own.row(0, named=True))

    def stretches(self, rank: Callable[[TopicPartition], int]) -> Iterator[Ranges]:
        """Cut it into stretches of about `STRETCH_MESSAGES` and `STRETCH_BYTES`, one after the other in time.

        In each partition they follow on from each other, and no partition of a higher rank comes before one of a lower.
        """
        import polars as pl

        every = self.places
        ranks = pl.DataFrame(
            [(at.topic, at.topic_id, at.partition, rank(at), number) for number, at in enumerate(every)],
            schema={"topic": pl.String, "topic_id": pl.String, "partition": pl.Int32, "rank": pl.Int64, "n": pl.Int64},
            orient="row",
        )
        rows = (
            self._buckets.join(ranks, on=PLACE)
            .sort("n", "bucket")
            .with_columns(time=pl.col("first_ms").fill_null(strategy="forward").fill_null(0).cum_max().over("n"))
            .sort("rank", "time", "n", "bucket")
            .select("n", "first", "past", "messages", "bytes", "largest")
        )
        reached = dict[TopicPartition, int]()
        held: dict[TopicPartition, tuple[int, int]] = {}
        messages = size = 0
        for number, first, past, count, weight, largest in rows.iter_rows():
            at = every[number]
            # Large ones may lie close together: no part may be too large if it has nothing but those.
            parts = 1 if weight <= STRETCH_BYTES else min(past - first, -(-(past - first) * largest // STRETCH_BYTES))
            cuts = [first + (past - first) * part // parts for part in range(parts + 1)]
            for start, end in pairwise(cuts):
                more = count * (end - start) // (past - first)
                weighs = min(weight, (end - start) * largest)
                if held and (messages + more > STRETCH_MESSAGES or size + weighs > STRETCH_BYTES):
                    yield held
                    held, messages, size = {}, 0, 0
                held[at] = (held[at][0] if at in held else reached.get(at, start), end)
                reached[at] = end
                messages, size = messages + more, size + weighs
        if held:
            yield held


def measured(frame: pl.DataFrame) -> pl.DataFrame:
    """Measure messages (the archive's columns) by partition and bucket of offsets."""
    import polars as pl

    payload = original().bin.size().fill_null(0)
    key = pl.col("key").bin.size().fill_null(0)
    stamp = pl.col("timestamp").cast(pl.Int64)
    unsendable = (stamp == 0) | (stamp.is_null() & (pl.col("timestamp_type") != "none"))
    headers = pl.lit(0) if frame["headers"].null_count() == frame.height else _header_bytes()
    return (
        frame.select(
            *PLACE,
            "offset",
            bucket=pl.col("offset") // _BUCKET,
            size=(payload + key + headers).cast(pl.Int64),
            ms=stamp.floordiv(1000),
            keyless=pl.col("key").is_null(),
            timeless=unsendable,
        )
        .group_by(*PLACE, "bucket")
        .agg(
            first=pl.col("offset").min(),
            past=pl.col("offset").max() + 1,
            messages=pl.len().cast(pl.Int64),
            bytes=pl.col("size").sum(),
            largest=pl.col("size").max() + _RECORD_BYTES,
            first_ms=pl.col("ms").min(),
            last_ms=pl.col("ms").max(),
            keyless=pl.col("keyless").sum().cast(pl.Int64),
            timeless=pl.col("timeless").sum().cast(pl.Int64),
        )
    )


def _header_bytes() -> pl.Expr:
    import polars as pl

    each = pl.element().struct
    sizes = each.field("key").str.len_bytes() + each.field("value").bin.size().fill_null(0) + 10
    return pl.col("headers").list.eval(sizes).list.sum().fill_null(0)
