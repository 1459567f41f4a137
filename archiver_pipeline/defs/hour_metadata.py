"""An hour as Dagster shows it: what sealing or reading it again did, and the fields of its messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import dagster as dg
from dagster import MetadataValue, TableColumn, TableRecord, TableSchema

from archiver_pipeline.amounts import counted
from archiver_pipeline.hours import Hour
from archiver_pipeline.view.hour_fields import FieldSeen, HourFields, share

if TYPE_CHECKING:
    from archiver_pipeline.rewrites.backfilled import Backfilled
    from archiver_pipeline.rewrites.seal import Sealed

SEALED_HOURS = dg.AssetKey("sealed_hours")

MAX_ROWS = 500
"""So many fields of an hour are shown; the view `fields` has them all."""

_FIELDS = TableSchema(
    columns=[
        TableColumn("type", "string"),
        TableColumn("field", "string"),
        TableColumn("types", "string", description="the JSON types of its values"),
        TableColumn("messages", "int", description="messages of the type that were looked at"),
        TableColumn("present", "int", description="messages that have the field"),
        TableColumn("share", "float", description="of the messages, from 0 to 1"),
        TableColumn("first seen", "string", description="the earliest time of a message that has it"),
        TableColumn("last seen", "string", description="the latest"),
    ]
)


@dataclass(frozen=True)
class Done:
    """What was done to an hour: in one sentence, and in numbers that the UI can plot.

    Attributes:
        hour, sentence, numbers: that.
        is_new: it was done by this run.
    """

    hour: Hour
    sentence: str
    numbers: Mapping[str, MetadataValue]
    is_new: bool = True


def sealed(what: Sealed) -> Done:
    """What sealing did."""
    sentence = (
        f"{what.hour}: {counted(what.files_before, 'file')} of {counted(len(what.types), 'type')} became "
        f"{what.files_after:,}, "
        f"{counted(what.bytes_before, 'byte')} became {what.bytes_after:,}, {counted(what.messages, 'message')}, in "
        f"{what.seconds:.1f} s"
    )
    return Done(
        what.hour,
        sentence,
        {
            **_counts(messages=what.messages, files_before=what.files_before, files_after=what.files_after),
            **_counts(bytes_before=what.bytes_before, bytes_after=what.bytes_after),
            "dagster/partition_row_count": MetadataValue.int(what.messages),
            "seconds": MetadataValue.float(round(what.seconds, 3)),
            "table version": MetadataValue.int(what.version),
        },
    )


def found(hour: Hour, files: int, size: int, messages: int) -> Done:
    """An hour that was sealed without Dagster, or that its database has forgotten."""
    return Done(
        hour,
        f"{hour}: sealed before, {counted(messages, 'message')} in {counted(files, 'file')} of {counted(size, 'byte')}",
        _counts(messages=messages, files_after=files, bytes_after=size),
        is_new=False,
    )


def backfilled(what: Backfilled) -> Done:
    """What reading it again did."""
    numbers: dict[str, MetadataValue] = {
        **_counts(messages=what.messages, files_before=what.files_before, files_after=what.files_after),
        "dagster/partition_row_count": MetadataValue.int(what.messages),
        **_counts(read=what.read, added=what.added, changed=what.changed, kept=what.kept, lost=what.lost),
        **_counts(retyped=what.retyped, mended_files=len(what.mended)),
        "seconds": MetadataValue.float(round(what.seconds, 3)),
    }
    if what.mended:
        numbers["mended"] = MetadataValue.text("\n".join(what.mended[:MAX_ROWS]))
    if what.version is not None:
        numbers["table version"] = MetadataValue.int(what.version)
    return Done(what.hour, what.sentence(), numbers)


def materialization(done: Done, partition: str, types: Mapping[str, HourFields]) -> dg.AssetMaterialization:
    """The materialization of an hour's partition.

    Args:
        done: what was done.
        partition: its key.
        types: the fields of the hour's messages by type.
    """
    rows = [_row(name, fields, item) for name, fields in types.items() for item in fields.fields]
    return dg.AssetMaterialization(
        SEALED_HOURS,
        partition=partition,
        description=done.sentence,
        metadata={**done.numbers, "fields": MetadataValue.table(rows[:MAX_ROWS], schema=_FIELDS)},
    )


def _row(type_name: str, fields: HourFields, item: FieldSeen) -> TableRecord:
    return TableRecord(
        {
            "type": type_name,
            "field": item.field,
            "types": ", ".join(item.kinds),
            "messages": fields.looked_at,
            "present": item.present,
            "share": round(share(item, fields), 4),
            "first seen": _moment(item.first),
            "last seen": _moment(item.last),
        }
    )


def _moment(microseconds: int | None) -> str:
    if microseconds is None:
        return ""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)).isoformat()


def _counts(**numbers: int) -> dict[str, MetadataValue]:
    return {name.replace("_", " "): MetadataValue.int(number) for name, number in numbers.items()}
