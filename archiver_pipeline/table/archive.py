"""The archive: a Delta table, opened, listed, and with its library's errors translated."""

from __future__ import annotations

import json
import logging
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from archiver_pipeline import envelope
from archiver_pipeline.errors import ArchiveDamaged, ArchiveError
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.storage.staging import storage_error
from archiver_pipeline.storage.storages import storage_at
from archiver_pipeline.table import delta_log, format_version, ledger, upgrade
from archiver_pipeline.table.delta_log import LogState
from archiver_pipeline.table.ledger import Ledger
from archiver_pipeline.table.schema import delta_schema

if TYPE_CHECKING:
    import deltalake
    import polars as pl

    from archiver_pipeline.hours import Hour

log = logging.getLogger(__name__)

_CHECKPOINT_INTERVAL = 100
_CONFIGURATION = {
    "delta.logRetentionDuration": "interval 30 days",
    "delta.checkpointInterval": str(_CHECKPOINT_INTERVAL),
    # A file that was replaced is found by its tombstone, so those have to outlast any pause between two clean-ups.
    "delta.deletedFileRetentionDuration": "interval 14 days",
    format_version.PROPERTY: str(format_version.KNOWN),
}
STORAGE = re.compile(r"No space left|Read-only file system|Permission denied|os error (1|5|13|28|30|122)\b")
_STYLE = re.compile(r"\s*(?:\x1b\[\d*m|↳|\n)\s*")


class Archive:
    """The archive in one folder, or below one prefix of a bucket.

    Attributes:
        storage: its files.
        uri: its address.
        lanes: how many lanes there are.
    """

    def __init__(self, uri: str, lanes: int = 1, scratch: Path | None = None) -> None:
        """Open nothing yet.

        Args:
            uri: a folder, or an address such as `s3://bucket/archive`.
            lanes: how many lanes there are.
            scratch: a local folder for files on their way to a bucket or from it; one of the system's by default.
        """
        self.storage = storage_at(uri, scratch or Path(tempfile.gettempdir()) / "archiver")
        self.uri = self.storage.uri
        self.lanes = lanes
        self._lock = threading.Lock()
        self._known: tuple[LogState, Ledger] = (LogState(), Ledger(-1))

    def exists(self) -> bool:
        """Tell whether the table has been made; a kill at the wrong moment leaves its log's folder without a commit."""
        with self.reached():
            return self.storage.first(delta_log.FOLDER) is not None

    def standing(self) -> tuple[LogState, Ledger]:
        """What the log and the ledger say now, of one and the same version; only new commits are read.

        Raises:
            ArchiveDamaged: a commit or the checkpoint cannot be read.
            FormatTooNew: a newer archiver made the archive, or has upgraded it by now.
        """
        with self._lock:
            before, what = self._known
            with self.reached():
                state = delta_log.read(self.storage, before)
            format_version.check_known(state.metadata, self.uri)
            same = state.transactions is before.transactions and state.version == before.version
            self._known = state, what if same else ledger.of_log(state)
            return self._known

    def _listed_anew(self) -> LogState:
        """What the log says, now that it was listed again."""
        with self._lock:
            state, what = self._known
            self._known = state.unlisted(), what
        return self.standing()[0]

    def types(self) -> set[str]:
        """The types that the archive has files of up to the newest commit, but for the reserved ones. Raises
        ArchiveDamaged."""
        return self.standing()[0].types()

    def ledger(self) -> Ledger:
        """What is archived, up to the newest commit. Raises ArchiveDamaged."""
        return self.standing()[1]

    def made(self) -> tuple[LogState, Ledger]:
        """What log and ledger say; the table is made if it is not there, and brought up to the present format.

        Raises:
            ArchiveDamaged: the log cannot be read.
            StorageError: it cannot be made.
        """
        state, what = self.standing()
        if state.version < 0:
            self.table()
            state, what = self.standing()
        if not state.metadata.get("id"):
            raise self.translated(ValueError("the table has no metadata"))
        while upgrade.due(format_version.version_of(state.metadata, self.uri), upgrade.STEPS):
            with self.reached():
                upgrade.upgrade(self.storage, state, upgrade.STEPS)
            state, what = self.standing()
        return state, what

    def table(self, version: int | None = None) -> deltalake.DeltaTable:
        """Open the Delta table, made if it is not there; the snapshot never moves on by itself.

        Args:
            version: the newest one by default.

        Raises:
            ArchiveDamaged: its log cannot be read.
            StorageError: it cannot be made.
        """
        import deltalake

        try:
            if not self.exists():
                self._create()
            table = deltalake.DeltaTable(self.uri, version=version, storage_options=self.storage.options())
            format_version.check_known({"configuration": table.metadata().configuration}, self.uri)
            return table
        except (deltalake.exceptions.DeltaError, OSError) as error:
            with self.reached():
                ledger.read(self.storage)  # It names the very file, where it is one that it reads.
            raise self.translated(error) from error

    def snapshot(self) -> tuple[deltalake.DeltaTable, Ledger]:
        """The table and the ledger of one and the same version."""
        while True:
            # The ledger first: where the store does not answer, it says so, and the library is not waited for as well.
            what = self.ledger()
            table = self.table()
            if table.version() == what.version:
                return table, what

    def checkpoint(self, state: LogState) -> None:
        """Make a checkpoint of a version where one is due, and remove what the log need not keep any longer.

        What goes wrong is only logged: the commit is there, and a later one makes a checkpoint.
        """
        import deltalake

        every = _checkpoint_interval(state)
        if state.version - state.checkpoint < every:
            return
        try:
            # Another run may have made one since the log was listed.
            if state.version - self._listed_anew().checkpoint < every:
                return
            table = self.table(state.version)
            table.create_checkpoint()
            delta_log.make_durable(self.storage, state.version)
            table.cleanup_metadata()
            self._listed_anew()
        except (ArchiveError, deltalake.exceptions.DeltaError, OSError) as error:
            log.warning("no checkpoint of version %d: %s", state.version, one_line(error))

    def files(self, table: deltalake.DeltaTable | None = None, hour: Hour | None = None) -> pl.DataFrame:
        """The table's files, or those of one hour: path (as on disk, below the archive), type, dt, hr, messages, bytes,
        added, first and last.

        Columns are String but for messages, bytes, added (milliseconds since 1970), and first and last (the lowest and
        the highest offset, null where they are not known), which are Int64.
        """
        import polars as pl

        table = table or self.table()
        actions = pl.DataFrame(table.get_add_actions(flatten=True))
        if hour is not None and actions.height:
            actions = actions.filter(pl.col("partition.dt") == hour.dt, pl.col("partition.hr") == hour.hr)
        if actions.is_empty():
            text = dict.fromkeys(("path", *envelope.PARTITION_COLUMNS), pl.String)
            numbers = dict.fromkeys(("messages", "bytes", "added", "first", "last"), pl.Int64)
            return pl.DataFrame(schema={**text, **numbers})
        return actions.select(
            # The log escapes a path once more than the disk has it (Delta protocol, "Add File").
            pl.Series("path", [unquote(path) for path in actions["path"]]),
            *(pl.col(f"partition.{name}").alias(name) for name in envelope.PARTITION_COLUMNS),
            pl.col("num_records").cast(pl.Int64).alias("messages"),
            pl.col("size_bytes").cast(pl.Int64).alias("bytes"),
            pl.col("modification_time").cast(pl.Int64).alias("added"),
            *(
                (pl.col(name) if name in actions.columns else pl.lit(None)).cast(pl.Int64).alias(alias)
                for name, alias in (("min.offset", "first"), ("max.offset", "last"))
            ),
        )

    def removed(self) -> set[str]:
        """The files that the log has removed and that wait for their deletion (Delta protocol, "Remove File")."""
        found: set[str] = set()
        with self.reached():
            state = self.standing()[0]
            there = delta_log.listed(self.storage, state.checkpoint)
            newest = max(there.checkpoints, default=-1)
            if there.checkpoints:
                removed = delta_log.checkpoint_column(self.storage, newest, "remove").drop_nulls()
                found.update(removed.struct.field("path").drop_nulls())
            for version in there.commits:
                if version > newest:
                    lines = delta_log.commit(self.storage, version).splitlines()
                    found.update(json.loads(line)["remove"]["path"] for line in lines if line.startswith(b'{"remove"'))
        return {unquote(path) for path in found}

    def check_log(self) -> None:
        """Raise ArchiveDamaged where there are files and no log: it comes before any file, so they have lost it."""
        there = self.storage.names("")
        if any(name.startswith("type=") for name in there) and not self.exists():
            raise ArchiveDamaged(
                "the archive has files but its log is gone",
                path=self.storage.address(delta_log.FOLDER),
                hint="Restore the log's folder from a copy, or move the files away to begin a new archive",
            )

    def _create(self) -> None:
        from deltalake import DeltaTable

        self.check_log()  # A new log would archive everything again.
        try:
            self.storage.make()
            DeltaTable.create(
                self.uri,
                schema=delta_schema(),
                partition_by=list(envelope.PARTITION_COLUMNS),
                mode="error",
                configuration=_CONFIGURATION,
                raise_if_key_not_exists=False,  # It knows no property but Delta's own.
                storage_options=self.storage.options(),
            )
            delta_log.make_durable(self.storage, 0)
        except Exception:
            # Another process may have made it at the same moment.
            if not self.exists():
                raise

    @contextmanager
    def reached(self) -> Iterator[None]:
        """Turn what the storage raises into an ArchiveError; what is one already stays as it is."""
        try:
            yield
        except FileNotFoundError:
            raise  # Whoever asked for it knows what that means.
        except OSError as error:
            raise self.translated(error) from error

    def translated(self, error: Exception) -> ArchiveError:
        """Say what an error of Delta, the disk or the object store means for the archive."""
        if isinstance(error, OSError) and error.strerror:
            return storage_error(error, self.uri)
        if (explained := self.storage.explained(error)) is not None:
            return storage_error(explained, self.uri)
        text = one_line(error)
        if isinstance(error, OSError) or STORAGE.search(text):
            return storage_error(OSError(text), self.uri)
        return ArchiveDamaged(
            f"the table's log cannot be read: {text}",
            path=self.storage.address(delta_log.FOLDER),
            hint="Restore the damaged file of the log from a copy; nothing was changed",
        )


def one_line(error: Exception) -> str:
    """What the library says, without its backtrace and colours."""
    return ": ".join(part for part in _STYLE.split(str(error).split("\n   0:")[0]) if part)


def _checkpoint_interval(state: LogState) -> int:
    """After how many commits a checkpoint is due; another program may have written anything there."""
    given = str(state.metadata.get("configuration", {}).get("delta.checkpointInterval", ""))
    return max(1, int(given)) if given.isdecimal() else _CHECKPOINT_INTERVAL


def archive_of(settings: Settings) -> Archive:
    """The archive that the settings name."""
    return Archive(settings.archive_uri, settings.lanes, settings.base_dir.absolute() / "scratch")
