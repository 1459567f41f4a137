"""Offsets that a replay writes to an archived topic, recorded in the ledger before anyone can read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from archiver_pipeline.plan import TopicPartition, TopicState, positions_of
from archiver_pipeline.replay.position import Place
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.settings.types import is_among
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.attempt import Attempt
from archiver_pipeline.table.ledger import REPLAY, Ledger, replayed_transaction
from archiver_pipeline.table.lives import present_topic_id

Runs = Mapping[Place, Sequence[tuple[int, int]]]
"""Offsets `[start, end)` that were written to each partition, in order."""


class Recorder:
    """Records what a replay writes. So the archiver finds it in the ledger as soon as it finds it in Kafka."""

    def __init__(self, archive: Archive, id: str, settings: Settings, targets: Iterable[TopicState]) -> None:
        """Prepare it for the topics that are written to; `settings` tell which of them are archived."""
        self._archive = archive
        self._id = id
        ledger = archive.ledger()
        self._lives = {state.topic: _lives(ledger, state) for state in targets if is_archived(settings, ledger, state)}
        self._own: dict[TopicPartition, tuple[int, int]] = {}
        self._tried: dict[TopicPartition, tuple[int, int]] = {}

    @property
    def topics(self) -> set[str]:
        """The topics that are archived."""
        return set(self._lives)

    def record(self, runs: Runs) -> None:
        """Record offsets; the transaction that wrote them is to be committed after it.

        Raises:
            Superseded: another run of the same replay has gone on.
            StorageError: the log cannot be written.
        """
        self._tried, transactions = {}, []
        places = [
            (TopicPartition(topic, life, partition), every)
            for (topic, partition), every in runs.items()
            for life in self._lives.get(topic, ())
        ]
        for at, every in places:
            before = self._own.get(at)
            for start, end in every:
                # Behind a transaction lies its marker (KIP-98): if that is all there is before the next one, both are
                # recorded as one. Between messages of one transaction a single offset is a message of somebody else.
                follows = before is not None and start == every[0][0] <= before[1] + 1
                begin = before[0] if before is not None and follows else start
                transactions.append(replayed_transaction(at, begin, end))
                self._tried[at] = (begin, end)
        if not transactions:
            return
        scope = f"{REPLAY}-{self._id}"
        attempt = Attempt(self._archive, scope, lambda other: other == scope)
        try:
            attempt.commit(transactions, {REPLAY: self._id})
            attempt.clean()
        except BaseException:
            attempt.discard()
            raise

    def committed(self) -> None:
        """Take down that the transaction of what was recorded last is committed."""
        self._own.update(self._tried)


def is_archived(settings: Settings, ledger: Ledger, state: TopicState) -> bool:
    """Whether a topic is one that is archived, now or by its name as soon as the archiver meets it."""
    if present_topic_id(ledger, state) is not None:
        return True
    return is_among(settings.topics, state.topic)


def _lives(ledger: Ledger, state: TopicState) -> set[str]:
    """The lives under which the archiver may read what is written now: the one that it knows, and the one that it would
    begin if it looked at the topic as it was before."""
    known = present_topic_id(ledger, state) or state.topic_id
    begun = positions_of(state, ledger.committed, lambda _, marks: marks.earliest)
    return {known, *(position.at.topic_id for position in begun)}
