"""What an hour that was read again has lost for good, and what is new in it. No I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.rewrites.hour_rows import Tally


@dataclass(frozen=True)
class Balance:
    """What the comparison of an hour with Kafka comes to.

    Attributes:
        lost: messages of damaged or missing files that neither side has.
        returned: messages that were given up before and are there again.
        filled: messages from before the start that the archive never had: how many, and the lowest offset.
        early: how many messages from before the start the hour then has, by topic and topic id.
    """

    lost: int = 0
    returned: int = 0
    filled: Mapping[TopicPartition, tuple[int, int]] = field(default_factory=dict)
    early: Mapping[tuple[str, str], int] = field(default_factory=dict)


def balance(tally: Tally, damaged: int, early: Mapping[tuple[str, str], int], lost: int) -> Balance:
    """Say of the added messages which make good a damaged file, and which are new.

    New messages must never stand in for lost ones. So those from before the start are told apart, topic by topic: all
    partitions of a topic begin at one moment, so that a backfill of an hour put in all of them or none.

    Args:
        tally: the comparison.
        damaged: messages of the damaged and missing files.
        early: how many messages from before the start the hour had of each topic and topic id, by the ledger.
        lost: how many of its messages were given up before, by the ledger.
    """
    added = Counter[tuple[str, str]]()
    for at, (count, _) in tally.before_start.items():
        added[at.topic, at.topic_id] += count
    # Sound files account for some of those that the ledger has; the rest is in the damaged ones.
    still = {life: max(0, count - (tally.early[life] - added[life])) for life, count in early.items()}
    wanted, others = damaged - sum(still.values()), tally.added - added.total()
    filled = {}
    for at, (count, lowest) in sorted(tally.before_start.items()):
        life = at.topic, at.topic_id
        again = min(still.get(life, 0), count)
        still[life] = still.get(life, 0) - again
        if count > again:
            filled[at] = count - again, lowest
    return Balance(
        lost=max(0, wanted - others) + sum(still.values()),
        returned=min(max(0, others - wanted), lost),
        filled=filled,
        early=dict(tally.early),
    )
