"""Sealing: the small files of a closed hour become one sorted file per type, and no message changes by it."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from archiver_pipeline import envelope
from archiver_pipeline.amounts import counted
from archiver_pipeline.batch.ahead import Ahead
from archiver_pipeline.errors import ArchiveError, KafkaError, Superseded
from archiver_pipeline.hours import DueHour, Hour, HourFile, MiB, due, to_put_together
from archiver_pipeline.kafka.cluster import Cluster
from archiver_pipeline.kafka.look import Look
from archiver_pipeline.plan import lane_of, positions_of
from archiver_pipeline.rewrites.hour_tables import HourTables, files_by_type
from archiver_pipeline.rewrites.sealed_files import Expected, SealedWriter
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.steps import Clock, OnStep
from archiver_pipeline.storage.staging import translated
from archiver_pipeline.stored.in_order import OutOfOrder, in_blocks, sorted_before
from archiver_pipeline.stored.parquet import size_of
from archiver_pipeline.table.archive import archive_of
from archiver_pipeline.table.attempt import Attempt, Replaced, rewrite_of
from archiver_pipeline.table.cleaner import clean
from archiver_pipeline.table.ledger import Ledger, Transaction

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

_TRIES = 5
_AHEAD_BYTES = 64 * MiB
"""So much may wait to be written while more is read and put in order."""


@dataclass(frozen=True)
class Sealed:
    """An hour that was sealed; numbers are those of the types that were written anew.

    Attributes:
        hour: the hour.
        types: the types.
        files_before, files_after, bytes_before, bytes_after: their files, before and after.
        messages: their messages.
        seconds: how long it took.
        version: the table version that it made.
    """

    hour: Hour
    types: tuple[str, ...]
    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int
    messages: int
    seconds: float
    version: int


class Sealer:
    """Seals closed hours, beside batches and other seals."""

    def __init__(self, settings: Settings, run_id: str = "", on_step: OnStep = lambda _: None) -> None:
        self.settings = settings
        self.archive = archive_of(settings)
        self._run_id = run_id
        self._on_step = on_step

    def due(self, *, patient: bool = True, look: Look | None = None) -> list[DueHour]:
        """The closed hours that have something to seal, in order.

        Args:
            patient: let late messages of a sealed hour gather, instead of sealing them at once.
            look: what the broker showed just now; by default it is asked.
        """
        if not self.archive.exists():
            return []
        table, ledger = self.archive.snapshot()
        now_ms = int(time.time() * 1000)
        grace_ms = self.settings.seal_grace_minutes * 60_000
        until_ms = min(now_ms, self.caught_up_ms(ledger, look=look))
        return due(self.archive.files(table), until_ms, now_ms, grace_ms, patient=patient)

    def seal(self, hour: Hour, *, whole: bool = False) -> Sealed | None:
        """Seal an hour, or return None where nothing is to be done.

        Args:
            hour: the hour; it is not asked whether it is closed.
            whole: put all files of a type together, whatever that costs.

        Raises:
            ArchiveDamaged: a file of the hour is missing or changed; nothing was done.
            StorageError: the disk is full or refused; nothing was done.
        """
        sort = False
        for number in range(_TRIES):
            try:
                return self._attempt(hour, whole, sort=sort)
            except OutOfOrder as error:
                log.info("the messages of hour %s are sorted first: %s", hour, error)
                sort = True
            except Superseded as error:
                if number == _TRIES - 1:
                    raise
                log.info("%s; looking at hour %s again", error, hour)
        return None

    def clean(self) -> int:
        """Remove what killed rewrites left, and files that were replaced longer ago than ARCHIVER_KEEP_REPLACED_HOURS.

        The view has to be brought up to date before: one of an older version would name the files that go. Returns how
        many files went.
        """
        return clean(self.archive, self.settings.keep_replaced_hours, {"run_id": self._run_id})

    def caught_up_ms(self, ledger: Ledger, *, ask: bool = True, look: Look | None = None) -> int:
        """When the archive last had all that Kafka had: right now, but for lanes that are behind, or if Kafka does not
        tell or is not to be asked, as the lanes' newest full batches tell."""
        if ask:
            try:
                return self._asked_ms(ledger, look)
            except KafkaError as error:
                log.warning("hours are closed by what the archive knows, because the broker did not tell: %s", error)
        lanes = {lane_of(at.topic, at.partition, self.settings.lanes) for at in ledger.committed}
        return min((ledger.caught_up.get(lane, 0) for lane in lanes), default=0)

    def _asked_ms(self, ledger: Ledger, look: Look | None) -> int:
        cluster = Cluster(self.settings)
        look = look or cluster.look()
        behind = {
            lane_of(item.at.topic, item.at.partition, self.settings.lanes)
            for state in look.topics
            for item in positions_of(state, ledger.committed, cluster.start_offset)
            if item.lag
        }
        return min((ledger.caught_up.get(lane, 0) for lane in behind), default=look.asked_ms)

    def _attempt(self, hour: Hour, whole: bool, *, sort: bool) -> Sealed | None:
        """Seal an hour; `sort` all of its messages before the first is written, which takes much longer."""
        clock = Clock(self._on_step)
        clock.step("plan")
        attempt = rewrite_of(self.archive, envelope.SEAL, hour.name)
        chosen = {
            type_name: together
            for type_name, files in files_by_type(self.archive, attempt, hour).items()
            if (together := to_put_together(files, whole=whole))
        }
        if not chosen:
            return None
        expected = {
            type_name: Expected(
                sum(file.messages for file in files),
                sum(file.bytes for file in files),
                min(file.added for file in files),
            )
            for type_name, files in chosen.items()
        }
        try:
            writer = SealedWriter(attempt, hour, expected)
            try:
                with attempt.reading(file.path for files in chosen.values() for file in files):
                    clock.step("read")
                    tables = HourTables(
                        self.archive.storage, attempt.table.version(), hour, partial(clock.step, "frame")
                    )
                    folder = attempt.staging.scratch / "runs" if sort else None
                    self._write(writer, _in_order(tables, chosen, folder))
                clock.step("write")
                with translated(self.archive.uri):
                    writer.close()
                check_count(hour, expected, writer.messages)
            except BaseException:
                writer.abandon()
                raise
            replaced = [
                Replaced(file.path, file.bytes, _values(hour, type_name))
                for type_name, files in chosen.items()
                for file in files
            ]
            version = finish(attempt, clock, self._metadata(hour), replaced)
        except BaseException:
            attempt.discard()
            raise
        return Sealed(
            hour=hour,
            types=tuple(sorted(chosen)),
            files_before=len(replaced),
            files_after=writer.files,
            bytes_before=sum(file.size for file in replaced),
            bytes_after=writer.bytes,
            messages=writer.messages,
            seconds=clock.elapsed(),
            version=version,
        )

    def _write(self, writer: SealedWriter, messages: Generator[tuple[str, pa.Table]]) -> None:
        """Write messages, while a thread reads the next ones and puts them in order."""
        ahead = Ahead(messages, _AHEAD_BYTES, "read", lambda item: size_of(item[1]))
        try:
            with translated(self.archive.uri):
                for type_name, table in ahead:
                    writer.add(type_name, table)
        finally:
            ahead.stop()

    def _metadata(self, hour: Hour) -> dict[str, str]:
        return {"run_id": self._run_id, "rewrite": envelope.SEAL, "hour": hour.name}


def finish(
    attempt: Attempt,
    clock: Clock,
    metadata: dict[str, str],
    replaced: list[Replaced],
    transactions: Sequence[Transaction] = (),
    *,
    changes: bool = False,
) -> int:
    """Place, commit and clean a rewrite, which `changes` messages or does not; return the table's version."""
    clock.step("sync")
    attempt.staging.sync()
    clock.step("place")
    attempt.staging.place()
    clock.step("commit")
    version = attempt.commit(transactions, metadata, replaced, data_change=changes)
    clock.step("clean")
    attempt.clean()
    clock.step("done")
    return version


def _values(hour: Hour, type_name: str) -> dict[str, str]:
    return {"type": type_name, "dt": hour.dt, "hr": hour.hr}


def check_count(hour: Hour, expected: Mapping[str, Expected], written: int) -> None:
    """None is lost on the way, and none comes twice."""
    messages = sum(each.messages for each in expected.values())
    if written != messages:
        raise ArchiveError(
            f"hour {hour} has {counted(messages, 'message')} by the table's log, but {written:,} were written",
            hint="Run `archiver verify`; the hour was left as it was",
        )


def _in_order(
    tables: HourTables, chosen: Mapping[str, list[HourFile]], folder: Path | None
) -> Generator[tuple[str, pa.Table]]:
    """The messages of each type in order; sorted in `folder`, if it is given, before the first is handed out."""
    for type_name, files in chosen.items():
        found = tables.of(type_name, files)
        for table in in_blocks(found) if folder is None else sorted_before(found, folder):
            yield type_name, table
