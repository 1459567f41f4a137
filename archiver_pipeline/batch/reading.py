"""A planned batch on its way in: one thread reads it from Kafka, one gives its messages their types."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Set
from contextlib import closing
from threading import Event
from typing import TYPE_CHECKING

from archiver_pipeline.batch.ahead import Ahead
from archiver_pipeline.batch.classifier import Classifier
from archiver_pipeline.batch.planner import Planned
from archiver_pipeline.copies import Copies
from archiver_pipeline.formats.decoder import decoder_of
from archiver_pipeline.kafka.cluster import Cluster
from archiver_pipeline.kafka.progress import Progress
from archiver_pipeline.kafka.reader import RangeReader
from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.settings.settings import Settings

if TYPE_CHECKING:
    import polars as pl

_READ_BYTES, _CLASSIFIED_BYTES = 32 * 1024**2, 48 * 1024**2
"""So much may wait between the threads, and for the writer: what comes in while the batch before it is committed."""


class Reading:
    """A batch that is being read, from now on.

    Attributes:
        planned: the batch.
    """

    def __init__(
        self,
        planned: Planned,
        cluster: Cluster,
        settings: Settings,
        types: Callable[[], Set[str]],
        copies: Copies,
        on_frame: Callable[[], None],
        *,
        careful: bool = False,
    ) -> None:
        """Begin to read.

        Args:
            planned: what to read.
            cluster: where from.
            settings: the bounds and the type rules.
            types: returns the archive's types; it is asked in a thread, and may wait for those of the batch before.
            copies: the offsets that replays wrote, known after the broker was asked for the ends that are planned.
            on_frame: is told of each frame from Kafka, in the thread that reads.
            careful: take as little from Kafka at once as can be.
        """
        self.planned = planned
        self._settings = settings
        self._types: Set[str] = frozenset()
        self._then: Callable[[], None] | None = None
        self._taken, self._stopped = Event(), Event()
        self._reader = RangeReader(cluster, planned.plan.ranges, settings.batch_bytes, copies=copies, careful=careful)
        self._read = Ahead(self._frames_read(on_frame), _READ_BYTES, "read")
        self._classified = Ahead(self._frames_classified(types), _CLASSIFIED_BYTES, "classify")

    def frames(self, then: Callable[[], None] | None = None) -> Iterator[pl.DataFrame]:
        """Return the frames of `Classifier.over`. They raise what `RangeReader.frames` and the decoder raise.

        Args:
            then: is called, in the thread that reads, when all of it came from Kafka; the frames end after that.
        """
        self._then = then
        self._taken.set()
        return self._classified

    def _frames_read(self, on_frame: Callable[[], None]) -> Generator[pl.DataFrame]:
        with closing(self._reader.frames()) as frames:
            for frame in frames:
                on_frame()
                yield frame
        self._taken.wait()
        if self._then is not None and not self._reader.halted:
            self._then()

    def _frames_classified(self, types: Callable[[], Set[str]]) -> Generator[pl.DataFrame]:
        settings, places = self._settings, [item.at for item in self.planned.plan.ranges]
        decoder = decoder_of(settings, places, self._stopped)
        classifier = Classifier(places, settings.type_rule, types(), settings.max_types, decoder)
        self._types = classifier.types
        with closing(classifier.over(self._read)) as frames:
            yield from frames

    @property
    def progress(self) -> Mapping[TopicPartition, Progress]:
        """How far each range came, once it is read."""
        return {item.range.at: item for item in self._reader.progress}

    def types(self) -> Set[str]:
        """The archive's types, new ones of the batch among them; waits until all of it has its type."""
        self._classified.wait()
        return self._types

    def stop(self) -> None:
        """Read no further, and wait until nothing is asked of the broker any more."""
        self._reader.halted = True
        self._stopped.set()
        self._taken.set()
        self._read.stop()
        self._classified.stop()
