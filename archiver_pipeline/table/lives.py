"""The present life of a topic, as archive and broker both have it."""

from __future__ import annotations

from archiver_pipeline.plan import Committed, TopicPartition, TopicState, Watermarks, life_of
from archiver_pipeline.table.ledger import Ledger


def present_topic_id(ledger: Ledger, state: TopicState) -> str | None:
    """The topic id of the present life of a topic, as the archive has it; None if nothing of that life is archived."""
    lives = {at.topic_id for at in ledger.committed if at.topic == state.topic}
    return max((each for each in lives if life_of(each)[0] == state.topic_id), key=life_of, default=None)


def present_life(ledger: Ledger, state: TopicState) -> list[tuple[TopicPartition, Committed, Watermarks]] | None:
    """Return what archive and broker have of each partition in the present life of a topic, in order of partitions.

    None if nothing of that life is archived yet.
    """
    life = present_topic_id(ledger, state)
    if life is None:
        return None
    own = (at for at in ledger.committed if (at.topic, at.topic_id) == (state.topic, life))
    both = sorted(at for at in own if at.partition in state.partitions)
    return [(at, ledger.committed[at], state.partitions[at.partition]) for at in both]
