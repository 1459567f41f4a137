"""A Parquet file whose row groups are sorted, written one after the other with full statistics."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archiver_pipeline import envelope
from archiver_pipeline.batch.writer import iso
from archiver_pipeline.stored.files import COLUMNS
from archiver_pipeline.stored.parquet import size_of, table_schema
from archiver_pipeline.stored.runs import ORDER

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow.parquet import FileMetaData

_ROW_GROUP_BYTES, _ROW_GROUP_ROWS = 32 * 1024**2, 122_880
_OWN = 4
"""A topic partition has a row group of its own from a quarter of a full one on; with less it has neighbours in it."""

_PAGE_BYTES = 4 * 1024**2
_COMPRESSION_LEVEL = 1
"""Larger pages make more of a file than higher levels, which take up to five times as long."""

_FEW_VALUES = ["topic", "topic_id", "partition", "timestamp_type", "headers.list.element.key"]
"""Columns whose values repeat, which a dictionary makes small."""

_ENCODINGS = {"offset": "DELTA_BINARY_PACKED", "timestamp": "DELTA_BINARY_PACKED", "key": "DELTA_BYTE_ARRAY"}
"""Numbers in order are small as differences (Parquet format); so are keys, which as a rule begin alike."""


class SortedFile:
    """A Parquet file whose row groups are sorted by topic, topic id, partition and offset.

    Over the whole file the messages of each topic partition lie in the order of their offsets, as they have to come.

    Attributes:
        path: where it is written.
        rows: messages taken.
        waiting_bytes: about how many bytes wait for their row group.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self.path = path
        self.rows = self.waiting_bytes = self._waiting_rows = 0
        self._waiting: list[pa.Table] = []
        self._last: tuple[Any, ...] = ()
        self._sink = open(path, "wb")  # noqa: SIM115, it outlasts this function
        self._writer = pq.ParquetWriter(
            self._sink,
            table_schema(),
            compression="zstd",
            compression_level=_COMPRESSION_LEVEL,
            use_dictionary=_FEW_VALUES,
            column_encoding=_ENCODINGS,
            data_page_size=_PAGE_BYTES,
            write_page_index=True,
            store_schema=False,
            sorting_columns=[pq.SortingColumn(index) for index in range(len(ORDER))],
        )

    @property
    def bytes(self) -> int:
        """Its size on disk so far."""
        return self._sink.tell()

    def add(self, table: pa.Table) -> None:
        """Take the next messages: of `parquet.table_schema`, sorted, and none before what its partition has."""
        first, last = _identity(table, 0), _identity(table, -1)
        if first < self._last or (first[:-1] != self._last[:-1] and self._fill() * _OWN >= 1):
            self.flush()
        self._last = last
        self.rows += table.num_rows
        self._waiting.append(table)
        self.waiting_bytes += size_of(table)
        self._waiting_rows += table.num_rows
        if self._fill() >= 1:
            self.flush()

    def _fill(self) -> float:
        """How many row groups that waits would fill."""
        return max(self.waiting_bytes / _ROW_GROUP_BYTES, self._waiting_rows / _ROW_GROUP_ROWS)

    def flush(self) -> None:
        """Write what waits, as row groups of the same number of messages."""
        import pyarrow as pa

        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting).unify_dictionaries()
        count = max(1, round(self._fill()))
        self._waiting, self.waiting_bytes, self._waiting_rows = [], 0, 0
        self._writer.write_table(table, row_group_size=-(-table.num_rows // count))

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
        return _statistics(self._writer.writer.metadata)

    def abandon(self) -> None:
        """Let go of the file, which is of no use any more."""
        for each in (self._writer, self._sink):
            # Closing writes what is left: the disk that refused it before refuses it again.
            with suppress(Exception):
                each.close()


def _identity(table: pa.Table, row: int) -> tuple[Any, ...]:
    """Topic, topic id, partition and offset of a message."""
    return tuple(table[name][row].as_py() for name in ORDER)


_BOUNDED = ("topic", "topic_id", "partition", "offset")
_NULLABLE = ("key", "value", "value_bytes")


def _statistics(footer: FileMetaData) -> dict[str, Any]:
    """Per-file statistics (Delta protocol, "Per-file Statistics"), from those of the row groups."""
    groups = [footer.row_group(number) for number in range(footer.num_row_groups)]
    columns = {name: [group.column(index).statistics for group in groups] for index, name in enumerate(COLUMNS[:-1])}
    low: dict[str, Any] = {name: min(each.min for each in columns[name]) for name in _BOUNDED}
    high: dict[str, Any] = {name: max(each.max for each in columns[name]) for name in _BOUNDED}
    times = columns["timestamp"]
    if all(each.has_min_max and not each.null_count for each in times):
        first, last = min(each.min_raw for each in times) // 1000, max(each.max_raw for each in times) // 1000
        # Years before 1 and after 9999, which no ISO time holds, are left without statistics.
        if first >= envelope.FIRST_MS and last <= envelope.LAST_MS:
            low["timestamp"], high["timestamp"] = iso(first), iso(last)
    nulls = {name: sum(each.null_count for each in columns[name]) for name in _NULLABLE}
    return {"numRecords": footer.num_rows, "minValues": low, "maxValues": high, "nullCount": nulls}
