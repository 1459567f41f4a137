"""Parquet files of the archive: read as frames of bounded size, and written sorted with full statistics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archiver_pipeline.files import COLUMNS
from archiver_pipeline.writer import iso, within_calendar

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa
    from pyarrow.parquet import FileMetaData

_READ_BYTES = 8 * 1024**2
_SMALL_BYTES, _SMALL_FILES = 32 * 1024**2, 200
"""So many files are read in one go, as long as their messages cannot be larger than that, whatever is in them."""

_ROW_GROUP_BYTES, _ROW_GROUP_ROWS = 32 * 1024**2, 122_880
_COMPRESSION_LEVEL = 6
_FEW_VALUES = ["topic", "topic_id", "partition", "timestamp_type", "key", "headers.list.element.key"]
"""Columns whose values repeat, which a dictionary makes small."""


def frames_of(
    path: Path, columns: Sequence[str] = COLUMNS, offsets: tuple[int, int] | None = None
) -> Iterator[pl.DataFrame]:
    """Yield the messages of a file in frames of a few megabytes: the archive's columns, typed as in the table.

    Args:
        path: the file.
        columns: which of its columns.
        offsets: pass over row groups that have no offset in `[start, end)`; others come whole.

    Raises:
        OSError: the file is gone or cannot be read.
        pyarrow.ArrowException: it is no readable Parquet file.
    """
    import polars as pl
    import pyarrow.parquet

    schema = {name: kind for name, kind in frame_schema().items() if name in columns}
    with pyarrow.parquet.ParquetFile(path) as parquet:
        meta = parquet.metadata
        rows = max(1, min(100_000, int(_READ_BYTES * meta.num_rows / max(1, _size(meta)))))
        groups = [number for number in range(meta.num_row_groups) if _may_hold(meta, number, offsets)]
        for batch in parquet.iter_batches(rows, row_groups=groups, columns=list(schema)):
            yield pl.DataFrame(batch).select(list(schema)).cast(schema)  # type: ignore[arg-type]


def _may_hold(meta: FileMetaData, group: int, offsets: tuple[int, int] | None) -> bool:
    """Whether a row group may hold one of these offsets, by its statistics."""
    if offsets is None:
        return True
    index = meta.schema.to_arrow_schema().names.index("offset")
    statistics: Any = meta.row_group(group).column(index).statistics
    if statistics is None or not statistics.has_min_max:
        return True
    return bool(statistics.min < offsets[1] and statistics.max >= offsets[0])


def frames_of_all(paths: Iterable[Path]) -> Iterator[pl.DataFrame]:
    """Yield the messages of files, in order, as `frames_of` does, but small ones many at a time.

    Raises:
        OSError: a file is gone or cannot be read.
        pyarrow.ArrowException: one is no readable Parquet file.
    """
    import pyarrow.parquet

    small: list[Path] = []
    most = 0
    for path in paths:
        meta = pyarrow.parquet.read_metadata(path)
        # A dictionary may hold a value once that every row has.
        size = _size(meta) * max(1, meta.num_rows)
        if small and (most + size > _SMALL_BYTES or len(small) >= _SMALL_FILES):
            yield from _together(small)
            small, most = [], 0
        if size > _SMALL_BYTES:
            yield from frames_of(path)
        else:
            small, most = [*small, path], most + size
    yield from _together(small)


def _together(paths: list[Path]) -> Iterator[pl.DataFrame]:
    """Yield the messages of small files as one frame; one by one where that cannot be done."""
    import polars as pl

    try:
        frame = pl.read_parquet(paths, columns=list(COLUMNS), hive_partitioning=False, glob=False) if paths else None
    except (pl.exceptions.PolarsError, OSError):
        for path in paths:
            yield from frames_of(path)
        return
    if frame is not None and frame.height:
        yield frame.cast(frame_schema())  # type: ignore[arg-type]


def _size(meta: FileMetaData) -> int:
    """The bytes of a file's messages, not compressed but with repeated values as a dictionary has them."""
    return sum(meta.row_group(number).total_byte_size for number in range(meta.num_row_groups))


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


def _arrow_schema() -> pa.Schema:
    import pyarrow as pa

    header = pa.struct([("key", pa.string()), ("value", pa.binary())])
    text, binary = pa.string(), pa.binary()
    kinds = [text, text, pa.int32(), pa.int64(), pa.timestamp("us", "UTC"), text, binary, text, binary]
    return pa.schema(list(zip(COLUMNS, [*kinds, pa.list_(header)], strict=True)))


class SortedFile:
    """A Parquet file that sorted messages are written to, row group by row group.

    Attributes:
        path: where it is written.
        rows: messages taken.
        waiting_bytes: about how many bytes wait for their row group.
        bytes: its size on disk so far.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self.path = path
        self.rows = self.waiting_bytes = 0
        self._waiting: list[pl.DataFrame] = []
        self._summaries: list[pl.DataFrame] = []
        self._schema = _arrow_schema()
        self._sink = open(path, "wb")  # noqa: SIM115, it outlasts this function
        self._writer = pq.ParquetWriter(
            self._sink,
            self._schema,
            compression="zstd",
            compression_level=_COMPRESSION_LEVEL,
            use_dictionary=_FEW_VALUES,
            write_page_index=True,
            store_schema=False,
            sorting_columns=[pq.SortingColumn(index) for index in range(4)],
        )

    @property
    def bytes(self) -> int:
        """Its size on disk so far."""
        return self._sink.tell()

    def add(self, frame: pl.DataFrame) -> None:
        """Take the next messages."""
        self.rows += frame.height
        self._waiting.append(frame)
        self.waiting_bytes += int(frame.estimated_size())
        if self.waiting_bytes >= _ROW_GROUP_BYTES or sum(part.height for part in self._waiting) >= _ROW_GROUP_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what waits as a row group."""
        import polars as pl

        if not self._waiting:
            return
        frame = pl.concat(self._waiting).select(COLUMNS)
        self._waiting, self.waiting_bytes = [], 0
        self._summaries.append(_summary(frame))
        table = frame.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(self._schema)
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))

    def close(self, metadata: Mapping[str, str]) -> dict[str, Any]:
        """End the file with entries of `metadata` in its footer; return its statistics as Delta has them."""
        try:
            self.flush()
            self._writer.add_key_value_metadata(dict(metadata))
            self._writer.close()
            self._sink.close()
        except BaseException:
            self.abandon()
            raise
        return _statistics(self._summaries, self.rows)

    def abandon(self) -> None:
        """Let go of the file, which is of no use any more."""
        for each in (self._writer, self._sink):
            # Closing writes what is left: the disk that refused it before refuses it again.
            with suppress(Exception):
                each.close()


_BOUNDED = ("topic", "topic_id", "partition", "offset", "timestamp")
_NULLABLE = ("key", "value", "value_bytes")


def _summary(frame: pl.DataFrame) -> pl.DataFrame:
    """The bounds and null counts of some messages, one row; of the timestamp in milliseconds."""
    import polars as pl

    bounds = [*(pl.col(name) for name in _BOUNDED[:-1]), (pl.col("timestamp").cast(pl.Int64) // 1000)]
    return frame.select(
        *(each.min().name.prefix("min_") for each in bounds),
        *(each.max().name.prefix("max_") for each in bounds),
        *(pl.col(name).null_count().cast(pl.Int64).name.prefix("null_") for name in _NULLABLE),
        timed=within_calendar(pl.col("timestamp")).fill_null(False).all(),
    )


def _statistics(summaries: list[pl.DataFrame], rows: int) -> dict[str, Any]:
    """Per-file statistics (Delta protocol, "Per-file Statistics")."""
    import polars as pl

    every = pl.concat(summaries)
    low = {name: every[f"min_{name}"].min() for name in _BOUNDED}
    high = {name: every[f"max_{name}"].max() for name in _BOUNDED}
    if every["timed"].all():
        low["timestamp"], high["timestamp"] = iso(low["timestamp"]), iso(high["timestamp"])
    else:
        del low["timestamp"], high["timestamp"]
    nulls = {name: int(every[f"null_{name}"].sum()) for name in _NULLABLE}
    return {"numRecords": rows, "minValues": low, "maxValues": high, "nullCount": nulls}
