"""The views of aggregates: over the Parquet files that their followers replace hour by hour."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from archiver_pipeline import fields
from archiver_pipeline.aggregates import WHOLE, Aggregate, built_in

if TYPE_CHECKING:
    import duckdb

SCHEMA_FILE = "_schema.parquet"
"""A file without rows in the folder of each aggregate: its columns are known before there is an hour."""


def lacks_views(connection: duckdb.DuckDBPyConnection, folder: Path) -> bool:
    """Tell whether an aggregate has files and no view over them."""
    sql = {str(text) for (text,) in connection.execute("SELECT sql FROM duckdb_views() WHERE NOT internal").fetchall()}
    return any(not any(_pattern(each) in text for text in sql) for each in _folders(folder))


def replace_aggregates(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """Make a view for each aggregate that has files, and empty ones for those that ship and have none yet.

    Args:
        connection: that of the DuckDB file.
        folder: holds a folder for each aggregate.
    """
    taken = {name.lower() for (name,) in connection.execute('SELECT "view" FROM types').fetchall()}
    there = {each.name: _pattern(each) for each in _folders(folder)}
    for aggregate in built_in("$.uid", "exact", ""):
        if aggregate.name not in there:
            _replace(connection, aggregate.name, _empty(aggregate))
    for name, pattern in there.items():
        # A type may have come first.
        view = f"{name}_aggregate" if name in taken else name
        _replace(connection, view, f"SELECT * FROM read_parquet({pattern}, hive_partitioning = false)")


def _folders(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob(f"*/{SCHEMA_FILE}"))


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
