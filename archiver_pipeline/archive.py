"""The archive: a Delta table whose one commit holds a batch's files, its offsets and the fence of its lane."""

from __future__ import annotations

import json
import logging
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from archiver_pipeline import envelope, ledger
from archiver_pipeline.errors import ArchiveDamaged, ArchiveError, StorageError, Superseded
from archiver_pipeline.ledger import Ledger, Transaction
from archiver_pipeline.schema import delta_schema
from archiver_pipeline.staging import Staging, leftovers, remove

if TYPE_CHECKING:
    import deltalake
    import polars as pl

log = logging.getLogger(__name__)

_COMMIT_TRIES = 20
_CONFIGURATION = {"delta.logRetentionDuration": "interval 30 days", "delta.checkpointInterval": "100"}
_STORAGE = re.compile(r"No space left|Read-only file system|Permission denied|os error (1|5|13|28|30|122)\b")
_STYLE = re.compile(r"\s*(?:\x1b\[\d*m|↳|\n)\s*")


@dataclass(frozen=True)
class StagedFile:
    """A Parquet file of a batch: where it will lie, its size in bytes, and the statistics that let readers skip it."""

    path: str
    size: int
    values: Mapping[str, str]
    stats: Mapping[str, Any]


class Archive:
    """The archive in one folder."""

    def __init__(self, uri: str, lanes: int = 1) -> None:
        self.path = Path(uri)
        self._lanes = lanes

    def exists(self) -> bool:
        """Tell whether the table has been made; a kill at the wrong moment leaves its log's folder without a commit."""
        return any((self.path / "_delta_log").glob("*.json"))

    def ledger(self) -> Ledger:
        """What is archived, read afresh. Raises ArchiveDamaged."""
        return ledger.read(self.path)

    def table(self) -> deltalake.DeltaTable:
        """Open the Delta table at its newest version, made if it is not there; the snapshot never moves on by itself.

        Raises:
            ArchiveDamaged: its log cannot be read.
            StorageError: it cannot be made.
        """
        import deltalake

        try:
            if not self.exists():
                self._create()
            return deltalake.DeltaTable(self.path)
        except (deltalake.exceptions.DeltaError, OSError) as error:
            self.ledger()  # It names the very file, where it is one that it reads.
            raise self.translated(error) from error

    def snapshot(self) -> tuple[deltalake.DeltaTable, Ledger]:
        """The table and the ledger of one and the same version."""
        while True:
            table, what = self.table(), self.ledger()
            if table.version() == what.version:
                return table, what

    def files(self, table: deltalake.DeltaTable | None = None) -> pl.DataFrame:
        """The table's files: path (as on disk, below the archive), type, dt, hr, messages, bytes and added.

        Columns are String but for messages, bytes and added (milliseconds since 1970), which are Int64.
        """
        import polars as pl

        table = table or self.table()
        actions = pl.DataFrame(table.get_add_actions(flatten=True))
        if actions.is_empty():
            text = dict.fromkeys(("path", *envelope.PARTITION_COLUMNS), pl.String)
            return pl.DataFrame(schema={**text, **dict.fromkeys(("messages", "bytes", "added"), pl.Int64)})
        return actions.select(
            # The log escapes a path once more than the disk has it (Delta protocol, "Add File").
            pl.Series("path", [unquote(path) for path in actions["path"]]),
            *(pl.col(f"partition.{name}").alias(name) for name in envelope.PARTITION_COLUMNS),
            pl.col("num_records").cast(pl.Int64).alias("messages"),
            pl.col("size_bytes").cast(pl.Int64).alias("bytes"),
            pl.col("modification_time").cast(pl.Int64).alias("added"),
        )

    def begin(self, lane: int) -> Attempt:
        """Begin an attempt to commit for a lane, and list what dead attempts left before it."""
        return Attempt(self, lane)

    def mine(self, lane: int) -> Callable[[int], bool]:
        """Whose leftovers a run of `lane` removes: its own lane's, and those of lanes that no longer exist."""
        return lambda other: other == lane or other >= self._lanes

    def _create(self) -> None:
        from deltalake import DeltaTable

        # A log comes before any file: files without one have lost it, and a new one would archive everything again.
        if any(self.path.glob("type=*")) and not self.exists():
            raise ArchiveDamaged(
                "the archive has files but its log is gone",
                path=str(self.path / "_delta_log"),
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
            ledger.make_durable(self.path, 0)
        except Exception:
            # Another process may have made it at the same moment.
            if not self.exists():
                raise

    def translated(self, error: Exception) -> ArchiveError:
        """Say what a Delta or operating system error means for the archive."""
        text = _one_line(error)
        if isinstance(error, OSError) or _STORAGE.search(text):
            return StorageError(
                f"the archive cannot be written: {text}",
                path=str(self.path),
                hint="Free space, or make the folder writable, and run again: what is archived is untouched",
            )
        return ArchiveDamaged(
            f"the table's log cannot be read: {text}",
            path=str(self.path / "_delta_log"),
            hint="Restore the damaged file of the log from a copy; nothing was changed",
        )


class Attempt:
    """One attempt to commit: a snapshot of the table, the files written against it, and one commit.

    The order is: list what others left, write, place, commit, remove what was listed. After a refusal the attempt is
    over and its files are removed; the next one starts from a fresh snapshot.
    """

    def __init__(self, archive: Archive, lane: int) -> None:
        self._archive = archive
        self._table = archive.table()
        # Read after the table: what was committed in between is refused as a conflict, never overlooked.
        self.ledger = archive.ledger()
        self.lane = lane
        self.leftovers = leftovers(archive.path, archive.mine(lane))
        self.files: list[StagedFile] = []
        self._staging: Staging | None = None
        self._name = ""
        self._commit_tried = False

    @property
    def staging(self) -> Staging:
        """The staging folder, made when it is first needed."""
        if self._staging is None:
            self._staging = Staging(self._archive.path, self.lane)
            self._name = self._staging.attempt
        return self._staging

    def types(self) -> set[str]:
        """The types that the archive has files of, the reserved ones not counted."""
        return set(self._archive.files(self._table)["type"].unique()) - envelope.RESERVED

    def write(self, values: Mapping[str, str], content: bytes, stats: Mapping[str, Any]) -> None:
        """Stage one Parquet file of the partition `values`."""
        path = self.staging.write(envelope.folder(values), content)
        self.files.append(StagedFile(path, len(content), values, stats))

    def commit(self, offsets: Iterable[Transaction], metadata: Mapping[str, str]) -> int:
        """Commit files, offsets and fence in one step and return the table's version.

        Raises:
            Superseded: another run committed one of these offsets or this lane first.
            StorageError: the log cannot be written.
        """
        import deltalake
        from deltalake.transaction import AddAction, RemoveAction

        now = int(time.time() * 1000)
        fenced = sorted({self.lane, *(leftover.lane for leftover in self.leftovers)})
        fence = [Transaction(ledger.lane_app_id(lane), self.ledger.epoch(lane) + 1, now) for lane in fenced]
        wanted = [*offsets, *fence]
        properties = deltalake.CommitProperties(
            custom_metadata={**metadata, "attempt": self.staging.attempt},
            app_transactions=[deltalake.Transaction(item.app_id, item.version, now) for item in wanted],
        )
        actions: list[AddAction | RemoveAction] = [
            AddAction(file.path, file.size, dict(file.values), now, True, json.dumps(file.stats)) for file in self.files
        ]
        before = self._table.version()
        self._commit_tried = True
        for attempt in range(_COMMIT_TRIES):
            try:
                self._table.create_write_transaction(
                    actions,
                    mode="append",
                    schema=delta_schema(),
                    partition_by=list(envelope.PARTITION_COLUMNS),
                    commit_properties=properties,
                )
            except (deltalake.exceptions.DeltaError, OSError) as error:
                self._after_refusal(error, before, wanted, attempt)
            version = self._version_of_own_commit(before)
            if version is not None:
                ledger.make_durable(self._archive.path, version)
                return version
        raise ArchiveError(
            f"the commit was refused {_COMMIT_TRIES} times because other lanes kept committing",
            path=str(self._archive.path),
            hint="Run again, or use fewer lanes",
        )

    def clean(self) -> int:
        """Remove what dead attempts left, now that the commit fences them, and return how many files went."""
        removed = 0
        if self.leftovers:
            listed = set(self._archive.files()["path"])
            removed = sum(remove(self._archive.path, leftover, listed) for leftover in self.leftovers)
            log.info("removed %d files that %d killed runs left behind", removed, len(self.leftovers))
        if self._staging is not None:
            self._staging.finish()
        return removed

    def discard(self) -> None:
        """Give up: remove the files of this attempt.

        Once a commit was tried they may be part of the archive whatever the answer was, so then they are left for the
        next run, which looks in the log before it removes anything.
        """
        if self._staging is not None and self._commit_tried:
            self._staging.release()
        elif self._staging is not None:
            self._staging.discard()

    def _after_refusal(self, error: Exception, before: int, wanted: Iterable[Transaction], attempt: int) -> None:
        """Look whether a refusal hides our own commit; return to look for it or to try again, else raise."""
        import deltalake

        if self._version_of_own_commit(before) is not None:
            return
        if not isinstance(error, deltalake.exceptions.CommitFailedError) and _STORAGE.search(str(error)):
            raise self._archive.translated(error) from error
        self._table = self._archive.table()
        now, then = self._archive.ledger().numbers, self.ledger.numbers
        if any(now.get(item.app_id) != then.get(item.app_id) for item in wanted):
            raise Superseded(
                f"another run of lane {self.lane} committed first",
                path=str(self._archive.path),
                hint="Nothing is lost: the next run goes on from what it committed",
            ) from error
        if attempt == _COMMIT_TRIES - 1:
            raise ArchiveError(
                f"the commit failed: {_one_line(error)}", path=str(self._archive.path), hint="Run again"
            ) from error
        time.sleep(random.uniform(0, min(1.0, 0.02 * 2**attempt)))

    def _version_of_own_commit(self, before: int) -> int | None:
        """Find this attempt's commit in the log by its name."""
        wanted = f'"attempt":"{self._name}"'.encode()
        version = before + 1
        while (path := self._log_file(version)).exists():
            if wanted in path.read_bytes():
                return version
            version += 1
        return None

    def _log_file(self, version: int) -> Path:
        return self._archive.path / "_delta_log" / f"{version:020}.json"


def _one_line(error: Exception) -> str:
    """What the library says, without its backtrace and colours."""
    return ": ".join(part for part in _STYLE.split(str(error).split("\n   0:")[0]) if part)
