"""The JSON fields of a type and their column types, learnt from samples and only ever widened."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb

SAMPLE_ROWS = 2_000
"""How many messages of a type's new files are looked at; a field that none of them has is found by a later batch."""

SAMPLE_FILES, LOOK_ROWS = 64, 50_000
"""Out of how many new files and messages of a type the sample is drawn: a batch of old data leaves thousands of small
files, and to read all of a large batch once more would take a tenth of its time."""

SAMPLE_BYTES = 16 * 1024**2
"""The sample is smaller where messages are large: it is in memory, several times over."""

MAX_FIELDS = 500
"""Columns of a typed view; an object with ids as keys would make one of each. The rest is in `value`."""

_MOST_KEYS = 2 * MAX_FIELDS
"""An object with more keys than these has ids as keys: none of them becomes a column, and it is not taken apart."""

_GLOB = frozenset("*?[")

UNKNOWN = "NULL"
_WHOLE = frozenset({"BIGINT", "UBIGINT", "HUGEINT", "UHUGEINT", "INTEGER", "UINTEGER"})
_SCALAR = frozenset({"BIGINT", "DOUBLE", "BOOLEAN", "VARCHAR"})


@dataclass(frozen=True)
class Field:
    """A JSON field of a type.

    Attributes:
        field: its name in the JSON object.
        column: its name in the view, unlike any other there whatever the case of the letters.
        kind: BIGINT, DOUBLE, BOOLEAN, VARCHAR, JSON, or NULL while no value was seen.
    """

    field: str
    column: str
    kind: str

    def expression(self) -> str:
        """The SQL of the column. A value that is not of the kind is null there and still in `value`."""
        path, name = literal(pointer(self.field)), identifier(self.column)
        if self.kind == "JSON":
            return f'try(json_extract("value", {path})) AS {name}'
        text = f'try(json_extract_string("value", {path}))'
        return (
            f"{text} AS {name}" if self.kind in ("VARCHAR", UNKNOWN) else f"TRY_CAST({text} AS {self.kind}) AS {name}"
        )


def literal(text: str) -> str:
    """Write a text as SQL does."""
    return "'" + text.replace("'", "''") + "'"


def identifier(text: str) -> str:
    """Write the name of a view or a column as SQL does."""
    return '"' + text.replace('"', '""') + '"'


def pointer(field: str) -> str:
    """Return where a field of the outermost object is (RFC 6901), which unlike a path takes any name."""
    return "/" + field.replace("~", "~0").replace("/", "~1")


def no_glob(path: str) -> str:
    """Keep DuckDB from taking a character of a path for a wildcard."""
    return re.sub(r"([*?\[])", r"[\1]", path) if _GLOB & set(path) else path


def with_glob(pattern: str) -> str:
    """The opposite of `no_glob`."""
    return re.sub(r"\[([*?\[])\]", r"\1", pattern) if "[" in pattern else pattern


def widen(one: str, other: str) -> str:
    """Return the kind that holds the values of both."""
    kinds = {one, other} - {UNKNOWN}
    if len(kinds) < 2:
        return kinds.pop() if kinds else UNKNOWN
    if "JSON" in kinds:
        return "JSON"
    return "DOUBLE" if kinds == {"BIGINT", "DOUBLE"} else "VARCHAR"


def kind_of(name: str) -> str:
    """Return the kind of a JSON value from its type's name in DuckDB: `UBIGINT`, `VARCHAR`, `ARRAY`, `NULL`…"""
    if name in _WHOLE:
        return "BIGINT"
    return name if name in _SCALAR or name == UNKNOWN else "JSON"


def spread(paths: list[str], messages: int) -> list[str]:
    """Pick some files, evenly from first to last: at most `SAMPLE_FILES`, with not many more than `LOOK_ROWS` messages.

    Args:
        paths: of the files.
        messages: how many they have together.
    """
    most = min(SAMPLE_FILES, max(1, LOOK_ROWS * len(paths) // max(1, messages)))
    return paths[:: max(1, -(-len(paths) // most))]


def sampled(connection: duckdb.DuckDBPyConnection, values: str) -> dict[str, str]:
    """Look at a sample of the messages that a SELECT of `value` gives, and return field name to kind.

    Only the outermost level is looked at: DuckDB's `json_group_structure` gives up on deeply nested messages.
    """
    largest = connection.execute(f"SELECT max(strlen(value)) FROM ({values})").fetchall()[0][0] or 1
    count = max(1, min(SAMPLE_ROWS, SAMPLE_BYTES // largest))
    rows = connection.execute(
        # Numbered before the sample is drawn, which does not keep the order.
        f"SELECT field.key, list(DISTINCT field.type) FROM (SELECT try_cast(value AS JSON) AS document, number FROM "
        f"(SELECT value, row_number() OVER () AS number FROM ({values}) WHERE value IS NOT NULL) "
        f"USING SAMPLE {count} ROWS) AS sample, json_each(CASE WHEN json_type(sample.document) = 'OBJECT' "
        f"AND len(json_keys(sample.document)) <= {_MOST_KEYS} THEN sample.document END) AS field "
        f"GROUP BY field.key ORDER BY min((sample.number, field.rowid)) LIMIT {4 * MAX_FIELDS}"
    ).fetchall()
    return {name: reduce(widen, map(kind_of, kinds)) for name, kinds in rows}


def merge(known: Iterable[Field], found: Mapping[str, str], taken: Iterable[str]) -> list[Field]:
    """Add found fields to the known ones and widen those: no column ever changes its name or place."""
    merged = [replace(item, kind=widen(item.kind, found.get(item.field, UNKNOWN))) for item in known]
    names = {name.lower() for name in taken} | {item.column.lower() for item in merged}
    present = {item.field for item in merged}
    for field, kind in found.items():
        if field in present or len(merged) >= MAX_FIELDS or not field.isprintable() or len(field) > 200:
            continue
        column, number = field or "_", 1
        while column.lower() in names:
            column, number = f"{field}_{number}", number + 1
        names.add(column.lower())
        merged.append(Field(field, column, kind))
    return merged


def stored(connection: duckdb.DuckDBPyConnection, type_name: str) -> list[Field]:
    """The fields of a type that earlier samples found, in the order in which they were found."""
    rows = connection.execute(
        'SELECT field, "column", kind FROM meta.fields WHERE type = ? ORDER BY rowid', [type_name]
    ).fetchall()
    return [Field(*row) for row in rows]


def store(connection: duckdb.DuckDBPyConnection, type_name: str, fields: Iterable[Field]) -> None:
    """Keep the fields of a type."""
    connection.execute("DELETE FROM meta.fields WHERE type = ?", [type_name])
    rows = [[type_name, item.field, item.column, item.kind] for item in fields]
    if rows:
        connection.executemany("INSERT INTO meta.fields VALUES (?, ?, ?, ?)", rows)


def carry_over(connection: duckdb.DuckDBPyConnection, older: Path) -> None:
    """Take over the fields that a DuckDB file of the same table and an older format has: an upgrade narrows no column.

    Nothing is taken from a file that cannot be read, or that is of the same format: something else is wrong with it.
    """
    import duckdb

    with suppress(duckdb.Error):
        connection.execute(f"ATTACH {literal(str(older))} AS older (READ_ONLY)")
        try:
            connection.execute(
                'INSERT INTO meta.fields SELECT type, field, "column", kind FROM older.meta.fields WHERE EXISTS '
                "(FROM older.meta.state AS old JOIN meta.state AS new USING (table_id) WHERE old.format < new.format) "
                "ORDER BY rowid"
            )
        finally:
            connection.execute("DETACH older")
