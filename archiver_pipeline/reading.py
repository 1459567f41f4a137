"""A planned batch on its way in: one thread reads it from Kafka, one gives its messages their types."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Set
from contextlib import closing
from typing import TYPE_CHECKING

from archiver_pipeline.ahead import Ahead
from archiver_pipeline.classifier import Classifier
from archiver_pipeline.kafka import Cluster
from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.planner import Planned
from archiver_pipeline.progress import Progress
from archiver_pipeline.reader import RangeReader
from archiver_pipeline.settings import Settings

if TYPE_CHECKING:
    import polars as pl

_READ_BYTES, _CLASSIFIED_BYTES = 32 * 1024**2, 64 * 1024**2
"""So much may wait between the threads, and for the writer: what comes in while the batch before it is committed."""


class Reading:
    """A batch that is being read, from now on.

    Attributes:
        planned: the batch.
        types: the archive's types, new ones of the batch among them once its frames are taken.
    """

    def __init__(
        self, planned: Planned, cluster: Cluster, settings: Settings, types: Set[str], on_frame: Callable[[], None]
    ) -> None:
        """Begin to read. `on_frame` is told of each frame from Kafka, in the thread that reads."""
        ranges = planned.plan.ranges
        self.planned = planned
        self._reader = RangeReader(cluster, ranges, settings.batch_bytes)
        classifier = Classifier([item.at for item in ranges], settings.type_rule, types, settings.max_types)
        self.types: Set[str] = classifier.types
        self._read = Ahead(self._frames_read(on_frame), _READ_BYTES, "read")
        self._classified = Ahead(classifier.over(self._read), _CLASSIFIED_BYTES, "classify")

    def frames(self) -> Iterator[pl.DataFrame]:
        """Return the frames of `Classifier.over`. They raise what `RangeReader.frames` raises."""
        return self._classified

    def _frames_read(self, on_frame: Callable[[], None]) -> Generator[pl.DataFrame]:
        with closing(self._reader.frames()) as frames:
            for frame in frames:
                on_frame()
                yield frame

    @property
    def progress(self) -> Mapping[TopicPartition, Progress]:
        """How far each range came, once all frames are taken."""
        return {item.range.at: item for item in self._reader.progress}

    def stop(self) -> None:
        """Read no further, and wait until nothing is asked of the broker any more."""
        self._reader.halted = True
        self._read.stop()
        self._classified.stop()
