"""A look at the broker: topics, their ids and watermarks at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from archiver_pipeline.plan import TopicState

EVERY = -1
"""Stands for every partition of a topic."""


@dataclass(frozen=True)
class Look:
    """What the broker shows of the wanted topics at one moment.

    Attributes:
        topics: the topics that are there.
        missing: a sentence for each topic that is not there.
        unread: a sentence for each topic and partition that is there and cannot be read now, or for `EVERY` partition
            of a topic that ACLs forbid, which may not be there.
        asked_ms: when the broker was asked, in milliseconds since 1970: it has at least what it had then.
    """

    topics: tuple[TopicState, ...]
    missing: tuple[str, ...] = ()
    unread: Mapping[tuple[str, int], str] = field(default_factory=dict)
    asked_ms: int = 0

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence for each topic or partition that cannot be read now; the rest goes on without it."""
        return (*self.missing, *sorted(self.unread.values()))

    def is_unread(self, topic: str, partition: int) -> bool:
        """Whether a partition may be there and cannot be read now."""
        return (topic, partition) in self.unread or (topic, EVERY) in self.unread

    def end_offsets(self) -> dict[tuple[str, int], int]:
        """The last stable offset of each partition."""
        return {(state.topic, number): marks.end for state in self.topics for number, marks in state.partitions.items()}
