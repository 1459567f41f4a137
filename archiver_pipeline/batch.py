"""One micro-batch from end to end: plan, read, write, commit, clean. No Dagster."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from archiver_pipeline.archive import Archive
from archiver_pipeline.attempt import Attempt, batch_of
from archiver_pipeline.batch_info import BatchInfo
from archiver_pipeline.errors import ArchiveError, KafkaError, RangeRefused, Superseded, TopicChanged
from archiver_pipeline.kafka import Cluster
from archiver_pipeline.ledger import Ledger, Transaction, caught_up_transaction, gap_transaction, offset_transactions
from archiver_pipeline.look import Look
from archiver_pipeline.plan import (
    Committed,
    Gap,
    OffsetRange,
    Plan,
    Position,
    TopicPartition,
    check_follows_on,
    lane_of,
    plan_batch,
    positions_of,
)
from archiver_pipeline.progress import Progress
from archiver_pipeline.reader import RangeReader
from archiver_pipeline.settings import Settings
from archiver_pipeline.steps import Clock, OnStep
from archiver_pipeline.writer import BatchWriter

log = logging.getLogger(__name__)

_TRIES, _FRAMES_AHEAD = 5, 2
SECOND_LOOK_SECONDS = 2.0

Targets = Mapping[tuple[str, int], int]
"""How far a pass may go: topic and partition to an end offset."""


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


class Archiver:
    """Archives batches of one lane, each planned from what the archive and the broker say at that moment."""

    def __init__(self, settings: Settings, lane: int = 0, run_id: str = "", on_step: OnStep = lambda _: None) -> None:
        self.settings = settings
        self.lane = lane
        self.cluster = Cluster(settings)
        self.archive = Archive(settings.archive_uri, settings.lanes)
        self._run_id = run_id
        self._on_step = on_step
        self._warned: set[str] = set()

    def look(self) -> Look:
        """Ask the broker how far it is, and warn once of each topic that cannot be read."""
        look = self.cluster.look()
        if not look.topics:
            raise KafkaError(
                f"there is nothing to archive: {'; '.join(look.warnings)}",
                hint="Check ARCHIVER_TOPICS; a topic that is made later is picked up by the next run",
            )
        for warning in look.warnings:
            if warning not in self._warned:
                log.warning("%s; the other topics go on", warning)
        self._warned.update(look.warnings)
        return look

    def positions(self, ledger: Ledger, look: Look) -> list[Position]:
        """Where archiving stands in every partition of every topic."""
        return [
            position
            for state in look.topics
            for position in positions_of(state, ledger.committed, self.cluster.start_offset)
        ]

    def targets_of(self, requested: Iterable[OffsetRange]) -> Targets:
        """Turn explicit ranges into targets. Raises RangeRefused where one does not follow on or has no partition."""
        at = {
            (position.at.topic, position.at.partition): position
            for position in self.positions(self.archive.ledger(), self.look())
        }
        targets = {}
        for item in requested:
            place = (item.at.topic, item.at.partition)
            if place not in at:
                raise RangeRefused(
                    "there is no such topic or partition among those to archive",
                    topic=place[0],
                    partition=place[1],
                    hint="Check the range, ARCHIVER_TOPICS and the broker",
                )
            check_follows_on(item, at[place])
            targets[place] = item.end
        return targets

    def batch(self, targets: Targets | None = None) -> Batch | None:
        """Archive one batch, or return None where nothing is to be done.

        A refused commit starts over from a fresh snapshot: the run that won has moved the offsets on.

        Raises:
            KafkaError: the broker failed; ArchiveError: the archive could not be written. Nothing was committed then.
        """
        for attempt in range(_TRIES):
            try:
                return self._attempt(targets)
            except (Superseded, TopicChanged) as error:
                if attempt == _TRIES - 1:
                    raise
                log.warning("%s; starting over", error)
        return None

    def _attempt(self, targets: Targets | None) -> Batch | None:
        clock = Clock(self._on_step)
        clock.step("plan")
        attempt = batch_of(self.archive, self.lane)
        try:
            look, positions = self._standing(attempt.ledger)
            plan = plan_batch(self.lane, self.settings.lanes, positions, self.settings.batch_messages, targets)
            if plan is None:
                self._clean_only(attempt, clock)
                return None
            if plan.ranges:
                log.info("reading %s", ", ".join(map(str, plan.ranges)))
            reader, writer = self._copy(attempt, plan, clock)
            clock.step("sync")
            attempt.staging.sync()
            clock.step("place")
            attempt.staging.place()
            clock.step("check")
            self.cluster.check_topics(position.at for position in plan.positions)
            clock.step("commit")
            seconds = clock.elapsed()
            progress = {item.range.at: item for item in reader.progress}
            gaps = tuple(gap for position in plan.positions for gap in _gaps(position, progress))
            lag = self._lag(positions, progress)
            # What the broker had when it was asked is then archived: an hour that was over may be closed.
            seen = [] if lag else [caught_up_transaction(self.lane, look.asked_ms)]
            extra = [*map(gap_transaction, gaps), *seen]
            version = self._commit(attempt, plan, progress, extra, writer, seconds)
            clock.step("clean")
            attempt.clean()
            clock.step("done")
        except BaseException:
            attempt.discard()
            raise
        before = attempt.ledger.committed
        return Batch(
            lane=self.lane,
            ranges=tuple(item.reached for item in progress.values()),
            messages_by_range=tuple(item.messages for item in progress.values()),
            committed_before=tuple(before[at].next if at in before else None for at in progress),
            gaps=gaps,
            messages=sum(item.messages for item in progress.values()),
            bytes=sum(item.bytes for item in progress.values()),
            files=writer.files,
            types=dict(writer.types),
            seconds=seconds,
            steps=dict(clock.steps),
            lag=lag,
            version=version,
            look=look,
        )

    def _standing(self, ledger: Ledger) -> tuple[Look, list[Position]]:
        """Look where archiving stands, twice if a log seems cut: the answer of a former leader may be out of date."""
        look = self.look()
        positions = self.positions(ledger, look)
        if any(position.began_again for position in positions):
            time.sleep(SECOND_LOOK_SECONDS)
            look = self.look()
            positions = self.positions(ledger, look)
        return look, positions

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
        plan: Plan,
        progress: Mapping[TopicPartition, Progress],
        extra: Iterable[Transaction],
        writer: BatchWriter,
        seconds: float,
    ) -> int:
        """Commit files, offsets and the `extra` transactions in one step, and return the table's version."""
        messages = sum(item.messages for item in progress.values())
        if messages != sum(writer.types.values()):
            raise ArchiveError(
                f"{messages:,} messages were read, but {sum(writer.types.values()):,} written; nothing was committed",
                path=str(self.archive.path),
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
        )
        offsets = [
            item
            for position in plan.positions
            for item in offset_transactions(position.at, _committed(position, progress.get(position.at)))
        ]
        return attempt.commit([*offsets, *extra], info.metadata())

    def _lag(self, positions: Iterable[Position], progress: Mapping[TopicPartition, Progress]) -> int:
        """The offsets of the lane that were left to read."""
        return sum(
            max(0, position.end - (progress[position.at].next if position.at in progress else position.next))
            for position in positions
            if lane_of(position.at.topic, position.at.partition, self.settings.lanes) == self.lane
        )

    def _copy(self, attempt: Attempt, plan: Plan, clock: Clock) -> tuple[RangeReader, BatchWriter]:
        """Read the planned ranges and write them, one thread reading while another writes."""
        reader = RangeReader(self.cluster, plan.ranges, self.settings.batch_bytes)
        places = [item.at for item in plan.ranges]
        writer = BatchWriter(
            places,
            self.settings.type_rule,
            attempt.types() if places else set(),
            self.settings.max_types,
            attempt.write,
        )
        clock.step("read")
        with ThreadPoolExecutor(1, "write") as pool:
            ahead: deque[Future[None]] = deque()
            for frame in reader.frames():
                self._on_step("frame")
                ahead.append(pool.submit(writer.add, frame))
                while len(ahead) > _FRAMES_AHEAD:
                    ahead.popleft().result()
            clock.step("write")
            ahead.append(pool.submit(writer.close))
            for future in ahead:
                future.result()
        return reader, writer


def _gaps(position: Position, progress: Mapping[TopicPartition, Progress]) -> tuple[Gap, ...]:
    """The gaps before a position, and those that opened while it was read."""
    return (*position.gaps, *(progress[position.at].gaps if position.at in progress else ()))


def _committed(position: Position, progress: Progress | None) -> Committed:
    """What the archive has of a partition after the batch."""
    return position.after(position.next, 0) if progress is None else position.after(progress.next, progress.messages)
