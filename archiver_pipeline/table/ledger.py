"""The ledger: what the table's application transactions say of offsets, starts, gaps and lanes.

A Delta application transaction (Delta protocol, "Transaction Identifiers") is a name with a 64-bit number, committed
with the files and kept in every checkpoint for ever. The names, none of which can be mistaken for another:

    {topic}/{topic_id}/{partition}                      the next offset to archive
    start/{topic}/{topic_id}/{partition}                where archiving began
    count/{topic}/{topic_id}/{partition}                how many messages the archive holds
    gap/{topic}/{topic_id}/{partition}/{start}/{reason} the end of the gap
    replayed/{topic}/{topic_id}/{partition}/{start}     the end of offsets that a replay wrote
    filled/{topic}/{topic_id}/{partition}               the lowest offset that a backfill put in before the start
    added/{topic}/{topic_id}/{partition}                how many messages backfills put in before the start
    lane/{n}                                            the epoch: one more with every commit of the lane
    caught_up/{n}                                       when the lane last had all that Kafka had (ms since 1970)
    replay/{id}                                         the epoch: one more with every transaction of the replay
    rewrite/{hour}                                      the epoch: one more with every rewrite of the hour
    changed/{hour}                                      how often a rewrite has changed what the hour holds
    lost/{hour}                                         how many of its messages were lost with a file, and given up
    early/{hour}/{topic}/{topic_id}                     how many of its messages lie before the start of that topic
    erased/{ms}/{sha256}                                how many messages an erasure has taken out that began then (ms
                                                        since 1970), with a condition of that SHA-256
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from archiver_pipeline.plan import Committed, Gap, TopicPartition
from archiver_pipeline.storage.base import Storage
from archiver_pipeline.table import delta_log
from archiver_pipeline.table.delta_log import LogState
from archiver_pipeline.table.delta_log import Transaction as Transaction

REPLAY = "replay"
"""How the scope of a replay's attempts begins, and their fence."""

_SHA256 = re.compile("[0-9a-f]{64}")
_OF_PARTITIONS = ("start", "count", "filled", "added")
_OF_HOURS = ("changed", "lost")


@dataclass(frozen=True)
class RecordedGap:
    """A gap and when it was found."""

    gap: Gap
    time: datetime | None


@dataclass(frozen=True, order=True)
class Erasure:
    """What an erasure has done: when it began (ms since 1970), the SHA-256 of its condition, and messages erased."""

    started_ms: int
    predicate_hash: str
    messages: int


@dataclass(frozen=True)
class Replayed:
    """Offsets `[start, end)` of a topic partition that a replay wrote, and when that was recorded last."""

    at: TopicPartition
    start: int
    end: int
    time: datetime | None


@dataclass(frozen=True)
class Ledger:
    """What the archive has, as of one version of its table.

    Attributes:
        version: the table's version, -1 before its first commit.
        committed: per topic partition and life, the offsets.
        gaps: every gap ever found.
        replayed: offsets that replays wrote, by their place and in order.
        lanes: the epoch of each lane.
        changed: per hour by its name, how often a rewrite has changed what it holds.
        lost: per hour by its name, messages that were given up.
        early: per hour by its name, and there by topic and topic id: messages that a backfill put in from before the
            topic's start.
        erasures: every erasure that has taken out a message, in order.
        caught_up: per lane, when it last had all that Kafka had, in milliseconds since 1970.
        numbers: every transaction by its name, as the table has it.
    """

    version: int
    committed: Mapping[TopicPartition, Committed] = field(default_factory=dict)
    gaps: tuple[RecordedGap, ...] = ()
    replayed: tuple[Replayed, ...] = ()
    lanes: Mapping[int, int] = field(default_factory=dict)
    changed: Mapping[str, int] = field(default_factory=dict)
    lost: Mapping[str, int] = field(default_factory=dict)
    early: Mapping[str, Mapping[tuple[str, str], int]] = field(default_factory=dict)
    erasures: tuple[Erasure, ...] = ()
    caught_up: Mapping[int, int] = field(default_factory=dict)
    numbers: Mapping[str, int] = field(default_factory=dict)

    @property
    def messages(self) -> int:
        """How many messages the archive holds."""
        return sum(what.total for what in self.committed.values()) - self.given_up

    def copies(self) -> dict[TopicPartition, list[tuple[int, int]]]:
        """The offsets `[start, end)` of each topic partition that hold copies of archived messages, in order."""
        found: dict[TopicPartition, list[tuple[int, int]]] = {}
        for item in self.replayed:
            found.setdefault(item.at, []).append((item.start, item.end))
        return found

    @property
    def given_up(self) -> int:
        """How many messages it held once that were lost with their files and given up."""
        return sum(self.lost.values())

    def epoch(self, fence: str) -> int:
        """The number of commits that a fence has seen: `lane/0`, `rewrite/2019-08-01T03`."""
        return self.numbers.get(fence, 0)


def fence_of(scope: str) -> str:
    """The fence of an attempt's scope: `lane/0` of `lane0`, `rewrite/2019-08-01T03` of `seal-2019-08-01T03`,
    `replay/0f…` of `replay-0f…`."""
    kind, _, name = scope.partition("-")
    if kind == REPLAY:
        return f"{REPLAY}/{name}"
    return f"rewrite/{name}" if name else f"lane/{kind.removeprefix('lane')}"


def offset_transactions(at: TopicPartition, what: Committed) -> list[Transaction]:
    """The transactions that record the offsets of a topic partition."""
    place = f"{at.topic}/{at.topic_id}/{at.partition}"
    return [
        Transaction(place, what.next),
        Transaction(f"start/{place}", what.first),
        Transaction(f"count/{place}", what.messages),
    ]


def filled_transactions(at: TopicPartition, what: Committed, lowest: int, messages: int) -> list[Transaction]:
    """The transactions that record messages before the start, put in by a backfill."""
    place = f"{at.topic}/{at.topic_id}/{at.partition}"
    return [
        Transaction(f"filled/{place}", min(what.lowest, lowest)),
        Transaction(f"added/{place}", what.added + messages),
    ]


def caught_up_transaction(lane: int, milliseconds: int) -> Transaction:
    """The transaction that records when a lane had all that Kafka had."""
    return Transaction(f"caught_up/{lane}", milliseconds)


def erased_transaction(what: Erasure) -> Transaction:
    """The transaction that records what an erasure has done so far."""
    return Transaction(f"erased/{what.started_ms}/{what.predicate_hash}", what.messages)


def gap_transaction(gap: Gap) -> Transaction:
    """The transaction that records a gap."""
    at = gap.at
    return Transaction(f"gap/{at.topic}/{at.topic_id}/{at.partition}/{gap.start}/{gap.reason}", gap.end)


def replayed_transaction(at: TopicPartition, start: int, end: int) -> Transaction:
    """The transaction that records offsets which a replay wrote."""
    return Transaction(f"replayed/{at.topic}/{at.topic_id}/{at.partition}/{start}", end)


def parse(version: int, transactions: Iterable[Transaction]) -> Ledger:
    """Read the ledger out of the transactions of a table version; names of others are passed over."""
    offsets: dict[str, dict[TopicPartition, int]] = {kind: {} for kind in ("", *_OF_PARTITIONS)}
    lanes: dict[str, dict[int, int]] = {"lane": {}, "caught_up": {}}
    hours: dict[str, dict[str, int]] = {kind: {} for kind in _OF_HOURS}
    early: dict[str, dict[tuple[str, str], int]] = {}
    erasures: list[Erasure] = []
    gaps, replayed, every = [], [], {item.app_id: item for item in transactions}
    for item in every.values():
        match item.app_id.split("/"):
            case [("lane" | "caught_up") as kind, lane] if _is_number(lane):
                lanes[kind][int(lane)] = item.version
            case [kind, hour] if kind in _OF_HOURS:
                hours[kind][hour] = item.version
            case ["early", hour, topic, topic_id]:
                early.setdefault(hour, {})[topic, topic_id] = item.version
            case ["erased", started, digest] if _is_number(started) and _SHA256.fullmatch(digest):
                erasures.append(Erasure(int(started), digest, item.version))
            case ["gap", topic, topic_id, partition, start, reason] if _is_number(partition) and _is_number(start):
                at = TopicPartition(topic, topic_id, int(partition))
                gaps.append(RecordedGap(Gap(at, int(start), item.version, reason), _time(item)))
            case ["replayed", topic, topic_id, partition, start] if _is_number(partition) and _is_number(start):
                at = TopicPartition(topic, topic_id, int(partition))
                replayed.append(Replayed(at, int(start), item.version, _time(item)))
            case [kind, topic, topic_id, partition] if kind in _OF_PARTITIONS and _is_number(partition):
                offsets[kind][TopicPartition(topic, topic_id, int(partition))] = item.version
            case [topic, topic_id, partition] if _is_number(partition):
                offsets[""][TopicPartition(topic, topic_id, int(partition))] = item.version
    committed = {}
    for at, reached in offsets[""].items():
        first, messages, filled, added = (offsets[kind].get(at) for kind in _OF_PARTITIONS)
        committed[at] = Committed(reached, first or 0, messages or 0, filled, added or 0)
    in_order = tuple(sorted(gaps, key=lambda found: (found.gap.at, found.gap.start)))
    copies = tuple(sorted(replayed, key=lambda found: (found.at, found.start)))
    numbers = {name: item.version for name, item in every.items()}
    return Ledger(
        version,
        committed,
        in_order,
        copies,
        lanes["lane"],
        **hours,
        early=early,
        erasures=tuple(sorted(erasures)),
        caught_up=lanes["caught_up"],
        numbers=numbers,
    )


def _time(item: Transaction) -> datetime | None:
    return None if item.updated_ms is None else datetime.fromtimestamp(item.updated_ms / 1000, UTC)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit()


def read(storage: Storage) -> Ledger:
    """Read the ledger from the newest checkpoint and the commits after it; all transactions at once, however many.

    An archive that does not exist yet has an empty ledger.

    Raises:
        ArchiveDamaged: a commit or the checkpoint cannot be read.
    """
    return of_log(delta_log.read(storage))


def of_log(state: LogState) -> Ledger:
    """Read the ledger out of what the log says."""
    return parse(state.version, state.transactions.values())
