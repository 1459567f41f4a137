"""What the next batch of a lane is: the archive's offsets and a look at the broker, put together."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from archiver_pipeline.errors import KafkaError, RangeRefused
from archiver_pipeline.formats.waits import Waits
from archiver_pipeline.kafka.cluster import Cluster
from archiver_pipeline.kafka.look import Look
from archiver_pipeline.kafka.progress import Progress
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
from archiver_pipeline.settings.settings import Settings

log = logging.getLogger(__name__)

SECOND_LOOK_SECONDS = 2.0

Targets = Mapping[tuple[str, int], int]
"""How far a pass may go: topic and partition to an end offset."""

CommittedOffsets = Mapping[TopicPartition, Committed]


@dataclass(frozen=True)
class Planned:
    """A batch that is to be done.

    Attributes:
        plan: what it moves, and how far.
        look: what the broker showed.
        lag: how many offsets the lane had to read then.
        targets: how far it was allowed to go.
    """

    plan: Plan
    look: Look
    lag: int
    targets: Targets | None

    def holds(self, committed: CommittedOffsets, targets: Targets | None) -> bool:
        """Whether the archive has of its partitions what it was planned from, and no other targets are asked for."""
        return targets == self.targets and all(committed.get(item.at) == item.known for item in self.plan.positions)

    def committed(self, progress: Mapping[TopicPartition, Progress]) -> dict[TopicPartition, Committed]:
        """What the archive has of its partitions once they have come so far."""
        return {item.at: _after(item, progress.get(item.at)) for item in self.plan.positions}

    def gaps(self, progress: Mapping[TopicPartition, Progress]) -> tuple[Gap, ...]:
        """The gaps before its positions, and those that opened while they were read."""
        return tuple(
            gap
            for item in self.plan.positions
            for gap in (*item.gaps, *(progress[item.at].gaps if item.at in progress else ()))
        )

    def left(self, progress: Mapping[TopicPartition, Progress]) -> int:
        """How many offsets the lane has still to read once they have come so far."""
        return max(0, self.lag - sum(item.next - item.range.start for item in progress.values()))


class Planner:
    """Plans the batches of one lane."""

    def __init__(
        self,
        settings: Settings,
        lane: int,
        cluster: Cluster,
        within: Callable[[Iterable[Position]], Iterable[Position]] = lambda positions: positions,
    ) -> None:
        """Begin; of the positions a batch may have those that `within` returns, and the others keep their lag."""
        self._settings = settings
        self._lane = lane
        self._cluster = cluster
        self._within = within
        self._waits = Waits(settings)
        self._warned: set[str] = set()

    def look(self) -> Look:
        """Ask the broker how far it is, and warn once of each topic that cannot be read."""
        look = self._cluster.look()
        if not look.topics:
            raise KafkaError(
                f"there is nothing to archive: {'; '.join(look.warnings)}",
                hint="Check ARCHIVER_TOPICS; a topic that is made later is picked up by the next run",
            )
        for warning in look.warnings:
            if warning not in self._warned:
                log.warning("%s; the other topics go on", warning)
        self._warned.update(look.warnings)
        if self._settings.topic_ids != "none":
            self._waits.forget_others({state.topic: state.topic_id for state in look.topics})
        return look

    def positions(self, committed: CommittedOffsets, look: Look) -> list[Position]:
        """Where archiving stands in every partition of every topic."""
        return [
            position for state in look.topics for position in positions_of(state, committed, self._cluster.start_offset)
        ]

    def targets_of(self, requested: Iterable[OffsetRange], committed: CommittedOffsets) -> Targets:
        """Turn explicit ranges into targets. Raises RangeRefused where one does not follow on or has no partition."""
        at = {
            (position.at.topic, position.at.partition): position for position in self.positions(committed, self.look())
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

    def plan(self, committed: CommittedOffsets, targets: Targets | None) -> Planned | None:
        """Plan the next batch; None where nothing is to be done."""
        look, positions = self._standing(committed)
        free = self._within(positions)
        plan = plan_batch(self._lane, self._settings.lanes, free, self._settings.batch_messages, targets)
        if plan is None:
            return None
        lag = sum(
            item.lag
            for item in positions
            if lane_of(item.at.topic, item.at.partition, self._settings.lanes) == self._lane
        )
        return Planned(plan, look, lag, targets)

    def _standing(self, committed: CommittedOffsets) -> tuple[Look, list[Position]]:
        """Look where archiving stands, twice if a log seems cut: the answer of a former leader may be out of date."""
        look = self.look()
        positions = self.positions(committed, look)
        if any(position.began_again for position in positions):
            time.sleep(SECOND_LOOK_SECONDS)
            look = self.look()
            positions = self.positions(committed, look)
        return look, positions


def _after(position: Position, progress: Progress | None) -> Committed:
    return position.after(position.next, 0) if progress is None else position.after(progress.next, progress.messages)
