"""Stretches: offsets cut into parts of about so many messages, side by side in all partitions. Pure: no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from archiver_pipeline.plan import Committed, Gap, TopicPartition
from archiver_pipeline.stored.parquet import Ranges


def stretches(
    ranges: Ranges, committed: Mapping[TopicPartition, Committed], gaps: Iterable[Gap], messages: int
) -> Iterator[Ranges]:
    """Cut ranges into stretches of about so many messages; all partitions come to their end in the last one.

    So a stretch is about the same time in each of them, and an hour's file is in few stretches. A gap has no messages,
    and elsewhere a partition is taken to have as many per offset as on the average.

    Args:
        ranges: the offsets to be cut.
        committed: what the archive has of each partition.
        gaps: the recorded ones.
        messages: about how many messages a stretch may have.
    """
    found = sorted(gaps, key=lambda gap: gap.start)
    every = {at: without_gaps(at, item, found) for at, item in ranges.items()}
    expected = 0.0
    for at, parts in every.items():
        whole = _length(without_gaps(at, (committed[at].lowest, committed[at].next), found))
        expected += _length(parts) * min(1.0, committed[at].total / max(1, whole))
    count = max(1, -(-int(expected) // messages))
    cuts = {at: [_offset(parts, _length(parts) * n // count) for n in range(count)] for at, parts in every.items()}
    ends = {at: [*cuts[at][1:], end] for at, (_, end) in ranges.items()}
    reached = {at: start for at, (start, _) in ranges.items()}
    for number in range(count):
        stretch = {at: (reached[at], ends[at][number]) for at in ranges if reached[at] < ends[at][number]}
        reached |= {at: end for at, (_, end) in stretch.items()}
        if stretch:
            yield stretch


def without_gaps(at: TopicPartition, item: tuple[int, int], gaps: Iterable[Gap]) -> list[tuple[int, int]]:
    """What is left of the offsets `[start, end)` of a partition without its gaps, which come in order."""
    start, end = item
    parts = []
    for gap in gaps:
        if gap.at == at:
            parts.append((start, min(gap.start, end)))
            start = max(start, gap.end)
    return [(low, high) for low, high in (*parts, (start, end)) if low < high]


def _length(parts: Iterable[tuple[int, int]]) -> int:
    return sum(high - low for low, high in parts)


def _offset(parts: list[tuple[int, int]], number: int) -> int:
    """The offset that has so many offsets of the parts before it."""
    for low, high in parts:
        if number < high - low:
            return low + number
        number -= high - low
    return parts[-1][1] if parts else 0
