"""Which files have messages of which offsets: looked up in the files once, and asked for stretch after stretch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.stored.parquet import Ranges

if TYPE_CHECKING:
    import polars as pl


class Holdings:
    """What files have of each topic partition."""

    def __init__(self, offsets_in: Callable[[str], Ranges]) -> None:
        """Know of no file yet.

        Args:
            offsets_in: finds out what a file has, by its path.
        """
        import polars as pl

        self._offsets_in = offsets_in
        self._places: dict[TopicPartition, int] = {}
        self._files: dict[str, int] = {}
        # A row for each file and partition: of a year of hours these may be millions.
        schema = {"file": pl.Int32, "place": pl.Int32, "first": pl.Int64, "past": pl.Int64}
        self._rows: pl.DataFrame = pl.DataFrame(schema=schema)

    def of(self, paths: Sequence[str], ranges: Ranges) -> list[str]:
        """Those of the paths, in their order, whose files have messages about these offsets."""
        import polars as pl

        self._look_up([path for path in paths if path not in self._files])
        numbers = [(self._places[at], *item) for at, item in ranges.items() if at in self._places]
        schema = {"place": pl.Int32, "low": pl.Int64, "high": pl.Int64}
        wanted = pl.DataFrame(numbers, schema=schema, orient="row")
        there = self._rows.join(wanted, on="place").filter(
            pl.col("first") < pl.col("high"), pl.col("past") > pl.col("low")
        )
        hits = set(there["file"])
        return [path for path in paths if self._files[path] in hits]

    def _look_up(self, paths: Sequence[str]) -> None:
        import polars as pl

        rows = []
        for path in paths:
            found = self._offsets_in(path)
            number = self._files.setdefault(path, len(self._files))
            for at, (first, past) in found.items():
                rows.append((number, self._places.setdefault(at, len(self._places)), first, past))
        if rows:
            self._rows = pl.concat([self._rows, pl.DataFrame(rows, schema=self._rows.schema, orient="row")])
