"""Messages put in order on their way to a sealed file: a block at a time as they come, or all of them before."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, cast

from archiver_pipeline.hours import MiB
from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.stored.parquet import frame_schema, size_of, table_of
from archiver_pipeline.stored.runs import ORDER, PLACE, Runs, merged

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

_BLOCK_BYTES = 128 * MiB
_PARTED_BYTES = 4 * MiB
"""So much is parted at once, not a whole block: in the processor's cache that is several times as fast."""

_SMALL_PIECE_BYTES = 64 * 1024
"""Smaller pieces of a topic partition are put together: with very many partitions they would cost most of the time."""


class OutOfOrder(Exception):
    """Messages came that belong before others that are written: all of them have to be sorted first."""


def in_blocks(tables: Iterable[pa.Table], block_bytes: int = _BLOCK_BYTES) -> Generator[pa.Table]:
    """Sort messages that come nearly in order, as many at a time as memory is to hold.

    Yields tables of one topic partition each, block by block in their order. All that a topic partition has comes in
    the order of its offsets, from block to block, too.

    Args:
        tables: of `parquet.table_schema`.
        block_bytes: so large is a block in memory.

    Raises:
        OutOfOrder: messages belong before a block that was handed out.
    """
    block: defaultdict[TopicPartition, list[pa.Table]] = defaultdict(list)
    reached: dict[TopicPartition, int] = {}
    size = 0
    for table in _gathered(tables, min(_PARTED_BYTES, block_bytes)):
        for at, part in _parted(table):
            block[at].append(part)
        size += size_of(table)
        if size >= block_bytes:
            yield from _written(block, reached)
            block.clear()
            size = 0
    yield from _written(block, reached)


def sorted_before(tables: Iterable[pa.Table], folder: Path) -> Generator[pa.Table]:
    """Sort messages in any order, all of them before the first is handed out.

    Args:
        tables: of `parquet.table_schema`.
        folder: where to keep what does not fit into memory; it goes in the end.
    """
    import polars as pl

    runs = Runs(folder)
    try:
        for table in tables:
            runs.add(cast("pl.DataFrame", pl.from_arrow(table)).cast(frame_schema()))  # type: ignore[arg-type]
        runs.close()
        yield from map(table_of, merged(runs))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _gathered(tables: Iterable[pa.Table], enough: int) -> Iterator[pa.Table]:
    """Put small tables together: each one that is parted costs some time, however small it is."""
    import pyarrow as pa

    waiting: list[pa.Table] = []
    size = 0
    for table in tables:
        waiting.append(table)
        size += size_of(table)
        if size >= enough:
            yield pa.concat_tables(waiting).unify_dictionaries()
            waiting, size = [], 0
    if waiting:
        yield pa.concat_tables(waiting).unify_dictionaries()


def _parted(table: pa.Table) -> Iterator[tuple[TopicPartition, pa.Table]]:
    """The messages of each topic partition, in the order of their offsets."""
    import polars as pl

    names, row = pl.col("topic", "topic_id"), pl.col("row")
    places = (
        pl.DataFrame(table.select(ORDER))
        .with_row_index("row")
        .group_by(PLACE)
        .agg(row.sort_by("offset", maintain_order=True))
        .with_columns(names.cast(pl.String))
    )
    parted = table.take(places["row"].explode().to_arrow())
    start = 0
    for *place, rows in places.with_columns(row.list.len()).iter_rows():
        yield TopicPartition(*place), parted[start : start + rows]
        start += rows


def _written(block: Mapping[TopicPartition, list[pa.Table]], reached: dict[TopicPartition, int]) -> Iterator[pa.Table]:
    """What a block has of each topic partition; `reached`, the last offsets before it, moves with it."""
    import pyarrow as pa

    for at in sorted(block):
        bounds = [(part["offset"][0].as_py(), part["offset"][-1].as_py()) for part in block[at]]
        first = min(first for first, _ in bounds)
        if first < reached.get(at, first):
            raise OutOfOrder(f"offset {first} of {at} comes after {reached[at]}")
        reached[at] = max(last for _, last in bounds)
        table = pa.concat_tables(block[at]).unify_dictionaries()
        if any(last > first for (_, last), (first, _) in pairwise(bounds)):
            table = table.combine_chunks().sort_by("offset")
        elif size_of(block[at][0]) < _SMALL_PIECE_BYTES:
            table = table.combine_chunks()
        yield table
