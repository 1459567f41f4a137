"""What an hour that was read again has lost for good, and what is new in it. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from archiver_pipeline.hour_rows import Tally
from archiver_pipeline.plan import Committed, TopicPartition


@dataclass(frozen=True)
class Balance:
    """What the comparison of an hour with Kafka comes to.

    Attributes:
        lost: messages of damaged or missing files that neither side has.
        returned: messages that were given up before and are there again.
        filled: messages from before the start that the archive never had: how many, and the lowest offset.
        early: how many messages from before the start the hour then has.
    """

    lost: int = 0
    returned: int = 0
    filled: Mapping[TopicPartition, tuple[int, int]] = field(default_factory=dict)
    early: int = 0


def balance(
    tally: Tally, damaged: int, committed: Mapping[TopicPartition, Committed], early: int, lost: int
) -> Balance:
    """Say of the added messages which make good a damaged file, and which are new.

    What lies before the start is told apart from the rest: new messages there must never stand in for lost ones here.

    Args:
        tally: the comparison.
        damaged: messages of the damaged and missing files.
        committed: what the archive has of each partition.
        early: how many messages from before the start the hour had, by the ledger.
        lost: how many of its messages were given up before, by the ledger.
    """
    added_early = sum(count for count, _ in tally.before_start.values())
    # Sound files account for some of those that the ledger has; the rest is in the damaged ones.
    open_early = min(damaged, max(0, early - (tally.early - added_early)))
    wanted, added = damaged - open_early, tally.added - added_early
    filled = {}
    for at, (count, lowest) in sorted(tally.before_start.items()):
        again = min(open_early, count, committed[at].added)
        open_early -= again
        if count > again:
            filled[at] = count - again, lowest
    return Balance(
        lost=max(0, wanted - added) + open_early,
        returned=min(max(0, added - wanted), lost),
        filled=filled,
        early=tally.early,
    )
