"""A Parquet file of sorted messages, written row group by row group with full statistics."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archiver_pipeline.files import COLUMNS
from archiver_pipeline.writer import iso, within_calendar

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

_ROW_GROUP_BYTES, _ROW_GROUP_ROWS = 32 * 1024**2, 122_880
_COMPRESSION_LEVEL = 6
_FEW_VALUES = ["topic", "topic_id", "partition", "timestamp_type", "key", "headers.list.element.key"]
"""Columns whose values repeat, which a dictionary makes small."""
_RISING = dict.fromkeys(("offset", "timestamp"), "DELTA_BINARY_PACKED")
"""Columns that go up by little in sorted messages, of which only the differences are written (Parquet format)."""


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
            column_encoding=_RISING,
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
