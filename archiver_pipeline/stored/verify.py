"""The archive checked against itself and, if wanted, against what Kafka still has; nothing is changed by it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from archiver_pipeline.errors import ArchiveError, KafkaError
from archiver_pipeline.kafka.cluster import Cluster
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.stored import comparison, erasure_plan
from archiver_pipeline.stored.comparison import Comparison, Difference
from archiver_pipeline.stored.digest import BUCKET
from archiver_pipeline.stored.erasure_plan import ErasurePlan
from archiver_pipeline.stored.files import (
    RESTORE,
    Fault,
    ListedFile,
    OnProgress,
    SoundFile,
    check_files,
    listed_files,
    quietly,
)
from archiver_pipeline.stored.rows import check_rows
from archiver_pipeline.table.archive import Archive, archive_of
from archiver_pipeline.table.ledger import Ledger

log = logging.getLogger(__name__)

_TRIES = 3
_MOVE = "Readers of the table pass over it, readers of plain Parquet do not: move it out of the archive"
NO_ARCHIVE = "Check BASE_DIR and ARCHIVER_URI, or archive something first"
_ASK = "`archiver backfill` of the hour takes these messages from Kafka again"


@dataclass(frozen=True)
class Report:
    """What a verification found.

    Attributes:
        archive: the archive's folder, an absolute path.
        version: the table version that was checked.
        files, bytes: what its log lists.
        messages, partitions: what its ledger counts; a partition for each life of a topic.
        given_up: messages that were lost with their files and given up; they are none of these.
        seconds: how long it took.
        faults: everything that is not as it has to be.
        kafka: both sides, where Kafka was asked and answered.
        kafka_error: why the comparison with Kafka came to no end.
    """

    archive: str
    version: int
    files: int
    bytes: int
    messages: int
    partitions: int
    given_up: int
    seconds: float
    faults: tuple[Fault, ...]
    kafka: Comparison | None = None
    kafka_error: KafkaError | None = None

    @property
    def good(self) -> bool:
        """Whether all that was asked for was checked and no fault found."""
        return not self.faults and self.kafka_error is None

    def to_json(self) -> dict[str, Any]:
        """The report as `archiver verify --json` prints it."""
        compared = self.kafka and {
            "partitions": [
                {
                    "topic": item.range.at.topic,
                    "topic_id": item.range.at.topic_id,
                    "partition": item.range.at.partition,
                    "start": item.range.start,
                    "end": item.range.end,
                    "equal": item.equal,
                    "kafka": {"messages": item.in_kafka, "digest": item.kafka_digest},
                    "archive": {"messages": item.in_archive, "digest": item.archive_digest},
                }
                for item in self.kafka.partitions
            ],
            "notes": list(self.kafka.notes),
        }
        return {
            "good": self.good,
            "archive": self.archive,
            "version": self.version,
            "files": self.files,
            "bytes": self.bytes,
            "messages": self.messages,
            "partitions": self.partitions,
            "given_up": self.given_up,
            "seconds": round(self.seconds, 3),
            "faults": [vars(fault) for fault in self.faults],
            "kafka": compared,
            "kafka_error": None if self.kafka_error is None else str(self.kafka_error),
        }


def verify(settings: Settings, against_kafka: bool = False, on_progress: OnProgress = quietly) -> Report:
    """Check one version of the table, whatever is committed meanwhile.

    Args:
        settings: where the archive is, and the broker.
        against_kafka: whether to compare with what the broker still has, too.
        on_progress: told the step (`files`, `rows`, `Kafka`, `archive`), how much is done, and of how much.

    Raises:
        ArchiveError: there is no archive, or its log cannot be read.
        SettingsError: no broker is named although one is to be asked.
    """
    import duckdb

    archive = archive_of(settings)
    if not archive.exists():
        archive.check_log()
        raise ArchiveError("there is no archive yet", path=archive.uri, hint=NO_ARCHIVE)
    for _ in range(_TRIES):
        try:
            with archive.reached():
                report = _verified(archive, settings if against_kafka else None, on_progress)
        except (FileNotFoundError, duckdb.IOException) as error:
            log.info("a file was removed while it was read, starting over: %s", error)
            continue
        if report is not None:
            return report
    raise ArchiveError(
        f"files of the table were removed in each of {_TRIES} attempts to read them",
        path=archive.uri,
        hint="Raise ARCHIVER_KEEP_REPLACED_HOURS above the time that a verification takes",
    )


def _verified(archive: Archive, against: Settings | None, on_progress: OnProgress) -> Report | None:
    """Check the table's newest version; None where a file that it lists was replaced and removed meanwhile."""
    began = time.monotonic()
    table, ledger = archive.snapshot()
    cluster = _cluster(against, ledger)
    listed = listed_files(archive.files(table))
    sound: list[SoundFile] = []
    faults: list[Fault] = []
    for outcome in check_files(archive.storage, listed, table.version(), on_progress):
        (faults if isinstance(outcome, Fault) else sound).append(outcome)  # type: ignore[arg-type]
    if any(fault.kind == "missing" for fault in faults) and _replaced(archive, listed):
        return None
    faults += (
        Fault("unlisted", archive.storage.address(file), "neither the table's log nor a run in flight knows it", _MOVE)
        for file in unlisted(archive, (item.path for item in listed))
    )
    faults += map(_interrupted, erasure_plan.interrupted(archive.storage))
    unread = sum(file.messages for file in listed) - sum(file.messages for file in sound)
    faults += check_rows(archive.storage, sound, unread, ledger, on_progress)
    compared, error = None, None
    if cluster is not None:
        try:
            compared = comparison.compare(cluster, ledger, archive.storage, sound, on_progress)
            faults += (_fault(archive.uri, difference) for difference in compared.differences)
        except KafkaError as refused:
            error = refused
    return Report(
        archive=archive.uri,
        version=table.version(),
        files=len(listed),
        bytes=sum(file.bytes for file in listed),
        messages=ledger.messages,
        partitions=len(ledger.committed),
        given_up=ledger.given_up,
        seconds=time.monotonic() - began,
        faults=tuple(faults),
        kafka=compared,
        kafka_error=error,
    )


def _cluster(against: Settings | None, ledger: Ledger) -> Cluster | None:
    """The cluster, asked for the topics that the archive has, whatever `ARCHIVER_TOPICS` names now."""
    if against is None:
        return None
    topics = tuple(sorted({at.topic for at in ledger.committed})) or against.topics
    return Cluster(against.model_copy(update={"topics": topics}))


def _replaced(archive: Archive, listed: list[ListedFile]) -> bool:
    """Tell whether the table has moved on from some of the files: a rewrite puts others in their place."""
    return not {file.path for file in listed} <= set(archive.files()["path"])


def unlisted(archive: Archive, listed: Iterable[str]) -> Iterator[str]:
    """Yield the Parquet files (below the archive) that nothing accounts for: neither those `listed`, nor the log, nor a
    run in flight.

    The order matters: a file on its way is first named by a manifest, then by the log, so they are read in that order.
    """
    with archive.reached():
        there = set(archive.storage.data_files())
        there -= set(listed)
        there -= archive.storage.in_flight()
        if there:
            there -= set(archive.files()["path"]) | archive.removed()
        yield from sorted(archive.storage.there(sorted(there)))


def _interrupted(plan: ErasurePlan) -> Fault:
    what = f"an erasure of {plan.started:%Y-%m-%d %H:%M:%S} UTC was interrupted: what was to go may still be there"
    return Fault("unerased", plan.address, what, "`archiver erase --resume` finishes it")


def _fault(archive: str, difference: Difference) -> Fault:
    """Say what a difference from Kafka means for the archive."""
    at, count = difference.at, difference.count
    place = f"topic {at.topic}, partition {at.partition}"
    offsets = ", ".join(map(str, difference.offsets)) + (", …" if count > len(difference.offsets) else "")
    messages = f"{count} message{'s' * (count != 1)}"
    path = difference.path or archive
    match difference.kind:
        case "missing":
            return Fault(
                "missing", path, f"{place}: {messages} that Kafka has not in its files; offsets {offsets}", RESTORE
            )
        case "extra":
            return Fault("changed", path, f"{place}: {messages} that Kafka does not hand out; offsets {offsets}", _ASK)
        case "changed":
            return Fault("changed", path, f"{place}: {messages} not as in Kafka; offsets {offsets}", _ASK)
        case _:
            what = f"{place}: {count} more stretches of {BUCKET} offsets are not as in Kafka; they begin at {offsets}"
            return Fault("changed", path, what, _ASK)
