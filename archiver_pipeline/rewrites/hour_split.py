"""An hour split in two: messages that stay, type by type, and those that are erased but for identity and time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from archiver_pipeline import envelope
from archiver_pipeline.hours import Hour
from archiver_pipeline.rewrites.hour_tables import HourTables, files_by_type
from archiver_pipeline.rewrites.sealed_files import Expected, SealedWriter
from archiver_pipeline.stored.in_order import in_blocks, sorted_before
from archiver_pipeline.stored.parquet import frame_schema, frames_of, table_of, tables_of_all
from archiver_pipeline.stored.runs import ORDER, Runs, merged
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.attempt import Attempt, Replaced

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

_KEPT = ("topic", "topic_id", "partition", "offset", "timestamp", "timestamp_type")
"""What stays of an erased message."""


class HourSplit:
    """The hour in the snapshot of an attempt; files are checked before anything of them is used.

    Attributes:
        going: messages that are to be erased and are not yet.
        gone: messages that are to be erased and are in no file.
    """

    def __init__(self, archive: Archive, attempt: Attempt, hour: Hour, on_frame: Callable[[], None]) -> None:
        self.going = self.gone = 0
        self._archive = archive
        self._hour = hour
        self._on_frame = on_frame
        self._files = files_by_type(archive, attempt, hour)
        self._tables = HourTables(archive.storage, attempt.ledger.version, hour, on_frame, "erased from")
        self._checked: dict[str, list[str]] = {}
        self._hits = Counter[str]()

    def paths(self) -> list[str]:
        """The files of the hour, below the archive."""
        return [file.path for files in self._files.values() for file in files]

    def find(self, wanted: pl.DataFrame) -> None:
        """Find which types hold messages that are to be erased.

        They are looked for where they were when the condition was put to them, and elsewhere only if they are not
        there: a backfill may have given them another type meanwhile.

        Args:
            wanted: `ORDER` and `type`, each message once.

        Raises:
            ArchiveDamaged: a file is missing or changed.
        """
        planned = {*wanted["type"], envelope.ERASED} & self._files.keys()
        self._wanted = wanted.select(ORDER)
        for names in (planned, self._files.keys() - planned):
            for name in sorted(names):
                self._hits[name] = self._count(self._sound(name))
            left = self._wanted.height - self._hits.total()
            if left <= 0:
                break
        self.gone = max(0, left)
        self._chosen = sorted(name for name, hits in self._hits.items() if hits and name != envelope.ERASED)
        self.going = sum(self._hits[name] for name in self._chosen)

    def expected(self) -> dict[str, Expected]:
        """What the new files will have; a type of which nothing stays has none."""
        found = {}
        added = [file.added for name in self._rewritten for file in self._files[name]]
        for name in self._chosen:
            files = self._files[name]
            if staying := sum(file.messages for file in files) - self._hits[name]:
                found[name] = Expected(staying, sum(file.bytes for file in files), min(file.added for file in files))
        erased = self._files.get(envelope.ERASED, [])
        messages, size = sum(file.messages for file in erased), sum(file.bytes for file in erased)
        found[envelope.ERASED] = Expected(messages + self.going, size, min(added))
        return found

    def write(self, writer: SealedWriter, folder: Path, *, sort: bool) -> None:
        """Write what stays, then what is erased.

        Args:
            writer: made for what is expected.
            folder: where to keep what does not fit into memory.
            sort: all messages of a type before the first is written, which takes much longer.

        Raises:
            OutOfOrder: they have to be sorted.
        """
        erased = Runs(folder / "erased")
        for name in self._chosen:
            staying = self._staying(tables_of_all(map(self._archive.storage.local, self._sound(name))), erased)
            for table in sorted_before(staying, folder / "runs") if sort else in_blocks(staying):
                writer.add(name, table)
        if envelope.ERASED in self._files:
            for name in self._sound(envelope.ERASED):
                with self._archive.storage.local(name) as path:
                    for frame in frames_of(path):
                        erased.add(frame)
        erased.close()
        for frame in merged(erased):
            self._on_frame()
            writer.add(envelope.ERASED, table_of(frame))

    def replaced(self) -> list[Replaced]:
        """The files that are written anew."""
        return [
            Replaced(file.path, file.bytes, {"type": name, "dt": self._hour.dt, "hr": self._hour.hr})
            for name in self._rewritten
            for file in self._files[name]
        ]

    @property
    def _rewritten(self) -> list[str]:
        return [*self._chosen, *({envelope.ERASED} & self._files.keys())]

    def _sound(self, name: str) -> list[str]:
        """The files of a type, as paths below the archive, each checked once."""
        if name not in self._checked:
            self._checked[name] = list(self._tables.checked(name, self._files[name]))
        return self._checked[name]

    def _count(self, files: Iterable[str]) -> int:
        """How many messages of files are to be erased."""
        count = 0
        for name in files:
            with self._archive.storage.local(name) as path:
                for frame in frames_of(path, ORDER):
                    self._on_frame()
                    count += frame.join(self._about(frame), on=ORDER, how="semi").height
        return count

    def _about(self, frame: pl.DataFrame) -> pl.DataFrame:
        """What is to be erased among the offsets of a frame."""
        import polars as pl

        return self._wanted.filter(pl.col("offset").is_between(frame["offset"].min(), frame["offset"].max()))

    def _staying(self, tables: Iterable[pa.Table], erased: Runs) -> Iterator[pa.Table]:
        """What stays of tables; what goes is handed to `erased`."""
        import polars as pl

        for table in tables:
            self._on_frame()
            names = pl.DataFrame(table.select(ORDER)).with_columns(pl.col("topic", "topic_id").cast(pl.String))
            rows = names.with_row_index("row").join(self._about(names), on=ORDER, how="semi")["row"]
            if not len(rows):
                yield table
                continue
            schema = frame_schema()
            gone = pl.DataFrame(table.take(rows.to_arrow()).select(_KEPT))
            erased.add(
                gone.with_columns(pl.lit(None, kind).alias(name) for name, kind in schema.items() if name not in _KEPT)
                .select(list(schema))
                .cast(schema)  # type: ignore[arg-type]
            )
            index = pl.Series(range(table.num_rows), dtype=rows.dtype)
            if len(rows) < len(index):
                yield table.filter((~index.is_in(rows.implode())).to_arrow())
