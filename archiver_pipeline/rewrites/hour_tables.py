"""The messages of an hour that is to be written anew: read from its files, each of them checked, as tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from archiver_pipeline.errors import ArchiveDamaged
from archiver_pipeline.hours import Hour, HourFile
from archiver_pipeline.storage.base import Storage
from archiver_pipeline.stored.files import Fault, ListedFile, check_file
from archiver_pipeline.stored.parquet import tables_of_all
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.attempt import Attempt

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class HourTables:
    """The files of an hour, to be read type by type.

    Attributes:
        storage: the archive's files.
        version: the version of the table, for the text of faults.
        hour: the hour.
        on_table: told of each table that is read.
        doing: what is to be done to the hour, for the text of faults.
    """

    storage: Storage
    version: int
    hour: Hour
    on_table: Callable[[], None]
    doing: str = "sealed"

    def of(self, type_name: str, files: Sequence[HourFile]) -> Iterator[pa.Table]:
        """Read the messages of one type (`parquet.tables_of_all`). ArchiveDamaged: a file is missing or changed."""
        for table in tables_of_all(map(self.storage.local, self.checked(type_name, files))):
            self.on_table()
            yield table

    def checked(self, type_name: str, files: Sequence[HourFile]) -> Iterator[str]:
        """Yield the paths (below the archive) of files that are as they were written.

        A rewrite must not give a damaged one a good name.
        """
        for file in files:
            listed = ListedFile(file.path, type_name, self.hour.dt, self.hour.hr, file.messages, file.bytes)
            found = check_file(self.storage, listed, self.version)
            if isinstance(found, Fault):
                raise ArchiveDamaged(
                    f"hour {self.hour} cannot be {self.doing}: {found.what}",
                    path=found.path,
                    hint=f"The hour was left as it was. {found.hint}",
                )
            yield file.path


def files_by_type(archive: Archive, attempt: Attempt, hour: Hour) -> dict[str, list[HourFile]]:
    """The files of an hour in the attempt's snapshot, the oldest first: so their offsets come nearly in order."""
    found: defaultdict[str, list[HourFile]] = defaultdict(list)
    listed = archive.files(attempt.table, hour).sort("type", "added", "path")
    for type_name, *file in listed.select("type", "path", "messages", "bytes", "added").iter_rows():
        found[type_name].append(HourFile(*file))
    return dict(found)
