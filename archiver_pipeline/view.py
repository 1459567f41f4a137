"""The DuckDB file: views over the archive as of one table version, replaced in one step."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archiver_pipeline import envelope, fields
from archiver_pipeline.archive import Archive
from archiver_pipeline.durable import force
from archiver_pipeline.errors import ArchiveDamaged, ArchiveError, StorageError
from archiver_pipeline.kafka import Look
from archiver_pipeline.ledger import Ledger
from archiver_pipeline.plan import life_of
from archiver_pipeline.staging import translated

if TYPE_CHECKING:
    import duckdb
    import polars as pl

log = logging.getLogger(__name__)

_FORMAT = 2
"""Raised when the layout of the file changes: an older file is then made anew instead of being carried on."""

PUBLIC = ("messages", "offsets", "batches", "gaps", "hours", "types")
_ENVELOPE = {
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

_LAYOUT = """
CREATE SCHEMA meta;
CREATE TABLE meta.state (format INTEGER, table_id VARCHAR, version BIGINT);
CREATE TABLE meta.files (path VARCHAR, type VARCHAR, dt VARCHAR, hr VARCHAR, messages BIGINT, bytes BIGINT);
CREATE TABLE meta.fields (type VARCHAR, field VARCHAR, "column" VARCHAR, kind VARCHAR);
CREATE TABLE types (type VARCHAR, "view" VARCHAR);
CREATE TABLE offsets (topic VARCHAR, topic_id VARCHAR, "partition" INTEGER, "first" BIGINT, "next" BIGINT,
                      messages BIGINT, "end" BIGINT, lag BIGINT);
CREATE TABLE gaps ("time" TIMESTAMPTZ, topic VARCHAR, topic_id VARCHAR, "partition" INTEGER, "start" BIGINT,
                   "end" BIGINT, reason VARCHAR);
CREATE TABLE batches (version BIGINT, "time" TIMESTAMPTZ, run_id VARCHAR, lane INTEGER,
                      ranges STRUCT(topic VARCHAR, topic_id VARCHAR, "partition" INTEGER,
                                    "start" BIGINT, "end" BIGINT)[],
                      messages BIGINT, bytes BIGINT, files BIGINT, seconds DOUBLE);
CREATE VIEW hours AS SELECT type, dt, hr, count(*) AS files, sum(messages)::BIGINT AS messages,
    sum(bytes)::BIGINT AS bytes, false AS sealed FROM meta.files GROUP BY ALL ORDER BY ALL;
"""


def refresh(path: Path, archive: Archive, look: Look | None = None) -> int:
    """Bring the DuckDB file up to the table's newest version and return that version.

    The new file takes the old one's place by a rename: whoever has the old one open goes on reading it. It is never
    replaced by one of an older version.

    Args:
        path: the DuckDB file.
        archive: the archive.
        look: the end offsets for the view `offsets`; without it those of the last time are kept.

    Raises:
        StorageError: the file cannot be written.
    """
    import duckdb

    working = path.with_name(f".{path.name}.new")
    with translated(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            try:
                try:
                    return _refresh(path, working, archive, look, anew=not path.exists())
                except duckdb.Error as error:
                    log.warning("%s cannot be carried on and is made anew: %s", path, error)
                    return _refresh(path, working, archive, look, anew=True)
            except duckdb.Error as error:
                raise _translated(error, path) from error
            finally:
                _remove(working)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with open(path.with_name(path.name + ".lock"), "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _refresh(path: Path, working: Path, archive: Archive, look: Look | None, *, anew: bool) -> int:
    """Bring a copy of the file up to date, so that its readers' locks do not matter, and put it in the file's place."""
    import duckdb

    _remove(working)
    if not anew:
        shutil.copyfile(path, working)
    table, ledger = archive.snapshot()
    with closing(duckdb.connect(str(working))) as connection:
        connection.execute("SET enable_progress_bar = false")  # It would be drawn on standard output.
        if anew:
            connection.execute(_LAYOUT)
            connection.execute("INSERT INTO meta.state VALUES (?, ?, -1)", [_FORMAT, str(table.metadata().id)])
        state = connection.execute("SELECT format, table_id, version FROM meta.state").fetchone()
        if state is None or state[:2] != (_FORMAT, str(table.metadata().id)):
            raise duckdb.DataError("it shows another table, or was made by another release")
        before = int(state[2])
        if before >= table.version():
            return before
        _update(connection, archive, table, ledger, before, look)
    _replace(working, path)
    return table.version()


def _update(
    connection: duckdb.DuckDBPyConnection, archive: Archive, table: Any, ledger: Ledger, before: int, look: Look | None
) -> None:
    """Write the state of one table version into the working copy."""
    listed = archive.files(table)
    connection.execute("BEGIN")
    changed, added = _replace_files(connection, listed)
    if before < 0 or changed:
        connection.execute(f"CREATE OR REPLACE VIEW messages AS {_select(archive.path, listed['path'])}")
    _replace_typed_views(connection, archive.path, listed, changed, added)
    _replace_offsets(connection, ledger, look)
    _replace_gaps(connection, ledger)
    _add_batches(connection, archive.path / "_delta_log", before, table.version())
    connection.execute("UPDATE meta.state SET version = ?", [table.version()])
    connection.execute("COMMIT")
    # Closing would do the same and keep to itself that the disk is full.
    connection.execute("CHECKPOINT")


def _translated(error: Exception, path: Path) -> ArchiveError:
    """Say whether a file of the archive is the trouble or the place for the DuckDB file."""
    text = str(error).split("\n")[0]
    if ".parquet" in text:
        hint = "The batch is in the archive. Run `archiver verify`: it names every file that is missing or changed"
        return ArchiveDamaged(f"the views cannot be brought up to date: {text}", path=str(path), hint=hint)
    hint = "Free space, or make the folder writable, and run again: the archive itself is complete"
    return StorageError(f"the DuckDB file cannot be made: {text}", path=str(path), hint=hint)


def _replace(working: Path, path: Path) -> None:
    force([working])
    # What a killed user wrote into the old file would keep everyone from opening the new one.
    _log_of(path).unlink(missing_ok=True)
    os.replace(working, path)


def _remove(working: Path) -> None:
    working.unlink(missing_ok=True)
    _log_of(working).unlink(missing_ok=True)


def _log_of(path: Path) -> Path:
    """The write-ahead log that DuckDB keeps beside a file."""
    return path.with_name(path.name + ".wal")


def _replace_files(connection: duckdb.DuckDBPyConnection, listed: pl.DataFrame) -> tuple[set[str], pl.DataFrame]:
    """Store the file list; return the types whose files changed, and the files that are new (path, type)."""
    import polars as pl

    connection.register("listed", listed.to_arrow())
    added = connection.execute("SELECT path, type FROM listed ANTI JOIN meta.files USING (path)").fetchall()
    gone = connection.execute("SELECT DISTINCT type FROM meta.files ANTI JOIN listed USING (path)").fetchall()
    connection.execute("DELETE FROM meta.files")
    connection.execute("INSERT INTO meta.files SELECT path, type, dt, hr, messages, bytes FROM listed")
    connection.unregister("listed")
    new = pl.DataFrame(added, schema={"path": pl.String, "type": pl.String}, orient="row")
    return {*new["type"].unique(), *(name for (name,) in gone)}, new


def _select(archive: Path, paths: Iterable[str], columns: Iterable[str] = _ENVELOPE) -> str:
    """The SELECT over a list of files; over none, the same columns without rows."""
    wanted = list(columns)
    listed = ", ".join(fields.literal(no_glob(str(archive)) + "/" + path) for path in paths)
    if not listed:
        return "SELECT " + ", ".join(f'NULL::{_ENVELOPE[name]} AS "{name}"' for name in wanted) + " WHERE false"
    names = ", ".join(f'"{name}"' for name in wanted)
    return f"SELECT {names} FROM read_parquet([{listed}], hive_partitioning = true, hive_types_autocast = false)"


def _replace_typed_views(
    connection: duckdb.DuckDBPyConnection, archive: Path, listed: pl.DataFrame, changed: set[str], added: pl.DataFrame
) -> None:
    """Make the views of the types whose files changed, and drop those of types that are gone."""
    import polars as pl

    names: dict[str, str] = dict(connection.execute('SELECT type, "view" FROM types').fetchall())
    paths = dict(listed.group_by("type").agg("path").iter_rows())
    new_paths = dict(added.group_by("type").agg("path").iter_rows())
    # By age and not by name alone, so that a file made anew gives every view the name that it had.
    first = dict(listed.group_by("type").agg(pl.col("added").min()).iter_rows())
    for type_name in sorted(changed, key=lambda name: (first.get(name, 0), name)):
        if type_name not in paths:
            connection.execute(f"DROP VIEW IF EXISTS {fields.identifier(names.pop(type_name))}")
            connection.execute("DELETE FROM types WHERE type = ?", [type_name])
            continue
        if type_name not in names:
            names[type_name] = _view_name(type_name, {*PUBLIC, *(name.lower() for name in names.values())})
            connection.execute("INSERT INTO types VALUES (?, ?)", [type_name, names[type_name]])
        columns = fields.merge(
            fields.stored(connection, type_name),
            fields.sampled(connection, _select(archive, fields.spread(new_paths.get(type_name, [])), ("value",)))
            if type_name not in envelope.RESERVED
            else {},
            taken=_ENVELOPE,
        )
        fields.store(connection, type_name, columns)
        expressions = ", ".join(column.expression() for column in columns)
        every = _select(archive, paths[type_name])
        connection.execute(
            f"CREATE OR REPLACE VIEW {fields.identifier(names[type_name])} AS "
            f"SELECT *{', ' + expressions if expressions else ''} FROM ({every})"
        )


def _replace_offsets(connection: duckdb.DuckDBPyConnection, ledger: Ledger, look: Look | None) -> None:
    rows = connection.execute('SELECT topic, topic_id, "partition", "end" FROM offsets').fetchall()
    ends: dict[tuple[str, str, int], int | None] = {(row[0], row[1], row[2]): row[3] for row in rows}
    present = {} if look is None else {state.topic: state for state in look.topics}
    connection.execute("DELETE FROM offsets")
    for at, what in sorted(ledger.committed.items()):
        state = present.get(at.topic)
        end = ends.get((at.topic, at.topic_id, at.partition))
        if state is not None and life_of(at.topic_id)[0] == state.topic_id and at.partition in state.partitions:
            end = state.partitions[at.partition].end
        lag = None if end is None else max(0, end - what.next)
        row = [at.topic, at.topic_id, at.partition, what.first, what.next, what.messages, end, lag]
        connection.execute("INSERT INTO offsets VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)


def _replace_gaps(connection: duckdb.DuckDBPyConnection, ledger: Ledger) -> None:
    connection.execute("DELETE FROM gaps")
    for found in ledger.gaps:
        gap = found.gap
        row = [found.time, gap.at.topic, gap.at.topic_id, gap.at.partition, gap.start, gap.end, gap.reason]
        connection.execute("INSERT INTO gaps VALUES (?, ?, ?, ?, ?, ?, ?)", row)


def _add_batches(connection: duckdb.DuckDBPyConnection, log_folder: Path, before: int, after: int) -> None:
    """Add the commits since the last time, and drop those that the log no longer has."""
    kept = sorted(int(path.stem) for path in log_folder.glob("*.json") if path.stem.isdigit())
    for number in kept:
        if before < number <= after and (info := commit_info(log_folder / f"{number:020}.json")):
            row = [number, info["timestamp"], info["run_id"], int(info["lane"]), info["ranges"]]
            numbers = [int(info[name]) for name in ("messages", "bytes", "files")]
            connection.execute(
                "INSERT INTO batches SELECT ?, to_timestamp(? / 1000.0), ?, ?, from_json(?::JSON, "
                '\'[{"topic": "VARCHAR", "topic_id": "VARCHAR", "partition": "INTEGER", "start": "BIGINT", '
                '"end": "BIGINT"}]\'), ?, ?, ?, ?',
                [*row, *numbers, float(info["seconds"])],
            )
    connection.execute("DELETE FROM batches WHERE version < ?", [kept[0] if kept else after])


def commit_info(path: Path) -> dict[str, Any] | None:
    """The metadata of a commit if it is that of a batch."""
    with open(path, "rb") as lines:
        for line in lines:
            if line.startswith(b'{"commitInfo"'):
                info: dict[str, Any] = json.loads(line)["commitInfo"]
                return info if "ranges" in info else None
    return None


def _view_name(type_name: str, taken: set[str]) -> str:
    """Name a type's view: what is no letter, digit or underscore becomes `_`; a name that is taken gets a number."""
    name = plain = re.sub(r"[^A-Za-z0-9_]", "_", type_name)
    number = 2
    while name.lower() in taken:
        name, number = f"{plain}_{number}", number + 1
    return name


def no_glob(path: str) -> str:
    """Keep DuckDB from taking a character of the archive's own path for a wildcard."""
    return re.sub(r"([*?\[])", r"[\1]", path)
