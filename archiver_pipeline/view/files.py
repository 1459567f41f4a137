"""The files of the archive as the views read them, and what becomes of those that cannot be read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TypeVar

from archiver_pipeline import envelope, fields
from archiver_pipeline.storage.base import Storage
from archiver_pipeline.storage.staging import translated

if TYPE_CHECKING:
    import duckdb
    import polars as pl

log = logging.getLogger(__name__)

COLUMNS = {
    "topic": "VARCHAR",
    "topic_id": "VARCHAR",
    "partition": "INTEGER",
    "offset": "BIGINT",
    "timestamp": "TIMESTAMPTZ",
    "timestamp_type": "VARCHAR",
    "key": "BLOB",
    "value": "VARCHAR",
    "value_bytes": "BLOB",
    "headers": 'STRUCT("key" VARCHAR, "value" BLOB)[]',
    "type": "VARCHAR",
    "dt": "VARCHAR",
    "hr": "VARCHAR",
}
"""The columns of a message and their types in DuckDB."""

_NAMED = 3
_JOINED = "p[1] || '/' || n || '.parquet'"

Answer = TypeVar("Answer")


class ViewFiles:
    """The archive's files, asked in a transaction of their own, so that one that is damaged undoes nothing.

    Attributes:
        broken: files, as paths below the archive, that are known to be missing or damaged.
        mended: files that were so at the last refresh and can be read again.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, storage: Storage) -> None:
        self._storage = storage
        self._attached = storage.attach(connection)
        self._cursor = connection.cursor()
        known = [path for (path,) in self._cursor.execute("SELECT path FROM meta.broken").fetchall()]
        self.broken = {path for path in known if not self._can_be_read(path)}
        self.mended = set(known) - self.broken

    def close(self) -> None:
        """End the transaction."""
        self._cursor.close()

    def keep_to(self, listed: pl.DataFrame) -> None:
        """Forget broken files that the table no longer lists."""
        self.broken &= set(listed["path"]) if self.broken else set()

    def select(self, paths: Iterable[str], columns: Iterable[str] = COLUMNS) -> str:
        """The SELECT over a few files, all of which can be read; over none, the same columns without rows."""
        listed = ", ".join(fields.literal(self._storage.pattern(path)) for path in paths)
        return _select(f"[{listed}]", columns) if listed else nothing(columns)

    def select_listed(self, there: bool, type_name: str | None = None) -> str:
        """The SELECT of a view over all files that the lists of `store_lists` name, or over those of one type.

        A broken file stands in it for an error that names it, which strikes whoever asks for its type and hour.

        Args:
            there: whether there is any such file that can be read.
            type_name: the type.
        """
        lists = "list_concat(meta.cold(), meta.fresh())"
        if type_name is not None:
            folder = fields.literal(f"type={envelope.encode(type_name)}/")
            lists = f"list_filter({lists}, lambda f : starts_with(f, {folder}))"
        parts = [_select(f"list_transform({lists}, lambda f : meta.folder() || f)", COLUMNS)] if there else []
        lost = [path for path in sorted(self.broken) if type_name in (None, envelope.partition_values(path)["type"])]
        if lost:
            parts.append(self._select_broken(lost, COLUMNS))
        return " UNION ALL ".join(parts) or nothing(COLUMNS)

    def store_lists(self, connection: duckdb.DuckDBPyConnection, **lists: pl.Series) -> None:
        """Keep the paths (below the archive) that views read, as the macros `meta.cold` and `meta.fresh`.

        As one text each, which DuckDB takes as it is: parsing a hundred thousand literals takes seconds.
        """
        folder = fields.literal(self._storage.pattern(""))
        connection.execute(f"CREATE OR REPLACE MACRO meta.folder() AS {folder}")
        for name, paths in lists.items():
            value = _list(paths.str.replace_all(r"([*?\[])", "[$1]")) if len(paths) else "[]::VARCHAR[]"
            connection.execute(f"CREATE OR REPLACE MACRO meta.{name}() AS {value}")

    def ask(self, paths: Sequence[str], query: Callable[[duckdb.DuckDBPyConnection, list[str]], Answer]) -> Answer:
        """Ask files something (paths below the archive), and pass over those that cannot be read.

        Raises:
            duckdb.Error: it is not a file that is the trouble.
            OSError: the object store does not answer, and nobody knows what it has.
        """
        import duckdb

        with self.told():
            try:
                with self.told():
                    return query(self._cursor, self._sound(paths))
            except (duckdb.Error, FileNotFoundError):
                for path in self._sound(paths):
                    try:
                        with self.told():
                            query(self._cursor, [path])
                    except duckdb.OutOfMemoryException:
                        raise
                    except (duckdb.Error, FileNotFoundError):
                        self.broken.add(path)
                return query(self._cursor, self._sound(paths))

    def told(self) -> AbstractContextManager[None]:
        """As `Attached.told`, for files of the archive."""
        return self._attached.told()

    def absolute(self, path: str) -> str:
        """The whole address of a file."""
        return self._storage.address(path)

    def look_for_missing(self, listed: pl.DataFrame) -> None:
        """Find the files that are not there."""
        with translated(self._storage.uri):
            self.broken |= set(listed["path"]) - self._storage.there(listed["path"].to_list())

    def look_for_broken(self, listed: pl.DataFrame) -> bool:
        """Find the files that keep a view from being made: those missing, and the damaged ones that come first."""
        import polars as pl

        before = len(self.broken)
        self.look_for_missing(listed)
        for _, paths in listed.group_by("type").agg(pl.col("path")).iter_rows():
            for path in self._sound(paths):
                if self._can_be_read(path):
                    break
                self.broken.add(path)
        return len(self.broken) > before

    def broken_types(self) -> set[str]:
        """The types that have a broken file."""
        return {envelope.partition_values(path)["type"] for path in self.broken}

    def warn(self) -> None:
        """Name the broken files, if there are any."""
        if self.broken:
            named = ", ".join(self.absolute(path) for path in sorted(self.broken)[:_NAMED])
            more = f" and {len(self.broken) - _NAMED} more" if len(self.broken) > _NAMED else ""
            log.warning(
                "the views are up to date, but a file of the archive cannot be read: %s%s. Queries for its hour fail. "
                "Run `archiver verify`: it names every file that is missing or changed",
                named,
                more,
            )

    def _sound(self, paths: Iterable[str]) -> list[str]:
        return [path for path in paths if path not in self.broken]

    def _can_be_read(self, path: str) -> bool:
        """Whether its footer is right, and its column `value`, which is all that the views themselves read."""
        import duckdb

        pattern = fields.literal(self._storage.pattern(path))
        try:
            with self.told():
                self._cursor.execute(f'SELECT max(strlen("value")) FROM read_parquet([{pattern}])').fetchall()
        except duckdb.OutOfMemoryException:
            return True
        except (duckdb.Error, FileNotFoundError):
            return False
        return True

    def _select_broken(self, paths: Collection[str], columns: Iterable[str]) -> str:
        """Rows of which every column, and whether there are any, is an error; only type and hour are known."""
        rows = []
        for path in paths:
            values = envelope.partition_values(path)
            text = f"{self.absolute(path)} is missing or damaged. Run `archiver verify`"
            known = (*(values[column] for column in envelope.PARTITION_COLUMNS), text)
            rows.append("(" + ", ".join(map(fields.literal, known)) + ")")
        names = (
            f'"{name}"' if name in envelope.PARTITION_COLUMNS else f'error(what)::{COLUMNS[name]} AS "{name}"'
            for name in columns
        )
        return (
            f"SELECT {', '.join(names)} FROM (VALUES {', '.join(rows)}) AS broken(type, dt, hr, what) "
            "WHERE error(what)::BOOLEAN"
        )


def stored_paths(connection: duckdb.DuckDBPyConnection) -> pl.Series:
    """The paths that `store_lists` has kept."""
    import polars as pl

    rows = connection.sql("SELECT unnest(list_concat(meta.cold(), meta.fresh())) AS path").to_arrow_table()
    return pl.DataFrame(rows)["path"].str.replace_all(r"\[([*?\[])\]", "$1")


def _list(paths: pl.Series) -> str:
    """The SQL of a list of paths: folder by folder, for its text is read and written with every refresh."""
    import polars as pl

    folder, name = pl.col("path").str.extract("^(.*)/[^/]*$"), pl.col("path").str.extract(r"([^/]*)\.parquet$")
    parts = paths.rename("path").to_frame().select(folder.alias("folder"), name.alias("name"))
    if parts.null_count().sum_horizontal().item():  # A file that was not written by the archiver.
        text = fields.literal("\n".join(paths.to_list()))
        return f"string_split({text}, chr(10))"
    lines = parts.group_by("folder", maintain_order=True).agg(pl.col("name").str.join("\t"))
    text = fields.literal(
        "\n".join(lines.select(pl.concat_str("folder", "name", separator="\t")).to_series().to_list())
    )
    folders = f"list_transform(string_split({text}, chr(10)), lambda g : string_split(g, chr(9)))"
    return f"flatten(list_transform({folders}, lambda p : list_transform(p[2:], lambda n : {_JOINED})))"


def _select(paths: str, columns: Iterable[str]) -> str:
    names = ", ".join(f'"{name}"' for name in columns)
    return f"SELECT {names} FROM read_parquet({paths}, hive_partitioning = true, hive_types_autocast = false)"


def nothing(columns: Iterable[str]) -> str:
    """The SELECT of columns of a message without a row."""
    return "SELECT " + ", ".join(f'NULL::{COLUMNS[name]} AS "{name}"' for name in columns) + " WHERE false"
