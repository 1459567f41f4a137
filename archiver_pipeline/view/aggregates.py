"""The views of aggregates: over the Parquet files that their followers replace hour by hour."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from archiver_pipeline import fields
from archiver_pipeline.settings.aggregates import WHOLE, Aggregate, built_in

if TYPE_CHECKING:
    import duckdb

SCHEMA_FILE = "_schema.parquet"
"""A file without rows in the folder of each aggregate: its columns are known before there is an hour."""


def lacks_views(connection: duckdb.DuckDBPyConnection, folder: Path) -> bool:
    """Tell whether an aggregate has files and no view over them, or one of other columns."""
    return any(not _is_over(connection, view, each) for each, view in _views(connection, folder).items())


def has_new_columns(path: Path, folder: Path) -> bool:
    """Tell whether an aggregate's columns are newer than the DuckDB file; it goes by the times of the files.

    Args:
        path: the DuckDB file.
        folder: that of the aggregate.
    """
    schema = folder / SCHEMA_FILE
    return path.exists() and schema.exists() and schema.stat().st_mtime_ns >= path.stat().st_mtime_ns


def replace_aggregates(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Make a view for each aggregate that has files, and empty ones for those that ship and have none yet.

    Args:
        connection: that of the DuckDB file.
        folder: holds a folder for each aggregate.
    """
    views = _views(connection, folder)
    for aggregate in built_in("$.uid", "exact", ""):
        if folder / aggregate.name not in views:
            _replace(connection, aggregate.name, _empty(aggregate))
    for each, view in views.items():
        _replace(connection, view, f"SELECT * FROM read_parquet({_pattern(each)}, hive_partitioning = false)")


def _views(connection: duckdb.DuckDBPyConnection, folder: Path) -> dict[Path, str]:
    """The view of each aggregate that has files, by its folder: of its name, or a longer one where a type was first."""
    types = {name.lower() for (name,) in connection.execute('SELECT "view" FROM types').fetchall()}
    folders = sorted(path.parent for path in folder.glob(f"*/{SCHEMA_FILE}"))
    taken = types | {each.name for each in folders}
    views = {}
    for each in folders:
        view = each.name
        if view in types:
            while view in taken:
                view += "_aggregate"
            taken.add(view)
        views[each] = view
    return views


def _is_over(connection: duckdb.DuckDBPyConnection, view: str, folder: Path) -> bool:
    """Whether a view is there, over the files of an aggregate, and the catalog lists it with their columns."""
    here = "database_name = current_database() AND schema_name = 'main'"
    sql = connection.execute(f"SELECT sql FROM duckdb_views() WHERE {here} AND view_name = ?", [view]).fetchone()
    query = f"SELECT column_name, data_type FROM duckdb_columns() WHERE {here} AND table_name = ? ORDER BY column_index"
    known = connection.execute(query, [view]).fetchall()
    schema = fields.literal(fields.no_glob(str(folder / SCHEMA_FILE)))
    found = connection.execute(f"DESCRIBE SELECT * FROM read_parquet({schema}, hive_partitioning = false)").fetchall()
    return sql is not None and _pattern(folder) in sql[0] and known == [row[:2] for row in found]


def _pattern(folder: Path) -> str:
    return fields.literal(f"{fields.no_glob(str(folder))}/**/*.parquet")


def _replace(connection: duckdb.DuckDBPyConnection, name: str, query: str) -> None:
    connection.execute(f"CREATE OR REPLACE VIEW {fields.identifier(name)} AS {query}")


def _empty(aggregate: Aggregate) -> str:
    columns = [
        f"NULL::TIMESTAMPTZ AS {aggregate.window}",
        *(f"NULL::VARCHAR AS {name}" for name in aggregate.group_by),
        *(f"NULL::{'BIGINT' if kind in WHOLE else 'DOUBLE'} AS {name}" for name, kind in aggregate.kinds.items()),
        "NULL::INTEGER AS revision",
    ]
    return f"SELECT {', '.join(columns)} WHERE false"
