"""The messages of one version of the archive, read from its files, each of which is checked before it is believed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from archiver_pipeline.envelope import PARTITION_COLUMNS
from archiver_pipeline.errors import ArchiveDamaged, Superseded
from archiver_pipeline.frames import packed
from archiver_pipeline.hours import Hour, MiB
from archiver_pipeline.storage.bucket_errors import Unreachable
from archiver_pipeline.storage.staging import storage_error
from archiver_pipeline.stored.files import RESTORE, Fault, check_file, listed_files
from archiver_pipeline.stored.holdings import Holdings
from archiver_pipeline.stored.parquet import Ranges, frames_of, offsets_in
from archiver_pipeline.stored.runs import PLACE
from archiver_pipeline.table.archive import Archive

if TYPE_CHECKING:
    import polars as pl

_FRAME_ROWS, _FRAME_BYTES = 50_000, 32 * MiB
"""Frames of small files are put together until they have so many rows, or bytes."""


class Stored:
    """What one version of the archive has.

    Attributes:
        ledger: its ledger.
        files: the frame of `Archive.files`.
    """

    def __init__(self, archive: Archive) -> None:
        """Take a snapshot of the archive, which has to be there."""
        self._archive = archive
        table, self.ledger = archive.snapshot()
        self.files = archive.files(table)
        self._listed = {file.path: file for file in listed_files(self.files)}
        self._sound: set[str] = set()
        self._holdings = Holdings(self._offsets_in)

    def has(self, path: str) -> bool:
        """Whether a file is listed."""
        return path in self._listed

    def of_hours(self, hours: Sequence[Hour], ranges: Ranges | None) -> tuple[str, ...]:
        """The files of hours, or those of them that may hold one of these offsets."""
        import polars as pl

        names = pl.DataFrame({"dt": [hour.dt for hour in hours], "hr": [hour.hr for hour in hours]})
        files = self.files.join(names, on=["dt", "hr"], how="semi")
        return tuple(files.sort("added", "path")["path"]) if ranges is None else self.holding(files, ranges)

    def holding(self, files: pl.DataFrame, ranges: Ranges) -> tuple[str, ...]:
        """Those of the files (rows of `files`) that may hold one of these offsets, the oldest first."""
        import polars as pl

        # The log has one pair of offsets per file, over all of its partitions.
        low = min((start for start, _ in ranges.values()), default=0)
        high = max((end for _, end in ranges.values()), default=0)
        files = files.filter(
            pl.col("last").is_null() | (pl.col("last") >= low), pl.col("first").is_null() | (pl.col("first") < high)
        )
        return tuple(self._holdings.of(files.sort("added", "path")["path"].to_list(), ranges))

    def frames(self, paths: Sequence[str], ranges: Ranges, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Yield the messages of files whose offsets lie in `ranges`, in frames of bounded size.

        Raises:
            Superseded: a rewrite has taken the place of a file; look again at a new snapshot.
            ArchiveDamaged: a file is missing or changed.
        """
        import polars as pl

        wanted = _frame(ranges)
        held: list[pl.DataFrame] = []
        rows, size = 0, 0.0
        stored = [name for name in columns if name not in PARTITION_COLUMNS]
        read = list(dict.fromkeys([*PLACE, "offset", *stored]))
        for path in paths:
            for frame in self._read(path, read, ranges):
                mine = (
                    frame.join(wanted, on=list(PLACE), how="inner")
                    .filter(pl.col("offset") >= pl.col("low"), pl.col("offset") < pl.col("high"))
                    .with_columns(pl.lit(getattr(self._listed[path], name)).alias(name) for name in PARTITION_COLUMNS)
                    .select(list(columns))
                )
                if mine.height < frame.height:
                    mine = packed(mine)
                held.append(mine)
                rows, size = rows + mine.height, size + mine.estimated_size()
                if rows >= _FRAME_ROWS or size >= _FRAME_BYTES:
                    yield pl.concat(held)
                    held, rows, size = [], 0, 0
        if rows:
            yield pl.concat(held)

    @contextmanager
    def sound_file(self, path: str) -> Iterator[Path]:
        """A file to be read, once its content is known to be what its name claims. Raises as `frames` does."""
        import pyarrow

        if path not in self._sound:
            found = check_file(self._archive.storage, self._listed[path], self.ledger.version)
            if isinstance(found, Fault):
                self._refuse(path, found.what)
            self._sound.add(path)
        try:
            with self._archive.storage.local(path) as file:
                yield file
        except Unreachable as error:
            raise storage_error(error, path) from error
        except (OSError, pyarrow.ArrowException) as error:
            self._refuse(path, f"it cannot be read: {error}", error)

    def _offsets_in(self, path: str) -> Ranges:
        with self.sound_file(path) as file:
            return offsets_in(file)

    def _read(self, path: str, columns: Sequence[str], ranges: Ranges) -> Iterator[pl.DataFrame]:
        with self.sound_file(path) as file:
            yield from frames_of(file, columns, ranges)

    def _refuse(self, path: str, what: str, error: Exception | None = None) -> None:
        """Say whether a file that cannot be read is damaged, or another has taken its place since the snapshot."""
        if path not in set(self._archive.files()["path"]):
            raise Superseded("a file was replaced while it was read", path=path, hint="Run again") from error
        hour = Hour(self._listed[path].dt, self._listed[path].hr)
        raise ArchiveDamaged(
            f"a file of hour {hour} is missing or damaged, and its messages can go nowhere: {what}",
            path=self._archive.storage.address(path),
            hint=RESTORE,
        ) from error


def _frame(ranges: Ranges) -> pl.DataFrame:
    import polars as pl

    rows = [(at.topic, at.topic_id, at.partition, low, high) for at, (low, high) in ranges.items()]
    kinds = (pl.String, pl.String, pl.Int32, pl.Int64, pl.Int64)
    return pl.DataFrame(rows, schema=dict(zip((*PLACE, "low", "high"), kinds, strict=True)), orient="row")
