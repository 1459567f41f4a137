"""The DuckDB file: views over the archive as of one table version, replaced in one step."""

from __future__ import annotations

import logging
import os
import shutil
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from archiver_pipeline import fields
from archiver_pipeline.durable import force, locked
from archiver_pipeline.errors import ArchiveDamaged, ArchiveError, StorageError
from archiver_pipeline.kafka.look import Look
from archiver_pipeline.storage.staging import translated
from archiver_pipeline.table import delta_log
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.delta_log import LogState
from archiver_pipeline.table.ledger import Ledger
from archiver_pipeline.view import tables
from archiver_pipeline.view.aggregates import lacks_views, replace_aggregates
from archiver_pipeline.view.files import ViewFiles
from archiver_pipeline.view.macros import make_macros
from archiver_pipeline.view.news import LOOK_SECONDS as LOOK_SECONDS
from archiver_pipeline.view.news import only_added
from archiver_pipeline.view.types import PUBLIC as PUBLIC
from archiver_pipeline.view.types import columns_of, replace_typed_views, replace_view, view_names

if TYPE_CHECKING:
    import duckdb
    import polars as pl

log = logging.getLogger(__name__)

_FORMAT = 10
"""Raised when the layout of the file changes: an older file is then made anew instead of being carried on."""


def refresh(
    path: Path,
    archive: Archive,
    look: Look | None = None,
    look_seconds: float = LOOK_SECONDS,
    *,
    anew: bool = False,
) -> int:
    """Bring the DuckDB file up to the table's newest version and return that version.

    The new file takes the old one's place by a rename: whoever has the old one open goes on reading it. It is never
    replaced by one of an older version. Files of the archive that cannot be read keep nobody from the others: the log
    names them, and so does the error of a query that needs them. As long as one is missing that was there before, every
    query fails until the archive's files are looked for again.

    Args:
        path: the DuckDB file.
        archive: the archive.
        look: the end offsets for the view `offsets`; without it those of the last time are kept.
        look_seconds: how often all files of the archive are looked for; otherwise it costs the same however many there
            are.
        anew: carry nothing on that the file has, not even names of fields.

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
                    anew = anew or not path.exists()
                    return _refresh(path, working, archive, look, look_seconds, anew=anew, carry=False)
                except duckdb.Error as error:
                    log.warning("%s cannot be carried on and is made anew: %s", path, error)
                    return _refresh(path, working, archive, look, look_seconds, anew=True, carry=True)
            except duckdb.Error as error:
                raise _translated(error, path) from error
            finally:
                _remove(working)


def behind(path: Path, archive: Archive, state: LogState, seconds: float) -> bool:
    """Tell whether the file has not shown the table's newest version for so long, as after a kill between the two.

    A file that another release made shows none. It goes by what the last refresh noted beside the file, so that it may
    be asked every few seconds.
    """
    if state.version < 0 or (path.exists() and _noted(path, state.metadata.get("id", "")) >= state.version):
        return False
    with archive.reached():
        return archive.storage.modified(delta_log.commit_name(state.version)) <= time.time() - seconds


def _noted(path: Path, table: str) -> int:
    """The version of a table that the file shows, as the last refresh noted it; -1 where none of this format did."""
    try:
        shown, version, made = _note(path).read_text().split()
        return int(version) if [shown, made] == [table, str(_FORMAT)] else -1
    except (FileNotFoundError, ValueError):
        return -1


def _write_note(path: Path, state: LogState, version: int) -> int:
    """Note, and return, the version of a table that the file shows now; the format of the file is noted with it."""
    _note(path).write_text(f"{state.metadata['id']} {version} {_FORMAT}")
    return version


def _note(path: Path) -> Path:
    """Where the version is noted: in the file that is locked meanwhile."""
    return path.with_name(path.name + ".lock")


def _refresh(
    path: Path, working: Path, archive: Archive, look: Look | None, look_seconds: float, *, anew: bool, carry: bool
) -> int:
    """Bring a copy of the file up to date, so that its readers' locks do not matter, and put it in the file's place.

    With `carry`, what is made anew has the columns of the file's typed views, where that is but of an older format.
    """
    import duckdb

    _remove(working)
    clock = _note(path)
    clock.touch()
    began = clock.stat().st_mtime_ns
    if not anew:
        shutil.copyfile(path, working)
    state, ledger = archive.made()
    aggregates = path.parent / "aggregates"
    with closing(duckdb.connect(str(working))) as connection:
        connection.execute("SET enable_progress_bar = false")  # It would be drawn on standard output.
        if anew:
            connection.execute(tables.LAYOUT)
            make_macros(connection)
            connection.execute("INSERT INTO meta.state VALUES (?, ?, -1, 0, '')", [_FORMAT, state.metadata["id"]])
            if carry:
                fields.carry_over(connection, path)
        before = _shown(connection, archive, state)
        with closing(ViewFiles(connection, archive.storage)) as files, files.told():
            up_to_date = before == state.version and not files.mended
            if before > state.version or (up_to_date and not lacks_views(connection, aggregates)):
                return _write_note(path, state, before)
            replace_aggregates(connection, aggregates)
            _update(connection, archive, Standing(state, ledger, look), files, look_seconds)
            files.warn()
    # Columns that an aggregate gets from now on are newer, also while this was at work: see `has_new_columns`.
    os.utime(working, ns=(began, began))
    _replace(working, path)
    return _write_note(path, state, state.version)


@dataclass(frozen=True)
class Standing:
    """What the file is to show: the log and the ledger of one version of the table, and the broker's end offsets."""

    log: LogState
    ledger: Ledger
    look: Look | None


def _shown(connection: duckdb.DuckDBPyConnection, archive: Archive, state: LogState) -> int:
    """The version that the file shows. Raises DataError where it is not one of this table and release."""
    import duckdb

    found = connection.execute("SELECT format, table_id, version FROM meta.state").fetchone()
    if found is None or found[:2] != (_FORMAT, state.metadata["id"]):
        raise duckdb.DataError("it shows another table, or was made by another release")
    ((mark,),) = connection.execute("SELECT mark FROM meta.state").fetchall()
    with archive.reached():
        present = archive.storage.mark(delta_log.commit_name(found[2]))
    if mark and present not in (mark, ""):
        raise duckdb.DataError(f"version {found[2]} of the table is another one now: its log was put back")
    return int(found[2])


def _update(
    connection: duckdb.DuckDBPyConnection, archive: Archive, standing: Standing, files: ViewFiles, look_seconds: float
) -> None:
    """Write the state of one table version into the working copy, also where some of its files cannot be read."""
    import duckdb

    added = only_added(connection, archive, standing.log, files, look_seconds)
    if added is None or not _write_added(connection, archive, added, standing, files):
        listed = archive.files(archive.table(standing.log.version))
        files.keep_to(listed)
        files.look_for_missing(listed)
        try:
            _write(connection, archive, listed, standing, files)
        except duckdb.Error:
            with suppress(duckdb.Error):
                connection.rollback()
            # DuckDB makes no view over a file that is not there.
            if not files.look_for_broken(listed):
                raise
            _write(connection, archive, listed, standing, files)
    # Closing would do the same and keep to itself that the disk is full.
    connection.execute("CHECKPOINT")


def _write_added(
    connection: duckdb.DuckDBPyConnection, archive: Archive, added: pl.DataFrame, standing: Standing, files: ViewFiles
) -> bool:
    """Add files in one transaction; False, with nothing changed, where that shows one that cannot be read."""
    import duckdb
    import polars as pl

    try:
        connection.execute("BEGIN")
        tables.add_files(connection, added)
        columns = {name: columns_of(connection, files, name, added, set(), {}) for name in sorted(set(added["type"]))}
        if not files.broken:
            rows = connection.execute("SELECT unnest(meta.fresh())").fetchall()
            fresh = pl.Series([fields.with_glob(path) for (path,) in rows], dtype=pl.String)
            files.store_lists(connection, fresh=fresh.append(added["path"]))
            if not added.is_empty():
                replace_view(connection, "messages", files.select_listed(True), view_names(connection))
            replace_typed_views(connection, files, added, columns)
            _finish(connection, archive, standing)
            return True
    except duckdb.Error as error:
        log.info("all files are looked at: %s", error)
    with suppress(duckdb.Error):
        connection.rollback()
    return False


def _write(
    connection: duckdb.DuckDBPyConnection, archive: Archive, listed: pl.DataFrame, standing: Standing, files: ViewFiles
) -> None:
    """Replace what is different since the last refresh, in one transaction."""
    connection.execute("BEGIN")
    added, gone = tables.replace_files(connection, listed, files)
    reported, found = tables.replace_fields(connection, files, listed, added, gone)
    changed = {*added["type"], *gone["type"], *files.broken_types()}
    columns = {name: columns_of(connection, files, name, added, reported, found) for name in sorted(changed)}
    # Now that new files were looked at, the broken ones among them are known.
    sound = listed.filter(~listed["path"].is_in(sorted(files.broken)))
    files.store_lists(connection, cold=sound["path"], fresh=sound["path"].clear())
    replace_view(connection, "messages", files.select_listed(not sound.is_empty()), view_names(connection))
    replace_typed_views(connection, files, listed, columns)
    tables.store_broken(connection, files)
    connection.execute("UPDATE meta.state SET looked = ?", [time.time()])
    _finish(connection, archive, standing)


def _finish(connection: duckdb.DuckDBPyConnection, archive: Archive, standing: Standing) -> None:
    """Store what does not come from the files, and commit."""
    version = standing.log.version
    ((before,),) = connection.execute("SELECT version FROM meta.state").fetchall()
    tables.replace_offsets(connection, standing.ledger, standing.look)
    tables.replace_gaps(connection, standing.ledger)
    tables.replace_losses(connection, standing.ledger)
    tables.replace_replays(connection, standing.ledger)
    tables.replace_erasures(connection, standing.ledger)
    tables.add_batches(connection, archive.storage, before, version, standing.log.oldest)
    connection.execute("UPDATE meta.state SET version = ?, mark = ?", [version, standing.log.mark])
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
