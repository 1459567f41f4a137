"""The rows of all files together: none twice, none outside of what the ledger has, as many as the ledger counts."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.storage.base import Storage
from archiver_pipeline.stored.files import RESTORE, Fault, OnProgress, SoundFile
from archiver_pipeline.table.ledger import Ledger

if TYPE_CHECKING:
    import duckdb

_WINDOW_MESSAGES = 5_000_000
"""About so many rows are looked at in one go, so that they fit into the memory limit."""

_MEMORY_LIMIT = "512MB"
_FOREIGN = "Only the archiver may write to the archive: the table's history tells what else did"

_ROWS = """
    SELECT n, "offset", filename, "first", "next", rows.topic, rows.topic_id, rows."partition"
    FROM read_parquet($paths, filename = true, hive_partitioning = false) AS rows
    LEFT JOIN places USING (topic, topic_id, "partition") WHERE "offset" >= $low AND "offset" < $high
"""
_COUNTS = f"""
    SELECT n, count(*), count(DISTINCT "offset"), count(*) FILTER ("offset" < "first" OR "offset" >= "next")
    FROM ({_ROWS}) GROUP BY n
"""
_OUTSIDE = f"""
    SELECT filename, topic, "partition", count(*), min("offset"), max("offset"), any_value("first"), any_value("next")
    FROM ({_ROWS}) WHERE n IS NULL OR "offset" < "first" OR "offset" >= "next" GROUP BY ALL ORDER BY ALL
"""
_DOUBLED = f"""
    WITH found AS MATERIALIZED (
        SELECT n, "offset" FROM ({_ROWS}) WHERE n IS NOT NULL GROUP BY ALL HAVING count(*) > 1
    ), named AS (
        SELECT topic, "partition", "offset", list_sort(list(filename)) AS files
        FROM ({_ROWS}) AS rows SEMI JOIN found USING (n, "offset") GROUP BY topic, topic_id, "partition", "offset"
    )
    SELECT files, topic, "partition", count(*), min("offset"), max("offset") FROM named GROUP BY ALL ORDER BY ALL
"""
_IN_GAPS = f"""
    SELECT filename, rows.topic, rows."partition", count(*), min("offset"), max("offset"), "start", "end"
    FROM ({_ROWS}) AS rows JOIN gaps ON rows.n = gaps.n AND "offset" >= "start" AND "offset" < "end"
    GROUP BY ALL ORDER BY ALL
"""


@dataclass(frozen=True)
class Window:
    """Files that may hold the offsets `[low, high)`, whatever the topic partition."""

    low: int
    high: int
    files: tuple[SoundFile, ...]


def windows(files: Sequence[SoundFile], messages: int = _WINDOW_MESSAGES) -> list[Window]:
    """Cut all offsets into stretches of about so many messages, so that an offset and its double fall into one."""
    cuts, count = [0], 0
    for file in sorted(files, key=lambda file: file.last):
        if count >= messages and file.last > cuts[-1]:
            cuts.append(file.last)
            count = 0
        count += file.messages
    found = []
    for low, high in zip(cuts, [*cuts[1:], 2**63 - 1], strict=True):
        chosen = tuple(file for file in files if file.first < high and file.last >= low)
        if chosen:
            found.append(Window(low, high, chosen))
    return found


def check_rows(
    storage: Storage, files: Sequence[SoundFile], unread: int, ledger: Ledger, on_progress: OnProgress
) -> Iterator[Fault]:
    """Check the rows of all sound files against each other and against the ledger.

    Args:
        storage: the archive's files.
        files: the files without fault.
        unread: messages in the files that have one: so many may be missing here.
        ledger: what the archive has, as of the same version.
        on_progress: told of the messages looked at.

    Raises:
        duckdb.IOException, FileNotFoundError: a file was removed meanwhile.
        OSError: the object store does not answer.
    """
    places = sorted(ledger.committed)
    found: Counter[int] = Counter()
    done, total = 0, sum(file.messages for file in files)
    with _database(storage, places, ledger) as connection:
        for window in windows(files):
            wanted = {
                "paths": [storage.pattern(file.path) for file in window.files],
                "low": window.low,
                "high": window.high,
            }
            outside = doubled = False
            for n, rows, distinct, strangers in connection.execute(_COUNTS, wanted).fetchall():
                outside |= n is None or strangers > 0
                doubled |= n is not None and rows > distinct
                if n is not None:
                    found[n] += distinct
            if outside:
                yield from map(_outside, connection.execute(_OUTSIDE, wanted).fetchall())
            if doubled:
                yield from map(_doubled, connection.execute(_DOUBLED, wanted).fetchall())
            if any(item.gap.start < window.high and item.gap.end > window.low for item in ledger.gaps):
                yield from map(_in_gap, connection.execute(_IN_GAPS, wanted).fetchall())
            done += sum(file.messages for file in window.files if window.low <= file.last < window.high)
            on_progress("rows", done, total)
    counted = {n: ledger.committed[at].total for n, at in enumerate(places)}
    # What was given up with a file is missing for good, of whichever partition it was.
    known = unread + ledger.given_up
    missing = sum(max(0, count - found[n]) for n, count in counted.items()) > known
    for n, at in enumerate(places):
        yield from _counted(storage.uri, at, found[n], counted[n], missing=missing)


@contextmanager
def _database(
    storage: Storage, places: Sequence[TopicPartition], ledger: Ledger
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database in memory, bounded and with a place to spill to, with the ledger as tables."""
    import duckdb

    with tempfile.TemporaryDirectory(prefix="archiver-verify-") as spill:
        settings: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": _MEMORY_LIMIT,
            "temp_directory": spill,
            "threads": min(4, os.cpu_count() or 1),
            "preserve_insertion_order": False,
        }
        with duckdb.connect(config=settings) as connection:
            connection.execute("SET enable_progress_bar = false")  # It would be drawn on standard output.
            attached = storage.attach(connection)
            connection.execute(
                'CREATE TABLE places (n INTEGER, topic VARCHAR, topic_id VARCHAR, "partition" INTEGER, "first" BIGINT, '
                '"next" BIGINT); CREATE TABLE gaps (n INTEGER, "start" BIGINT, "end" BIGINT)'
            )
            number = {at: n for n, at in enumerate(places)}
            committed = ledger.committed
            rows: list[list[Any]] = [
                [n, at.topic, at.topic_id, at.partition, committed[at].lowest, committed[at].next]
                for at, n in number.items()
            ]
            if rows:
                connection.executemany("INSERT INTO places VALUES (?, ?, ?, ?, ?, ?)", rows)
            gaps = [[number.get(item.gap.at), item.gap.start, item.gap.end] for item in ledger.gaps]
            if gaps:
                connection.executemany("INSERT INTO gaps VALUES (?, ?, ?)", gaps)
            with attached.told():
                yield connection


def _outside(row: tuple[Any, ...]) -> Fault:
    path, topic, partition, count, low, high, first, end = row
    ledger = "the ledger does not know" if first is None else f"outside of [{first}, {end}), which is archived"
    return Fault("changed", path, f"it holds {_messages(count, topic, partition, low, high)}, {ledger}", _FOREIGN)


def _doubled(row: tuple[Any, ...]) -> Fault:
    files, topic, partition, count, low, high = row
    others = sorted(set(files) - {files[0]})
    where = f"also in {', '.join(others)}" if others else "in it more than once"
    return Fault("doubled", files[0], f"{_messages(count, topic, partition, low, high)} are {where}", _FOREIGN)


def _in_gap(row: tuple[Any, ...]) -> Fault:
    path, topic, partition, count, low, high, start, end = row
    gap = f"which the ledger records as the gap [{start}, {end})"
    return Fault("changed", path, f"it holds {_messages(count, topic, partition, low, high)}, {gap}", _FOREIGN)


def _messages(count: int, topic: str, partition: int, low: int, high: int) -> str:
    offsets = f"offset {low}" if low == high else f"offsets {low} to {high}"
    return f"{count} message{'s' * (count != 1)} of topic {topic}, partition {partition}, {offsets}"


def _counted(archive: str, at: TopicPartition, found: int, counted: int, *, missing: bool) -> Iterator[Fault]:
    """Compare a partition's rows with the ledger's count, where more are `missing` than is known of already."""
    what = f"topic {at.topic}, partition {at.partition} has {found} messages in its files, the ledger counts {counted}"
    if missing and found < counted:
        yield Fault("missing", archive, what, RESTORE)
    elif found > counted:
        yield Fault("changed", archive, what, _FOREIGN)
