"""The views of the DuckDB file: one per type with its JSON fields as columns, made anew only where they change."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from archiver_pipeline import envelope, fields
from archiver_pipeline.fields import Field
from archiver_pipeline.settings.aggregates import EVENTS_PER_MINUTE, PAGE_VIEWS, VIEWS
from archiver_pipeline.view.files import COLUMNS, ViewFiles

if TYPE_CHECKING:
    import duckdb
    import polars as pl

PUBLIC = (*VIEWS, EVENTS_PER_MINUTE, PAGE_VIEWS)
"""Names that no type's view takes: those of the contract, some of which come with what follows the archive."""


def columns_of(
    connection: duckdb.DuckDBPyConnection,
    files: ViewFiles,
    type_name: str,
    added: pl.DataFrame,
    reported: set[str],
    found: Mapping[str, Mapping[str, str]],
) -> list[Field]:
    """The JSON fields of a type's view: those it had, those of reports, and those of a sample of other new files."""
    known = fields.stored(connection, type_name)
    if type_name in envelope.RESERVED:
        return known
    known = fields.merge(known, found.get(type_name, {}), taken=COLUMNS)
    rows = added.filter(type=type_name).select("path", "messages").rows()
    new = {path: messages for path, messages in rows if path not in reported}
    chosen = fields.spread(list(new), sum(new.values()))
    sample = files.ask(chosen, lambda cursor, paths: fields.sampled(cursor, files.select(paths, ("value",))))
    return fields.merge(known, sample, taken=COLUMNS)


def replace_typed_views(
    connection: duckdb.DuckDBPyConnection, files: ViewFiles, listed: pl.DataFrame, columns: Mapping[str, list[Field]]
) -> None:
    """Make the views of the types whose files changed, and drop those of types that are gone."""
    import polars as pl

    names: dict[str, str] = dict(connection.execute('SELECT type, "view" FROM types').fetchall())
    there = set(listed["type"])
    sound = set(listed.filter(~listed["path"].is_in(sorted(files.broken)))["type"])
    # By age and not by name alone, so that a file made anew gives every view the name that it had.
    first = dict(listed.group_by("type").agg(pl.col("added").min()).iter_rows())
    taken = view_names(connection)
    for type_name in sorted(columns, key=lambda name: (first.get(name, 0), name)):
        if type_name not in there:
            name = names.pop(type_name)
            connection.execute(f"DROP VIEW IF EXISTS {fields.identifier(name)}")
            connection.execute("DELETE FROM types WHERE type = ?", [type_name])
            connection.execute('DELETE FROM meta.views WHERE "view" = ?', [name])
            continue
        if type_name not in names:
            names[type_name] = _view_name(type_name, {*PUBLIC, *taken, *(name.lower() for name in names.values())})
            connection.execute("INSERT INTO types VALUES (?, ?)", [type_name, names[type_name]])
        if columns[type_name] != fields.stored(connection, type_name):
            fields.store(connection, type_name, columns[type_name])
        expressions = ", ".join(column.expression() for column in columns[type_name])
        query = files.select_listed(type_name in sound, type_name)
        wanted = f"SELECT *{', ' + expressions if expressions else ''} FROM ({query})"
        replace_view(connection, names[type_name], wanted, taken)


def view_names(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """The names of all views, in small letters."""
    return {name.lower() for (name,) in connection.execute("SELECT view_name FROM duckdb_views()").fetchall()}


def replace_view(connection: duckdb.DuckDBPyConnection, name: str, query: str, there: Collection[str]) -> None:
    """Make a view unless it is `there` as it is to be: making it, DuckDB looks for every one of its files."""
    known = connection.execute('SELECT sql FROM meta.views WHERE "view" = ?', [name]).fetchone()
    if known == (query,) and name.lower() in there:
        return
    connection.execute(f"CREATE OR REPLACE VIEW {fields.identifier(name)} AS {query}")
    connection.execute('DELETE FROM meta.views WHERE "view" = ?', [name])
    connection.execute("INSERT INTO meta.views VALUES (?, ?)", [name, query])


def _view_name(type_name: str, taken: set[str]) -> str:
    """Name a type's view: what is no letter, digit or underscore becomes `_`; a name that is taken gets a number."""
    name = plain = re.sub(r"[^A-Za-z0-9_]", "_", type_name)
    number = 2
    while name.lower() in taken:
        name, number = f"{plain}_{number}", number + 1
    return name
