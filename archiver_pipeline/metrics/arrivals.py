"""When messages came: end offsets as they were seen, and from these how long the oldest waiting message has waited."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

MOST_SAMPLES = 64
"""So many are kept of a partition; with more, every other one in the middle goes, and the estimate gets coarser."""

Place = TypeVar("Place")


@dataclass(frozen=True)
class Sample:
    """An end offset, and when it was seen first and last, in seconds since 1970."""

    end: int
    first: float
    last: float


class Arrivals(Generic[Place]):
    """End offsets of partitions over time."""

    def __init__(self) -> None:
        self._samples: dict[Place, list[Sample]] = {}

    def see(self, at: Place, end: int, following: int, now: float) -> None:
        """Note the end offset of a partition; what lies before the next offset to archive is forgotten."""
        samples = self._samples.setdefault(at, [])
        if samples and end < samples[-1].end:
            samples.clear()  # The log was cut: what was seen of it is no longer so.
        if samples and samples[-1].end == end:
            samples[-1] = replace(samples[-1], last=now)
        else:
            samples.append(Sample(end, now, now))
        while len(samples) > 1 and samples[1].end <= following:
            del samples[0]
        if len(samples) > MOST_SAMPLES:
            del samples[2:-2:2]

    def keep(self, places: Iterable[Place]) -> None:
        """Forget all other partitions."""
        present = set(places)
        for gone in self._samples.keys() - present:
            del self._samples[gone]

    def waited(self, at: Place, following: int, now: float, caught_up: float | None) -> float:
        """How many seconds the message at the next offset has waited, as far as that is known.

        Between two looks it is taken to have come as evenly as the others. A message that was there at the first look
        may have come at any moment since the archive last had everything: then it is that time, which may be too long
        and is never too short.

        Args:
            at: the partition.
            following: its next offset to archive, which is below the end that was seen last.
            now: the time, in seconds since 1970.
            caught_up: when the archive last had all that Kafka had, None where that was never so.
        """
        samples = self._samples.get(at, [])
        number = bisect_right(samples, following, key=lambda sample: sample.end)
        if number == len(samples):
            return 0.0
        if number == 0:
            return max(0.0, now - (samples[0].first if caught_up is None else caught_up))
        before, after = samples[number - 1], samples[number]
        share = (following - before.end) / (after.end - before.end)
        came = before.last + share * (after.first - before.last)
        return max(0.0, now - max(came, caught_up or 0.0))
