"""Planning over time: whatever Kafka and the runs do, every offset is archived once or lies in a named gap.

Only the planning and the ledger are the archiver's. Kafka's log and the table are the simplest models of them: a log is
its earliest and its end offset, the table refuses a commit if one of its transactions has changed since the snapshot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from archiver_pipeline.plan import (
    MADE_AGAIN,
    NO_TOPIC_ID,
    RETENTION,
    Gap,
    OffsetRange,
    Plan,
    TopicPartition,
    TopicState,
    Watermarks,
    life_of,
    plan_batch,
    positions_of,
)
from archiver_pipeline.table import ledger
from archiver_pipeline.table.ledger import Transaction


@dataclass
class Log:
    """What Kafka has of a partition: offsets `[earliest, end)`."""

    earliest: int = 0
    end: int = 0


@dataclass
class Topic:
    """A topic as it was made once; made again it is another object."""

    topic_id: str
    logs: list[Log] = field(default_factory=lambda: [Log()])

    def state(self) -> TopicState:
        """The topic as the broker shows it."""
        return TopicState(
            "orders", self.topic_id, {n: Watermarks(log.earliest, log.end) for n, log in enumerate(self.logs)}
        )


@dataclass
class Run:
    """A run that has planned and not committed yet."""

    plan: Plan
    numbers: dict[str, int]
    topic: Topic
    topic_id: str


class World:
    """Kafka with one topic, any number of runs, and the table."""

    def __init__(self, ids: bool, starts_at_end: bool) -> None:
        self.topic = Topic("A" if ids else NO_TOPIC_ID)
        self.starts_at_end = starts_at_end
        self.made = 1
        self.lanes = 1
        self.numbers: dict[str, int] = {}
        self.rows: Counter[tuple[TopicPartition, int]] = Counter()
        self.first: dict[TopicPartition, int] = {}
        self.runs: list[Run] = []

    def produce(self, partition: int, messages: int) -> None:
        self.topic.logs[partition % len(self.topic.logs)].end += messages

    def delete_old(self, partition: int, messages: int) -> None:
        log = self.topic.logs[partition % len(self.topic.logs)]
        log.earliest = min(log.end, log.earliest + messages)

    def add_partition(self, partition: int, messages: int) -> None:
        self.topic.logs.append(Log(0, messages * (partition % 2)))

    def make_topic_again(self, partitions: int, messages: int) -> None:
        self.made += 1
        topic_id = NO_TOPIC_ID if self.topic.topic_id == NO_TOPIC_ID else f"id{self.made}"
        self.topic = Topic(topic_id, [Log(0, messages * (number % 2)) for number in range(1 + partitions)])

    def upgrade_broker(self, *_: int) -> None:
        if self.topic.topic_id == NO_TOPIC_ID:
            self.topic.topic_id = f"id{self.made}"

    def change_lanes(self, lanes: int, _: int) -> None:
        self.lanes = 1 + lanes

    def plan(self, lane: int, budget: int) -> None:
        run = self._planned(lane % self.lanes, 1 + budget)
        if run:
            self.runs.append(run)

    def commit(self, which: int, read: int) -> None:
        if self.runs:
            self._commit(self.runs.pop(which % len(self.runs)), read)

    def run(self, lane: int, budget: int) -> None:
        run = self._planned(lane % self.lanes, 1 + budget)
        if run:
            self._commit(run, 99)

    def kill(self, which: int, _: int) -> None:
        if self.runs:
            self.runs.pop(which % len(self.runs))

    def drain(self) -> None:
        """Let every lane have its turn until none has anything left to do."""
        for lane in range(self.lanes):
            for _ in range(500):
                if (run := self._planned(lane, 7)) is None:
                    break
                self._commit(run, 7)

    def seen(self) -> ledger.Ledger:
        """The ledger as of now."""
        return ledger.parse(0, [Transaction(*item) for item in self.numbers.items()])

    def _start(self, _: TopicPartition, marks: Watermarks) -> int:
        return marks.end if self.starts_at_end else marks.earliest

    def _planned(self, lane: int, budget: int) -> Run | None:
        positions = positions_of(self.topic.state(), self.seen().committed, self._start)
        plan = plan_batch(lane, self.lanes, positions, budget)
        return Run(plan, dict(self.numbers), self.topic, self.topic.topic_id) if plan else None

    def _commit(self, run: Run, read: int) -> None:
        """Read the planned ranges from what Kafka has now, and commit unless somebody else did."""
        if self.topic.topic_id != run.topic_id and run.topic_id != NO_TOPIC_ID:
            return
        read_ranges = {item.at: self._read(item, read) for item in run.plan.ranges}
        if None in read_ranges.values():
            return
        fence = ledger.fence_of(f"lane{run.plan.lane}")
        wanted = {fence: run.numbers.get(fence, 0) + 1}
        rows: list[tuple[TopicPartition, int]] = []
        first: dict[TopicPartition, int] = {}
        for position in run.plan.positions:
            reached, offsets, gaps = read_ranges.get(position.at) or (position.next, [], [])
            what = position.after(reached, len(offsets))
            first[position.at] = self._expected_first(run, position.at)
            rows += [(position.at, offset) for offset in offsets]
            for item in (
                *ledger.offset_transactions(position.at, what),
                *map(ledger.gap_transaction, (*position.gaps, *gaps)),
            ):
                wanted[item.app_id] = item.version
        if all(self.numbers.get(name) == run.numbers.get(name) for name in wanted):
            self.numbers |= wanted
            self.rows.update(rows)
            self.first = {**first, **self.first}

    def _read(self, item: OffsetRange, read: int) -> tuple[int, list[int], list[Gap]] | None:
        """Read up to so many offsets of a range; None where the log is another one now and too short for it."""
        if item.at.partition >= len(self.topic.logs) or self.topic.logs[item.at.partition].end < item.end:
            return None
        earliest = self.topic.logs[item.at.partition].earliest
        begin = min(max(item.start, earliest), item.end)
        gaps = [Gap(item.at, item.start, begin, RETENTION)] if begin > item.start else []
        end = min(item.end, begin + read)
        return end, list(range(begin, end)), gaps

    def _expected_first(self, run: Run, at: TopicPartition) -> int:
        """Where the archive says that it began: by the start setting only in the topic's very first commit."""
        before = ledger.parse(0, [Transaction(*item) for item in run.numbers.items()]).committed
        if not before:
            return next(position.next for position in run.plan.positions if position.at == at)
        nameless = {old for old in before if life_of(old.topic_id)[0] == NO_TOPIC_ID}
        inherits = len(nameless) == len(before) and life_of(at.topic_id) == (run.topic_id, 1) != (NO_TOPIC_ID, 1)
        if not inherits or any(
            g.at == at and g.reason == MADE_AGAIN for position in run.plan.positions for g in position.gaps
        ):
            return 0
        last = max((old.topic_id for old in nameless), key=life_of)
        old = before.get(TopicPartition(at.topic, last, at.partition))
        return old.next if old else 0


def assert_once(world: World) -> None:
    """From its first to its next offset, a partition's offsets are rows or in a gap, each exactly once."""
    seen = world.seen()
    gaps = Counter((found.gap.at, offset) for found in seen.gaps for offset in range(found.gap.start, found.gap.end))
    assert world.rows + gaps == Counter(
        (at, offset) for at, what in seen.committed.items() for offset in range(what.first, what.next)
    )
    assert Counter(at for at, _ in world.rows) == Counter({at: what.messages for at, what in seen.committed.items()})
    assert {at: what.first for at, what in seen.committed.items()} == world.first


def assert_named(world: World) -> None:
    """Every life says that the topic was made again, but for the first one and one that inherits from it."""
    seen = world.seen()
    named = {found.gap.at.topic_id for found in seen.gaps if found.gap.reason == MADE_AGAIN}
    nameless = any(life_of(at.topic_id)[0] == NO_TOPIC_ID for at in seen.committed)
    assert len({at.topic_id for at in seen.committed} - named) <= 1 + nameless


def assert_complete(world: World) -> None:
    """The topic's present life is archived up to the end of every partition."""
    seen = world.seen()
    lives = [at.topic_id for at in seen.committed if life_of(at.topic_id)[0] == world.topic.topic_id]
    for number, log in enumerate(world.topic.logs):
        what = seen.committed.get(TopicPartition("orders", max(lives, key=life_of), number))
        assert (what.next if what else 0) == log.end


STEPS = (
    *(World.produce,) * 6,
    *(World.run,) * 4,
    *(World.plan,) * 3,
    *(World.commit,) * 3,
    *(World.delete_old,) * 2,
    *(World.change_lanes, World.add_partition, World.make_topic_again, World.upgrade_broker, World.kill),
)
steps = st.tuples(st.sampled_from(STEPS), st.integers(0, 3), st.integers(0, 9))


@settings(max_examples=1000)
@given(st.booleans(), st.booleans(), st.lists(steps, max_size=40))
def test_every_offset_is_archived_once(
    ids: bool, starts_at_end: bool, history: list[tuple[Callable[[World, int, int], None], int, int]]
) -> None:
    """Messages come and go, topics are made again, lanes change, runs overlap, lose and die: all is there once."""
    world = World(ids, starts_at_end)
    for step, one, other in history:
        step(world, one, other)
        assert_once(world)
        assert_named(world)
    world.drain()
    assert_once(world)
    assert_complete(world)
