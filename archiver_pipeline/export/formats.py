"""The formats of an export: what writes messages to one file of each."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, Protocol

from archiver_pipeline.export.columns import (
    csv_frame,
    empty,
    orc_schema,
    orc_table,
    parquet_schema,
    parquet_table,
    text_frame,
)
from archiver_pipeline.hours import MiB

if TYPE_CHECKING:
    import polars as pl

Format = Literal["jsonl", "csv", "orc", "parquet"]
FORMATS: tuple[Format, ...] = ("jsonl", "csv", "orc", "parquet")
TEXT: tuple[Format, ...] = ("jsonl", "csv")
"""Those that can be compressed from outside, and written to standard output."""

_CHUNK_BYTES = 4 * MiB
"""About so much is made text at once."""

_GROUP_ROWS = 122_880
_FEW_VALUES = ["topic", "topic_id", "partition", "timestamp_type", "headers.list.element.key", "type", "dt", "hr"]


class Writer(Protocol):
    """Writes messages to one file."""

    def write(self, frame: pl.DataFrame) -> None:
        """Write messages: the archive's columns and `type`. Raises OSError."""

    def close(self) -> None:
        """End the file. Raises OSError."""

    def abandon(self) -> None:
        """Let go of the file, which is of no use any more."""


class Lines:
    """Writes text: JSON lines, CSV, or payloads as they are."""

    def __init__(self, sink: IO[bytes], encode: Callable[[pl.DataFrame], bytes], head: bytes = b"") -> None:
        self._sink = sink
        self._encode = encode
        sink.write(head)

    def write(self, frame: pl.DataFrame) -> None:
        """Write messages."""
        for part in _parts(frame):
            self._sink.write(self._encode(part))

    def close(self) -> None:
        """End the file."""
        self._sink.close()

    def abandon(self) -> None:
        """Let go of the file."""
        with suppress(Exception):
            self._sink.close()


class Tables:
    """Writes ORC or Parquet."""

    def __init__(self, writer: Any, table_of: Callable[[pl.DataFrame], Any]) -> None:
        self._writer = writer
        self._table_of = table_of

    def write(self, frame: pl.DataFrame) -> None:
        """Write messages."""
        self._writer.write(self._table_of(frame))

    def close(self) -> None:
        """End the file."""
        self._writer.close()

    def abandon(self) -> None:
        """Let go of the file."""
        with suppress(Exception):
            # Closing writes what is left: the disk that refused it before refuses it again.
            self._writer.close()


def text_writer(kind: Format, sink: IO[bytes], *, payloads: bool, hive: bool) -> Lines:
    """A writer of JSON lines or CSV.

    Args:
        kind: `jsonl` or `csv`.
        sink: where to.
        payloads: the frames have payloads alone, in `value`.
        hive: `type` is in the path.
    """
    if payloads:
        return Lines(sink, _payloads)
    if kind == "jsonl":
        return Lines(sink, lambda frame: _json(text_frame(frame, hive=hive)))
    head = _csv(csv_frame(empty(), hive=hive), header=True)
    return Lines(sink, lambda frame: _csv(csv_frame(frame, hive=hive), header=False), head)


def table_writer(kind: Format, path: Path, *, hive: bool) -> Tables:
    """A writer of ORC or Parquet, both compressed with zstd.

    Args:
        kind: `orc` or `parquet`.
        path: of the file.
        hive: `type`, `dt` and `hr` are in the path.
    """
    if kind == "orc":
        return Tables(_Orc(path, orc_schema(hive=hive)), lambda frame: orc_table(frame, hive=hive))
    import pyarrow.parquet

    schema = parquet_schema(hive=hive)
    few = [name for name in _FEW_VALUES if name.split(".")[0] in schema.names]
    parquet = pyarrow.parquet.ParquetWriter(
        str(path), schema, compression="zstd", use_dictionary=few, store_schema=False, write_page_index=True
    )
    return Tables(_Groups(parquet), lambda frame: parquet_table(frame, hive=hive))


class _Orc:
    """An ORC writer. Arrow's ends the process where the disk refuses the end of a file, so it is not told of that."""

    def __init__(self, path: Path, schema: Any) -> None:
        import pyarrow.orc

        self._sink = _Patient(path)
        self._orc = pyarrow.orc.ORCWriter(self._sink, compression="zstd")
        self.write(schema.empty_table())  # Also a file without any message has its columns.

    def write(self, table: Any) -> None:
        self._orc.write(table)
        self._sink.check()

    def close(self) -> None:
        try:
            self._orc.close()
        finally:
            self._sink.end()


class _Patient:
    """A file that takes all that is written to it, and tells later what went wrong."""

    def __init__(self, path: Path) -> None:
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115, it is closed with this
        self._error: OSError | None = None
        self._at = 0
        self.closed = False

    def write(self, content: bytes) -> int:
        size = len(content)
        self._at += size
        try:
            rest = memoryview(content)
            while self._error is None and rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            self._error = error
        return size

    def tell(self) -> int:
        return self._at

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """It is ended by `end` alone."""

    def check(self) -> None:
        """Raise what went wrong."""
        if self._error is not None:
            raise self._error

    def end(self) -> None:
        """Close the file, and raise what went wrong."""
        self.closed = True
        self._file.close()
        self.check()


class _Groups:
    """A Parquet writer whose row groups are of a good size."""

    def __init__(self, parquet: Any) -> None:
        self._parquet = parquet

    def write(self, table: Any) -> None:
        if table.num_rows:
            self._parquet.write_table(table, row_group_size=_GROUP_ROWS)

    def close(self) -> None:
        self._parquet.close()


def _parts(frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
    size = max(1, frame.estimated_size())
    return frame.iter_slices(max(1, int(frame.height * _CHUNK_BYTES / size)))


def _json(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.write_ndjson(buffer)
    return buffer.getvalue()


def _csv(frame: pl.DataFrame, *, header: bool) -> bytes:
    """RFC 4180. Text is always in quotes, so that nothing between two commas is no text at all."""
    buffer = io.BytesIO()
    frame.write_csv(buffer, include_header=header, line_terminator="\r\n", quote_style="non_numeric")
    return buffer.getvalue()


def _payloads(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.select("value").write_csv(buffer, include_header=False, line_terminator="\n", quote_style="never")
    return buffer.getvalue()
