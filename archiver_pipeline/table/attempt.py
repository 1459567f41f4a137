"""An attempt to commit: files written against one snapshot of the table, and one commit with offsets and fence."""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archiver_pipeline import envelope
from archiver_pipeline.errors import SUPERSEDED, ArchiveError, Superseded
from archiver_pipeline.storage.base import Storage
from archiver_pipeline.storage.staging import Staging
from archiver_pipeline.table import actions, delta_log, format_version
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.delta_log import LogState
from archiver_pipeline.table.ledger import Transaction, fence_of

if TYPE_CHECKING:
    import deltalake

log = logging.getLogger(__name__)

_COMMIT_TRIES = 20


@dataclass(frozen=True)
class StagedFile:
    """A Parquet file of an attempt.

    Attributes:
        path: where it will lie, below the archive.
        size: bytes.
        values: its partition values.
        stats: the statistics that let readers skip it.
        added: since when its messages are in the archive, in milliseconds since 1970; None for now.
    """

    path: str
    size: int
    values: Mapping[str, str]
    stats: Mapping[str, Any]
    added: int | None = None


@dataclass(frozen=True)
class Replaced:
    """A file of the table that a rewrite takes off the list: path, size in bytes, partition values."""

    path: str
    size: int
    values: Mapping[str, str]


def batch_of(archive: Archive, lane: int) -> Attempt:
    """Begin a batch of a lane, which cleans behind dead ones of its own lane, and of lanes that no longer exist."""

    def mine(scope: str) -> bool:
        other = scope.removeprefix("lane")
        return other.isdigit() and (int(other) == lane or int(other) >= archive.lanes)

    return Attempt(archive, f"lane{lane}", mine)


def rewrite_of(archive: Archive, kind: str, hour: str) -> Attempt:
    """Begin a rewrite of an hour, `seal` or `mend`, which cleans behind dead rewrites of that hour."""
    scope = f"{kind}-{hour}"
    return Attempt(archive, scope, lambda other: fence_of(other) == fence_of(scope))


class Attempt:
    """One attempt to commit: a snapshot of the table, the files written against it, and one commit.

    The order is: list what others left, write, place, commit, remove what was listed. After a refusal the attempt is
    over and its files are removed; the next one starts from a fresh snapshot.
    """

    def __init__(self, archive: Archive, scope: str, mine: Callable[[str], bool]) -> None:
        self._archive = archive
        # Of one version: what is committed after it is refused as a conflict, never overlooked.
        self._log, self.ledger = archive.made()
        self.scope = scope
        self.leftovers = archive.storage.leftovers(mine)
        self.files: list[StagedFile] = []
        self._staging: Staging | None = None
        self._name = ""
        self._commit_tried = False

    @property
    def staging(self) -> Staging:
        """The staging folder, made when it is first needed."""
        if self._staging is None:
            self._staging = self._archive.storage.stage(self.scope)
            self._name = self._staging.attempt
        return self._staging

    @cached_property
    def table(self) -> deltalake.DeltaTable:
        """The table, opened at the version of the snapshot when it is first needed."""
        return self._archive.table(self.ledger.version)

    def types(self) -> set[str]:
        """The types that the archive has files of, the reserved ones not counted."""
        return self._log.types()

    def write(self, values: Mapping[str, str], content: bytes, stats: Mapping[str, Any]) -> None:
        """Stage one Parquet file of the partition `values`."""
        path = self.staging.write(envelope.folder(values), content)
        self.files.append(StagedFile(path, len(content), values, stats))

    def take(
        self, written: Path, values: Mapping[str, str], stats: Mapping[str, Any], added: int | None = None
    ) -> StagedFile:
        """Take a Parquet file of the partition `values` that was written to the scratch folder."""
        size = written.stat().st_size
        file = StagedFile(self.staging.take(envelope.folder(values), written), size, values, stats, added)
        self.files.append(file)
        return file

    def commit(
        self,
        transactions: Iterable[Transaction],
        metadata: Mapping[str, str],
        replaced: Sequence[Replaced] = (),
        *,
        data_change: bool = True,
    ) -> int:
        """Commit files, transactions and fence in one step and return the table's version.

        Args:
            transactions: application transactions, offsets for example.
            metadata: what the commit says of itself.
            replaced: files that leave the table with this commit.
            data_change: False for a rewrite that leaves every message as it was (Delta protocol, "Add File").

        Raises:
            Superseded: another run committed one of these transactions or this fence first, or took one of the files.
            StorageError: the log cannot be written.
        """
        now = int(time.time() * 1000)
        fences = sorted({fence_of(self.scope), *(fence_of(leftover.scope) for leftover in self.leftovers)})
        wanted = [*transactions, *(Transaction(fence, self.ledger.epoch(fence) + 1, now) for fence in fences)]
        lines = self._actions(wanted, {**metadata, "attempt": self.staging.attempt}, replaced, now, data_change)
        for attempt in range(_COMMIT_TRIES):
            state, _ = self._archive.standing()
            self._check_not_superseded(state, wanted, replaced)
            self._commit_tried = True
            try:
                done = delta_log.put(self._archive.storage, state.version + 1, lines, self.staging.commit_file)
            except OSError as error:
                done = self._is_committed(state.version + 1, self._archive.storage.hasty())
                if not done:
                    # Whoever took this attempt for dead has committed first, and then removed its folder.
                    self._check_not_superseded(self._archive.standing()[0], wanted, replaced)
                    raise self._archive.translated(error) from error
            if done or self._is_committed(state.version + 1, self._archive.storage):
                self._archive.checkpoint(replace(state, version=state.version + 1))
                return state.version + 1
            self._commit_tried = False  # The version is another's: none of this is in the log.
            time.sleep(random.uniform(0, min(1.0, 0.02 * 2**attempt)))
        raise ArchiveError(
            f"the commit was refused {_COMMIT_TRIES} times because others kept committing",
            path=self._archive.uri,
            hint="Run again, or use fewer lanes",
        )

    def _actions(
        self,
        wanted: Iterable[Transaction],
        metadata: Mapping[str, str],
        replaced: Iterable[Replaced],
        now: int,
        data_change: bool,
    ) -> list[Mapping[str, Any]]:
        """The lines of the commit (Delta protocol, "Actions")."""
        parameters = {"mode": "Append", "partitionBy": json.dumps(envelope.PARTITION_COLUMNS)}
        said = {
            "timestamp": now,
            "operation": "WRITE",
            "operationParameters": parameters,
            "engineInfo": delta_log.ENGINE,
        }
        return [
            {"commitInfo": {**said, **metadata}},
            *({"txn": {"appId": each.app_id, "version": each.version, "lastUpdated": now}} for each in wanted),
            *(actions.remove_action(file.path, file.values, file.size, now, data_change) for file in replaced),
            *(
                actions.add_action(file.path, file.values, file.size, file.added or now, data_change, file.stats)
                for file in self.files
            ),
        ]

    @contextmanager
    def reading(self, paths: Iterable[str]) -> Iterator[None]:
        """Read files of the snapshot: what goes wrong with them is Superseded if one has been replaced meanwhile."""
        try:
            yield
        except (ArchiveError, OSError) as error:
            self.check_listed(paths, error)
            raise

    def check_listed(self, paths: Iterable[str], error: Exception | None = None) -> None:
        """Raise Superseded, with `error` as its cause, where another rewrite has taken one of the files off the list.

        Once that has happened files may be gone from the disk, too, and no missing one is to be taken for damage.
        """
        if not set(paths) <= set(self._archive.files()["path"]):
            raise self._superseded() from error

    def clean(self) -> int:
        """Remove what dead attempts left, now that the commit fences them, and return how many files went."""
        removed = 0
        if self.leftovers:
            # A killed run's committed file may have been replaced since: it stays as long as any other replaced file.
            # Listed ones first: one that is replaced between the two looks is found among the removed ones.
            known = set(self._archive.files()["path"]) | self._archive.removed()
            removed = sum(self._archive.storage.clear(leftover, known) for leftover in self.leftovers)
            log.info("removed %d files that %d killed runs left behind", removed, len(self.leftovers))
        if self._staging is not None:
            self._staging.finish()
        return removed

    def discard(self) -> None:
        """Give up: remove the files of this attempt.

        Where nobody knows what became of a commit they may be part of the archive, so then they are left for the next
        run, which looks in the log before it removes anything.
        """
        if self._staging is not None and self._commit_tried:
            self._staging.release()
        elif self._staging is not None:
            self._staging.discard()

    def _check_not_superseded(
        self, state: LogState, wanted: Iterable[Transaction], replaced: Collection[Replaced]
    ) -> None:
        """Raise Superseded where what was committed since the snapshot conflicts with this commit.

        Raises:
            ArchiveError: the table was changed so that this release cannot write to it.
        """
        if state.writer > delta_log.WRITER_VERSION:
            raise ArchiveError(
                f"another program gave the table features of writer version {state.writer}",
                path=self._archive.uri,
                hint="Remove these features: the archiver writes tables of version 2",
            )
        if state is self._log:
            return
        now, then = state.transactions, self._log.transactions
        taken = {file.path for file in replaced}
        if (
            any(_number(now, item.app_id) != _number(then, item.app_id) for item in wanted)
            or state.metadata.get("id") != self._log.metadata.get("id")
            or _format(state) != _format(self._log)
            or (taken and not taken <= set(self._archive.files(self._archive.table(state.version))["path"]))
        ):
            raise self._superseded()

    def _superseded(self) -> Superseded:
        return Superseded(
            f"another run of {fence_of(self.scope).replace('/', ' ')} committed first",
            path=self._archive.uri,
            hint=SUPERSEDED,
        )

    def _is_committed(self, version: int, storage: Storage) -> bool:
        """Whether the commit of a version is this attempt's, by its name."""
        wanted = f'"attempt":"{self._name}"'.encode()
        with suppress(FileNotFoundError), self._archive.reached():
            return wanted in delta_log.commit(storage, version)
        return False


def _format(state: LogState) -> str | None:
    """The format of the archive: files that were written for one are not committed to the next."""
    found: str | None = (state.metadata.get("configuration") or {}).get(format_version.PROPERTY)
    return found


def _number(transactions: Mapping[str, Transaction], app_id: str) -> int | None:
    return transactions[app_id].version if app_id in transactions else None
