"""How far the archive is: what it holds, what Kafka has beyond that, and how fast it was lately."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from archiver_pipeline.errors import KafkaError
from archiver_pipeline.followers.lag import FollowerLag, lags
from archiver_pipeline.formats.waits import Wait, Waits
from archiver_pipeline.hours import count_hours
from archiver_pipeline.kafka.cluster import Cluster
from archiver_pipeline.plan import Position, TopicPartition, positions_of
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.storage.base import Storage
from archiver_pipeline.stored import erasure_plan
from archiver_pipeline.stored.untyped import untyped
from archiver_pipeline.table.archive import archive_of
from archiver_pipeline.table.format_version import version_of
from archiver_pipeline.table.ledger import Ledger, RecordedGap
from archiver_pipeline.view.tables import commit_info

RATE_MINUTES = (1, 5, 15)
"""Over how many minutes the rates are taken."""

BROKER_TIMEOUT_SECONDS = 5.0
"""How long each question to the broker may take: shorter than for a batch, since somebody waits for the answer."""

_NOT_ASKED = "ARCHIVER_TOPICS is not set: what the archive has is shown, and the broker is not asked how far it is"


@dataclass(frozen=True)
class PartitionStatus:
    """A topic partition.

    Attributes:
        topic, topic_id, partition: which one, in which life of the topic.
        first: where archiving began, None before the first batch.
        next: the next offset to archive.
        end: the last stable offset; None where the broker did not tell, or has another life of the topic by now.
        lag: how many offsets are left to read, None as `end`.
        messages: how many messages the archive holds.
    """

    topic: str
    topic_id: str
    partition: int
    first: int | None
    next: int
    end: int | None
    lag: int | None
    messages: int


@dataclass(frozen=True)
class BatchStatus:
    """A batch as its commit tells: the table version it made, when (UTC), its messages, payload bytes and files, its
    seconds from plan to commit, and the run."""

    version: int
    time: datetime
    messages: int
    bytes: int
    files: int
    seconds: float
    run_id: str

    @property
    def rate(self) -> float:
        """Messages per second of the batch itself."""
        return self.messages / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Rate:
    """What was archived in the last `minutes`: batches, and messages and payload bytes per second."""

    minutes: int
    batches: int
    messages_per_second: float
    bytes_per_second: float


@dataclass(frozen=True)
class Status:
    """The state of the archive and how far Kafka is ahead.

    Attributes:
        archive: its folder, an absolute path.
        time: when this was found out, UTC.
        version: the table's version, None where there is no archive yet.
        format: the version of the archive's format, None as `version`.
        files, bytes, types: what the table lists, and how many types its files are of.
        hours, sealed_hours: how many hours its files are of, and how many of these are sealed.
        partitions: every partition of the wanted topics, and all others that the archive has.
        asked: whether the broker was asked; without ARCHIVER_TOPICS it is not, and no end is known.
        last_batch: the newest batch that the table's log still has.
        rates: for each of `RATE_MINUTES`.
        gaps: every gap ever found.
        messages: how many messages the archive holds.
        given_up: how many it held once that were lost with their files and given up, counted for their partitions.
        interrupted_erasures: when erasures began (UTC) that were confirmed and then interrupted.
        followers: what follows the archive, and how far each is behind it.
        waits: messages that wait for a schema.
        blind: whether the broker answered, and none of the wanted topics can be read.
        warnings: a sentence for each topic that cannot be read, and for messages whose type was not found.
        broker_error: why the broker did not answer.
    """

    archive: str
    time: datetime
    version: int | None
    format: int | None
    files: int
    bytes: int
    types: int
    hours: int
    sealed_hours: int
    partitions: tuple[PartitionStatus, ...]
    asked: bool
    last_batch: BatchStatus | None
    rates: tuple[Rate, ...]
    gaps: tuple[RecordedGap, ...]
    messages: int
    given_up: int
    interrupted_erasures: tuple[datetime, ...]
    followers: tuple[FollowerLag, ...]
    waits: tuple[Wait, ...]
    blind: bool
    warnings: tuple[str, ...]
    broker_error: KafkaError | None

    @property
    def lag(self) -> int | None:
        """How many offsets are left to read in all, None where the broker did not answer, was not asked, or has none of
        the wanted topics."""
        return (
            None
            if self.broker_error or not self.asked or self.blind
            else sum(item.lag or 0 for item in self.partitions)
        )

    @property
    def age_seconds(self) -> float | None:
        """How long ago the newest batch was committed."""
        return None if self.last_batch is None else max(0.0, (self.time - self.last_batch.time).total_seconds())

    def to_json(self) -> dict[str, Any]:
        """The status as `archiver status --json` prints it; times are ISO in UTC, unknown numbers null."""
        batch = self.last_batch
        return {
            "archive": self.archive,
            "time": _iso(self.time),
            "version": self.version,
            "format": self.format,
            "messages": self.messages,
            "files": self.files,
            "bytes": self.bytes,
            "types": self.types,
            "hours": self.hours,
            "sealed_hours": self.sealed_hours,
            "lag": self.lag,
            "partitions": [asdict(item) for item in self.partitions],
            "last_batch": batch
            and {**asdict(batch), "time": _iso(batch.time), "messages_per_second": round(batch.rate, 1)},
            "age_seconds": self.age_seconds,
            "rates": [asdict(rate) for rate in self.rates],
            "gaps": [
                {
                    "time": found.time and _iso(found.time),
                    **asdict(found.gap.at),
                    "start": found.gap.start,
                    "end": found.gap.end,
                    "reason": found.gap.reason,
                }
                for found in self.gaps
            ],
            "given_up": self.given_up,
            "interrupted_erasures": [_iso(moment) for moment in self.interrupted_erasures],
            "followers": [asdict(item) for item in self.followers],
            "waits": [asdict(item) for item in self.waits],
            "warnings": list(self.warnings),
            "broker_error": None if self.broker_error is None else str(self.broker_error),
        }


def status(settings: Settings) -> Status:
    """Ask archive and broker; a broker that does not answer, or no topic to ask for, leaves what the archive knows.

    Raises:
        ArchiveDamaged: the table's log cannot be read.
        SettingsError: topics are named, and no broker.
    """
    archive = archive_of(settings)
    cluster = Cluster(settings, BROKER_TIMEOUT_SECONDS) if settings.topics else None
    version, form, files, size, types, hours, ledger = None, None, 0, 0, 0, (0, 0), Ledger(-1)
    batches: list[BatchStatus] = []
    typeless = None
    now = datetime.now(UTC)
    if archive.exists():
        table, ledger = archive.snapshot()
        listed = archive.files(table)
        form = version_of({"configuration": table.metadata().configuration}, archive.uri)
        version, files, size = ledger.version, listed.height, int(listed["bytes"].sum())
        types, hours = listed["type"].n_unique(), count_hours(listed)
        typeless = untyped(listed)
        batches = list(_recent(archive.storage, ledger.version, now))
    positions: list[Position] = []
    warnings: tuple[str, ...] = () if cluster else (_NOT_ASKED,)
    error, blind = None, False
    try:
        if cluster is not None:
            look, start = cluster.look(), cluster.start_offset
            warnings, blind = look.warnings, bool(look.warnings and not look.topics)
            positions = [at for topic in look.topics for at in positions_of(topic, ledger.committed, start)]
    except KafkaError as refused:
        error = refused
    return Status(
        archive=archive.uri,
        time=now,
        version=version,
        format=form,
        files=files,
        bytes=size,
        types=types,
        hours=hours[0],
        sealed_hours=hours[1],
        partitions=tuple(_partitions(ledger, positions)),
        asked=cluster is not None,
        last_batch=batches[0] if batches else None,
        rates=tuple(_rate(batches, minutes, now) for minutes in RATE_MINUTES),
        gaps=ledger.gaps,
        messages=ledger.messages,
        given_up=ledger.given_up,
        interrupted_erasures=tuple(plan.started for plan in erasure_plan.interrupted(archive.storage)),
        followers=tuple(lags(settings, ledger)),
        waits=tuple(Waits(settings).present(ledger.committed)),
        blind=blind,
        warnings=(*warnings, *((str(typeless),) if typeless else ())),
        broker_error=error,
    )


def _partitions(ledger: Ledger, positions: list[Position]) -> list[PartitionStatus]:
    """Put together what archive and broker know of each partition, in order."""
    present = {item.at: item for item in positions}
    return [_partition(at, ledger, present.get(at)) for at in sorted({*ledger.committed, *present})]


def _partition(at: TopicPartition, ledger: Ledger, position: Position | None) -> PartitionStatus:
    known = ledger.committed.get(at)
    following = known.next if known else position.next if position else 0
    end = position.end if position else None
    lag = position.lag if position else None
    first, messages = (known.first, known.total) if known else (None, 0)
    return PartitionStatus(at.topic, at.topic_id, at.partition, first, following, end, lag, messages)


def _recent(storage: Storage, version: int, now: datetime) -> Iterator[BatchStatus]:
    """Yield the batches of the table's log, newest first: at least one, and all that the rates are taken of."""
    found = False
    for number in range(version, -1, -1):
        try:
            info = commit_info(storage, number)
        except FileNotFoundError:
            return
        if info is None:
            continue
        time = datetime.fromtimestamp(info["timestamp"] / 1000, UTC)
        if found and (now - time).total_seconds() > 60 * max(RATE_MINUTES):
            return
        found = True
        messages, size, files = (int(info[name]) for name in ("messages", "bytes", "files"))
        yield BatchStatus(number, time, messages, size, files, float(info["seconds"]), info["run_id"])


def _rate(batches: list[BatchStatus], minutes: int, now: datetime) -> Rate:
    seconds = 60 * minutes
    within = [batch for batch in batches if (now - batch.time).total_seconds() <= seconds]
    messages, size = sum(batch.messages for batch in within), sum(batch.bytes for batch in within)
    return Rate(minutes, len(within), round(messages / seconds, 3), round(size / seconds, 3))


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
