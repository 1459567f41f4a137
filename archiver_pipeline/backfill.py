"""Backfill: hours read again from Kafka, as far as it still has them, and what differs replaced, one commit an hour."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from archiver_pipeline import envelope
from archiver_pipeline.archive import Archive
from archiver_pipeline.archived_hour import ArchivedHour, Missing
from archiver_pipeline.attempt import Attempt, rewrite_of
from archiver_pipeline.errors import ArchiveError, RangeRefused, Superseded, TopicChanged
from archiver_pipeline.files import OnProgress, quietly
from archiver_pipeline.hour_rows import Tally, compare, judge
from archiver_pipeline.hours import Hour, is_closed
from archiver_pipeline.kafka import Cluster
from archiver_pipeline.kafka_hours import HoursRead, ranges_of
from archiver_pipeline.ledger import Ledger, Transaction, filled_transactions
from archiver_pipeline.runs import Runs, merged
from archiver_pipeline.seal import Sealer, finish
from archiver_pipeline.sealed_files import SealedWriter
from archiver_pipeline.settings import Settings
from archiver_pipeline.staging import Staging, translated
from archiver_pipeline.steps import Clock, OnStep

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger(__name__)

MEND = "mend"
"""How the names of files begin that a backfill wrote of an hour that was not closed."""

_TRIES = 5
_HOURS_AT_ONCE = 24
_BYTES_AT_ONCE = 4 * 1024**3
"""So many neighbouring hours are read from Kafka in one go, as long as the archive has no more than so much of them."""


@dataclass(frozen=True)
class Backfilled:
    """An hour that was read again.

    Attributes:
        hour: the hour.
        read: messages that Kafka still has of it.
        added: of these, messages that the archive did not have, or had in a file that is damaged or gone.
        changed: messages that the archive had otherwise, or more than once.
        retyped: messages that another type rule has moved to another type.
        kept: messages that only the archive has.
        lost: messages of damaged or missing files that neither has.
        mended: the files that were damaged or missing and are replaced.
        messages: how many the hour has in the end.
        files_before, files_after: of the types that were written anew.
        seconds: how long it took, the reading not counted.
        version: the table version that it made, None where nothing differed.
        fault: why the hour was left as it was although something is wrong with it, and what to do.
    """

    hour: Hour
    read: int = 0
    added: int = 0
    changed: int = 0
    retyped: int = 0
    kept: int = 0
    lost: int = 0
    mended: tuple[str, ...] = ()
    messages: int = 0
    files_before: int = 0
    files_after: int = 0
    seconds: float = 0.0
    version: int | None = None
    fault: str | None = None

    def sentence(self) -> str:
        """Say what was done."""
        told = f"Kafka has {self.read:,} of its messages, {self.kept:,} only the archive"
        if self.fault is not None:
            return f"hour {self.hour} was left as it was: {self.fault}"
        if self.version is None:
            return f"hour {self.hour} is as it should be: {told}"
        done = [f"{self.added:,} added", f"{self.changed:,} changed", f"{self.retyped:,} given another type"]
        files = f"damaged or missing file{'s' * (len(self.mended) != 1)}"
        done += [f"{len(self.mended)} {files} replaced", f"{self.lost:,} lost and given up"]
        return f"hour {self.hour}: {', '.join(item for item in done if not item.startswith('0 '))}; {told}"


class Backfiller:
    """Reads hours again and mends what differs, beside batches and seals."""

    def __init__(
        self,
        settings: Settings,
        run_id: str = "",
        on_step: OnStep = lambda _: None,
        on_progress: OnProgress = quietly,
        *,
        accept_loss: bool = False,
        from_kafka: bool = True,
    ) -> None:
        """Prepare it.

        Args:
            settings: where the archive is, and the broker.
            run_id: the Dagster run, for the commits.
            on_step: told of each step.
            on_progress: told how far the reading of Kafka is.
            accept_loss: give up messages of damaged or missing files that Kafka no longer has.
            from_kafka: False leaves Kafka alone, and applies the present type rules to what the archive has.
        """
        self.settings = settings
        self.archive = Archive(settings.archive_uri, settings.lanes)
        self._run_id = run_id
        self._on_step = on_step
        self._on_progress = on_progress
        self._accept_loss = accept_loss
        self._from_kafka = from_kafka
        self._sealer = Sealer(settings, run_id, on_step)

    def run(self, hours: Sequence[Hour]) -> Iterator[Backfilled]:
        """Read the hours again and yield each as it is done: neighbours share one read of Kafka, each has its commit.

        Raises:
            KafkaError: the broker failed; ArchiveError: the archive could not be read or written. The hours that were
            yielded are done, and the others as they were.
        """
        if not self.archive.exists() or not self.archive.ledger().committed:
            raise RangeRefused(
                "there is nothing archived yet, and so no offset up to which an hour could be filled",
                path=str(self.archive.path),
                hint="Archive something first: `dagster job execute -m archiver_pipeline.definitions -j archive`",
            )
        for group in self._groups(sorted(set(hours))):
            for number in range(_TRIES):
                try:
                    yield from self._group(group)
                    break
                except TopicChanged as error:
                    if number == _TRIES - 1:
                        raise
                    log.warning("%s; reading the hours again", error)

    def _groups(self, hours: Sequence[Hour]) -> Iterator[list[Hour]]:
        """Put neighbouring hours together."""
        listed = self.archive.files().select("dt", "hr", "bytes").group_by("dt", "hr").sum()
        sizes = {Hour(dt, hr): size for dt, hr, size in listed.iter_rows()}
        group: list[Hour] = []
        for hour in hours:
            full = len(group) >= _HOURS_AT_ONCE or sum(sizes.get(each, 0) for each in group) > _BYTES_AT_ONCE
            if group and (full or group[-1].number is None or hour.number != group[-1].number + 1):
                yield group
                group = []
            group.append(hour)
        if group:
            yield group

    def _group(self, hours: Sequence[Hour]) -> Iterator[Backfilled]:
        staging = Staging(self.archive.path, f"{MEND}-{hours[0].name}")
        try:
            read = HoursRead(hours, staging.scratch)
            table, ledger = self.archive.snapshot()
            types = set(self.archive.files(table)["type"].unique()) - envelope.RESERVED
            if self._from_kafka:
                self._read(hours, read, types)
            caught_up_ms = self._sealer.caught_up_ms(ledger, ask=self._from_kafka)
            grace_ms = self.settings.seal_grace_minutes * 60_000
            for hour in hours:
                closed = is_closed(hour, caught_up_ms, grace_ms)
                done = self._mend(hour, read.of(hour), types | read.types, closed=closed)
                failed = self._seal(hour) if closed and done.fault is None else None
                yield done
                if failed is not None:
                    raise failed
        finally:
            staging.discard()

    def _seal(self, hour: Hour) -> ArchiveError | None:
        """Seal what is left of a mended hour; that it was mended is to be told even if this fails."""
        try:
            self._sealer.seal(hour, whole=True)
        except ArchiveError as error:
            return error
        return None

    def _read(self, hours: Sequence[Hour], read: HoursRead, types: set[str]) -> None:
        """Read what Kafka still has of the hours, whatever `ARCHIVER_TOPICS` names now."""
        self._on_step("read")
        table, ledger = self.archive.snapshot()
        topics = tuple(sorted({at.topic for at in ledger.committed}))
        cluster = Cluster(self.settings.model_copy(update={"topics": topics}))
        last = [self.archive.files(table, hour)["last"].max() for hour in hours]
        highest = max((value for value in last if isinstance(value, int)), default=-1)
        with translated(self.archive.path):
            ranges = ranges_of(cluster, ledger, cluster.look(), hours, highest)
            log.info("reading %s", ", ".join(map(str, ranges)) or "nothing, for Kafka has nothing of these hours")
            read.read(cluster, self.settings, ranges, types, self._tell)

    def _tell(self, what: str, done: int, total: int) -> None:
        """Say how far the reading is, and that the run is alive."""
        self._on_step("frame")
        self._on_progress(what, done, total)

    def _mend(self, hour: Hour, kafka: Runs, types: set[str], *, closed: bool) -> Backfilled:
        for number in range(_TRIES):
            clock = Clock(self._on_step)
            clock.step("plan")
            attempt = rewrite_of(self.archive, envelope.SEAL if closed else MEND, hour.name)
            try:
                return self._compared(attempt, hour, kafka, types, clock)
            except BaseException as error:
                attempt.discard()
                if not isinstance(error, Superseded) or number == _TRIES - 1:
                    raise
                log.info("%s; looking at hour %s again", error, hour)
        raise AssertionError("unreachable")

    def _compared(self, attempt: Attempt, hour: Hour, kafka: Runs, types: set[str], clock: Clock) -> Backfilled:
        """Compare both sides, and commit what differs."""
        clock.step("compare")
        archived = ArchivedHour(self.archive, attempt, hour)
        paths = [file.path for file in archived.files]
        if archived.bad:
            attempt.check_listed(paths)
        scratch = attempt.staging.scratch
        with attempt.reading(paths), translated(self.archive.path):
            rows = archived.read(scratch / "archived", self.settings, types, partial(clock.step, "frame"))
            frames = _each(merged(kafka, rows), partial(clock.step, "frame"))
            tally = compare(frames, {at: what.first for at, what in attempt.ledger.committed.items()})
        missing = archived.missing(tally)
        counts = {name: getattr(tally, name) for name in ("read", "added", "changed", "retyped", "kept")}
        messages = sum(tally.types.values())
        outcome = partial(Backfilled, hour=hour, lost=missing.lost, messages=messages, **counts)
        fault = archived.fault(missing.lost, accept_loss=self._accept_loss)
        dirty = tally.dirty | {file.type for file in archived.bad}
        if fault is not None or not dirty:
            attempt.discard()
            return outcome(fault=fault, seconds=clock.elapsed())
        clock.step("write")
        writer = SealedWriter(attempt, hour, archived.expected(dirty, tally))
        try:
            with translated(self.archive.path):
                self._write(writer, dirty, kafka, rows, clock)
        except BaseException:
            writer.abandon()
            raise
        replaced = archived.replaced(dirty)
        version = finish(
            attempt, clock, self._metadata(hour, tally), replaced, _numbers(attempt.ledger, hour, missing), changes=True
        )
        return outcome(
            mended=tuple(str(self.archive.path / file.path) for file in archived.bad),
            files_before=len(replaced),
            files_after=writer.files,
            seconds=clock.elapsed(),
            version=version,
        )

    def _write(self, writer: SealedWriter, dirty: set[str], kafka: Runs, rows: Runs, clock: Clock) -> None:
        """Write the types that differ, and count that none of their messages is lost on the way."""
        expected = 0
        for frame in merged(kafka, rows):
            clock.step("frame")
            staying = judge(frame).filter("stays")
            for (type_name,), part in staying.partition_by("type", as_dict=True, maintain_order=True).items():
                if type_name in dirty:
                    expected += part.height
                    writer.add(str(type_name), part)
        writer.close()
        if writer.messages != expected:
            raise ArchiveError(f"{expected:,} messages were to be written, but {writer.messages:,} were")

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


def _numbers(ledger: Ledger, hour: Hour, missing: Missing) -> list[Transaction]:
    """What a backfill records for ever: that the hour has changed, what was given up, and what is new in it."""
    numbers = [Transaction(f"changed/{hour}", ledger.changed.get(hour.name, 0) + 1)]
    if missing.lost:
        numbers.append(Transaction(f"lost/{hour}", ledger.lost.get(hour.name, 0) + missing.lost))
    for at, (count, lowest) in missing.filled.items():
        numbers += filled_transactions(at, ledger.committed[at], lowest, count)
    return numbers
