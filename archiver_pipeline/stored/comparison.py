"""What Kafka still has against what the archive holds: counts and digests, narrowed down to offsets and files."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from archiver_pipeline import envelope
from archiver_pipeline.copies import Copies
from archiver_pipeline.errors import AccessDenied
from archiver_pipeline.frames import envelope_frame
from archiver_pipeline.kafka.cluster import Cluster
from archiver_pipeline.kafka.look import Look
from archiver_pipeline.kafka.reader import RangeReader
from archiver_pipeline.plan import OffsetRange, TopicPartition
from archiver_pipeline.storage.base import Storage
from archiver_pipeline.stored.digest import BUCKET, EMPTY, Sums, hashes
from archiver_pipeline.stored.files import COLUMNS, OnProgress, SoundFile, quietly
from archiver_pipeline.table.ledger import Ledger
from archiver_pipeline.table.lives import present_life

if TYPE_CHECKING:
    import polars as pl

NAMED_OFFSETS = 10
"""How many offsets of a difference are named."""

_BATCH_ROWS = 50_000
_WINDOW = 4
"""Buckets that are compared message by message in one go."""

_ENOUGH = 8
"""Once so many buckets are found to differ, the rest of a partition is not looked at message by message."""

Kind = Literal["missing", "changed", "extra", "unnamed"]


@dataclass(frozen=True)
class Compared:
    """Both sides of a topic partition.

    Attributes:
        range: the offsets compared: those that the archive has and Kafka still had when it was read.
        in_kafka, in_archive: messages on either side.
        kafka_digest, archive_digest: 64 hex digits each.
    """

    range: OffsetRange
    in_kafka: int
    in_archive: int
    kafka_digest: str
    archive_digest: str

    @property
    def equal(self) -> bool:
        """Whether both sides have the same messages."""
        return (self.in_kafka, self.kafka_digest) == (self.in_archive, self.archive_digest)


@dataclass(frozen=True)
class Difference:
    """Messages of a topic partition that are not the same on both sides.

    Attributes:
        kind: `missing` from the archive; `changed`; `extra`, which Kafka does not hand out; `unnamed`, where the
            offsets begin stretches of `BUCKET` that differ, too, and were not looked at message by message.
        at: the topic partition.
        offsets: the first `NAMED_OFFSETS` of them.
        count: how many there are.
        path: the archive's file that holds them, None where none does.
    """

    kind: Kind
    at: TopicPartition
    offsets: tuple[int, ...]
    count: int
    path: str | None = None


@dataclass(frozen=True)
class Comparison:
    """The outcome: each partition compared, what differs, and a sentence for each topic that could not be compared."""

    partitions: tuple[Compared, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]


Spans = Sequence[tuple[int, OffsetRange]]
"""What was really read of each range, with the range's index: retention may have taken a part."""

Read = Callable[[Sequence[OffsetRange], "Callable[[pl.DataFrame], None]", OnProgress], Spans]
"""Reads ranges from Kafka."""

Archived = Callable[[Iterable[SoundFile], Spans, OnProgress], "Iterator[tuple[SoundFile, pl.DataFrame]]"]
"""Reads the messages of spans from files."""


def comparable(ledger: Ledger, look: Look) -> tuple[list[OffsetRange], list[str]]:
    """What archive and broker both have: a range for each partition in the present life of its topic.

    Returns:
        The ranges, and a sentence for each topic or partition that has none.
    """
    ranges, notes = [], list(look.warnings)
    for state in look.topics:
        life = present_life(ledger, state)
        if life is None:
            notes.append(f"topic {state.topic} was made again, and nothing of its present life is archived yet")
        for at, what, marks in life or ():
            start = max(what.first, marks.earliest)
            if marks.end < what.next:
                notes.append(
                    f"topic {at.topic}, partition {at.partition} was made again: it ends at {marks.end}, and "
                    f"{what.next} is the next offset to archive"
                )
            elif start < what.next:
                ranges.append(OffsetRange(at, start, what.next))
    return ranges, notes


def compare(
    cluster: Cluster, ledger: Ledger, storage: Storage, files: Sequence[SoundFile], on_progress: OnProgress
) -> Comparison:
    """Read what Kafka still has of the archived offsets, and the same offsets from the archive's files.

    What retention deletes meanwhile is left out on both sides, and so is what was erased from the archive on request.
    Messages that only the archive has are no difference where Kafka compacts the topic.

    Raises:
        KafkaError: the broker refused or did not answer.
    """
    ranges, notes = comparable(ledger, cluster.look())
    kafka, archive = Sums(), Sums()
    archived = partial(_from_archive, storage)
    erased = _erased(archived, files, ranges)
    read = partial(_from_kafka, cluster, ledger.copies())
    spans = read(ranges, lambda frame: kafka.add(_without(frame, erased)), on_progress)
    for _, frame in archived((file for file in files if file.type != envelope.ERASED), spans, on_progress):
        archive.add(frame)
    theirs, ours, differing = kafka.totals(), archive.totals(), kafka.differing(archive)
    starts = {index: span.start for index, span in reversed(spans)}
    still = [OffsetRange(item.at, starts.get(index, item.end), item.end) for index, item in enumerate(ranges)]
    partitions = []
    for index, item in enumerate(still):
        (in_kafka, kafka_digest), (in_archive, archive_digest) = theirs.get(index, EMPTY), ours.get(index, EMPTY)
        partitions.append(Compared(item, in_kafka, in_archive, kafka_digest, archive_digest))
    try:
        compacted = cluster.compacted({ranges[index].at.topic for index in differing})
    except AccessDenied as error:
        compacted = set()
        notes.append(f"whether a topic is compacted is not known, so it is taken for one that is not: {error}")
    differences = [
        difference
        for index, buckets in differing.items()
        for difference in _narrowed(read, archived, still[index], buckets, files, still[index].at.topic in compacted)
    ]
    return Comparison(tuple(partitions), tuple(differences), tuple(notes))


def _from_kafka(
    cluster: Cluster,
    copies: Copies,
    ranges: Sequence[OffsetRange],
    take: Callable[[pl.DataFrame], None],
    on_progress: OnProgress,
) -> Spans:
    """Read the ranges from Kafka but for copies, hand each frame on, and return what was read."""
    reader = RangeReader(cluster, ranges, sys.maxsize, copies=copies)
    places = [item.at for item in ranges]
    total = sum(map(len, ranges))
    for frame in reader.frames():
        take(envelope_frame(frame, places).with_columns(frame["range"]))
        on_progress("Kafka", sum(item.next - item.range.start for item in reader.progress), total)
    spans = []
    for index, item in enumerate(reader.progress):
        start = item.range.start
        for gap in item.gaps:
            spans.append((index, OffsetRange(item.range.at, start, gap.start)))
            start = gap.end
        spans.append((index, OffsetRange(item.range.at, start, item.range.end)))
    return [(index, span) for index, span in spans if len(span)]


def _erased(archived: Archived, files: Sequence[SoundFile], ranges: Sequence[OffsetRange]) -> pl.DataFrame:
    """What was erased of the ranges, which neither side counts: `range` and `offset`."""
    import polars as pl

    of_files = [file for file in files if file.type == envelope.ERASED]
    found = [frame.select("range", "offset") for _, frame in archived(of_files, list(enumerate(ranges)), quietly)]
    return pl.concat([pl.DataFrame(schema={"range": pl.UInt32, "offset": pl.Int64}), *found])


def _without(frame: pl.DataFrame, erased: pl.DataFrame) -> pl.DataFrame:
    return frame.join(erased, on=["range", "offset"], how="anti") if erased.height else frame


def _from_archive(
    storage: Storage, files: Iterable[SoundFile], spans: Spans, on_progress: OnProgress
) -> Iterator[tuple[SoundFile, pl.DataFrame]]:
    """Yield the archived messages of the spans, file by file: the archive's columns and `range`."""
    import polars as pl
    import pyarrow.parquet

    numbers = dict.fromkeys(("start", "end"), pl.Int64)
    schema = {"range": pl.UInt32, "topic": pl.String, "topic_id": pl.String, "partition": pl.Int32, **numbers}
    rows = [(index, s.at.topic, s.at.topic_id, s.at.partition, s.start, s.end) for index, s in spans]
    wanted = pl.DataFrame(rows, schema=schema, orient="row")
    low, high = min((span.start for _, span in spans), default=0), max((span.end for _, span in spans), default=0)
    chosen = [file for file in files if file.first < high and file.last >= low]
    done, total = 0, sum(file.messages for file in chosen)
    for file in chosen:
        with storage.local(file.path) as path, pyarrow.parquet.ParquetFile(path) as parquet:
            for batch in parquet.iter_batches(_BATCH_ROWS, columns=list(COLUMNS)):
                frame = pl.DataFrame(batch).join(wanted, on=["topic", "topic_id", "partition"])
                frame = frame.filter((pl.col("offset") >= pl.col("start")) & (pl.col("offset") < pl.col("end")))
                if frame.height:
                    yield file, frame
        done += file.messages
        on_progress("archive", done, total)


def _narrowed(
    read: Read,
    archived: Archived,
    item: OffsetRange,
    buckets: Sequence[int],
    files: Sequence[SoundFile],
    compacted: bool,
) -> Iterator[Difference]:
    """Compare the buckets of a partition message by message, until enough of them are found to differ."""
    found: defaultdict[tuple[Kind, str | None], list[int]] = defaultdict(list)
    left = list(buckets)
    while left and len({offset // BUCKET for offsets in found.values() for offset in offsets}) < _ENOUGH:
        window = [bucket for bucket in left if bucket < left[0] + _WINDOW]
        left = left[len(window) :]
        part = OffsetRange(item.at, max(item.start, window[0] * BUCKET), min(item.end, (window[-1] + 1) * BUCKET))
        for kind, path, offset in _one_by_one(read, archived, part, files):
            if kind != "extra" or not compacted:
                found[kind, path].append(offset)
    if left:
        found["unnamed", None] = [bucket * BUCKET for bucket in left]
    for (kind, path), offsets in found.items():
        yield Difference(kind, item.at, tuple(sorted(offsets)[:NAMED_OFFSETS]), len(offsets), path)


def _one_by_one(
    read: Read, archived: Archived, part: OffsetRange, files: Sequence[SoundFile]
) -> Iterator[tuple[Kind, str | None, int]]:
    """Yield what differs in a part of a partition: the kind, the archive's file that holds it, and the offset."""
    theirs: dict[int, bytes] = {}

    def take(frame: pl.DataFrame) -> None:
        theirs.update(zip(frame["offset"], hashes(frame), strict=True))

    spans = read([part], take, quietly)
    seen = set()
    for file, frame in archived(files, spans, quietly):
        for offset, number in zip(frame["offset"], hashes(frame), strict=True):
            seen.add(offset)
            if file.type == envelope.ERASED:
                continue
            if offset not in theirs:
                yield "extra", file.address, offset
            elif theirs[offset] != number:
                yield "changed", file.address, offset
    for offset in sorted(theirs.keys() - seen):
        yield "missing", None, offset
