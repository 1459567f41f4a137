"""What the status page is drawn from: how everything stands, as each source told it last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from archiver_pipeline.followers.lag import FollowerLag
from archiver_pipeline.formats.waits import Wait
from archiver_pipeline.hours import DueHour, HourTotal
from archiver_pipeline.page.lag_history import LagHistory
from archiver_pipeline.run_history import History
from archiver_pipeline.status import BatchStatus
from archiver_pipeline.table.ledger import Ledger


@dataclass(frozen=True)
class SourceState:
    """How a source is.

    Attributes:
        fault: why it tells nothing, None where it does.
        pending: whether nobody knows yet, for the first look at it has not ended.
        answered: when it answered last, in seconds since 1970; None for never.
    """

    fault: str | None = None
    pending: bool = False
    answered: float | None = None


@dataclass(frozen=True)
class PartitionLag:
    """How far a partition is behind: offsets that are not archived, and how many seconds the oldest has waited (None
    where nobody knows)."""

    topic: str
    partition: int
    lag: int
    waited: float | None


@dataclass(frozen=True)
class ArchiveState:
    """What the log says: the table's version (-1 before its first commit), the archive's format, the ledger, the newest
    batches (the oldest of them first), messages that wait for a schema, and when interrupted erasures began."""

    version: int
    format: int | None
    ledger: Ledger
    batches: tuple[BatchStatus, ...] = ()
    waits: tuple[Wait, ...] = ()
    interrupted: tuple[datetime, ...] = ()


@dataclass(frozen=True)
class BrokerState:
    """What the broker says beside the ledger: every partition, a sentence for each topic that cannot be read, and how
    the lag was before."""

    partitions: tuple[PartitionLag, ...]
    unreadable: tuple[str, ...] = ()
    history: LagHistory = field(default_factory=LagHistory)


@dataclass(frozen=True)
class FilesState:
    """What the table lists: files, their bytes and types, its hours in order, and the closed hours that wait for
    sealing."""

    files: int = 0
    bytes: int = 0
    types: int = 0
    hours: tuple[HourTotal, ...] = ()
    due: tuple[DueHour, ...] = ()


@dataclass(frozen=True)
class Standing:
    """Everything that the page shows.

    Attributes:
        now: when it is drawn, in seconds since 1970.
        began: when it was begun to look, likewise.
        address: the archive's address.
        sources: how each source is, by its name.
        reasons: why archiving does not go on as it should, other than a source that is down.
        archive, broker, files, followers, history: what each source told last; None where it never told anything.
        settings: settings that matter, without secrets, by their names.
        versions: what runs, by its name.
        once: whether this is a single look, before which nothing was seen.
    """

    now: float
    began: float
    address: str
    sources: Mapping[str, SourceState]
    reasons: tuple[str, ...] = ()
    archive: ArchiveState | None = None
    broker: BrokerState | None = None
    files: FilesState | None = None
    followers: tuple[FollowerLag, ...] | None = None
    history: History | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    once: bool = False

    def fault(self, source: str) -> str | None:
        """Why a source tells nothing; None where it does, or was not asked, or nobody knows yet."""
        state = self.sources.get(source)
        return None if state is None or state.pending else state.fault

    @property
    def pending(self) -> bool:
        """Whether the first look at a source has not ended."""
        return any(state.pending for state in self.sources.values())

    @property
    def complete(self) -> bool:
        """Whether every source and follower tells how it is, and no message waits for a schema."""
        waits = self.archive.waits if self.archive else ()
        silent = any(state.fault is not None for state in self.sources.values())
        return not silent and not waits and not any(item.error for item in self.followers or ())

    @property
    def lag(self) -> int | None:
        """Offsets that are not archived, None where the broker never told."""
        return None if self.broker is None else sum(item.lag for item in self.broker.partitions)

    @property
    def waited(self) -> float | None:
        """How many seconds the oldest message has waited that is not archived, None where nobody knows."""
        if self.broker is None:
            return None
        behind = [item.waited for item in self.broker.partitions if item.lag]
        known = [waited for waited in behind if waited is not None]
        return None if len(known) < len(behind) else max(known, default=0.0)


@dataclass(frozen=True)
class TopicLag:
    """A topic: its partitions, and those that are behind; offsets that are not archived, how long the oldest has waited
    (None where nobody knows), messages that are archived (all lives of the topic), and how the lag was."""

    topic: str
    partitions: int
    behind: int
    lag: int
    waited: float | None
    archived: int
    history: tuple[tuple[float, int], ...] = ()


def topics_of(standing: Standing) -> list[TopicLag]:
    """The topics, those that are furthest behind first."""
    archived: dict[str, int] = {}
    for at, known in (standing.archive.ledger.committed if standing.archive else {}).items():
        archived[at.topic] = archived.get(at.topic, 0) + known.total
    if standing.broker is None:
        return []
    grouped: dict[str, list[PartitionLag]] = {}
    for item in standing.broker.partitions:
        grouped.setdefault(item.topic, []).append(item)
    found = [
        _topic(name, items, archived.get(name, 0), standing.broker.history.of(name)) for name, items in grouped.items()
    ]
    return sorted(found, key=lambda item: (-item.lag, item.topic))


def _topic(name: str, items: list[PartitionLag], archived: int, history: list[tuple[float, int]]) -> TopicLag:
    behind = [item for item in items if item.lag]
    waits = [item.waited for item in behind if item.waited is not None]
    waited = None if len(waits) < len(behind) else max(waits, default=0.0)
    return TopicLag(name, len(items), len(behind), sum(item.lag for item in items), waited, archived, tuple(history))
