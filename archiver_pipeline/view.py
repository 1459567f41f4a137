"""The DuckDB file: views over the archive as of one table version, replaced in one step."""

from __future__ import annotations

import logging
import os
import re
import shutil
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archiver_pipeline import envelope, fields
from archiver_pipeline.aggregates import EVENTS_PER_MINUTE, PAGE_VIEWS, VIEWS
from archiver_pipeline.archive import Archive
from archiver_pipeline.durable import force, locked
from archiver_pipeline.errors import ArchiveDamaged, ArchiveError, StorageError
from archiver_pipeline.fields import Field
from archiver_pipeline.ledger import Ledger
from archiver_pipeline.look import Look
from archiver_pipeline.staging import translated
from archiver_pipeline.view_aggregates import lacks_views, replace_aggregates
from archiver_pipeline.view_files import COLUMNS, ViewFiles
from archiver_pipeline.view_tables import (
    LAYOUT,
    add_batches,
    replace_fields,
    replace_files,
    replace_gaps,
    replace_losses,
    replace_offsets,
    store_broken,
)

if TYPE_CHECKING:
    import duckdb
    import polars as pl

log = logging.getLogger(__name__)

_FORMAT = 4
"""Raised when the layout of the file changes: an older file is then made anew instead of being carried on."""

PUBLIC = (*VIEWS, EVENTS_PER_MINUTE, PAGE_VIEWS)
"""Names that no type's view takes: those of the contract, some of which come with what follows the archive."""


def refresh(path: Path, archive: Archive, look: Look | None = None) -> int:
    """Bring the DuckDB file up to the table's newest version and return that version.

    The new file takes the old one's place by a rename: whoever has the old one open goes on reading it. It is never
    replaced by one of an older version. Files of the archive that cannot be read keep nobody from the others: the log
    names them, and so does the error of a query that needs them.

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
        with locked(path):
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


def behind(path: Path, archive: Archive, version: int, seconds: float) -> bool:
    """Tell whether the file has not shown the table's newest version for so long, as after a kill between the two.

    It goes by the times of the files, so that it may be asked every few seconds.
    """
    if version < 0:
        return False
    committed = (archive.path / "_delta_log" / f"{version:020}.json").stat().st_mtime
    shown = path.stat().st_mtime if path.exists() else 0.0
    return shown < committed <= time.time() - seconds


def _refresh(path: Path, working: Path, archive: Archive, look: Look | None, *, anew: bool) -> int:
    """Bring a copy of the file up to date, so that its readers' locks do not matter, and put it in the file's place."""
    import duckdb

    _remove(working)
    clock = path.with_name(path.name + ".lock")
    clock.touch()
    began = clock.stat().st_mtime_ns
    if not anew:
        shutil.copyfile(path, working)
    table, ledger = archive.snapshot()
    aggregates = path.parent / "aggregates"
    with closing(duckdb.connect(str(working))) as connection:
        connection.execute("SET enable_progress_bar = false")  # It would be drawn on standard output.
        if anew:
            connection.execute(LAYOUT)
            connection.execute("INSERT INTO meta.state VALUES (?, ?, -1)", [_FORMAT, str(table.metadata().id)])
        state = connection.execute("SELECT format, table_id, version FROM meta.state").fetchone()
        if state is None or state[:2] != (_FORMAT, str(table.metadata().id)):
            raise duckdb.DataError("it shows another table, or was made by another release")
        before = int(state[2])
        with closing(ViewFiles(connection, archive.path)) as files:
            up_to_date = before == table.version() and not files.mended
            if before > table.version() or (up_to_date and not lacks_views(connection, aggregates)):
                return before
            replace_aggregates(connection, aggregates)
            _update(connection, archive, table, ledger, look, files)
            files.warn()
    # What is committed from now on is newer, also while this was at work: see `behind`.
    os.utime(working, ns=(began, began))
    _replace(working, path)
    return table.version()


def _update(
    connection: duckdb.DuckDBPyConnection,
    archive: Archive,
    table: Any,
    ledger: Ledger,
    look: Look | None,
    files: ViewFiles,
) -> None:
    """Write the state of one table version into the working copy, also where some of its files cannot be read."""
    import duckdb

    listed = archive.files(table)
    log_folder = archive.path / "_delta_log"
    files.keep_to(listed)
    try:
        _write(connection, listed, table.version(), ledger, look, files, log_folder)
    except duckdb.Error:
        with suppress(duckdb.Error):
            connection.rollback()
        # DuckDB makes no view over a file that is not there.
        if not files.look_for_broken(listed):
            raise
        _write(connection, listed, table.version(), ledger, look, files, log_folder)
    # Closing would do the same and keep to itself that the disk is full.
    connection.execute("CHECKPOINT")


def _write(
    connection: duckdb.DuckDBPyConnection,
    listed: pl.DataFrame,
    version: int,
    ledger: Ledger,
    look: Look | None,
    files: ViewFiles,
    log_folder: Path,
) -> None:
    """Replace what is different since the last refresh, in one transaction."""
    ((before,),) = connection.execute("SELECT version FROM meta.state").fetchall()
    connection.execute("BEGIN")
    added, gone = replace_files(connection, listed, files)
    reported, found = replace_fields(connection, files, added, gone)
    changed = {*added["type"], *gone["type"], *files.broken_types()}
    columns = {name: _columns(connection, files, name, added, reported, found) for name in sorted(changed)}
    # Now that new files were looked at, the broken ones among them are known.
    if before < 0 or changed:
        connection.execute(f"CREATE OR REPLACE VIEW messages AS {files.select(listed['path'])}")
    _replace_typed_views(connection, files, listed, columns)
    store_broken(connection, files)
    replace_offsets(connection, ledger, look)
    replace_gaps(connection, ledger)
    replace_losses(connection, ledger)
    add_batches(connection, log_folder, before, version)
    connection.execute("UPDATE meta.state SET version = ?", [version])
    connection.execute("COMMIT")


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


def _columns(
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


def _replace_typed_views(
    connection: duckdb.DuckDBPyConnection, files: ViewFiles, listed: pl.DataFrame, columns: Mapping[str, list[Field]]
) -> None:
    """Make the views of the types whose files changed, and drop those of types that are gone."""
    import polars as pl

    names: dict[str, str] = dict(connection.execute('SELECT type, "view" FROM types').fetchall())
    paths = dict(listed.filter(pl.col("type").is_in(list(columns))).group_by("type").agg("path").iter_rows())
    # By age and not by name alone, so that a file made anew gives every view the name that it had.
    first = dict(listed.group_by("type").agg(pl.col("added").min()).iter_rows())
    taken = {name.lower() for (name,) in connection.execute("SELECT view_name FROM duckdb_views()").fetchall()}
    for type_name in sorted(columns, key=lambda name: (first.get(name, 0), name)):
        if type_name not in paths:
            connection.execute(f"DROP VIEW IF EXISTS {fields.identifier(names.pop(type_name))}")
            connection.execute("DELETE FROM types WHERE type = ?", [type_name])
            continue
        if type_name not in names:
            names[type_name] = _view_name(type_name, {*PUBLIC, *taken, *(name.lower() for name in names.values())})
            connection.execute("INSERT INTO types VALUES (?, ?)", [type_name, names[type_name]])
        fields.store(connection, type_name, columns[type_name])
        expressions = ", ".join(column.expression() for column in columns[type_name])
        connection.execute(
            f"CREATE OR REPLACE VIEW {fields.identifier(names[type_name])} AS "
            f"SELECT *{', ' + expressions if expressions else ''} FROM ({files.select(paths[type_name])})"
        )


def _view_name(type_name: str, taken: set[str]) -> str:
    """Name a type's view: what is no letter, digit or underscore becomes `_`; a name that is taken gets a number."""
    name = plain = re.sub(r"[^A-Za-z0-9_]", "_", type_name)
    number = 2
    while name.lower() in taken:
        name, number = f"{plain}_{number}", number + 1
    return name
