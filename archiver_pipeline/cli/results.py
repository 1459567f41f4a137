"""Results of SQL as they are printed: as a table, as CSV, as JSON, or a line for each column."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import math
import re
import shutil
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, get_args

from archiver_pipeline.amounts import counted
from archiver_pipeline.cli.output import say

if TYPE_CHECKING:
    import duckdb

Form = Literal["table", "csv", "json", "line"]
"""How a result is printed."""

FORMS: tuple[Form, ...] = get_args(Form)

ROWS_ON_TERMINAL = 100
"""A table on a terminal has no more rows: the first and the last ones, and a line with how many there are."""

_NO_LIMIT = 1_000_000
_ZONED = "TIMESTAMP WITH TIME ZONE"
_FETCH_ROWS = 1_000
_SHOWN = frozenset({"SELECT", "CALL", "PRAGMA", "MULTI"})
"""Statements that DuckDB shows as a table; it runs them once more for that, which must not do anything twice."""


def print_all(connection: duckdb.DuckDBPyConnection, text: str, form: Form, *, timed: bool = False) -> None:
    """Run the statements of a text one after the other, and print the result of each.

    Args:
        connection: where they run.
        text: SQL.
        form: how results are printed.
        timed: a line after each result says how many rows there are and how long it took.

    Raises:
        duckdb.Error: a statement failed; those after it were not run.
    """
    connection.abort()  # What Ctrl-C left of the result before is in nobody's way.
    for statement in connection.extract_statements(text):
        began = time.monotonic()
        rows = _print(connection, statement, form)
        if timed:
            say(f"{rows + ' in ' if rows else ''}{time.monotonic() - began:.3f} s")


def _print(connection: duckdb.DuckDBPyConnection, statement: duckdb.Statement, form: Form) -> str:
    """Print one result and return how many rows it has, for people; nothing where that is not a matter of rows."""
    if form == "table" and statement.type.name in _SHOWN:
        return _show(connection.sql(statement.query))
    result = connection.execute(statement)
    columns = [column[0] for column in result.description or ()]
    rows = _fetched(
        result, [number for number, column in enumerate(result.description or ()) if str(column[1]) == _ZONED]
    )
    if form == "table":
        for row in rows:
            say(*row[-1:])
        return ""
    printers = {"csv": _print_csv, "json": _print_json, "line": _print_lines}
    return counted(printers[form](columns, rows), "row")


def rows_of(table: str, width: int) -> str:
    """Say how many rows a result has of which DuckDB has drawn a table, by its last line or else by its lines.

    DuckDB counts no more than 9,999. A row that is too wide goes over several lines, and then all rows have a border
    between them; nothing is said of what may be one such row, or several.

    Args:
        table: the table.
        width: how wide it was allowed to be.
    """
    lines = table.split("\n")
    borders = [number for number, line in enumerate(lines) if line.startswith(("├", "└"))]
    said = re.search(r"(?:(\d+)|\(>(\d+)) rows?\b", "\n".join(lines[borders[-1] + 1 :]))
    if said is not None:
        return counted(int(said[1]), "row") if said[1] else f"more than {counted(int(said[2]), 'row')}"
    found = borders[-1] - borders[0] - 1
    if len(borders) > 2:
        return counted(len(borders) - 1, "row")
    return "" if found > 1 and len(lines[0]) >= width - 1 else counted(found, "row")


def _show(result: duckdb.DuckDBPyRelation) -> str:
    """Print a result as a table: as wide as the terminal, or whole where there is none."""
    if not sys.stdout.isatty():
        result.show(max_width=_NO_LIMIT, max_rows=_NO_LIMIT, max_col_width=_NO_LIMIT)
        return ""
    width = shutil.get_terminal_size().columns
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        result.show(max_width=width, max_rows=ROWS_ON_TERMINAL)
    table = shown.getvalue().rstrip("\n")
    say(table)
    return rows_of(table, width)


def _fetched(result: duckdb.DuckDBPyConnection, zoned: list[int]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows. In the columns `zoned`, of times with a zone, one that has come without it is infinite."""
    while rows := result.fetchmany(_FETCH_ROWS):
        for row in rows:
            if any(isinstance(row[number], datetime) and row[number].tzinfo is None for number in zoned):
                yield tuple(_infinite(value) if number in zoned else value for number, value in enumerate(row))
            else:
                yield row


def _infinite(value: Any) -> Any:
    if not isinstance(value, datetime) or value.tzinfo is not None:
        return value
    return "infinity" if value.year == 9999 else "-infinity"


def _print_csv(columns: list[str], rows: Iterator[tuple[Any, ...]]) -> int:
    writer = csv.writer(_Said() if sys.stdout.isatty() else sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    count = 0
    for row in rows:
        writer.writerow([None if value is None else plain(value) for value in row])
        count += 1
    return count


class _Said:
    """A terminal for those who write."""

    def write(self, text: str) -> None:
        """Show a text."""
        say(text, end="")


def _print_json(columns: list[str], rows: Iterator[tuple[Any, ...]]) -> int:
    """Print an array with an object a line, so that nothing but one row is held in memory."""
    names = unique(columns)
    count = 0
    for row in rows:
        say(",\n" if count else "[", end="")
        say(_as_json(dict(zip(names, row, strict=True))), end="")
        count += 1
    print("]" if count else "[]")
    return count


def unique(names: list[str]) -> list[str]:
    """Give names that are there twice a number, as DuckDB does in a table: x, x_1, x_2, or the next that is free."""
    taken, found = set(names), list[str]()
    for name in names:
        if name in found:
            name = next(new for number in itertools.count(1) if (new := f"{name}_{number}") not in taken)
            taken.add(name)
        found.append(name)
    return found


def _print_lines(columns: list[str], rows: Iterator[tuple[Any, ...]]) -> int:
    """Print a line for each column and an empty one between rows: for rows that are wider than the terminal."""
    width = max(map(len, columns), default=0)
    count = 0
    for row in rows:
        count += 1
        if count > ROWS_ON_TERMINAL and sys.stdout.isatty():
            continue
        say("\n".join([*[""] * (count > 1), *_lines(columns, row, width)]))
    if count > ROWS_ON_TERMINAL and sys.stdout.isatty():
        say(f"\n({ROWS_ON_TERMINAL} of {counted(count, 'row')} shown)")
    return count


def _lines(columns: list[str], row: tuple[Any, ...], width: int) -> Iterator[str]:
    for name, value in zip(columns, row, strict=True):
        yield f"{name.rjust(width)} = {'NULL' if value is None else plain(value)}"


def plain(value: Any) -> str:
    """Give a value as text: times in ISO form, bytes as DuckDB shows them, lists and structs as JSON."""
    if isinstance(value, bytes):
        return "".join(chr(byte) if 32 <= byte < 127 and byte not in b"\"'\\" else f"\\x{byte:02X}" for byte in value)
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list | tuple):
        return _as_json(value)
    return str(value)


def _as_json(value: Any) -> str:
    return json.dumps(_jsonable(value), default=plain, ensure_ascii=False, allow_nan=False)


def _jsonable(value: Any) -> Any:
    """A value without what JSON has not: keys of maps that are no text, nan and infinity, which become their text."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else plain(key): _jsonable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
