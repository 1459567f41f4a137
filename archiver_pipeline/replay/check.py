"""What was sent against what the topics have: how many messages each partition has, and a digest of all in order."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from archiver_pipeline.frames import envelope_frame
from archiver_pipeline.kafka.reader import RangeReader
from archiver_pipeline.plan import OffsetRange, TopicPartition
from archiver_pipeline.replay.position import Place, Position
from archiver_pipeline.replay.replayer import Replayer
from archiver_pipeline.stored.digest import EMPTY, Sums
from archiver_pipeline.stored.files import COLUMNS, OnProgress

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Checked:
    """Both sides of a partition that messages were sent to.

    Attributes:
        topic: the topic.
        partition: the partition; None for all of them, whose order is not compared: what came from one partition was
            spread over several, or several went into one.
        in_archive, in_kafka: messages on either side.
        archive_digest, kafka_digest: of partition, number in it, time, key, payload and headers of each message.
    """

    topic: str
    partition: int | None
    in_archive: int
    in_kafka: int
    archive_digest: str
    kafka_digest: str

    @property
    def equal(self) -> bool:
        """Whether both have the same messages, in the same order where that is compared."""
        return (self.in_archive, self.archive_digest) == (self.in_kafka, self.kafka_digest)


def check(replayer: Replayer, position: Position, on_progress: OnProgress) -> list[Checked]:
    """Compare the messages of a replay that is done with the offsets that it wrote.

    Others that wrote between them make a difference. It reads both sides whole.

    Raises:
        KafkaError: the broker failed; ArchiveError: the archive cannot be read.
    """
    sources: dict[str, set[str]] = {}
    for at in position.ranges:
        sources.setdefault(replayer.wanted.target(at.topic), set()).add(at.topic)
    loose = {topic for topic, every in sources.items() if replayer.wanted.by_key or len(every) > 1}
    archive, kafka = _Numbered(loose), _Numbered(loose)
    total = 2 * position.total
    for frame in _archived(replayer, position):
        archive.add(frame)
        on_progress("check", archive.rows + kafka.rows, total)
    for frame in _sent(replayer, position.reached):
        kafka.add(frame)
        on_progress("check", archive.rows + kafka.rows, max(total, archive.rows + kafka.rows))
    ours, theirs = archive.totals(), kafka.totals()
    return [
        Checked(topic, None if number < 0 else number, mine[0], other[0], mine[1], other[1])
        for topic, number in sorted({*ours, *theirs})
        for mine, other in [(ours.get((topic, number), EMPTY), theirs.get((topic, number), EMPTY))]
    ]


def _archived(replayer: Replayer, position: Position) -> Iterator[pl.DataFrame]:
    """The messages of the archive as they were sent, with `target`."""
    import polars as pl

    lowest = {at: replayer.selected.ranges[at][0] for at in position.ranges}
    ranges = {at: (lowest[at], end) for at, (_, end) in position.ranges.items()}
    survey = replayer.selected.survey(ranges, lambda *_: None)
    to_topic = replayer.wanted.to_topic
    unsendable = pl.col("timestamp").cast(pl.Int64) == 0
    for stretch in replayer.selected.stretches(survey):
        yield stretch.frame.select(
            *(name for name in COLUMNS if name != "timestamp"),
            timestamp=pl.when(~unsendable).then("timestamp"),
            target=pl.lit(to_topic) if to_topic else pl.col("topic"),
        )


def _sent(replayer: Replayer, reached: Mapping[Place, tuple[int, int]]) -> Iterator[pl.DataFrame]:
    """The messages that the topics have between the first and the last that was sent."""
    import polars as pl

    present = replayer.cluster.topic_ids({topic for topic, _ in reached})
    ranges = [
        OffsetRange(TopicPartition(topic, present[topic], partition), first, end)
        for (topic, partition), (first, end) in reached.items()
        if topic in present
    ]
    for frame in RangeReader(replayer.cluster, ranges, sys.maxsize).frames():
        yield envelope_frame(frame, [item.at for item in ranges]).with_columns(target=pl.col("topic"))


class _Numbered:
    """Sums of messages, each hashed with its number in its partition."""

    def __init__(self, loose: set[str]) -> None:
        self.rows = 0
        self._loose = sorted(loose)
        self._counts: Counter[Place] = Counter()
        self._places: dict[Place, int] = {}
        self._sums = Sums()

    def add(self, frame: pl.DataFrame) -> None:
        """Take messages in order: the archive's columns, and `target`."""
        import polars as pl

        self.rows += frame.height
        frame = frame.with_columns(
            timestamp_type=pl.lit("create"),
            partition=pl.when(pl.col("target").is_in(self._loose)).then(pl.lit(-1, pl.Int32)).otherwise("partition"),
        )
        for (topic, partition), part in frame.partition_by("target", "partition", as_dict=True).items():
            place = str(topic), int(partition)
            start = self._counts[place]
            self._counts[place] += part.height
            index = self._places.setdefault(place, len(self._places))
            numbers = pl.lit(0, pl.Int64) if partition < 0 else pl.int_range(start, start + part.height)
            self._sums.add(part.with_columns(offset=numbers, range=pl.lit(index, pl.UInt32)))

    def totals(self) -> dict[Place, tuple[int, str]]:
        """Number of messages and digest of each partition."""
        found = self._sums.totals()
        return {place: found[index] for place, index in self._places.items()}
