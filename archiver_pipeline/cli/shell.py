"""The DuckDB file as SQL is asked of it: opened as of its newest batch, statements run, Ctrl-C heard."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from archiver_pipeline.cli.results import Form, print_all
from archiver_pipeline.errors import ArchiveError
from archiver_pipeline.storage.base import Attached
from archiver_pipeline.storage.bucket_errors import NoObject, Unreachable
from archiver_pipeline.storage.staging import storage_error

if TYPE_CHECKING:
    import duckdb

_NO_JSON = (
    "\nSome message is no JSON: TRY(value->>'$.field') is NULL there, and so is field(value, '$.field'). The views of "
    "types have the fields as columns."
)


_SLICE_SECONDS = 0.1


class SqlError(ArchiveError):
    """A statement failed; the text is DuckDB's own."""


@contextmanager
def translated() -> Iterator[None]:
    """Raise what DuckDB raises as SqlError."""
    import duckdb

    try:
        yield
    except duckdb.Error as error:
        raise SqlError(str(error)) from None


class View:
    """The DuckDB file, opened read-only and opened again when a batch has replaced it; several threads may ask for it.

    Attributes:
        path: where it is.
        opened: which file is open, so that those who keep something of it know when it is another one.
        lock: held by a thread as long as it works with a connection: another one might close that meanwhile.
    """

    def __init__(
        self,
        path: Path,
        attach: Callable[[duckdb.DuckDBPyConnection], Attached],
        archived: Callable[[], bool] = lambda: False,
    ) -> None:
        """Open nothing yet.

        Args:
            path: where it is.
            attach: lets a connection read the archive's files, wherever they are.
            archived: whether there is an archive, asked where there is no file.
        """
        self.path = path
        self._archived = archived
        self.opened: tuple[int, int] | None = None
        self._attach = attach
        self._attached = Attached()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self.lock = threading.RLock()

    def connection(self) -> duckdb.DuckDBPyConnection:
        """The file as it is now. Raises ArchiveError where there is none or it cannot be opened."""
        with self.lock, translated():
            return self._opened()

    def _opened(self) -> duckdb.DuckDBPyConnection:
        import duckdb

        try:
            found = self.path.stat()
        except FileNotFoundError:
            raise self._missing() from None
        present = found.st_dev, found.st_ino
        if self._connection is None or present != self.opened:
            self.close()
            try:
                connection = duckdb.connect(str(self.path), read_only=True)
            except duckdb.Error as error:
                raise ArchiveError(f"it cannot be opened: {error}", path=str(self.path)) from error
            self._attached = self._attach(connection)
            connection.execute("SET TimeZone = 'UTC'")
            self._connection, self.opened = connection, present
        return self._connection

    def _missing(self) -> ArchiveError:
        """The error for a file that is not there, with where else to look."""
        demo = self.path.parent / "demo" / self.path.name
        if self._archived():
            what, hint = "there is no DuckDB file of the archive", "`archiver sql --refresh` makes it"
        elif demo.exists():
            what = "there is no archive to query yet"
            hint = f"The demo has one of its own: set BASE_DIR={_shortest(demo.parent)}"
        else:
            what, hint = "there is no archive to query yet", "The first batch makes it; check BASE_DIR"
        return ArchiveError(what, path=str(self.path), hint=hint)

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def run(self, text: str, form: Form, *, timed: bool = False) -> None:
        """Run the statements of a text and print their results; Ctrl-C stops them.

        Raises:
            SqlError: one failed; those after it were not run.
        """
        # In a thread of its own: the main thread, which signals go to, is deaf while DuckDB runs in it.
        with self.lock, ThreadPoolExecutor(1, "sql") as pool:
            connection = self.connection()
            future = pool.submit(_run, connection, self._attached, text, form, timed)
            try:
                # In slices: once polars is loaded, which has a handler of its own, no signal ends a wait for a lock.
                while not wait([future], _SLICE_SECONDS).done:
                    continue
                future.result()
            except KeyboardInterrupt:
                connection.interrupt()
                # Again and again: one that comes between two statements is forgotten when the next one begins.
                while not wait([future], _SLICE_SECONDS).done:
                    connection.interrupt()
                raise

    def names(self, table: str | None = None) -> list[str]:
        """The names of the views, or of the columns of one of them."""
        if table is None:
            query = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'main' ORDER BY 1"
            with translated():
                return [name for (name,) in self.connection().execute(query).fetchall()]
        return [name for name, _ in self.columns(table)]

    def columns(self, table: str) -> list[tuple[str, str]]:
        """The columns of a view and their types; none where there is no such view."""
        query = (
            "SELECT column_name, data_type FROM information_schema.columns WHERE table_schema = 'main' "
            "AND lower(table_name) = lower(?) ORDER BY ordinal_position"
        )
        with translated():
            return self.connection().execute(query, [table]).fetchall()


def _shortest(folder: Path) -> Path:
    """A folder as it is typed: from here on, where it is below."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def _run(connection: duckdb.DuckDBPyConnection, attached: Attached, text: str, form: Form, timed: bool) -> None:
    import duckdb

    try:
        with attached.told():
            print_all(connection, text, form, timed=timed)
    except (Unreachable, NoObject) as error:
        raise storage_error(error, "") from error
    except duckdb.Error as error:
        raise SqlError(f"{error}{_NO_JSON if 'Malformed JSON' in str(error) else ''}") from None
