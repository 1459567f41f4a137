"""Mending: an hour of the archive compared with Kafka, and what differs replaced in one commit."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

from archiver_pipeline import envelope
from archiver_pipeline.amounts import counted
from archiver_pipeline.errors import ArchiveError, Superseded
from archiver_pipeline.hours import Hour
from archiver_pipeline.rewrites.archived_hour import ArchivedHour
from archiver_pipeline.rewrites.backfilled import Backfilled
from archiver_pipeline.rewrites.balance import Balance, balance
from archiver_pipeline.rewrites.hour_rows import Tally, compare, judge
from archiver_pipeline.rewrites.kafka_hours import HoursRead
from archiver_pipeline.rewrites.seal import finish
from archiver_pipeline.rewrites.sealed_files import Expected, SealedWriter
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.steps import Clock, OnStep
from archiver_pipeline.storage.staging import translated
from archiver_pipeline.stored.parquet import table_of
from archiver_pipeline.stored.runs import Runs, merged
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.attempt import Attempt, rewrite_of
from archiver_pipeline.table.ledger import Ledger, Transaction, filled_transactions

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger(__name__)

MEND = "mend"
"""How the names of files begin that a backfill wrote of an hour that was not closed."""

_TRIES = 5
_TYPES_AT_ONCE = 200
"""So many types are written side by side, a file each; for more, the hour is gone through again."""


class Mender:
    """Mends hours, beside batches, seals and other backfills."""

    def __init__(
        self, archive: Archive, settings: Settings, run_id: str, on_step: OnStep, *, accept_loss: bool
    ) -> None:
        """Prepare it; what the arguments mean is said at `Backfiller`."""
        self._archive = archive
        self._settings = settings
        self._run_id = run_id
        self._on_step = on_step
        self._accept_loss = accept_loss

    def mend(self, hour: Hour, read: HoursRead, *, closed: bool) -> Backfilled:
        """Compare an hour with what was read of it, and replace what differs.

        Raises:
            ArchiveError: the archive could not be read or written, and the hour is as it was.
        """
        for number in range(_TRIES):
            clock = Clock(self._on_step)
            clock.step("plan")
            attempt = rewrite_of(self._archive, envelope.SEAL if closed else MEND, hour.name)
            try:
                return self._attempt(attempt, hour, read, clock)
            except BaseException as error:
                attempt.discard()
                if not isinstance(error, Superseded) or number == _TRIES - 1:
                    raise
                log.info("%s; looking at hour %s again", error, hour)
        raise AssertionError("unreachable")

    def _attempt(self, attempt: Attempt, hour: Hour, read: HoursRead, clock: Clock) -> Backfilled:
        clock.step("compare")
        archived = ArchivedHour(self._archive, attempt, hour)
        paths = [file.path for file in archived.files]
        if archived.bad:
            attempt.check_listed(paths)
        kafka, ledger = read.of(hour), attempt.ledger
        scratch = attempt.staging.scratch / "archived"
        with attempt.reading(paths), translated(self._archive.uri):
            rows = archived.read(scratch, self._settings, read.types, partial(clock.step, "frame"))
            frames = _each(merged(kafka, rows), partial(clock.step, "frame"))
            tally = compare(frames, {at: what.first for at, what in ledger.committed.items()})
        found = balance(tally, archived.damaged, ledger.early.get(hour.name, {}), ledger.lost.get(hour.name, 0))
        counts = {name: getattr(tally, name) for name in ("read", "added", "changed", "retyped", "kept")}
        outcome = partial(Backfilled, hour=hour, lost=found.lost, messages=sum(tally.types.values()), **counts)
        early = sum(count for count, _ in found.filled.values())
        fault = archived.fault(found.lost, early, read.unread, accept_loss=self._accept_loss)
        dirty = tally.dirty | {file.type for file in archived.bad}
        if fault is not None or not dirty:
            attempt.discard()
            return outcome(fault=fault, seconds=clock.elapsed())
        clock.step("write")
        with translated(self._archive.uri):
            files = _write(attempt, hour, archived.expected(dirty, tally), kafka, rows, clock)
        replaced = archived.replaced(dirty)
        version = finish(
            attempt, clock, self._metadata(hour, tally), replaced, _numbers(ledger, hour, found), changes=True
        )
        return outcome(
            mended=tuple(self._archive.storage.address(file.path) for file in archived.bad),
            files_before=len(replaced),
            files_after=files,
            seconds=clock.elapsed(),
            version=version,
        )

    def _metadata(self, hour: Hour, tally: Tally) -> dict[str, str]:
        counts = {"added": tally.added, "changed": tally.changed, "retyped": tally.retyped}
        return {
            "run_id": self._run_id,
            "rewrite": "backfill",
            "hour": hour.name,
            **{name: str(count) for name, count in counts.items()},
        }


def _each(frames: Iterator[pl.DataFrame], told: Callable[[], None]) -> Iterator[pl.DataFrame]:
    """Hand frames on, and tell of each."""
    for frame in frames:
        told()
        yield frame


def _write(
    attempt: Attempt, hour: Hour, expected: Mapping[str, Expected], kafka: Runs, rows: Runs, clock: Clock
) -> int:
    """Write the types that are expected and return the number of files; none of the messages is lost on the way."""
    files, names = 0, sorted(expected)
    for start in range(0, len(names), _TYPES_AT_ONCE):
        wanted = {name: expected[name] for name in names[start : start + _TYPES_AT_ONCE]}
        writer = SealedWriter(attempt, hour, wanted)
        try:
            for frame in merged(kafka, rows):
                clock.step("frame")
                staying = judge(frame).filter("stays")
                for (name,), part in staying.partition_by("type", as_dict=True, maintain_order=True).items():
                    if name in wanted:
                        writer.add(str(name), table_of(part))
            writer.close()
        except BaseException:
            writer.abandon()
            raise
        messages = sum(each.messages for each in wanted.values())
        if writer.messages != messages:
            raise ArchiveError(
                f"{counted(messages, 'message was', 'messages were')} to be written, but {writer.messages:,} were",
                hint="The hour was left as it was. This is a defect of the archiver: please report it",
            )
        files += writer.files
    return files


def _numbers(ledger: Ledger, hour: Hour, found: Balance) -> list[Transaction]:
    """What a backfill records for ever: that the hour has changed, what was given up, and what is new in it."""
    numbers = [Transaction(f"changed/{hour}", ledger.changed.get(hour.name, 0) + 1)]
    if found.lost or found.returned:
        lost = ledger.lost.get(hour.name, 0) + found.lost - found.returned
        numbers.append(Transaction(f"lost/{hour}", lost))
    before = ledger.early.get(hour.name, {})
    for life in sorted({*before, *found.early}):
        if found.early.get(life, 0) != before.get(life, 0):
            numbers.append(Transaction("/".join(("early", hour.name, *life)), found.early.get(life, 0)))
    for at, (count, lowest) in found.filled.items():
        numbers += filled_transactions(at, ledger.committed[at], lowest, count)
    return numbers
