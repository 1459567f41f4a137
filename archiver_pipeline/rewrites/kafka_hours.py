"""Hours read from Kafka once more: their offsets found by time, their messages sorted by hour."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from archiver_pipeline import envelope
from archiver_pipeline.batch.classifier import Classifier
from archiver_pipeline.copies import Copies
from archiver_pipeline.formats.decoder import decoder_of
from archiver_pipeline.frames import hour_of_frame
from archiver_pipeline.hours import Hour
from archiver_pipeline.kafka.cluster import Cluster
from archiver_pipeline.kafka.look import Look
from archiver_pipeline.kafka.reader import RangeReader
from archiver_pipeline.plan import NO_TOPIC_ID, OffsetRange, TopicPartition, life_of, positions_of
from archiver_pipeline.stored.files import COLUMNS, OnProgress
from archiver_pipeline.stored.runs import BUFFER_BYTES, PLACE, Runs
from archiver_pipeline.table.ledger import Ledger

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Readable:
    """A partition of the broker's, whose offsets from `lowest` to `end` the archive knows.

    Attributes:
        at: the topic partition in its present life.
        first: where archiving began in this life. What lies below belongs to an earlier life without a topic id if
            there is one, whose offsets this one has inherited.
        lowest, end: what archive and broker both know lies between.
        before: that earlier life.
    """

    at: TopicPartition
    first: int
    lowest: int
    end: int
    before: TopicPartition | None = None


def readable(cluster: Cluster, ledger: Ledger, look: Look) -> tuple[list[Readable], list[str]]:
    """Find what Kafka can be asked of the archived offsets.

    What is not there although the broker answered (a topic that is gone or was made again) Kafka has no more.

    Returns:
        The partitions, and a sentence for each that may have messages of the archive but cannot be read now.

    Raises:
        KafkaError: the broker was asked without topic ids, but the archive has some.
    """
    # One that is not archived yet counts, too: it keeps its topic from being planned, and so from being read.
    unread = sorted(look.unread.values())
    nameless = {}
    for life in sorted(ledger.committed, key=lambda at: life_of(at.topic_id)):
        if life_of(life.topic_id)[0] == NO_TOPIC_ID:
            nameless[life.topic, life.partition] = life  # Of several the last one stays.
    found = []
    for state in look.topics:
        for position in positions_of(state, ledger.committed, cluster.start_offset):
            at, marks = position.at, state.partitions[position.at.partition]
            what = ledger.committed.get(at) or position.known
            if position.began_again:
                where = f"topic {at.topic}, partition {at.partition}"
                unread.append(f"{where}: its log seems to have begun again, which the next batch decides")
            elif what is not None:
                before = nameless.get((at.topic, at.partition))
                found.append(Readable(at, what.first, marks.earliest, what.next, before if before != at else None))
    return found, unread


def ranges_of(cluster: Cluster, places: Sequence[Readable], hours: Sequence[Hour], highest: int) -> list[OffsetRange]:
    """Find the offsets among which the archived messages of some hours lie.

    No message before the first one at or past the first hour's start can belong to them, whatever the order of the
    timestamps. A late one may lie anywhere behind it: of what is archived, the table knows the highest offset; of what
    lies before the start of archiving, nothing is known, so that is read to its end. Messages without a usable time may
    lie anywhere.

    Args:
        cluster: the cluster.
        places: what can be read.
        hours: the hours.
        highest: the highest offset that any file of these hours holds, -1 without one.
    """
    numbers = [hour.number for hour in hours if hour.number is not None]
    if len(numbers) < len(hours):
        return [OffsetRange(item.at, item.lowest, item.end) for item in places if item.lowest < item.end]
    first = cluster.offsets_at([item.at for item in places], min(numbers) * envelope.HOUR_MS)
    behind = cluster.offsets_at([item.at for item in places], (max(numbers) + 1) * envelope.HOUR_MS)
    found = []
    for item in places:
        begin, after = first[item.at], behind[item.at]
        if begin is None:
            continue  # Nothing so late is there.
        end = min(item.end, max(item.end if after is None else after, highest + 1, item.first))
        begin = max(begin, item.lowest)
        if begin < end:
            found.append(OffsetRange(item.at, begin, end))
    return found


def _copies(ledger: Ledger, inherited: Sequence[Readable]) -> Copies:
    """The offsets that replays wrote; those of an earlier life under the one that has inherited them."""
    found = ledger.copies()
    for item in inherited:
        assert item.before is not None
        found[item.at] = [*found.get(item.before, ()), *found.get(item.at, ())]
    return found


class HoursRead:
    """The messages of some hours as Kafka has them: for each hour its runs, with the columns of the archive, `type` by
    the present rules, and `was` (null).

    Attributes:
        types: the types of archive and Kafka.
        unread: a sentence for each part of Kafka that could not be asked; until it is read, that is all of it.
    """

    def __init__(self, hours: Sequence[Hour], folder: Path, types: set[str]) -> None:
        """Keep what does not fit into memory in `folder`; `types` are those that the archive has."""
        self._hours = list(hours)
        # Each is written as it comes: many buffers of their own would not be bounded.
        self._runs = {hour.number: Runs(folder / hour.name, buffer_bytes=1) for hour in hours}
        self._waiting: list[pl.DataFrame] = []
        self._waiting_bytes = 0
        self._inherited: list[Readable] = []
        self.types = set(types)
        self.unread: Sequence[str] = ["it was not asked"]

    def of(self, hour: Hour) -> Runs:
        """The runs of an hour."""
        return self._runs[hour.number]

    def read(self, cluster: Cluster, ledger: Ledger, highest: int, on_progress: OnProgress) -> None:
        """Read what Kafka has of the hours, nothing at or past a committed offset.

        Args:
            cluster: the cluster, asked for all topics that the archive has; its settings have the type rules.
            ledger: what the archive has.
            highest: the highest offset that any file of these hours holds, -1 without one.
            on_progress: told how far it is.

        Raises:
            KafkaError: the broker failed, or was asked without topic ids although the archive has some.
            RegistryError: a message cannot be decoded.
        """
        import polars as pl

        places, self.unread = readable(cluster, ledger, cluster.look())
        for sentence in self.unread:
            log.warning("%s; the rest goes on", sentence)
        ranges = ranges_of(cluster, places, self._hours, highest)
        log.info("reading %s", ", ".join(map(str, ranges)) or "nothing, for Kafka has nothing of these hours")
        if not ranges:
            return
        self._inherited = [item for item in places if item.before is not None]
        reader = RangeReader(cluster, ranges, sys.maxsize, copies=_copies(ledger, self._inherited))
        settings = cluster.settings
        at = [item.at for item in ranges]
        classifier = Classifier(at, settings.type_rule, self.types, settings.max_types, decoder_of(settings, at))
        total = sum(map(len, ranges))
        numbers = pl.Series(list(self._runs), dtype=pl.Int64)
        wanted = hour_of_frame().is_in(numbers.implode(), nulls_equal=True)

        def frames() -> Iterator[pl.DataFrame]:
            for frame in reader.frames():
                yield frame.filter(wanted)
                on_progress("Kafka", sum(item.next - item.range.start for item in reader.progress), total)

        for typed in classifier.over(frames()):
            self._keep(typed)
        self._sort()
        cluster.check_topics(item.at for item in ranges)

    def _keep(self, frame: pl.DataFrame) -> None:
        self._waiting.append(frame)
        self._waiting_bytes += int(frame.estimated_size())
        if self._waiting_bytes >= BUFFER_BYTES:
            self._sort()

    def _sort(self) -> None:
        """Hand what waits to the runs of its hour."""
        import polars as pl

        if not self._waiting:
            return
        every = pl.concat(self._waiting)
        self._waiting, self._waiting_bytes = [], 0
        for item in self._inherited:
            assert item.before is not None
            own = [pl.col(name) == getattr(item.at, name) for name in PLACE]
            earlier = pl.all_horizontal(*own, pl.col("offset") < item.first)
            every = every.with_columns(
                topic_id=pl.when(earlier).then(pl.lit(item.before.topic_id)).otherwise("topic_id")
            )
        self.types.update(set(every["type"].unique()) - envelope.RESERVED)
        for (number,), part in every.partition_by("hour", as_dict=True).items():
            self._runs[number].add(part.select(*COLUMNS, "type", was=pl.lit(None, pl.String)))
