"""Hours of an erasure: what is to go becomes rows of type `_erased`, with identity and time, one commit an hour."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

from archiver_pipeline import envelope
from archiver_pipeline.errors import ArchiveDamaged, Superseded
from archiver_pipeline.hours import Hour, is_closed
from archiver_pipeline.rewrites.hour_split import HourSplit
from archiver_pipeline.rewrites.mender import MEND
from archiver_pipeline.rewrites.seal import Sealer, check_count, finish
from archiver_pipeline.rewrites.sealed_files import SealedWriter
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.steps import Clock, OnStep
from archiver_pipeline.storage.staging import translated
from archiver_pipeline.stored.erasure_plan import ErasurePlan
from archiver_pipeline.stored.in_order import OutOfOrder
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.attempt import Attempt, rewrite_of
from archiver_pipeline.table.ledger import Erasure, Ledger, Transaction, erased_transaction

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger(__name__)

ERASE = "erase"
"""What commits of an erasure say that they do."""

_TRIES = 5


@dataclass(frozen=True)
class ErasedHour:
    """What an erasure did to an hour.

    Attributes:
        hour: the hour.
        erased: messages that are erased now and were not before.
        files, bytes: of the files that were replaced.
        gone: messages that neither are there nor erased: they were lost with a file and given up meanwhile.
        version: the table version that it made; None where nothing was left to be done.
        fault: why the hour was left as it was.
    """

    hour: Hour
    erased: int = 0
    files: int = 0
    bytes: int = 0
    gone: int = 0
    version: int | None = None
    fault: str | None = None


class Eraser:
    """Erases hour after hour, beside batches, seals and backfills."""

    def __init__(
        self,
        settings: Settings,
        archive: Archive,
        plan: ErasurePlan,
        run_id: str = "",
        on_step: OnStep = lambda _: None,
    ) -> None:
        """Prepare it; nothing is done yet."""
        self._settings = settings
        self._archive = archive
        self._plan = plan
        self._run_id = run_id
        self._on_step = on_step

    def erase(self, hour: Hour) -> ErasedHour:
        """Erase what the plan has of an hour; what is erased already is left alone.

        Raises:
            ArchiveError: the archive could not be read or written, and the hour is as it was.
        """
        wanted = self._plan.of(hour)
        sort = False
        for number in range(_TRIES):
            clock = Clock(self._on_step)
            clock.step("plan")
            attempt = rewrite_of(self._archive, self._kind(hour), hour.name)
            try:
                return self._attempt(attempt, hour, wanted, clock, sort=sort)
            except ArchiveDamaged as error:
                attempt.discard()
                return ErasedHour(hour, fault=str(error))
            except BaseException as error:
                attempt.discard()
                if not isinstance(error, OutOfOrder | Superseded) or number == _TRIES - 1:
                    raise
                log.info("%s; looking at hour %s again", error, hour)
                sort = sort or isinstance(error, OutOfOrder)
        raise AssertionError("unreachable")

    def _attempt(self, attempt: Attempt, hour: Hour, wanted: pl.DataFrame, clock: Clock, *, sort: bool) -> ErasedHour:
        clock.step("compare")
        split = HourSplit(self._archive, attempt, hour, partial(clock.step, "frame"))
        with attempt.reading(split.paths()):
            split.find(wanted)
            if not split.going:
                attempt.discard()
                return ErasedHour(hour, gone=split.gone)
            expected = split.expected()
            clock.step("write")
            writer = SealedWriter(attempt, hour, expected)
            try:
                with translated(self._archive.uri):
                    split.write(writer, attempt.staging.scratch, sort=sort)
                    writer.close()
                check_count(hour, expected, writer.messages)
            except BaseException:
                writer.abandon()
                raise
        replaced = split.replaced()
        said = {"run_id": self._run_id, "rewrite": ERASE, "hour": hour.name}
        version = finish(attempt, clock, said, replaced, self._numbers(attempt.ledger, hour, split.going), changes=True)
        size = sum(file.size for file in replaced)
        return ErasedHour(hour, split.going, len(replaced), size, split.gone, version)

    def _kind(self, hour: Hour) -> str:
        """How the names of the new files begin: an hour that is closed or sealed stays so."""
        caught_up_ms = Sealer(self._settings).caught_up_ms(self._archive.ledger(), ask=False)
        closed = is_closed(hour, caught_up_ms, self._settings.seal_grace_minutes * 60_000)
        return envelope.SEAL if closed or hour not in self._unsealed else MEND

    @cached_property
    def _unsealed(self) -> set[Hour]:
        """The hours that had a file that is not sealed when the erasure began: to list them anew each time is slow."""
        rows = self._archive.files().select("path", "dt", "hr").iter_rows()
        return {Hour(dt, hr) for path, dt, hr in rows if not envelope.is_sealed(path)}

    def _numbers(self, ledger: Ledger, hour: Hour, erased: int) -> list[Transaction]:
        """What an erasure records for ever: that the hour has changed, and how many messages are erased so far."""
        so_far = Erasure(self._plan.started_ms, self._plan.predicate_hash, 0)
        name = erased_transaction(so_far).app_id
        changed = Transaction(f"changed/{hour}", ledger.changed.get(hour.name, 0) + 1)
        return [changed, erased_transaction(replace(so_far, messages=ledger.numbers.get(name, 0) + erased))]
