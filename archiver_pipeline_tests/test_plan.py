"""Rules of planning: who gets how much, which lane reads what, and where each partition goes on."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver_pipeline.errors import KafkaError, RangeRefused
from archiver_pipeline.fair_share import share_out
from archiver_pipeline.plan import (
    MADE_AGAIN,
    RETENTION,
    Committed,
    Gap,
    OffsetRange,
    Position,
    TopicPartition,
    TopicState,
    Watermarks,
    check_follows_on,
    lane_of,
    life_of,
    plan_batch,
    positions_of,
)

HUGE = 10**12
claims = st.lists(st.integers(0, HUGE), max_size=40)
budgets = st.integers(1, HUGE)


def at(partition: int, topic_id: str = "A", topic: str = "orders") -> TopicPartition:
    """A partition of the topic that these tests are about."""
    return TopicPartition(topic, topic_id, partition)


def state(topic_id: str, *marks: tuple[int, int], topic: str = "orders") -> TopicState:
    """The topic with partitions 0, 1, … of the given earliest and end offsets."""
    return TopicState(topic, topic_id, {number: Watermarks(*pair) for number, pair in enumerate(marks)})


def earliest(_: TopicPartition, marks: Watermarks) -> int:
    """`ARCHIVER_START=earliest`."""
    return marks.earliest


def latest(_: TopicPartition, marks: Watermarks) -> int:
    """`ARCHIVER_START=latest`."""
    return marks.end


def nowhere(at: TopicPartition, _: Watermarks) -> int:
    """A start that must not be asked for."""
    raise AssertionError(f"asked where {at} begins")


def up_to(*nexts: int, topic_id: str = "A") -> dict[TopicPartition, Committed]:
    """An archive that has partitions 0, 1, … from 0 up to the given offsets."""
    return {at(number, topic_id): Committed(reached, 0, reached) for number, reached in enumerate(nexts)}


@given(claims, budgets)
def test_a_budget_is_used_up_and_not_passed(lags: list[int], budget: int) -> None:
    """Shares add up to the budget or to all that is claimed; only the one message that each may have goes beyond."""
    shares = share_out(lags, budget)
    waiting = sum(lag > 0 for lag in lags)
    assert all(min(lag, 1) <= share <= lag for lag, share in zip(lags, shares, strict=True))
    if budget >= waiting:
        assert sum(shares) == min(budget, sum(lags))
    else:
        assert shares == [min(lag, 1) for lag in lags]


@given(claims, budgets)
def test_shares_are_fair(lags: list[int], budget: int) -> None:
    """Whoever is not met whole has as much as the largest share, but for one message of rounding (max-min fairness)."""
    shares = share_out(lags, budget)
    for lag, share in zip(lags, shares, strict=True):
        assert share == lag or share >= max(shares) - 1


@given(claims, budgets)
def test_small_claims_are_met_whole(lags: list[int], budget: int) -> None:
    """A claim of no more than an even part of the budget is met whole, whatever the others claim."""
    shares = share_out(lags, budget)
    even = budget // max(1, sum(lag > 0 for lag in lags))
    assert all(share == lag for lag, share in zip(lags, shares, strict=True) if lag <= even)


def test_a_huge_partition_starves_nobody() -> None:
    """Beside a backlog of a million million messages, ten messages are read at once."""
    assert share_out([HUGE, 10, 0, HUGE], 1_000) == [495, 10, 0, 495]
    assert share_out([HUGE] * 5, 3) == [1] * 5


@given(claims, budgets, st.integers(0, HUGE))
def test_more_budget_takes_nothing_away(lags: list[int], budget: int, more: int) -> None:
    """With a larger budget nobody gets less."""
    pairs = zip(share_out(lags, budget), share_out(lags, budget + more), strict=True)
    assert all(before <= after for before, after in pairs)


@given(claims, budgets)
def test_who_claims_more_gets_no_less(lags: list[int], budget: int) -> None:
    """Shares are in the order of the claims."""
    pairs = sorted(zip(lags, share_out(lags, budget), strict=True))
    assert [share for _, share in pairs] == sorted(share for _, share in pairs)


@given(st.text(max_size=20), st.integers(0, 10_000), st.integers(1, 1000))
def test_the_partitions_of_a_topic_go_round_the_lanes(topic: str, partition: int, lanes: int) -> None:
    """A partition has one lane, always the same, and as many partitions in a row as there are lanes cover all lanes."""
    lane = lane_of(topic, partition, lanes)
    assert lane == lane_of(topic, partition, lanes)
    assert {lane_of(topic, partition + step, lanes) for step in range(lanes)} == set(range(lanes))


@given(st.lists(st.integers(0, 50), min_size=1, max_size=12), st.integers(1, 5))
def test_each_partition_is_read_by_one_lane(lags: list[int], lanes: int) -> None:
    """The plans of all lanes together read every partition that is behind exactly once, and up to its end."""
    positions = positions_of(state("A", *((0, lag) for lag in lags)), up_to(*[0] * len(lags)), nowhere)
    plans = [plan_batch(lane, lanes, positions, HUGE) for lane in range(lanes)]
    read = sorted((item.at.partition, item.start, item.end) for plan in plans if plan for item in plan.ranges)
    assert read == [(number, 0, lag) for number, lag in enumerate(lags) if lag]


def test_a_new_topic_begins_at_the_start_setting() -> None:
    """`earliest` is what Kafka still has, `latest` the end, a time what the broker finds for it but never what is gone.

    None of it is recorded yet, and what lies before it is no gap.
    """
    seen = state("A", (5, 9), (0, 0))
    for start, expected in ((earliest, [5, 0]), (latest, [9, 0]), (lambda *_: 7, [7, 7]), (lambda *_: 2, [5, 2])):
        positions = positions_of(seen, {}, start)
        assert [position.next for position in positions] == expected
        assert all(position.gaps == () and not position.committed for position in positions)


@pytest.mark.parametrize("lane", range(3))
def test_a_new_topic_begins_in_all_partitions_at_once(lane: int) -> None:
    """Whichever lane comes first records the start of every partition, but reads only its own."""
    positions = positions_of(state("A", (0, 4), (2, 6), (0, 0), (9, 9)), {}, latest)
    plan = plan_batch(lane, 3, positions, 100)
    assert plan is not None
    assert [position.at.partition for position in plan.positions] == [0, 1, 2, 3]
    plan = plan_batch(lane, 3, positions_of(state("A", (0, 4), (2, 6), (0, 0), (9, 9)), {}, earliest), 100)
    assert plan is not None
    assert len(plan.positions) == 4
    assert {lane_of("orders", item.at.partition, 3) for item in plan.ranges} <= {lane}


def test_a_known_topic_goes_on_where_it_stands() -> None:
    """A committed partition goes on at its offset; one without news is not touched by the plan."""
    positions = positions_of(state("A", (0, 8), (0, 3)), up_to(5, 3), nowhere)
    assert [(position.next, position.lag, position.committed) for position in positions] == [(5, 3, True), (3, 0, True)]
    plan = plan_batch(0, 1, positions, 100)
    assert plan is not None
    assert plan.ranges == (OffsetRange(at(0), 5, 8),)
    assert [position.at for position in plan.positions] == [at(0)]
    assert plan.messages == 3
    assert plan_batch(0, 1, positions[1:], 100) is None


def test_an_added_partition_begins_at_its_first_message() -> None:
    """A partition added later begins at 0 even with `latest`, and what retention took of it meanwhile is a gap."""
    added = positions_of(state("A", (0, 5), (0, 7), (3, 7)), up_to(5), latest)[1:]
    assert [(position.next, position.gaps) for position in added] == [
        (0, ()),
        (3, (Gap(at(2), 0, 3, RETENTION),)),
    ]


def test_what_retention_took_is_a_named_gap() -> None:
    """Offsets that Kafka deleted before they were archived are a gap, recorded even where nothing is left to read."""
    (position,) = positions_of(state("A", (9, 9)), up_to(5), nowhere)
    assert (position.next, position.gaps) == (9, (Gap(at(0), 5, 9, RETENTION),))
    plan = plan_batch(0, 1, [position], 100)
    assert plan is not None
    assert (plan.ranges, plan.positions) == ((), (position,))
    assert position.after(9, 0) == Committed(9, 0, 5)


def test_another_lanes_gap_is_left_to_it() -> None:
    """A gap of a known partition is recorded by the partition's own lane, once."""
    positions = positions_of(state("A", (9, 9), (9, 9)), up_to(5, 5), nowhere)
    plans = [plan_batch(lane, 2, positions, 100) for lane in range(2)]
    assert sorted(position.at.partition for plan in plans if plan for position in plan.positions) == [0, 1]


@pytest.mark.parametrize("end", [2, 5, 8])
def test_another_topic_id_is_a_new_life(end: int) -> None:
    """A topic made again begins at 0 under its new id, however long its log is, and says so in every partition."""
    positions = positions_of(state("B", (0, end), (1, end)), up_to(5, 5), latest)
    assert [(position.at, position.next) for position in positions] == [(at(0, "B"), 0), (at(1, "B"), 1)]
    assert positions[0].gaps == (Gap(at(0, "B"), 0, 0, MADE_AGAIN),)
    assert positions[1].gaps == (Gap(at(1, "B"), 0, 0, MADE_AGAIN), Gap(at(1, "B"), 0, 1, RETENTION))
    assert all(not position.committed and position.after(end, 1).first == 0 for position in positions)


@pytest.mark.parametrize("topic_id", ["A", "-"])
def test_a_log_that_ends_too_early_is_a_new_life(topic_id: str) -> None:
    """The same id, or none, with less than was archived is the second life, then the third; all partitions go along."""
    recorded: Mapping[TopicPartition, Committed] = up_to(5, 5, topic_id=topic_id)
    for life in ("#2", "#3"):
        positions = positions_of(state(topic_id, (0, 4), (0, 9)), recorded, latest)
        assert [position.at.topic_id for position in positions] == [topic_id + life] * 2
        assert [position.gaps for position in positions] == [
            (Gap(position.at, 0, 0, MADE_AGAIN),) for position in positions
        ]
        recorded = {**recorded, **{position.at: Committed(5, 0, 5) for position in positions}}
    assert [position.next for position in positions_of(state(topic_id, (0, 7), (0, 9)), recorded, nowhere)] == [5, 5]


def test_the_tenth_life_is_later_than_the_ninth() -> None:
    """Lives are counted, not sorted as text."""
    recorded = {**up_to(3, topic_id="A#9"), **up_to(7, topic_id="A#10")}
    (position,) = positions_of(state("A", (0, 8)), recorded, nowhere)
    assert (position.at.topic_id, position.next) == ("A#10", 7)
    assert life_of("A#10") == ("A", 10)
    assert life_of("A") == ("A", 1)


def test_a_first_id_inherits_what_was_archived_without_one() -> None:
    """When the broker comes to know ids, archiving goes on at the same offsets, in all partitions at once."""
    recorded = {**up_to(3, topic_id="-"), **up_to(5, 6, topic_id="-#2")}
    positions = positions_of(state("A", (0, 9), (8, 9), (0, 2)), recorded, nowhere)
    assert [(position.at, position.next) for position in positions] == [(at(0), 5), (at(1), 8), (at(2), 0)]
    assert [position.gaps for position in positions] == [(), (Gap(at(1), 6, 8, RETENTION),), ()]
    assert [position.after(9, 4) for position in positions] == [
        Committed(9, 5, 4),
        Committed(9, 6, 4),
        Committed(9, 0, 4),
    ]
    plan = plan_batch(0, 2, positions, 100)
    assert plan is not None
    assert len(plan.positions) == 3


def test_a_first_id_with_a_shorter_log_inherits_nothing() -> None:
    """A topic that came to have an id and a shorter log was made again."""
    positions = positions_of(state("A", (0, 4)), up_to(5, topic_id="-"), nowhere)
    assert positions[0].next == 0
    assert positions[0].gaps == (Gap(at(0), 0, 0, MADE_AGAIN),)


def test_only_the_first_id_inherits() -> None:
    """Once an id is recorded, another one is a new life, whatever was archived without any."""
    recorded = {**up_to(5, topic_id="-"), **up_to(7)}
    assert positions_of(state("A", (0, 9)), recorded, nowhere)[0].next == 7
    assert positions_of(state("B", (0, 9)), recorded, nowhere)[0].gaps == (Gap(at(0, "B"), 0, 0, MADE_AGAIN),)


def test_no_id_never_replaces_a_recorded_one() -> None:
    """A topic that is known by its id is not looked at without: everything would be archived again."""
    for recorded in (up_to(5), {**up_to(5, topic_id="-"), **up_to(7)}):
        with pytest.raises(KafkaError, match=r"topic orders.*ARCHIVER_TOPIC_IDS to required"):
            positions_of(state("-", (0, 9)), recorded, earliest)


def test_other_topics_do_not_matter() -> None:
    """What is archived of another topic, even under the same id, is not this topic's past."""
    other = {TopicPartition("payments", "A", 0): Committed(5, 0, 5)}
    assert positions_of(state("A", (0, 9)), other, earliest)[0].next == 0


def test_targets_bound_a_plan() -> None:
    """With targets, partitions without one are left alone, and none is read past its end."""
    positions = positions_of(state("A", (0, 9), (0, 9), (0, 9), (0, 9)), up_to(2, 2, 2, 2), nowhere)
    plan = plan_batch(0, 1, positions, 100, {("orders", 0): 5, ("orders", 1): 50, ("orders", 2): 1})
    assert plan is not None
    assert plan.ranges == (OffsetRange(at(0), 2, 5), OffsetRange(at(1), 2, 9))


def test_a_range_must_follow_on() -> None:
    """A range that begins past the next offset would leave a hole and is refused; one that begins below is none."""
    position = Position(at(0), 5, 9)
    check_follows_on(OffsetRange(at(0), 5, 9), position)
    check_follows_on(OffsetRange(at(0), 0, 9), position)
    with pytest.raises(RangeRefused) as refused:
        check_follows_on(OffsetRange(at(0), 6, 9), position)
    assert "topic orders, partition 0, offsets [6, 9)" in str(refused.value)
    assert str(refused.value).endswith("Begin the range at 5 or below")


@pytest.mark.parametrize("committed", [{}, up_to(9, 9, topic_id="B")], ids=["first seen", "made again"])
def test_where_a_topic_begins_waits_for_all_its_partitions(committed: dict[TopicPartition, Committed]) -> None:
    """A partition that has no leader at the first look must not be taken for one that was added later."""
    seen = TopicState("orders", "A", {0: Watermarks(0, 5)}, complete=False)
    assert positions_of(seen, committed, latest) == []


def test_a_known_topic_goes_on_without_a_partition_that_has_no_leader() -> None:
    """Where the topic begins is decided, so the partitions that answer are read."""
    seen = TopicState("orders", "A", {0: Watermarks(0, 5)}, complete=False)
    assert [(position.at, position.lag) for position in positions_of(seen, up_to(3, 3), nowhere)] == [(at(0), 2)]
