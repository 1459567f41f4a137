"""What a replay is asked to do, and the name under which it is found again."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from archiver_pipeline.stored.selection import Selection


@dataclass(frozen=True)
class Wanted:
    """What a replay is asked to do.

    Attributes:
        selection: the messages.
        to_topic: where they go; empty for the topics that they came from.
        by_key: choose the partition by the key, as Java's clients do, instead of the one that a message came from.
        rate: messages per second; 0 is as fast as possible.
        original_pace: keep the distances in time between messages.
        create_topics: make topics that are missing.
        despite_retention: send also what the topic will not keep.
        without_times: send messages whose time no client can send without one.
        again: send once more what was sent whole.
    """

    selection: Selection
    to_topic: str = ""
    by_key: bool = False
    rate: float = 0.0
    original_pace: bool = False
    create_topics: bool = False
    despite_retention: bool = False
    without_times: bool = False
    again: bool = False

    def target(self, topic: str) -> str:
        """Where the messages of a topic go."""
        return self.to_topic or topic

    def id(self, table_id: str) -> str:
        """Name the replay: the same messages of the same archive to the same topics are one replay, however often it is
        begun and at whatever pace."""
        parts = (table_id, self.selection.name, self.to_topic, "key" if self.by_key else "partition")
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
