"""Parquet files of the archive: read as frames of bounded size, and what their statistics say of offsets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.stored.files import COLUMNS
from archiver_pipeline.stored.runs import ORDER, PLACE

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa
    from pyarrow.parquet import ColumnChunkMetaData, FileMetaData, ParquetFile, RowGroupMetaData

Ranges = Mapping[TopicPartition, tuple[int, int]]
"""Offsets `[start, end)` per topic partition."""

_READ_BYTES = 8 * 1024**2
_SAMPLE_ROWS = 16
_SMALL_BYTES, _SMALL_FILES = 32 * 1024**2, 200
"""What cannot be larger than that, whatever is in it, is read without looking first; so many files in one go."""

_REPEATED = ["topic", "topic_id", "timestamp_type"]
"""Columns whose values are the same for thousands of messages: as dictionaries they cost next to nothing."""


def frames_of(path: Path, columns: Sequence[str] = COLUMNS, ranges: Ranges | None = None) -> Iterator[pl.DataFrame]:
    """Yield the messages of a file in frames of a few megabytes: the archive's columns, typed as in the table.

    Args:
        path: the file.
        columns: which of its columns.
        ranges: pass over row groups that have none of these offsets; others come whole.

    Raises:
        OSError: the file is gone or cannot be read.
        pyarrow.ArrowException: it is no readable Parquet file.
    """
    import polars as pl
    import pyarrow.parquet

    schema = {name: kind for name, kind in frame_schema().items() if name in columns}
    with pyarrow.parquet.ParquetFile(path) as parquet:
        for batch in _batches(parquet, list(schema), ranges, threads=True):
            yield pl.DataFrame(batch).select(list(schema)).cast(schema)  # type: ignore[arg-type]


def tables_of(path: Path) -> Iterator[pa.Table]:
    """Yield the messages of a file as `frames_of` does, but as tables of `table_schema`. It raises the same."""
    import pyarrow as pa
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path, read_dictionary=_REPEATED) as parquet:
        # Others compress meanwhile: more threads would be in their way.
        for batch in _batches(parquet, list(COLUMNS), None, threads=False):
            yield pa.Table.from_batches([batch]).select(COLUMNS).cast(table_schema())


def tables_of_all(files: Iterable[AbstractContextManager[Path]]) -> Iterator[pa.Table]:
    """Yield the messages of files, in order, as `tables_of` does, but small ones many at a time. It raises the same."""
    import pyarrow.parquet

    small: list[Path] = []
    most = 0
    with ExitStack() as held:
        for file in files:
            own = ExitStack()
            path = own.enter_context(file)
            meta = pyarrow.parquet.read_metadata(path)
            size = sum(_at_most(meta.row_group(number)) for number in range(meta.num_row_groups))
            if small and (most + size > _SMALL_BYTES or len(small) >= _SMALL_FILES):
                yield from _together(small)
                small, most = [], 0
                held.close()
            if size > _SMALL_BYTES:
                with own:
                    yield from tables_of(path)
            else:
                held.enter_context(own)
                small, most = [*small, path], most + size
        yield from _together(small)


def _together(paths: list[Path]) -> Iterator[pa.Table]:
    """Yield the messages of small files as one table; one by one where that cannot be done."""
    import polars as pl

    try:
        frame = pl.read_parquet(paths, columns=list(COLUMNS), hive_partitioning=False, glob=False) if paths else None
    except (pl.exceptions.PolarsError, OSError):
        for path in paths:
            yield from tables_of(path)
        return
    if frame is not None and frame.height:
        yield table_of(frame.cast(frame_schema()))  # type: ignore[arg-type]


def _batches(
    parquet: ParquetFile, columns: list[str], ranges: Ranges | None, *, threads: bool
) -> Iterator[pa.RecordBatch]:
    meta = parquet.metadata
    groups = [number for number in range(meta.num_row_groups) if ranges is None or _may_hold(meta, number, ranges)]
    for group in groups:
        # One by one: sorted messages of one partition may be a thousand times as large as those of the next.
        rows = _rows_at_once(parquet, group, columns)
        yield from parquet.iter_batches(rows, row_groups=[group], columns=columns, use_threads=threads)


def _rows_at_once(parquet: ParquetFile, group: int, columns: list[str]) -> int:
    """How many rows of a row group a frame of a few megabytes has."""
    meta = parquet.metadata.row_group(group)
    size = max(1, meta.total_byte_size)
    rows = int(max(1, min(100_000, meta.num_rows, _READ_BYTES * meta.num_rows // size)))
    if _at_most(meta) <= _SMALL_BYTES:
        return rows
    first = next(parquet.iter_batches(_SAMPLE_ROWS, row_groups=[group], columns=columns), None)
    return rows if first is None else max(1, min(rows, int(_READ_BYTES * first.num_rows / max(1, first.nbytes))))


def _at_most(group: RowGroupMetaData) -> int:
    """How large the messages of a row group may be, at most."""
    columns = [group.column(number) for number in range(group.num_columns)]
    return sum(
        column.total_uncompressed_size * (column.num_values if _may_repeat(column) else 1)
        if column.physical_type == "BYTE_ARRAY"
        else 8 * column.num_values
        for column in columns
    )


def _may_repeat(column: ColumnChunkMetaData) -> bool:
    """Whether a column may hold a value once that every row has: in a dictionary, or as what others begin with."""
    return column.has_dictionary_page or "DELTA_BYTE_ARRAY" in column.encodings


def offsets_in(path: Path) -> Ranges:
    """The offsets `[first, last + 1)` between which a file has messages of each topic partition.

    Row groups of one partition are known by their statistics, others are read.

    Raises:
        OSError: the file is gone or cannot be read.
        pyarrow.ArrowException: it is no readable Parquet file.
    """
    import polars as pl
    import pyarrow.parquet

    rows: list[tuple[Any, ...]] = []
    mixed: list[int] = []
    with pyarrow.parquet.ParquetFile(path) as parquet:
        for number in range(parquet.num_row_groups):
            bounds = _bounds(parquet.metadata, number)
            if bounds is None or any(low != high for low, high in bounds[:-1]):
                mixed.append(number)
            else:
                rows.append((*(low for low, _ in bounds[:-1]), *bounds[-1]))
        for batch in parquet.iter_batches(1_000_000, row_groups=mixed, columns=list(ORDER)) if mixed else ():
            offset = pl.col("offset")
            found = pl.DataFrame(batch).group_by(PLACE).agg(offset.min(), offset.max().alias("last"))
            rows += found.rows()
    ranges: dict[TopicPartition, tuple[int, int]] = {}
    for *place, first, last in rows:
        at = TopicPartition(*place)
        low, high = ranges.get(at, (first, last + 1))
        ranges[at] = (min(low, first), max(high, last + 1))
    return ranges


def _may_hold(meta: FileMetaData, group: int, ranges: Ranges) -> bool:
    """Whether a row group may hold one of these offsets, by its statistics."""
    bounds = _bounds(meta, group)
    if bounds is None:
        return True
    *place, (first, last) = bounds
    return any(
        start <= last
        and first < end
        and all(low <= each <= high for each, (low, high) in zip(astuple(at), place, strict=True))
        for at, (start, end) in ranges.items()
    )


def _bounds(meta: FileMetaData, group: int) -> list[tuple[Any, Any]] | None:
    """The least and the greatest of topic, topic id, partition and offset in a row group; None if unknown."""
    names = meta.schema.to_arrow_schema().names
    bounds = []
    for name in ORDER:
        statistics: Any = meta.row_group(group).column(names.index(name)).statistics
        if statistics is None or not statistics.has_min_max:
            return None
        bounds.append((statistics.min, statistics.max))
    return bounds


def frame_schema() -> dict[str, Any]:
    """The archive's columns but for the partition columns, as Polars types them."""
    import polars as pl

    return {
        "topic": pl.String(),
        "topic_id": pl.String(),
        "partition": pl.Int32(),
        "offset": pl.Int64(),
        "timestamp": pl.Datetime("us", "UTC"),
        "timestamp_type": pl.String(),
        "key": pl.Binary(),
        "value": pl.String(),
        "value_bytes": pl.Binary(),
        "headers": pl.List(pl.Struct({"key": pl.String(), "value": pl.Binary()})),
    }


def table_schema() -> pa.Schema:
    """The same as Arrow types them; a dictionary is but another way to hold a text."""
    import pyarrow as pa

    text, binary, few = pa.string(), pa.binary(), pa.dictionary(pa.int32(), pa.string())
    kinds: list[Any] = [few, few, pa.int32(), pa.int64(), pa.timestamp("us", "UTC"), few, binary, text, binary]
    header = pa.struct([("key", text), ("value", binary)])
    return pa.schema(list(zip(COLUMNS, [*kinds, pa.list_(header)], strict=True)))


def size_of(table: pa.Table) -> int:
    """The bytes of messages in memory; dictionaries, which many tables share, do not count."""
    import pyarrow as pa

    return sum(int(column.nbytes) for column in table.columns if not pa.types.is_dictionary(column.type))


def table_of(frame: pl.DataFrame) -> pa.Table:
    """Turn a frame with the archive's columns, and others that are left out, into a table of `table_schema`."""
    import polars as pl

    return frame.select(COLUMNS).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(table_schema())
