"""The archive: a Delta table, opened, listed, and with its library's errors translated."""

from __future__ import annotations

import json
import logging
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from archiver_pipeline import delta_log, envelope, ledger
from archiver_pipeline.delta_log import LogState
from archiver_pipeline.errors import ArchiveDamaged, ArchiveError, StorageError
from archiver_pipeline.ledger import Ledger
from archiver_pipeline.schema import delta_schema

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
}
STORAGE = re.compile(r"No space left|Read-only file system|Permission denied|os error (1|5|13|28|30|122)\b")
_STYLE = re.compile(r"\s*(?:\x1b\[\d*m|↳|\n)\s*")


class Archive:
    """The archive in one folder."""

    def __init__(self, uri: str, lanes: int = 1) -> None:
        self.path = Path(uri)
        self.lanes = lanes
        self._lock = threading.Lock()
        self._known: tuple[LogState, Ledger] = (LogState(), Ledger(-1))

    def exists(self) -> bool:
        """Tell whether the table has been made; a kill at the wrong moment leaves its log's folder without a commit."""
        return any((self.path / delta_log.FOLDER).glob("*.json"))

    def standing(self) -> tuple[LogState, Ledger]:
        """What the log and the ledger say now, of one and the same version; only new commits are read.

        Raises:
            ArchiveDamaged: a commit or the checkpoint cannot be read.
        """
        with self._lock:
            before, what = self._known
            state = delta_log.read(self.path, before)
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
        """What log and ledger say; the table is made if it is not there.

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
            return deltalake.DeltaTable(self.path, version=version)
        except (deltalake.exceptions.DeltaError, OSError) as error:
            ledger.read(self.path)  # It names the very file, where it is one that it reads.
            raise self.translated(error) from error

    def snapshot(self) -> tuple[deltalake.DeltaTable, Ledger]:
        """The table and the ledger of one and the same version."""
        while True:
            table, what = self.table(), self.ledger()
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
            delta_log.make_durable(self.path, state.version)
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
        import polars as pl

        found: set[str] = set()
        commits, checkpoints = delta_log.listed(self.path)
        newest = max(checkpoints, default=-1)
        if checkpoints:
            path = delta_log.checkpoint_path(self.path, newest)
            removed = pl.read_parquet(path, columns=["remove"], glob=False, hive_partitioning=False)["remove"]
            found.update(removed.drop_nulls().struct.field("path").drop_nulls())
        for version in commits:
            if version > newest:
                with open(delta_log.commit_path(self.path, version), "rb") as lines:
                    found.update(json.loads(line)["remove"]["path"] for line in lines if line.startswith(b'{"remove"'))
        return {unquote(path) for path in found}

    def _create(self) -> None:
        from deltalake import DeltaTable

        # A log comes before any file: files without one have lost it, and a new one would archive everything again.
        if any(self.path.glob("type=*")) and not self.exists():
            raise ArchiveDamaged(
                "the archive has files but its log is gone",
                path=str(self.path / delta_log.FOLDER),
                hint="Restore the log's folder from a copy, or move the files away to begin a new archive",
            )
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            DeltaTable.create(
                self.path,
                schema=delta_schema(),
                partition_by=list(envelope.PARTITION_COLUMNS),
                mode="error",
                configuration=_CONFIGURATION,
            )
            delta_log.make_durable(self.path, 0)
        except Exception:
            # Another process may have made it at the same moment.
            if not self.exists():
                raise

    def translated(self, error: Exception) -> ArchiveError:
        """Say what a Delta or operating system error means for the archive."""
        text = one_line(error)
        if isinstance(error, OSError) or STORAGE.search(text):
            return StorageError(
                f"the archive cannot be written: {text}",
                path=str(self.path),
                hint="Free space, or make the folder writable, and run again: what is archived is untouched",
            )
        return ArchiveDamaged(
            f"the table's log cannot be read: {text}",
            path=str(self.path / delta_log.FOLDER),
            hint="Restore the damaged file of the log from a copy; nothing was changed",
        )


def one_line(error: Exception) -> str:
    """What the library says, without its backtrace and colours."""
    return ": ".join(part for part in _STYLE.split(str(error).split("\n   0:")[0]) if part)


def _checkpoint_interval(state: LogState) -> int:
    """After how many commits a checkpoint is due; another program may have written anything there."""
    given = str(state.metadata.get("configuration", {}).get("delta.checkpointInterval", ""))
    return max(1, int(given)) if given.isdecimal() else _CHECKPOINT_INTERVAL
