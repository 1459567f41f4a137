"""Hours read from Kafka once more: their offsets found by time, their messages sorted by hour."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from archiver_pipeline import envelope
from archiver_pipeline.classifier import Classifier
from archiver_pipeline.files import COLUMNS, OnProgress
from archiver_pipeline.hours import Hour
from archiver_pipeline.kafka import Cluster, Look
from archiver_pipeline.ledger import Ledger
from archiver_pipeline.lives import present_life
from archiver_pipeline.plan import NO_TOPIC_ID, OffsetRange, TopicPartition
from archiver_pipeline.reader import RangeReader
from archiver_pipeline.runs import BUFFER_BYTES, Runs
from archiver_pipeline.settings import Settings

if TYPE_CHECKING:
    import polars as pl


def ranges_of(cluster: Cluster, ledger: Ledger, look: Look, hours: Sequence[Hour], highest: int) -> list[OffsetRange]:
    """Find the offsets among which the archived messages of some hours lie, as far as Kafka still has them.

    No message before the first one at or past the first hour's start can belong to them, whatever the order of the
    timestamps. A late one may lie anywhere behind it: of what is archived, the table knows the highest offset; of what
    lies before the start of archiving, nothing is known, so that is read to its end.

    Args:
        cluster: the cluster.
        ledger, look: archive and broker at one moment; nothing at or past a committed offset is read.
        hours: hours with a number.
        highest: the highest offset that any file of these hours holds, -1 without one.
    """
    numbers = [hour.number for hour in hours if hour.number is not None]
    if not numbers:
        return []
    lives = [item for state in look.topics for item in present_life(ledger, state) or ()]
    places = [at for at, _, _ in lives]
    first = cluster.offsets_at(places, min(numbers) * envelope.HOUR_MS)
    behind = cluster.offsets_at(places, (max(numbers) + 1) * envelope.HOUR_MS)
    found = []
    for at, what, marks in lives:
        begin = first[at]
        # What an earlier life without an id holds, this one has inherited: it is no start.
        inherited = TopicPartition(at.topic, NO_TOPIC_ID, at.partition) in ledger.committed
        lowest = max(marks.earliest, what.first if inherited and at.topic_id != NO_TOPIC_ID else 0)
        if begin is None or marks.end < what.next:
            continue  # Nothing so late is there, or the log is not the one that was archived.
        after = behind[at]
        end = min(what.next, max(what.next if after is None else after, highest + 1, what.first))
        begin = max(begin, lowest)
        if begin < end:
            found.append(OffsetRange(at, begin, end))
    return found


class HoursRead:
    """The messages of some hours as Kafka has them: for each hour its runs, with the columns of the archive, `type` by
    the present rules, and `was` (null)."""

    def __init__(self, hours: Sequence[Hour], folder: Path) -> None:
        """Keep what does not fit into memory in `folder`."""
        numbers = {hour.number: hour for hour in hours if hour.number is not None}
        # Each is written as it comes: many buffers of their own would not be bounded.
        self._runs = {number: Runs(folder / hour.name, buffer_bytes=1) for number, hour in numbers.items()}
        self._waiting: list[pl.DataFrame] = []
        self._waiting_bytes = 0
        self.types: set[str] = set()

    def of(self, hour: Hour) -> Runs:
        """The runs of an hour."""
        number = hour.number
        return self._runs[number] if number in self._runs else Runs(Path())

    def read(
        self,
        cluster: Cluster,
        settings: Settings,
        ranges: Sequence[OffsetRange],
        known_types: set[str],
        on_progress: OnProgress,
    ) -> None:
        """Read the ranges, and keep what belongs to the hours. Raises KafkaError."""
        import polars as pl

        if not ranges:
            return
        reader = RangeReader(cluster, ranges, sys.maxsize)
        classifier = Classifier([item.at for item in ranges], settings.type_rule, known_types, settings.max_types)
        total = sum(map(len, ranges))
        hour = pl.col("timestamp_ms").floordiv(envelope.HOUR_MS)
        wanted = (pl.col("timestamp_type") != "none") & (pl.col("timestamp_ms") != -1) & hour.is_in(list(self._runs))
        for frame in reader.frames():
            self._keep(classifier.add(frame.filter(wanted)))
            on_progress("Kafka", sum(item.next - item.range.start for item in reader.progress), total)
        self._keep(classifier.close())
        self._sort()
        cluster.check_topics(item.at for item in ranges)

    def _keep(self, typed: Sequence[pl.DataFrame]) -> None:
        for frame in typed:
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
        self.types.update(every["type"].unique())
        for (number,), part in every.partition_by("hour", as_dict=True).items():
            self._runs[number].add(part.select(*COLUMNS, "type", was=pl.lit(None, pl.String)))
