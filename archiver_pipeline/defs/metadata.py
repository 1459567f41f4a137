"""A batch as Dagster shows it: numbers that the UI can plot, and tables of its offsets, types, gaps and files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import dagster as dg
from dagster import MetadataValue, TableColumn, TableRecord, TableSchema

from archiver_pipeline.amounts import counted, duration
from archiver_pipeline.batch.batch import Batch
from archiver_pipeline.defs import summary
from archiver_pipeline.plan import Gap

MESSAGES = dg.AssetKey("messages")
ARCHIVE_VIEW = dg.AssetKey("archive_view")

_MAX_ROWS = 500
_MAX_TYPES = 20
_OFFSETS = TableSchema(
    columns=[
        TableColumn("topic", "string"),
        TableColumn("partition", "int"),
        TableColumn("start", "int", description="the first offset of the batch"),
        TableColumn("end", "int", description="the next offset to archive"),
        TableColumn("messages", "int"),
        TableColumn("lag", "int", description="what was left to read behind it"),
    ]
)
_TYPES = TableSchema(columns=[TableColumn("type", "string"), TableColumn("messages", "int")])
GAPS = TableSchema(
    columns=[
        TableColumn("topic", "string"),
        TableColumn("partition", "int"),
        TableColumn("start", "int", description="the first offset that is gone"),
        TableColumn("end", "int", description="the first one behind it that is there"),
        TableColumn("offsets", "int", description="how many are gone"),
        TableColumn("reason", "string"),
        TableColumn("found", "string", description="when it was recorded, UTC"),
    ]
)


def topic_key(topic: str) -> dg.AssetKey:
    """The external asset of a topic."""
    return dg.AssetKey(["kafka", topic])


def events(batch: Batch, archived: int) -> Iterator[dg.AssetMaterialization | dg.AssetObservation]:
    """What happened to the topics and to the archive in a batch.

    Args:
        batch: it.
        archived: how many messages the archive has after it.
    """
    for topic, metadata in _topics(batch).items():
        yield dg.AssetObservation(topic_key(topic), metadata=metadata)
    yield dg.AssetMaterialization(MESSAGES, description=summary.sentence(batch), metadata=_messages(batch, archived))


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
        ARCHIVE_VIEW,
        description=f"The DuckDB file shows version {version:,} of the table",
        metadata={"path": MetadataValue.path(str(view)), "table version": MetadataValue.int(version)},
    )


def view_is_current(lag: int) -> dg.AssetMaterialization:
    """The DuckDB file was looked at and has all that Kafka has: there was nothing to archive."""
    return dg.AssetMaterialization(
        ARCHIVE_VIEW,
        description="Nothing had to be archived: the DuckDB file has all that Kafka has",
        metadata={"lag": MetadataValue.int(lag)},
    )


def gap_row(gap: Gap, found: str) -> TableRecord:
    """A row of a table of gaps."""
    return TableRecord(
        {
            "topic": gap.at.topic,
            "partition": gap.at.partition,
            "start": gap.start,
            "end": gap.end,
            "offsets": gap.end - gap.start,
            "reason": gap.reason,
            "found": found,
        }
    )


def _messages(batch: Batch, archived: int) -> Mapping[str, MetadataValue]:
    found: dict[str, MetadataValue] = {
        "summary": MetadataValue.md(summary.markdown(batch)),
        "offsets": MetadataValue.table(_offsets(batch), schema=_OFFSETS),
        **_gaps(batch),
        "types": MetadataValue.table(_types(batch), schema=_TYPES),
        "messages": MetadataValue.int(batch.messages),
        "lag": MetadataValue.int(batch.lag),
        **_ages(batch),
        "messages per second": MetadataValue.float(round(batch.messages / max(batch.seconds, 0.001), 1)),
        "seconds": MetadataValue.float(round(batch.seconds, 3)),
        "bytes": MetadataValue.int(batch.bytes),
        "files": MetadataValue.int(batch.files),
        "dagster/row_count": MetadataValue.int(archived),
        "table version": MetadataValue.int(batch.version),
        "lane": MetadataValue.text(str(batch.lane)),
        "seconds per step": MetadataValue.json({name: round(value, 3) for name, value in batch.steps.items()}),
    }
    if batch.paths:
        found["where"] = MetadataValue.text(_places(batch))
    return found


def _offsets(batch: Batch) -> list[TableRecord]:
    ends = batch.look.end_offsets()
    return [
        TableRecord(
            {
                "topic": item.at.topic,
                "partition": item.at.partition,
                "start": item.start,
                "end": item.end,
                "messages": count,
                "lag": max(0, ends.get((item.at.topic, item.at.partition), item.end) - item.end),
            }
        )
        for item, count in list(zip(batch.ranges, batch.messages_by_range, strict=True))[:_MAX_ROWS]
    ]


def _types(batch: Batch) -> list[TableRecord]:
    """The most frequent types; what is left of them in one row."""
    ordered = sorted(batch.types.items(), key=lambda item: (-item[1], item[0]))
    rows = [TableRecord({"type": name, "messages": count}) for name, count in ordered[:_MAX_TYPES]]
    if rest := ordered[_MAX_TYPES:]:
        rows.append(TableRecord({"type": f"{len(rest):,} more types", "messages": sum(count for _, count in rest)}))
    return rows


def _gaps(batch: Batch) -> dict[str, MetadataValue]:
    if not batch.gaps:
        return {}
    return {"gaps": MetadataValue.table([gap_row(gap, "now") for gap in batch.gaps[:_MAX_ROWS]], schema=GAPS)}


def _ages(batch: Batch) -> dict[str, MetadataValue]:
    """How far behind the archive was in seconds, and how old its newest message was when it was committed."""
    ages = {"lag seconds": summary.lag_seconds(batch), "freshness seconds": summary.freshness_seconds(batch)}
    return {name: MetadataValue.float(round(age, 1)) for name, age in ages.items() if age is not None}


def _places(batch: Batch) -> str:
    """Folders of the hours, with how many of the named files lie in each; below the archive."""
    folders: dict[str, int] = {}
    for path in batch.paths:
        folder = path.rpartition("/")[0]
        folders[folder] = folders.get(folder, 0) + 1
    more = [f"and {batch.files - len(batch.paths):,} more files"] if batch.files > len(batch.paths) else []
    return ", ".join([*(f"{folder}/ ({count})" for folder, count in folders.items()), *more])


def _topics(batch: Batch) -> dict[str, Mapping[str, MetadataValue]]:
    """End offsets and lag of each topic of the batch, summed over its partitions."""
    reached = {(item.at.topic, item.at.partition): item.end for item in batch.ranges}
    taken: dict[str, int] = {}
    for item, count in zip(batch.ranges, batch.messages_by_range, strict=True):
        taken[item.at.topic] = taken.get(item.at.topic, 0) + count
    found: dict[str, Mapping[str, MetadataValue]] = {}
    for state in batch.look.topics:
        mine = {number: reached[state.topic, number] for number in state.partitions if (state.topic, number) in reached}
        if mine:
            found[state.topic] = {
                "lag": MetadataValue.int(sum(max(0, state.partitions[n].end - next_) for n, next_ in mine.items())),
                "messages": MetadataValue.int(taken[state.topic]),
                "end offset": MetadataValue.int(sum(marks.end for marks in state.partitions.values())),
                "partitions": MetadataValue.int(len(state.partitions)),
                "topic id": MetadataValue.text(state.topic_id),
            }
    return found
