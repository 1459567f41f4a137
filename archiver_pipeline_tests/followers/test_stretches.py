"""Rules of stretches: every offset once and in order, as few stretches as the messages call for, gaps for nothing."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from archiver_pipeline.followers.stretches import stretches
from archiver_pipeline.plan import Committed, Gap, TopicPartition

PLACES = [TopicPartition("orders", "A", number) for number in range(4)]


@st.composite
def standings(draw: st.DrawFn) -> tuple[dict[TopicPartition, tuple[int, int]], dict[TopicPartition, Committed]]:
    """Ranges of partitions, and what is committed of each."""
    ranges, committed = {}, {}
    for at in draw(st.lists(st.sampled_from(PLACES), min_size=1, unique=True)):
        first, before, width, after = (draw(st.integers(0, 1000)) for _ in range(4))
        start = first + before
        ranges[at] = (start, start + 1 + width)
        following = start + 1 + width + after
        committed[at] = Committed(following, first, draw(st.integers(0, following - first)))
    return ranges, committed


GAPS = st.lists(
    st.builds(
        lambda at, start, width: Gap(at, start, start + width, "retention"),
        st.sampled_from(PLACES),
        st.integers(0, 3000),
        st.integers(1, 1000),
    )
)


@settings(max_examples=200, deadline=None)
@given(standing=standings(), gaps=GAPS, messages=st.integers(1, 500))
def test_every_offset_is_in_one_stretch(
    standing: tuple[dict[TopicPartition, tuple[int, int]], dict[TopicPartition, Committed]],
    gaps: list[Gap],
    messages: int,
) -> None:
    """Stretches follow on from each other in every partition, from the start of its range to the end; none is empty."""
    ranges, committed = standing
    reached = {at: start for at, (start, _) in ranges.items()}
    count = 0
    for stretch in stretches(ranges, committed, gaps, messages):
        assert stretch
        for at, (start, end) in stretch.items():
            assert start == reached[at] < end
            reached[at] = end
        count += 1
    assert reached == {at: end for at, (_, end) in ranges.items()}
    expected = sum(what.total for at, what in committed.items())
    assert count <= expected // messages + 1


def test_a_gap_takes_no_stretch() -> None:
    """A partition with a gap of a thousand million offsets is cut by its messages, on both sides of it."""
    at, end = PLACES[0], 1_000_000_400
    committed = {at: Committed(end, 0, 400)}
    gap = Gap(at, 200, 1_000_000_200, "retention")
    found = [stretch[at] for stretch in stretches({at: (0, end)}, committed, [gap], 100)]
    assert found == [(0, 100), (100, 1_000_000_200), (1_000_000_200, 1_000_000_300), (1_000_000_300, end)]


def test_sparse_offsets_take_few_stretches() -> None:
    """Of a compacted topic a stretch has more offsets, and about as many messages."""
    at = PLACES[0]
    found = list(stretches({at: (0, 1_000_000)}, {at: Committed(1_000_000, 0, 1000)}, [], 100))
    assert len(found) == 10
