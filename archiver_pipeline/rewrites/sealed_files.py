"""Sealed files: the messages of an hour in order, type by type, as few Parquet files of a good size."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from archiver_pipeline import envelope
from archiver_pipeline.hours import TARGET_BYTES, Hour
from archiver_pipeline.rewrites.sample import Sample
from archiver_pipeline.rewrites.sorted_file import SortedFile
from archiver_pipeline.table.attempt import Attempt
from archiver_pipeline.view import hour_fields

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_LARGEST_BYTES = 2 * TARGET_BYTES
_WAITING_BYTES = 64 * 1024**2
"""So much of all types together waits in memory for row groups; then the type that has most is written."""

_SAMPLE_BYTES = 32 * 1024**2
"""The fields of so much of all types together are reported; of more, those of an evenly spread sample."""

_NO_FIELDS = frozenset({envelope.MALFORMED, envelope.TOMBSTONE, envelope.ERASED})


@dataclass(frozen=True)
class Expected:
    """What a type will have: messages, about how many bytes on disk, and since when it is archived (ms since 1970)."""

    messages: int
    bytes: int
    added: int | None = None


@dataclass
class _OpenType:
    """A type that is being written: its present file, and the sample for the report on its fields."""

    expected: Expected
    rows_per_file: int
    sample: Sample
    file: SortedFile | None = None
    rows: int = 0


class SealedWriter:
    """Writes the messages of an hour as files of an attempt.

    Attributes:
        files, bytes, messages: what has been written.
    """

    def __init__(self, attempt: Attempt, hour: Hour, expected: Mapping[str, Expected]) -> None:
        """Begin with what each type is expected to have; types that are not named there are not taken."""
        self.files = self.bytes = self.messages = 0
        self._attempt = attempt
        self._hour = hour
        share = _SAMPLE_BYTES // max(1, len(expected))
        self._open = {name: _OpenType(each, _rows_per_file(each), Sample(share)) for name, each in expected.items()}
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._started = 0

    def add(self, type_name: str, table: pa.Table) -> None:
        """Take the next messages of a type as `SortedFile.add` does."""
        state = self._open[type_name]
        state.sample.add(table)
        state.rows += table.num_rows
        while table.num_rows:
            if state.file is None:
                state.file = SortedFile(self._attempt.staging.scratch / f"{self._started}.parquet")
                self._started += 1
            part = table[: state.rows_per_file - state.file.rows]
            table = table[part.num_rows :]
            state.file.add(part)
            if state.file.rows >= state.rows_per_file or state.file.bytes >= _LARGEST_BYTES:
                # The last one is kept open, for the report goes into its footer.
                self._finish(type_name, state, last=state.rows - table.num_rows >= state.expected.messages)
        self._relieve()

    def close(self) -> None:
        """Write what is left."""
        for type_name, state in self._open.items():
            if state.file is not None:
                self._finish(type_name, state, last=True)
        if self._connection is not None:
            self._connection.close()

    def abandon(self) -> None:
        """Let go of everything; what was written is of no use."""
        for state in self._open.values():
            if state.file is not None:
                state.file.abandon()
        if self._connection is not None:
            self._connection.close()

    def _finish(self, type_name: str, state: _OpenType, *, last: bool) -> None:
        file, state.file = state.file, None
        assert file is not None
        report = {hour_fields.KEY: self._report(type_name, state)} if last and type_name not in _NO_FIELDS else {}
        stats = file.close(report)
        values = {"type": type_name, "dt": self._hour.dt, "hr": self._hour.hr}
        staged = self._attempt.take(file.path, values, stats, state.expected.added)
        self.files, self.bytes, self.messages = self.files + 1, self.bytes + staged.size, self.messages + file.rows

    def _report(self, type_name: str, state: _OpenType) -> str:
        import duckdb

        if self._connection is None:
            threads = min(2, os.cpu_count() or 1)
            scratch = str(self._attempt.staging.scratch)
            self._connection = duckdb.connect(
                config={"threads": threads, "memory_limit": "300MB", "temp_directory": scratch}
            )
        self._connection.register("sampled", state.sample.table())
        try:
            return hour_fields.report(self._connection, "SELECT * FROM sampled", state.rows)
        finally:
            self._connection.unregister("sampled")

    def _relieve(self) -> None:
        """Write out the fullest type where all of them together hold too much."""
        waiting = {name: state.file.waiting_bytes for name, state in self._open.items() if state.file is not None}
        if len(waiting) > 1 and sum(waiting.values()) >= _WAITING_BYTES:
            fullest = self._open[max(waiting, key=lambda name: waiting[name])].file
            assert fullest is not None
            fullest.flush()


def _rows_per_file(expected: Expected) -> int:
    files = max(1, round(expected.bytes / TARGET_BYTES))
    return max(1, -(-expected.messages // files))
