"""Batches without a broker: payloads go in, files are written and committed as by any run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import deltalake
import polars as pl

from archiver_pipeline.batch.classifier import Classifier
from archiver_pipeline.batch.writer import BatchWriter
from archiver_pipeline.envelope import parse_type_rule
from archiver_pipeline.plan import Committed, Gap, OffsetRange, TopicPartition
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.attempt import Attempt, batch_of
from archiver_pipeline.table.batch_info import BatchInfo
from archiver_pipeline.table.ledger import gap_transaction, offset_transactions

ORDERS = TopicPartition("orders", "A", 0)
HOUR_MS = 3_600_000
AUGUST_FIRST_AT_THREE = 1_564_628_400_000
"""2019-08-01T03:00:00Z in milliseconds."""

HEADERS = pl.List(pl.Struct({"key": pl.String, "value": pl.Binary}))
Headers = Sequence[tuple[str, bytes | None]]


def event(name: object = "object.one", **fields: object) -> bytes:
    """A JSON payload of that type."""
    return json.dumps({"type": name, **fields}).encode()


def raw_frame(
    payloads: Sequence[bytes | None],
    first: int = 0,
    milliseconds: int | Sequence[int] = AUGUST_FIRST_AT_THREE,
    headers: Headers | None = None,
    range_number: int = 0,
) -> pl.DataFrame:
    """Messages as `RangeReader.frames` yields them, with offsets from `first` on."""
    count = len(payloads)
    stamps = [milliseconds] * count if isinstance(milliseconds, int) else list(milliseconds)
    row = [{"key": key, "value": value} for key, value in headers] if headers else None
    return pl.DataFrame(
        {
            "range": pl.Series([range_number] * count, dtype=pl.UInt32),
            "offset": pl.Series(range(first, first + count), dtype=pl.Int64),
            "timestamp_ms": pl.Series(stamps, dtype=pl.Int64),
            "timestamp_type": pl.Series(["create"] * count, dtype=pl.String),
            "key": pl.Series([b"key"] * count, dtype=pl.Binary),
            "payload": pl.Series(payloads, dtype=pl.Binary),
            "headers": pl.Series([row] * count, dtype=HEADERS),
        }
    )


def write(
    attempt: Attempt, payloads: Sequence[bytes | None], first: int, at: TopicPartition = ORDERS, **kinds: object
) -> None:
    """Write the files of a batch and force them to the disk; `kinds` are those of `archive`."""
    rule = parse_type_rule(str(kinds.get("rule", "$.type")))
    stamps = kinds.get("milliseconds", AUGUST_FIRST_AT_THREE)
    headers = kinds.get("headers")
    raw = raw_frame(payloads, first, stamps, headers)  # type: ignore[arg-type]
    writer = BatchWriter(attempt.take, attempt.staging.scratch)
    for frame in Classifier([at], lambda _: rule, attempt.types(), 1000).over([raw]):
        writer.add(frame)
    writer.close()
    attempt.staging.sync()


def place(
    attempt: Attempt, payloads: Sequence[bytes | None], first: int, at: TopicPartition = ORDERS, **kinds: object
) -> None:
    """Write the files of a batch and move them to where readers look."""
    write(attempt, payloads, first, at, **kinds)
    attempt.staging.place()


def commit(
    attempt: Attempt, first: int, end: int, at: TopicPartition = ORDERS, messages: int = 0, gaps: Iterable[Gap] = ()
) -> int:
    """Commit what was placed as the offsets `[first, end)` and return the table's version."""
    known = attempt.ledger.committed.get(at) or Committed(first, first, 0)
    lane = int(attempt.scope.removeprefix("lane"))
    info = BatchInfo("run", lane, (OffsetRange(at, first, end),), messages, 10, len(attempt.files), 0.25)
    offsets = offset_transactions(at, Committed(end, known.first, known.messages + messages))
    return attempt.commit([*offsets, *map(gap_transaction, gaps)], info.metadata())


def archive(
    target: Archive, payloads: Sequence[bytes | None], at: TopicPartition = ORDERS, lane: int = 0, **kinds: object
) -> int:
    """Archive payloads at the next offsets of a partition and return the table's version.

    Args:
        target: the archive.
        payloads: one a message.
        at: the partition.
        lane: the lane.
        kinds: `rule` of the type, `milliseconds` of the messages (one or each), `headers` of all.
    """
    attempt = batch_of(target, lane)
    try:
        known = attempt.ledger.committed.get(at)
        first = known.next if known else 0
        place(attempt, payloads, first, at, **kinds)
        version = commit(attempt, first, first + len(payloads), at, len(payloads))
        attempt.clean()
    except BaseException:
        attempt.discard()
        raise
    return version


def offsets_in(folder: Path) -> list[tuple[str, str, int, int]]:
    """Every message of the table, read by Polars: topic, topic id, partition, offset, in order."""
    if deltalake.DeltaTable(folder).get_add_actions().num_rows == 0:
        return []
    rows = pl.read_delta(str(folder), columns=["topic", "topic_id", "partition", "offset"])
    return sorted(rows.iter_rows())


def files_in(folder: Path) -> set[str]:
    """The Parquet files that lie in the archive, listed or not."""
    return {str(path.relative_to(folder)) for path in folder.glob("type=*/**/*.parquet")}
