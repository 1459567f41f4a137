"""Planning: from committed, earliest and end offsets to the offset ranges of one batch. Pure: no I/O."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from archiver_pipeline.errors import KafkaError, RangeRefused
from archiver_pipeline.fair_share import share_out

NO_TOPIC_ID = "-"
"""Topic id where the broker knows none."""

RETENTION, MADE_AGAIN = "retention", "topic made again"


@dataclass(frozen=True, order=True)
class TopicPartition:
    """One partition in one life of a topic.

    Attributes:
        topic: the topic's name.
        topic_id: Kafka's UUID of the topic (KIP-516), `-` without one; `#2`, `#3`… behind it where the log of the same
            id began again.
        partition: the partition's number.
    """

    topic: str
    topic_id: str
    partition: int


@dataclass(frozen=True)
class OffsetRange:
    """The offsets `[start, end)` of a topic partition."""

    at: TopicPartition
    start: int
    end: int

    def __len__(self) -> int:
        return max(0, self.end - self.start)

    def __str__(self) -> str:
        return f"{self.at.topic}/{self.at.partition} [{self.start}, {self.end})"


@dataclass(frozen=True)
class Gap:
    """Offsets `[start, end)` that Kafka no longer has, with the reason."""

    at: TopicPartition
    start: int
    end: int
    reason: str


@dataclass(frozen=True)
class Watermarks:
    """What the broker says of a partition: its earliest offset and its last stable offset, the end for readers."""

    earliest: int
    end: int


@dataclass(frozen=True)
class TopicState:
    """A topic as the broker shows it: its id, the watermarks of each partition, and whether none had to be left out."""

    topic: str
    topic_id: str
    partitions: Mapping[int, Watermarks]
    complete: bool = True


@dataclass(frozen=True)
class Committed:
    """What the archive has of a topic partition.

    Attributes:
        next: the next offset to archive.
        first: where archiving began.
        messages: how many messages the archive holds of `[first, next)`.
        filled: the lowest offset before `first` that a backfill put in, if one did.
        added: how many messages backfills put in there.
    """

    next: int
    first: int
    messages: int
    filled: int | None = None
    added: int = 0

    @property
    def lowest(self) -> int:
        """The lowest offset that the archive may hold."""
        return self.first if self.filled is None else self.filled

    @property
    def total(self) -> int:
        """How many messages the archive holds in all."""
        return self.messages + self.added


@dataclass(frozen=True)
class Position:
    """Where archiving stands in a partition: the next offset to read, and what has to be recorded with it.

    Attributes:
        at: the topic partition in its present life.
        next: the next offset to read.
        end: the last stable offset.
        gaps: gaps that lie before `next` and are not recorded yet.
        committed: False where the archive has yet to record where the topic begins. That is decided once and for all
            its partitions in one commit, so it is not left to each partition's lane.
        known: what the archive has of it, counted on by the next commit.
    """

    at: TopicPartition
    next: int
    end: int
    gaps: tuple[Gap, ...] = ()
    committed: bool = True
    known: Committed | None = None

    @property
    def began_again(self) -> bool:
        """Whether the log of one and the same topic seems to have begun again."""
        return not self.committed and life_of(self.at.topic_id)[1] > 1

    @property
    def lag(self) -> int:
        """How many offsets are left to read."""
        return max(0, self.end - self.next)

    def after(self, reached: int, messages: int) -> Committed:
        """Return what the archive has once a batch has moved `next` to `reached` with so many messages."""
        began = min((gap.start for gap in self.gaps), default=self.next)
        known = self.known or Committed(began, began, 0)
        return replace(known, next=reached, messages=known.messages + messages)


@dataclass(frozen=True)
class Plan:
    """What one batch of a lane does: the positions that it moves, and how far each may go."""

    lane: int
    positions: tuple[Position, ...]
    ranges: tuple[OffsetRange, ...]

    @property
    def messages(self) -> int:
        """The number of offsets planned, an upper bound of the messages."""
        return sum(len(item) for item in self.ranges)


StartOffset = Callable[[TopicPartition, Watermarks], int]
"""Where a partition of a topic seen for the first time begins."""


def lane_of(topic: str, partition: int, lanes: int) -> int:
    """Return the lane that a partition belongs to; the partitions of one topic go round the lanes."""
    return (zlib.crc32(topic.encode()) + partition) % lanes


def life_of(topic_id: str) -> tuple[str, int]:
    """Split the recorded topic id into Kafka's own and the number of the life."""
    base, _, number = topic_id.partition("#")
    return base, int(number or 1)


def positions_of(
    state: TopicState, committed: Mapping[TopicPartition, Committed], start: StartOffset
) -> list[Position]:
    """Compare a topic with what the archive has of it, and say where each partition goes on.

    A log that ends before the committed offset is a new life of the topic, and so is another topic id; a first id after
    `-` inherits the offsets. A new life begins at 0. Partitions added to a known life begin at 0.

    Raises:
        KafkaError: the topic has no id now although one is recorded: `-` in its place would read everything again.
    """
    recorded = {at: what for at, what in committed.items() if at.topic == state.topic}
    if state.topic_id == NO_TOPIC_ID and any(life_of(at.topic_id)[0] != NO_TOPIC_ID for at in recorded):
        raise KafkaError(
            "the archive knows the topic by its id, but the broker was asked without topic ids",
            topic=state.topic,
            hint="Set ARCHIVER_TOPIC_IDS to required",
        )
    lives = [at.topic_id for at in recorded if life_of(at.topic_id)[0] == state.topic_id]
    current = max(lives, key=life_of, default=None)
    if current is not None and not _began_again(state, current, recorded):
        return [_go_on(state, current, number, recorded) for number in sorted(state.partitions)]
    if not state.complete:
        return []  # Where a topic begins is decided for all its partitions at once, so it waits for the missing ones.
    if current is not None:
        base, number = life_of(current)
        return _new_life(state, f"{base}#{number + 1}")
    nameless = [at.topic_id for at in recorded if life_of(at.topic_id)[0] == NO_TOPIC_ID]
    if nameless and len(nameless) == len(recorded):
        before = max(nameless, key=life_of)
        if not _began_again(state, before, recorded):
            return [_inherit(state, before, number, recorded) for number in sorted(state.partitions)]
    if recorded:
        return _new_life(state, state.topic_id)
    return [
        Position(at, max(start(at, marks), marks.earliest), marks.end, committed=False)
        for at, marks in _each(state, state.topic_id)
    ]


def _each(state: TopicState, topic_id: str) -> list[tuple[TopicPartition, Watermarks]]:
    return [(TopicPartition(state.topic, topic_id, n), marks) for n, marks in sorted(state.partitions.items())]


def _began_again(state: TopicState, topic_id: str, recorded: Mapping[TopicPartition, Committed]) -> bool:
    """Tell whether the log of a partition ends before what was archived of it."""
    return any(at in recorded and marks.end < recorded[at].next for at, marks in _each(state, topic_id))


def _new_life(state: TopicState, topic_id: str) -> list[Position]:
    return [
        Position(
            at,
            max(0, marks.earliest),
            marks.end,
            (Gap(at, 0, 0, MADE_AGAIN), *_retention(at, 0, marks)),
            committed=False,
        )
        for at, marks in _each(state, topic_id)
    ]


def _go_on(state: TopicState, topic_id: str, number: int, recorded: Mapping[TopicPartition, Committed]) -> Position:
    at, marks = TopicPartition(state.topic, topic_id, number), state.partitions[number]
    known = recorded.get(at)
    begin = known.next if known else 0
    return Position(at, max(begin, marks.earliest), marks.end, _retention(at, begin, marks), known=known)


def _inherit(state: TopicState, before: str, number: int, recorded: Mapping[TopicPartition, Committed]) -> Position:
    at, marks = TopicPartition(state.topic, state.topic_id, number), state.partitions[number]
    old = recorded.get(TopicPartition(state.topic, before, number))
    begin = old.next if old else 0
    known = Committed(begin, begin, 0)
    return Position(at, max(begin, marks.earliest), marks.end, _retention(at, begin, marks), False, known)


def _retention(at: TopicPartition, begin: int, marks: Watermarks) -> tuple[Gap, ...]:
    return (Gap(at, begin, marks.earliest, RETENTION),) if marks.earliest > begin else ()


def plan_batch(
    lane: int,
    lanes: int,
    positions: Iterable[Position],
    budget: int,
    targets: Mapping[tuple[str, int], int] | None = None,
) -> Plan | None:
    """Plan at most one batch of a lane: `budget` messages, fairly shared, no partition past its target.

    Where a topic begins is recorded with whichever lane comes first. A plan without ranges records only that, or gaps.
    """
    ranges, moved = [], []
    every = list(positions)
    own = {item.at for item in every if lane_of(item.at.topic, item.at.partition, lanes) == lane}
    lags = [_lag(item, targets) if item.at in own else 0 for item in every]
    for position, share in zip(every, share_out(lags, budget), strict=True):
        if share > 0:
            ranges.append(OffsetRange(position.at, position.next, position.next + share))
        if share > 0 or not position.committed or (position.gaps and position.at in own):
            moved.append(position)
    return Plan(lane, tuple(moved), tuple(ranges)) if moved else None


def _lag(position: Position, targets: Mapping[tuple[str, int], int] | None) -> int:
    if targets is None:
        return position.lag
    return max(
        0, min(position.end, targets.get((position.at.topic, position.at.partition), position.next)) - position.next
    )


def check_follows_on(requested: OffsetRange, position: Position) -> None:
    """Check that an explicit range begins at or below the next offset; what is below is skipped.

    Raises:
        RangeRefused: it begins past it, so that archiving it would leave a hole.
    """
    if requested.start > position.next:
        raise RangeRefused(
            f"the range begins past the next offset to archive, which is {position.next}",
            topic=position.at.topic,
            partition=position.at.partition,
            start=requested.start,
            end=requested.end,
            hint=f"Begin the range at {position.next} or below",
        )
