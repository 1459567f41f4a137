"""The present life of a topic, as archive and broker both have it."""

from __future__ import annotations

from archiver_pipeline.ledger import Ledger
from archiver_pipeline.plan import Committed, TopicPartition, TopicState, Watermarks, life_of


def present_life(ledger: Ledger, state: TopicState) -> list[tuple[TopicPartition, Committed, Watermarks]] | None:
    """Return what archive and broker have of each partition in the present life of a topic, in order of partitions.

    None if nothing of that life is archived yet.
    """
    lives = [at for at in ledger.committed if at.topic == state.topic and life_of(at.topic_id)[0] == state.topic_id]
    life = max((at.topic_id for at in lives), key=life_of, default=None)
    if life is None:
        return None
    both = sorted(at for at in lives if at.topic_id == life and at.partition in state.partitions)
    return [(at, ledger.committed[at], state.partitions[at.partition]) for at in both]
