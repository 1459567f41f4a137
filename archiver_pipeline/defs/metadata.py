"""A batch as Dagster shows it: numbers that the UI can plot, and a table of the offsets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import dagster as dg
from dagster import MetadataValue, TableColumn, TableRecord, TableSchema

from archiver_pipeline.amounts import counted, duration
from archiver_pipeline.batch import Batch

MESSAGES = dg.AssetKey("messages")
ARCHIVE_VIEW = dg.AssetKey("archive_view")

_MAX_ROWS = 500
_OFFSETS = TableSchema(
    columns=[
        TableColumn("topic", "string"),
        TableColumn("partition", "int"),
        TableColumn("start", "int", description="the first offset of the batch"),
        TableColumn("end", "int", description="the next offset to archive"),
        TableColumn("messages", "int"),
    ]
)


def topic_key(topic: str) -> dg.AssetKey:
    """The external asset of a topic."""
    return dg.AssetKey(["kafka", topic])


def events(batch: Batch) -> Iterator[dg.AssetMaterialization | dg.AssetObservation]:
    """What happened to the topics and to the archive in a batch."""
    for topic, metadata in _topics(batch).items():
        yield dg.AssetObservation(topic_key(topic), metadata=metadata)
    yield dg.AssetMaterialization(MESSAGES, description=_sentence(batch), metadata=_messages(batch))


def standing(batch: Batch, total: int, seconds: float) -> str:
    """A line of a run's log on how far it is: a batch, what is left, and for how long at the rate so far.

    Args:
        batch: the newest batch.
        total: how many messages this run has archived in its lane.
        seconds: since it began with that.
    """
    rate = total / seconds if seconds > 0 else 0.0
    left = f" ({duration(batch.lag / rate)} at {rate:,.0f} a second)" if batch.lag and rate >= 1 else ""
    done = f"{counted(batch.messages, 'message')} in {batch.seconds:.1f} s"
    return f"lane {batch.lane}: {done}, {batch.lag:,} left{left}, {total:,} so far"


def view_made(view: Path, version: int) -> dg.AssetMaterialization:
    """The DuckDB file shows a version of the table."""
    return dg.AssetMaterialization(
        ARCHIVE_VIEW, metadata={"path": MetadataValue.path(str(view)), "table version": MetadataValue.int(version)}
    )


def _sentence(batch: Batch) -> str:
    topics = sorted({item.at.topic for item in batch.ranges})
    return f"{counted(batch.messages, 'message')} of {', '.join(topics) or 'no topic'} in {batch.seconds:.1f} s"


def _messages(batch: Batch) -> Mapping[str, MetadataValue]:
    rows = [
        TableRecord(
            {
                "topic": item.at.topic,
                "partition": item.at.partition,
                "start": item.start,
                "end": item.end,
                "messages": count,
            }
        )
        for item, count in zip(batch.ranges, batch.messages_by_range, strict=True)
    ]
    return {
        "offsets": MetadataValue.table(rows[:_MAX_ROWS], schema=_OFFSETS),
        "messages": MetadataValue.int(batch.messages),
        "bytes": MetadataValue.int(batch.bytes),
        "files": MetadataValue.int(batch.files),
        "lag": MetadataValue.int(batch.lag),
        "messages per second": MetadataValue.float(round(batch.messages / max(batch.seconds, 0.001), 1)),
        "seconds": MetadataValue.float(round(batch.seconds, 3)),
        "table version": MetadataValue.int(batch.version),
        "lane": MetadataValue.text(str(batch.lane)),
        "seconds per step": MetadataValue.json({name: round(value, 3) for name, value in batch.steps.items()}),
    }


def _topics(batch: Batch) -> dict[str, Mapping[str, MetadataValue]]:
    """End offsets and lag of each topic of the batch, summed over its partitions."""
    reached = {(item.at.topic, item.at.partition): item.end for item in batch.ranges}
    found: dict[str, Mapping[str, MetadataValue]] = {}
    for state in batch.look.topics:
        mine = {number: reached[state.topic, number] for number in state.partitions if (state.topic, number) in reached}
        if mine:
            found[state.topic] = {
                "end offset": MetadataValue.int(sum(marks.end for marks in state.partitions.values())),
                "lag": MetadataValue.int(sum(max(0, state.partitions[n].end - next_) for n, next_ in mine.items())),
                "partitions": MetadataValue.int(len(state.partitions)),
                "topic id": MetadataValue.text(state.topic_id),
            }
    return found
