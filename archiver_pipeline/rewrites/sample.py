"""A sample of the messages of a type, few and small enough for memory however many and large they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from archiver_pipeline.stored.parquet import size_of

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

SAMPLE_ROWS = 200_000


class Sample:
    """Times and values of all messages, or of one in so many once they become too many or too large."""

    def __init__(self, most_bytes: int, most_rows: int = SAMPLE_ROWS) -> None:
        """Begin without messages; the first one stays, however large."""
        self._most_bytes, self._most_rows = most_bytes, most_rows
        self._stride = 1
        self._taken = self._rows = self._bytes = 0
        self._parts: list[pa.Table] = []

    def add(self, table: pa.Table) -> None:
        """Take messages, which have `timestamp` and `value`."""
        import polars as pl

        # By a hash, which goes in step with nothing that comes again and again; the first one stays in any case.
        hashes = pl.arange(self._taken, self._taken + table.num_rows, eager=True).hash()
        if not self._taken and len(hashes):
            hashes = hashes.scatter(0, 0)
        self._taken += table.num_rows
        picked = table.select(["timestamp", "value"]).append_column("hash", hashes.to_arrow())
        self._keep(self._thinned(picked))
        while (self._rows > self._most_rows or self._bytes > self._most_bytes) and self._rows > 1:
            self._stride *= 2
            parts, self._parts, self._rows, self._bytes = self._parts, [], 0, 0
            for part in parts:
                self._keep(self._thinned(part))

    def table(self) -> pa.Table:
        """What is in the sample: columns `timestamp` and `value`."""
        import pyarrow as pa

        return pa.concat_tables(self._parts).select(["timestamp", "value"]).combine_chunks()

    def _keep(self, part: pa.Table) -> None:
        if part.num_rows:
            self._parts.append(part)
            self._rows, self._bytes = self._rows + part.num_rows, self._bytes + size_of(part)

    def _thinned(self, part: pa.Table) -> pa.Table:
        import polars as pl

        if self._stride == 1:
            return part
        hashes = cast("pl.Series", pl.from_arrow(part["hash"]))
        return part.filter((hashes % self._stride == 0).to_arrow())
