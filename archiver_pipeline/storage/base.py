"""Where the archive lies: files by name, in a folder or in a bucket, and what runs that were killed left there.

A name has its parts divided by `/` and begins below the archive: `_delta_log/00000000000000000000.json`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from archiver_pipeline.storage.staging import Leftover, Staging

if TYPE_CHECKING:
    import duckdb

Mine = Callable[[str], bool]
"""Tells of an attempt's scope whether it is meant."""


@dataclass(frozen=True)
class Content:
    """What a file holds, and what tells it from another one in its place."""

    data: bytes
    mark: str


class Attached:
    """What DuckDB is told of files: it makes an error of its own of everything, in which the reason is lost.

    Attributes:
        error: what a file that it asked for came to, last.
    """

    def __init__(self) -> None:
        self.error: OSError | None = None

    @contextmanager
    def told(self) -> Iterator[None]:
        """Raise what went wrong with a file in place of the error that DuckDB makes of it.

        Raises:
            FileNotFoundError: it is not there.
            OSError: nobody knows.
        """
        import duckdb

        self.error = None
        try:
            yield
        except duckdb.Error as error:
            found, self.error = self.error, None
            if found is None:
                raise
            raise found from error


class Storage(ABC):
    """The files of one archive.

    What goes wrong is an OSError: FileNotFoundError where there is no such file, and otherwise one whose `strerror`
    says why, whose `filename` is the whole address, and whose `hint`, if it has one, says what to do next.

    Attributes:
        uri: the address of the archive, as people write it: an absolute path, or `s3://bucket/archive`.
    """

    uri: str

    def address(self, name: str) -> str:
        """The whole address of a file, as people and DuckDB name it."""
        return f"{self.uri}/{name}"

    @abstractmethod
    def fetch(self, name: str) -> Content | None:
        """What a file of the log holds; None where there is none."""

    @abstractmethod
    def mark(self, name: str) -> str:
        """What tells a file from another one in its place, as after a restore; empty where there is none."""

    @abstractmethod
    def modified(self, name: str) -> float:
        """When a file was written, in seconds since 1970. Raises FileNotFoundError."""

    @abstractmethod
    def create(self, name: str, content: bytes, scratch: Path) -> bool:
        """Write a file where there is none, so that it lasts and is seen whole; False where there is one.

        Where this fails it may have been written all the same. `scratch` is a place for it, which is removed.
        """

    @abstractmethod
    def put(self, source: Path, name: str) -> None:
        """Move a local file to its place, so that it lasts and is seen whole."""

    @abstractmethod
    def remove(self, names: Iterable[str]) -> int:
        """Remove files, and the folders of all of them that are empty then, and return how many files went."""

    @abstractmethod
    def first(self, folder: str) -> str | None:
        """The first file of a folder by its name, its suffix being `.json`; None without one."""

    @abstractmethod
    def names(self, folder: str, after: str = "") -> list[str]:
        """The names of what lies directly in a folder, those after `after`; in no order, none where there is none."""

    @abstractmethod
    def data_files(self) -> Iterator[str]:
        """The Parquet files that lie below folders of types, whether the table lists them or not."""

    @abstractmethod
    def there(self, names: Collection[str]) -> set[str]:
        """Those of the names that are files."""

    @abstractmethod
    def local(self, name: str) -> AbstractContextManager[Path]:
        """A file as one of the local disk, to be read: itself, or a copy as long as it is used."""

    @abstractmethod
    def lasting(self, names: Iterable[str]) -> None:
        """Make sure that files which a library wrote outlive a power cut; those that are not there are passed over."""

    @abstractmethod
    def make(self) -> None:
        """Make the place of an archive, where it has to be made."""

    @abstractmethod
    def options(self) -> dict[str, str]:
        """What deltalake has to know to open the table."""

    @abstractmethod
    def explained(self, error: Exception) -> OSError | None:
        """What an error of a library that has opened the table says of the storage; None if nothing."""

    @abstractmethod
    def attach(self, connection: duckdb.DuckDBPyConnection) -> Attached:
        """Let a DuckDB connection, and all of the same database, read files by their address."""

    @abstractmethod
    def pattern(self, name: str) -> str:
        """The address of a file where DuckDB takes a glob pattern."""

    @abstractmethod
    def hasty(self) -> Storage:
        """The same for whoever has waited already, and gives up soon."""

    @abstractmethod
    def stage(self, scope: str) -> Staging:
        """Begin an attempt."""

    @abstractmethod
    def leftovers(self, mine: Mine) -> list[Leftover]:
        """What dead attempts of the scopes that are `mine` left; one whose process lives is passed over."""

    @abstractmethod
    def living(self, mine: Mine) -> set[str]:
        """The attempts of the scopes that are `mine` whose process lives."""

    @abstractmethod
    def in_flight(self) -> set[str]:
        """The files that any attempt, dead or alive, may have put into place."""

    @abstractmethod
    def clear(self, leftover: Leftover, keep: Collection[str]) -> int:
        """Remove what an attempt left, but for the files to `keep`, and return how many went."""

    @abstractmethod
    def alone(self, name: str) -> AbstractContextManager[None]:
        """Let nobody else be at a work of this name meanwhile. Raises BlockingIOError where somebody is."""

    @abstractmethod
    def is_busy(self, name: str) -> bool:
        """Whether somebody is at a work of this name."""

    @abstractmethod
    def workroom(self, name: str) -> Path:
        """The local folder for files of a work, from which `put` takes them; not made yet."""
