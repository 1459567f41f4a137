"""The SQL shell: statements on the DuckDB file as of its newest batch, and their results as table, CSV or JSON."""

from __future__ import annotations

import atexit
import contextlib
import csv
import io
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from archiver_pipeline.bucket_errors import NoObject, Unreachable
from archiver_pipeline.cli.output import say
from archiver_pipeline.errors import ArchiveError
from archiver_pipeline.staging import storage_error
from archiver_pipeline.storage import Attached

if TYPE_CHECKING:
    import duckdb

Form = Literal["table", "csv", "json"]
"""How a result is printed."""

_HISTORY = Path("~/.archiver_sql_history").expanduser()
_HISTORY_LINES = 1_000
_ROWS_ON_TERMINAL, _NO_LIMIT = 100, 1_000_000
_FETCH_ROWS = 1_000
_SHOWN = frozenset({"SELECT", "CALL", "PRAGMA", "MULTI"})
"""Statements that DuckDB shows as a table; it runs them once more for that, which must not do anything twice."""

_KEYWORDS = ("SELECT", "FROM", "WHERE", "GROUP BY", "ORDER BY", "LIMIT", "DESCRIBE", "SUMMARIZE", "count(*)")
_BANNER = """\
The archive as of table version {version}: views {views}.
  SELECT type, count(*) FROM messages GROUP BY 1 ORDER BY 2 DESC;
  SELECT * FROM hours ORDER BY dt DESC, hr DESC LIMIT 10;
  SELECT topic, partition, "next", lag FROM offsets;
A statement ends with ; and may take several lines. .help tells more, .quit leaves."""
_NO_JSON = (
    "\nSome message is no JSON: TRY(value->>'$.field') is NULL there. The views of types have the fields as columns."
)
_HELP = """\
.tables          the views
.tables NAME     the columns of a view
.quit            leave, as does Ctrl-D
anything else    SQL, up to ; — Ctrl-C drops what is typed or stops what runs"""


class SqlError(ArchiveError):
    """A statement failed; the text is DuckDB's own."""


class View:
    """The DuckDB file, opened read-only and opened again when a batch has replaced it."""

    def __init__(self, path: Path, attach: Callable[[duckdb.DuckDBPyConnection], Attached]) -> None:
        """Open nothing yet; `attach` lets a connection read the archive's files, wherever they are."""
        self.path = path
        self._attach = attach
        self._attached = Attached()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._opened: tuple[int, int] | None = None

    def connection(self) -> duckdb.DuckDBPyConnection:
        """The file as it is now. Raises ArchiveError where there is none or it cannot be opened."""
        import duckdb

        try:
            found = self.path.stat()
        except FileNotFoundError:
            hint = "The first batch makes it; check BASE_DIR"
            raise ArchiveError("there is no archive to query yet", path=str(self.path), hint=hint) from None
        present = found.st_dev, found.st_ino
        if self._connection is None or present != self._opened:
            self.close()
            try:
                self._connection = duckdb.connect(str(self.path), read_only=True)
            except duckdb.Error as error:
                raise ArchiveError(f"it cannot be opened: {error}", path=str(self.path)) from error
            self._attached = self._attach(self._connection)
            self._connection.execute("SET TimeZone = 'UTC'")
            self._opened = present
        return self._connection

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def run(self, text: str, form: Form) -> None:
        """Run the statements of a text and print their results; Ctrl-C stops them.

        Raises:
            SqlError: one failed; those after it were not run.
        """
        connection = self.connection()
        # In a thread of its own: the main thread, which signals go to, is deaf while DuckDB runs in it.
        with ThreadPoolExecutor(1, "sql") as pool:
            future = pool.submit(_run, connection, self._attached, text, form)
            try:
                future.result()
            except KeyboardInterrupt:
                connection.interrupt()
                raise

    def names(self, table: str | None = None) -> list[str]:
        """The names of the views, or of the columns of one of them."""
        if table is None:
            query = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'main' ORDER BY 1"
            return [name for (name,) in self.connection().execute(query).fetchall()]
        query = "SELECT column_name FROM information_schema.columns WHERE table_name = ? ORDER BY ordinal_position"
        return [name for (name,) in self.connection().execute(query, [table]).fetchall()]


def _run(connection: duckdb.DuckDBPyConnection, attached: Attached, text: str, form: Form) -> None:
    import duckdb

    try:
        with attached.told():
            _print_all(connection, text, form)
    except (Unreachable, NoObject) as error:
        raise storage_error(error, "") from error
    except duckdb.Error as error:
        raise SqlError(f"{error}{_NO_JSON if 'Malformed JSON' in str(error) else ''}") from None


def _print_all(connection: duckdb.DuckDBPyConnection, text: str, form: Form) -> None:
    for statement in connection.extract_statements(text):
        if form == "table" and statement.type.name in _SHOWN:
            _show(connection.sql(statement.query))
            continue
        result = connection.execute(statement)
        columns = [column[0] for column in result.description or ()]
        rows = _fetched(result)
        if form == "csv":
            _print_csv(columns, rows)
        elif form == "json":
            _print_json(columns, rows)
        else:
            for row in rows:
                say(*row[-1:])


def _show(result: duckdb.DuckDBPyRelation) -> None:
    """Print a result as a table: as wide as the terminal, or whole where there is none."""
    if sys.stdout.isatty():
        with contextlib.redirect_stdout(io.StringIO()) as shown:
            result.show(max_width=shutil.get_terminal_size().columns, max_rows=_ROWS_ON_TERMINAL)
        say(shown.getvalue(), end="")
    else:
        result.show(max_width=_NO_LIMIT, max_rows=_NO_LIMIT, max_col_width=_NO_LIMIT)


def _fetched(result: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while rows := result.fetchmany(_FETCH_ROWS):
        yield from rows


def _print_csv(columns: list[str], rows: Iterator[tuple[Any, ...]]) -> None:
    writer = csv.writer(_Said() if sys.stdout.isatty() else sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([None if value is None else _plain(value) for value in row])


class _Said:
    """A terminal for those who write."""

    def write(self, text: str) -> None:
        """Show a text."""
        say(text, end="")


def _print_json(columns: list[str], rows: Iterator[tuple[Any, ...]]) -> None:
    """Print an array with an object a line, so that nothing but one row is held in memory."""
    separator = "["
    for row in rows:
        say(separator + json.dumps(dict(zip(columns, row, strict=True)), default=_plain, ensure_ascii=False), end="")
        separator = ",\n"
    print("[]" if separator == "[" else "]")


def _plain(value: Any) -> str:
    """Give a value as text: times in ISO form, bytes as DuckDB shows them, lists and structs as JSON."""
    if isinstance(value, bytes):
        return "".join(chr(byte) if 32 <= byte < 127 and byte not in b"\"'\\" else f"\\x{byte:02X}" for byte in value)
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, default=_plain, ensure_ascii=False)
    return str(value)


class Shell:
    """Reads statements from a terminal, with history and completion, until `.quit` or Ctrl-D."""

    def __init__(self, view: View, form: Form) -> None:
        self._view = view
        self._form = form
        self._words: list[str] = []

    def run(self) -> None:
        """Talk until the user leaves. Raises ArchiveError where there is no archive yet."""
        views = self._view.names()
        row = self._view.connection().execute("SELECT version FROM meta.state").fetchone()
        say(_BANNER.format(version=row[0] if row else "?", views=", ".join(views)))
        self._prepare_readline(views)
        typed = ""
        while True:
            try:
                typed += input("archive> " if not typed else "     ...> ") + "\n"
                command = typed.strip()
                if command in (".quit", ".exit", "quit", "exit"):
                    return
                if command.startswith(".") or command == "":
                    self._dot(command.split())
                elif not command.endswith(";"):
                    continue
                else:
                    self._view.run(typed, self._form)
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                print()
            except ArchiveError as error:
                say(error, file=sys.stderr)
            typed = ""

    def _dot(self, words: list[str]) -> None:
        """Do what a line that begins with a dot asks for."""
        match words:
            case []:
                return
            case [".tables", *names]:
                say("\n".join(self._view.names(names[0] if names else None)))
            case [".help"]:
                print(_HELP)
            case _:
                print(f"{words[0]} is none of .help, .tables, .quit", file=sys.stderr)

    def _prepare_readline(self, views: list[str]) -> None:
        """Load the history, keep it at the end, and complete names of views, columns and SQL."""
        try:
            import readline
        except ImportError:  # some builds of Python have none
            return
        columns = {name for view in views for name in self._view.names(view)}
        self._words = sorted({*views, *columns, *_KEYWORDS, ".tables", ".help", ".quit"})
        readline.set_completer_delims(" \t\n,;()=<>\"'")
        readline.set_completer(self._complete)
        readline.parse_and_bind("tab: complete")
        with contextlib.suppress(OSError):
            readline.read_history_file(_HISTORY)
        readline.set_history_length(_HISTORY_LINES)
        atexit.register(_keep_history)

    def _complete(self, text: str, number: int) -> str | None:
        found = [word for word in self._words if word.lower().startswith(text.lower())]
        return found[number] if number < len(found) else None


def _keep_history() -> None:
    import readline

    with contextlib.suppress(OSError):
        readline.write_history_file(_HISTORY)
