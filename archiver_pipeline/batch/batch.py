"""One micro-batch from end to end: plan, read, write, commit, clean. No Dagster."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from archiver_pipeline.amounts import counted
from archiver_pipeline.batch.planner import CommittedOffsets, Planned, Planner, Targets
from archiver_pipeline.batch.reading import Reading
from archiver_pipeline.batch.writer import BatchWriter
from archiver_pipeline.errors import (
    ArchiveError,
    ArchiverError,
    BatchUnreadable,
    RegistryError,
    Superseded,
    TopicChanged,
)
from archiver_pipeline.formats.held import Held
from archiver_pipeline.kafka.cluster import Cluster
from archiver_pipeline.kafka.look import Look
from archiver_pipeline.kafka.progress import Progress
from archiver_pipeline.plan import Gap, OffsetRange, TopicPartition
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.steps import Clock, OnStep
from archiver_pipeline.table.archive import archive_of
from archiver_pipeline.table.attempt import Attempt, batch_of
from archiver_pipeline.table.batch_info import BatchInfo
from archiver_pipeline.table.ledger import caught_up_transaction, gap_transaction, offset_transactions

log = logging.getLogger(__name__)

SHOWN_FILES = 20
"""So many of its files a batch names."""

_TRIES = 5
_CAREFUL_BATCHES = 10
"""Behind a killed run so many batches are fetched carefully, which is slow where producers send small batches."""


@dataclass(frozen=True)
class Batch:
    """A batch that was committed.

    Attributes:
        lane: its lane.
        ranges: what was archived; each `end` is the next offset to archive.
        messages_by_range: how many messages each range held.
        committed_before: the next offset that the archive had of each range's partition, None for a new one.
        gaps: gaps recorded with it.
        messages, bytes, files: messages, payload bytes, and Parquet files.
        types: messages per type.
        seconds: from plan to commit.
        steps: seconds per step.
        lag: offsets that were left to read in the lane.
        version: the table version that it made.
        look: what the broker showed when it was planned.
        newest: the latest time of its messages (ISO, UTC), empty where none has one that a calendar holds.
        paths: where some of its files lie, below the archive.
        committed_at: when it was committed, in seconds since 1970.
    """

    lane: int
    ranges: tuple[OffsetRange, ...]
    messages_by_range: tuple[int, ...]
    committed_before: tuple[int | None, ...]
    gaps: tuple[Gap, ...]
    messages: int
    bytes: int
    files: int
    types: Mapping[str, int]
    seconds: float
    steps: Mapping[str, float]
    lag: int
    version: int
    look: Look
    newest: str = ""
    paths: tuple[str, ...] = ()
    committed_at: float = 0.0


class Archiver:
    """Archives batches of one lane, each planned from what the archive and the broker say at that moment."""

    def __init__(
        self,
        settings: Settings,
        lane: int = 0,
        run_id: str = "",
        on_step: OnStep = lambda _: None,
        cluster: Cluster | None = None,
    ) -> None:
        self.settings = settings
        self.lane = lane
        self.cluster = cluster or Cluster(settings)
        self.archive = archive_of(settings)
        self._run_id = run_id
        self._on_step = on_step
        self._held = Held(settings.is_registry)
        self._planner = Planner(settings, lane, self.cluster, self._held.within)
        self._next: Reading | None = None
        self._careful = 0

    def look(self) -> Look:
        """Ask the broker how far it is, and warn once of each topic that cannot be read."""
        return self._planner.look()

    def targets_of(self, requested: Iterable[OffsetRange]) -> Targets:
        """Turn explicit ranges into targets. Raises RangeRefused where one does not follow on or has no partition."""
        return self._planner.targets_of(requested, self.archive.ledger().committed)

    def lag(self) -> int:
        """How many offsets all lanes have still to read."""
        return sum(item.lag for item in self._planner.positions(self.archive.ledger().committed, self.look()))

    def batch(self, targets: Targets | None = None, *, read_on: bool = False) -> Batch | None:
        """Archive one batch, or return None where nothing is to be done.

        A refused commit starts over from a fresh snapshot: the run that won has moved the offsets on. A message that
        cannot be decoded or unpacked ends its partition from then on; when nothing else is to be done, its error is
        raised.

        Args:
            targets: how far to go.
            read_on: what comes after it is read while it is committed, for the next call; `rest` ends that.

        Raises:
            KafkaError: the broker failed, or a message cannot be unpacked; ArchiveError: the archive could not be
                written; RegistryError: a message cannot be decoded. Nothing was committed then.
        """
        tries = 0
        while True:
            try:
                batch = self._attempt(targets, read_on)
            except (Superseded, TopicChanged) as error:
                tries += 1
                if tries == _TRIES:
                    raise
                log.warning("%s; starting over", error)
            except (RegistryError, BatchUnreadable) as error:
                self._held.add(error)
                log.warning("%s; what does not wait for it goes on", error)
            else:
                if batch is None:
                    self._held.raise_first()
                return batch

    def rest(self) -> None:
        """Read no further ahead."""
        if self._next is not None:
            self._next.stop()
            self._next = None

    def _attempt(self, targets: Targets | None, read_on: bool) -> Batch | None:
        clock = Clock(self._on_step)
        clock.step("plan")
        attempt = batch_of(self.archive, self.lane)
        before = attempt.ledger.committed
        # What was killed may have been so by messages that are more than the memory, once they are unpacked.
        self._careful = _CAREFUL_BATCHES if attempt.leftovers else self._careful
        reading = self._begun(before, targets)
        try:
            planned = reading.planned if reading else self._planner.plan(before, targets)
            if planned is None:
                self._clean_only(attempt, clock)
                return None
            clock.step("read")
            reading = reading or self._start(planned, attempt.types)
            writer = BatchWriter(attempt.take, attempt.staging.scratch)
            for frame in reading.frames(partial(self._read_on, reading, before) if read_on else None):
                writer.add(frame)
            progress = reading.progress
            clock.step("write")
            writer.close()
            clock.step("sync")
            attempt.staging.sync()
            clock.step("place")
            attempt.staging.place()
            clock.step("check")
            self.cluster.check_topics(position.at for position in planned.plan.positions)
            clock.step("commit")
            seconds = clock.elapsed()
            version = self._commit(attempt, planned, progress, writer, clock, seconds)
            committed_at = time.time()
            self._careful = max(0, self._careful - 1)
            clock.step("clean")
            attempt.clean()
            clock.step("done")
        except BaseException:
            if reading is not None:
                reading.stop()
            attempt.discard()
            raise
        return Batch(
            lane=self.lane,
            ranges=tuple(item.reached for item in progress.values()),
            messages_by_range=tuple(item.messages for item in progress.values()),
            committed_before=tuple(before[at].next if at in before else None for at in progress),
            gaps=planned.gaps(progress),
            messages=sum(item.messages for item in progress.values()),
            bytes=sum(item.bytes for item in progress.values()),
            files=writer.files,
            types=dict(writer.types),
            seconds=seconds,
            steps=dict(clock.steps),
            lag=planned.left(progress),
            version=version,
            look=planned.look,
            newest=writer.newest,
            paths=tuple(file.path for file in attempt.files[:SHOWN_FILES]),
            committed_at=committed_at,
        )

    def _begun(self, committed: CommittedOffsets, targets: Targets | None) -> Reading | None:
        """The batch that is being read already, if it still is the one to do."""
        if self._next is not None and self._next.planned.holds(committed, targets):
            begun, self._next = self._next, None
            return begun
        self.rest()
        return None

    def _read_on(self, reading: Reading, before: CommittedOffsets) -> None:
        """Begin to read the batch after this one, of which all came from Kafka, as if it were committed: the next
        attempt looks if it is."""
        this, progress = reading.planned, reading.progress
        if not this.left(progress):
            return
        with suppress(ArchiverError):  # If it still fails then, it fails the next batch, not this one.
            planned = self._planner.plan({**before, **this.committed(progress)}, this.targets)
            if planned is not None and planned.plan.ranges:
                # Other lanes may have archived new types meanwhile.
                self._next = self._start(planned, lambda: reading.types() | self.archive.types())

    def _start(self, planned: Planned, types: Callable[[], Set[str]]) -> Reading:
        if planned.plan.ranges:
            ranges = list(map(str, planned.plan.ranges))
            log.info("reading %s", ", ".join(ranges), extra={"ranges": ranges, "lane": self.lane})
        # A replay records what it writes before readers see it, so what the broker showed as its end is known by now.
        copies = self.archive.ledger().copies()
        tell = partial(self._on_step, "frame")
        return Reading(planned, self.cluster, self.settings, types, copies, tell, careful=self._careful > 0)

    def _clean_only(self, attempt: Attempt, clock: Clock) -> None:
        """With nothing to archive, fence and remove what killed runs left."""
        if attempt.leftovers:
            clock.step("commit")
            attempt.commit([], {"run_id": self._run_id, "lane": str(self.lane)})
            clock.step("clean")
            attempt.clean()

    def _commit(
        self,
        attempt: Attempt,
        planned: Planned,
        progress: Mapping[TopicPartition, Progress],
        writer: BatchWriter,
        clock: Clock,
        seconds: float,
    ) -> int:
        """Commit files, offsets and gaps in one step, and return the table's version."""
        messages = sum(item.messages for item in progress.values())
        if messages != sum(writer.types.values()):
            raise ArchiveError(
                f"{counted(messages, 'message was', 'messages were')} read, but {sum(writer.types.values()):,} "
                "written; nothing was committed",
                path=self.archive.uri,
                hint="This is a defect of the archiver: please report it; the next run reads them again",
            )
        info = BatchInfo(
            self._run_id,
            self.lane,
            tuple(item.reached for item in progress.values()),
            messages,
            sum(item.bytes for item in progress.values()),
            writer.files,
            seconds,
            dict(clock.steps),
        )
        offsets = [item for at, known in planned.committed(progress).items() for item in offset_transactions(at, known)]
        gaps = map(gap_transaction, planned.gaps(progress))
        # What the broker had when it was asked is then archived: an hour that was over may be closed.
        seen = [] if planned.left(progress) else [caught_up_transaction(self.lane, planned.look.asked_ms)]
        return attempt.commit([*offsets, *gaps, *seen], info.metadata())
