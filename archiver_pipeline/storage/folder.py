"""An archive in a folder of a file system."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from archiver_pipeline.durable import force, is_locked, locked
from archiver_pipeline.fields import no_glob
from archiver_pipeline.storage import folder_staging
from archiver_pipeline.storage.base import Attached, Content, Mine, Storage
from archiver_pipeline.storage.folder_staging import FolderStaging
from archiver_pipeline.storage.staging import Leftover

if TYPE_CHECKING:
    import duckdb


class Folder(Storage):
    """The files of an archive in a folder; names are paths below it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.uri = str(path.absolute())

    def fetch(self, name: str) -> Content | None:
        """As `Storage.fetch`; the mark is that of the very file that was read."""
        try:
            with open(self._path / name, "rb") as file:
                return Content(file.read(), _mark(os.fstat(file.fileno())))
        except FileNotFoundError:
            return None

    def mark(self, name: str) -> str:
        """As `Storage.mark`."""
        try:
            return _mark(os.stat(self._path / name))
        except FileNotFoundError:
            return ""

    def modified(self, name: str) -> float:
        """As `Storage.modified`."""
        return (self._path / name).stat().st_mtime

    def create(self, name: str, content: bytes, scratch: Path) -> bool:
        """As `Storage.create`: a link, which fails where the name is taken."""
        path = self._path / name
        scratch.write_bytes(content)
        force([scratch])
        os.utime(scratch)  # Its time is that of the commit: see `Storage.modified`.
        try:
            os.link(scratch, path)
        except FileExistsError:
            return False
        finally:
            scratch.unlink(missing_ok=True)
        force([path.parent])
        return True

    def put(self, source: Path, name: str) -> None:
        """As `Storage.put`; the source lies in the same file system (see `workroom`)."""
        target = self._path / name
        force([source])
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(source, target)
        force([target.parent, target.parent.parent, self._path])

    def remove(self, names: Iterable[str]) -> int:
        """As `Storage.remove`."""
        files = [self._path / name for name in names]
        there = [file for file in files if file.exists()]
        for file in there:
            file.unlink(missing_ok=True)
        for folder in sorted({file.parent for file in files}):
            folder_staging.remove_empty_folders(self._path, folder)
        return len(there)

    def first(self, folder: str) -> str | None:
        """As `Storage.first`."""
        return min((name for name in self.names(folder) if name.endswith(".json")), default=None)

    def names(self, folder: str, after: str = "") -> list[str]:
        """As `Storage.names`."""
        try:
            return [name for name in os.listdir(self._path / folder) if name > after]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def data_files(self) -> Iterator[str]:
        """As `Storage.data_files`."""
        for path in self._path.glob("type=*/**/*.parquet"):
            yield str(path.relative_to(self._path))

    def there(self, names: Collection[str]) -> set[str]:
        """As `Storage.there`."""
        return {name for name in names if os.path.isfile(self._path / name)}

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """As `Storage.local`: the file itself."""
        yield self._path / name

    def lasting(self, names: Iterable[str]) -> None:
        """As `Storage.lasting`: the library only writes them."""
        paths = [self._path / name for name in names]
        for path in (*paths, *sorted({path.parent for path in paths}), self._path):
            with suppress(FileNotFoundError):
                force([path])

    def make(self) -> None:
        """As `Storage.make`."""
        self._path.mkdir(parents=True, exist_ok=True)

    def options(self) -> dict[str, str]:
        """As `Storage.options`: nothing."""
        return {}

    def explained(self, error: Exception) -> OSError | None:
        """As `Storage.explained`: libraries name what the system says."""
        return None

    def attach(self, connection: duckdb.DuckDBPyConnection) -> Attached:
        """As `Storage.attach`: DuckDB reads folders by itself, and names what it cannot read."""
        return Attached()

    def pattern(self, name: str) -> str:
        """As `Storage.pattern`."""
        return no_glob(self.address(name))

    def hasty(self) -> Folder:
        """As `Storage.hasty`: itself."""
        return self

    def stage(self, scope: str) -> FolderStaging:
        """As `Storage.stage`."""
        return FolderStaging(self._path, scope)

    def leftovers(self, mine: Mine) -> list[Leftover]:
        """As `Storage.leftovers`."""
        return folder_staging.leftovers(self._path, mine)

    def living(self, mine: Mine) -> set[str]:
        """As `Storage.living`."""
        return folder_staging.living(self._path, mine)

    def in_flight(self) -> set[str]:
        """As `Storage.in_flight`."""
        return folder_staging.in_flight(self._path)

    def clear(self, leftover: Leftover, keep: Collection[str]) -> int:
        """As `Storage.clear`."""
        return folder_staging.remove(self._path, leftover, keep)

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """As `Storage.alone`: by flock(2) on `archive.<name>.lock`, beside the archive."""
        with locked(self._beside(name), wait=False):
            yield

    def is_busy(self, name: str) -> bool:
        """As `Storage.is_busy`."""
        return is_locked(self._beside(name))

    def workroom(self, name: str) -> Path:
        """As `Storage.workroom`: in the archive, so that a rename puts a file into place."""
        return self._path / name

    def _beside(self, name: str) -> Path:
        return self._path.with_name(f"{self._path.name}.{name}")


def _mark(found: os.stat_result) -> str:
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns}"
