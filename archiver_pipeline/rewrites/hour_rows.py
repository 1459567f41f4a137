"""An hour as Kafka has it beside the hour as the archive has it: which message counts, and what is different."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING

from archiver_pipeline import envelope
from archiver_pipeline.frames import original
from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.stored.runs import ORDER, PLACE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import polars as pl

_CONTENT = ("timestamp", "timestamp_type", "key", "payload", "headers")


@dataclass
class Tally:
    """What the comparison of an hour came to.

    Attributes:
        read: messages that Kafka still has.
        added: of these, messages that the archive did not have.
        changed: messages that the archive had with another content, or more than once.
        retyped: messages that belong to another type by the present rules, or are now decoded, or no longer.
        kept: messages that only the archive has, and erased ones.
        types: how many messages each type has in the end.
        dirty: the types whose files have to be written anew.
        before_start: of the added, those below the offset at which archiving began: how many, and the lowest.
        early: all messages below that offset that the hour has in the end, by topic and topic id.
    """

    read: int = 0
    added: int = 0
    changed: int = 0
    retyped: int = 0
    kept: int = 0
    types: Counter[str] = field(default_factory=Counter)
    dirty: set[str] = field(default_factory=set)
    before_start: dict[TopicPartition, tuple[int, int]] = field(default_factory=dict)
    early: Counter[tuple[str, str]] = field(default_factory=Counter)


def judge(frame: pl.DataFrame) -> pl.DataFrame:
    """Judge the messages of `merged(kafka, archive)` and add the columns `stays` (Boolean) and `verdict` (String).

    Kafka's message counts before the archive's, but an erased one stays erased. Of a message that the archive has more
    than once the first stays.

    Args:
        frame: the archive's columns, `type` (by the present rules), and `was`: the type under which the archive has
            the message, null where it comes from Kafka. All that has one identity is next to each other, Kafka's first.

    Returns:
        The frame; verdicts are `added`, `changed`, `retyped`, `same`, `kept`, and null where another row speaks for it.
    """
    import polars as pl

    following = [pl.col(name).eq_missing(pl.col(name).shift(-1)) for name in ORDER]
    previous = [pl.col(name).eq_missing(pl.col(name).shift(1)) for name in ORDER]
    content = [pl.col(name).eq_missing(pl.col(name).shift(-1)) for name in _CONTENT]
    marked = (
        frame.with_columns(payload=original())
        .with_columns(
            kafka=pl.col("was").is_null(),
            paired=reduce(and_, following).fill_null(False),
            second=reduce(and_, previous).fill_null(False),
            equal=reduce(and_, content).fill_null(False),
            other=pl.col("was").shift(-1),
            decoded=(pl.col("value").is_null() != pl.col("value").is_null().shift(-1)).fill_null(False),
        )
        .with_columns(
            other=pl.when("paired").then("other"), decoded=pl.col("decoded") & pl.col("paired") & pl.col("kafka")
        )
    )
    moved = pl.col("decoded") | (pl.col("type") != pl.coalesce(pl.col("was"), pl.col("other")))
    return marked.with_columns(
        verdict=pl.when("kafka")
        .then(
            pl.when(~pl.col("paired"))
            .then(pl.lit("added"))
            .when(pl.col("other") == envelope.ERASED)
            .then(None)
            .when(~pl.col("equal"))
            .then(pl.lit("changed"))
            .when(moved)
            .then(pl.lit("retyped"))
            .otherwise(pl.lit("same"))
        )
        .when((pl.col("was") == envelope.ERASED) & (~pl.col("second") | pl.col("kafka").shift(1)))
        .then(pl.lit("kept"))
        .when(pl.col("second"))
        .then(None)
        .when(moved)
        .then(pl.lit("retyped"))
        .otherwise(pl.lit("kept"))
    ).with_columns(stays=pl.col("verdict").is_not_null())


def compare(frames: Iterator[pl.DataFrame], first: Mapping[TopicPartition, int]) -> Tally:
    """Compare a whole hour.

    Args:
        frames: those of `merged(kafka, archive)`, as `judge` takes them.
        first: where archiving began in each partition.
    """
    import polars as pl

    tally = Tally()
    rows = [(at.topic, at.topic_id, at.partition, start) for at, start in first.items() if start > 0]
    kinds = dict(zip((*PLACE, "start"), (pl.String, pl.String, pl.Int32, pl.Int64), strict=True))
    starts = pl.DataFrame(rows, schema=kinds, orient="row")
    for frame in frames:
        judged = judge(frame)
        _count(tally, judged)
        if rows:
            _count_early(tally, judged, starts)
    return tally


def _count(tally: Tally, judged: pl.DataFrame) -> None:
    import polars as pl

    verdicts = dict(judged["verdict"].value_counts().iter_rows())
    tally.read += int(judged["kafka"].sum())
    tally.added += verdicts.get("added", 0)
    tally.retyped += verdicts.get("retyped", 0)
    tally.kept += verdicts.get("kept", 0)
    # A row of the archive behind another one of the archive with the same identity.
    doubled = ~pl.col("kafka") & pl.col("second") & ~pl.col("kafka").shift(1, fill_value=False) & ~pl.col("stays")
    tally.changed += verdicts.get("changed", 0) + int(judged.select(doubled.sum()).item())
    tally.types.update(dict(judged.filter("stays")["type"].value_counts().iter_rows()))
    differs = pl.col("verdict").is_in(["added", "changed", "retyped"])
    for column in ("type", "other", "was"):
        tally.dirty.update(judged.filter(differs)[column].drop_nulls().unique())
    tally.dirty.update(judged.filter(doubled)["was"].unique())


def _count_early(tally: Tally, judged: pl.DataFrame, starts: pl.DataFrame) -> None:
    """Count what lies below the offset at which archiving began.

    Args:
        tally: counted on.
        judged: the answer of `judge`.
        starts: that offset as `start` (Int64) for topic, topic_id and partition, above 0.
    """
    import polars as pl

    low = judged.filter("stays", pl.col("offset") < starts["start"].max())
    early = low.join(starts, on=PLACE).filter(pl.col("offset") < pl.col("start"))
    for topic, topic_id, count in early.group_by(PLACE[:2]).len().iter_rows():
        tally.early[topic, topic_id] += count
    added = early.filter(pl.col("verdict") == "added").group_by(PLACE).agg(pl.len(), pl.col("offset").min())
    for topic, topic_id, partition, more, first in added.iter_rows():
        at = TopicPartition(topic, topic_id, partition)
        count, lowest = tally.before_start.get(at, (0, first))
        tally.before_start[at] = count + more, min(lowest, first)
