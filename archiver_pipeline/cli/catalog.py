"""What a DuckDB file has that a statement can name: views, their columns, types, macros, functions, keywords."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from archiver_pipeline.fields import identifier

if TYPE_CHECKING:
    import duckdb

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TYPED = frozenset({"reserved", "type_function"})
_TYPED_TOO = frozenset(
    {"between", "by", "exclude", "exists", "explain", "filter", "interval", "over", "partition", "set"}
)
"""The keywords that are completed: DuckDB has some hundred more that are rarely typed."""


@dataclass(frozen=True)
class Catalog:
    """The names, as they are and without quotes.

    Attributes:
        columns: the columns of each view, in order.
        types: the types of messages.
        fields: the JSON fields of each type's view.
        macros: those of the archive; the ones that go behind FROM have `tables`, too.
        tables: table macros of the archive.
        functions: those of DuckDB that a person would type.
        keywords: of SQL, in capital letters.
        reserved: the keywords, in small letters, that are no name without quotes.
    """

    columns: Mapping[str, tuple[str, ...]]
    types: tuple[str, ...] = ()
    fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    macros: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    reserved: frozenset[str] = frozenset()

    def quoted(self, name: str) -> str:
        """A name as SQL takes it: in quotes where it has to be."""
        plain = _PLAIN.fullmatch(name) and name.lower() not in self.reserved
        return name if plain else identifier(name)


def read_catalog(connection: duckdb.DuckDBPyConnection) -> Catalog:
    """Read the names from a DuckDB file that is open; it takes some hundredths of a second."""
    columns: dict[str, list[str]] = {}
    for view, column in connection.execute(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'main' "
        "ORDER BY starts_with(table_name, '_'), table_name, ordinal_position"
    ).fetchall():
        columns.setdefault(view, []).append(column)
    found: dict[str, list[str]] = {}
    for view, name in connection.execute(
        'SELECT "view", field FROM meta.fields JOIN types USING (type) ORDER BY meta.fields.rowid'
    ).fetchall():
        found.setdefault(view, []).append(name)
    functions = connection.execute(
        "SELECT DISTINCT function_name, schema_name = 'main' AND NOT internal, function_type LIKE 'table%' "
        "FROM duckdb_functions() WHERE schema_name <> 'meta' AND function_name SIMILAR TO '[a-z][a-z0-9_]*' ORDER BY 1"
    ).fetchall()
    words = connection.execute("SELECT keyword_name, keyword_category FROM duckdb_keywords() ORDER BY 1").fetchall()
    return Catalog(
        columns={view: tuple(names) for view, names in columns.items()},
        types=tuple(
            name
            for (name,) in connection.execute("SELECT type FROM types ORDER BY starts_with(type, '_'), type").fetchall()
        ),
        fields={view: tuple(names) for view, names in found.items()},
        macros=tuple(name for name, is_own, _ in functions if is_own),
        tables=tuple(name for name, is_own, is_table in functions if is_own and is_table),
        functions=tuple(dict.fromkeys(name for name, is_own, is_table in functions if not is_own and not is_table)),
        keywords=tuple(name.upper() for name, category in words if category in _TYPED or name in _TYPED_TOO),
        reserved=frozenset(name for name, category in words if category == "reserved"),
    )
