"""Reading bounded offset ranges from Kafka into frames."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from archiver_pipeline.collector import uncollected
from archiver_pipeline.copies import Copies, within, without
from archiver_pipeline.errors import BatchUnreadable, BrokerUnavailable, TopicChanged
from archiver_pipeline.frames import bounds, header_bytes, header_series, headers_of, timestamp_types
from archiver_pipeline.kafka.broker import NO_TOPIC
from archiver_pipeline.kafka.client import Complaints, Refused, client_properties
from archiver_pipeline.kafka.cluster import Cluster, same_topic
from archiver_pipeline.kafka.fetching import CAREFUL, PROPERTIES, TUNED
from archiver_pipeline.kafka.progress import Progress
from archiver_pipeline.plan import RETENTION, Gap, OffsetRange

if TYPE_CHECKING:
    import polars as pl
    from confluent_kafka import Consumer, Message

log = logging.getLogger(__name__)

STALL_SECONDS = 60.0
"""A read without any progress for this long has failed; a broker that pauses for half a minute has not."""

CUT_SECONDS = 5.0
"""After so long without progress it is asked what became of the topics, and again each time as much has passed; the
broker may meanwhile report an end below the one it gave when the batch was planned."""

_POLL_SECONDS = 0.05
"""consume() waits this long for a chunk to fill up, so it is also what every batch waits for at its end."""

_CHUNK_MESSAGES, _CHUNK_BYTES = 10_000, 8 * 1024**2
_LEAST_BYTES = 1024**2
"""Chunks do not get smaller than this at the end of a batch: each has its costs."""

_FULL = 0.05
"""A batch that has less than this share of its bytes left is full."""

_NOT_UNPACKED = frozenset({"_BAD_COMPRESSION", "_BAD_MSG", "_NOT_IMPLEMENTED", "INVALID_MSG", "_UNDERFLOW"})
_UNPACKING = (
    "All other partitions go on. Where it is too large unpacked, raise KAFKA_RECEIVE_MESSAGE_MAX_BYTES, up to"
    " 2147483647, and the memory with it; else delete it with kafka-delete-records.sh, and the view gaps will name it"
)


class RangeReader:
    """Reads ranges side by side with one consumer, in frames of a few megabytes.

    A range ends when a message at or past its end arrives, or the partition's end is reported at or past it: the last
    offsets of a range may carry no message at all (KIP-98 markers, aborted or compacted records). When `max_bytes` are
    read, the ranges end where they stand; each has had its fair share by then.

    Attributes:
        progress: per range; `next` is what a commit may record.
        halted: set to end the frames before their time, from another thread, too.
    """

    def __init__(
        self,
        cluster: Cluster,
        ranges: Iterable[OffsetRange],
        max_bytes: int,
        stall_seconds: float = STALL_SECONDS,
        *,
        copies: Copies | None = None,
        careful: bool = False,
    ) -> None:
        """Prepare it; messages at the offsets of `copies` are left out. `careful` takes one batch of a producer at a
        time, however small each is."""
        self.progress = [Progress(item, item.start) for item in ranges]
        self.halted = False
        self._cluster = cluster
        self._max_bytes = max_bytes
        self._copies = [within((copies or {}).get(item.range.at, ()), item.range) for item in self.progress]
        self._stall_seconds = stall_seconds
        self._tuned = {**TUNED, **(CAREFUL if careful else {})}
        self._index: dict[tuple[str | None, int | None], int] = {
            (item.range.at.topic, item.range.at.partition): n for n, item in enumerate(self.progress)
        }
        self._by_number: dict[int | None, int] = {number: n for (_, number), n in self._index.items()}
        self._only_topic = len({item.range.at.topic for item in self.progress}) == 1
        self._complaints = Complaints(cluster.settings.kafka_properties)
        self._complaints.answered = True  # The cluster has.
        self._look_after = CUT_SECONDS
        # A first chunk of a hundred messages tells how large they are.
        self._mean_bytes = _CHUNK_BYTES / 100

    def frames(self) -> Generator[pl.DataFrame]:
        """Yield frames: range (UInt32, index into `progress`), offset, timestamp_ms (Int64, null for none),
        timestamp_type (String), key, payload (Binary), headers (List of Struct key, value).

        Raises:
            BrokerUnavailable: nothing came for `stall_seconds`.
            TopicChanged: a topic was deleted, or its log is shorter than it was.
            BatchUnreadable: messages cannot be unpacked.
            AccessDenied, KafkaError: the broker refused.
        """
        from confluent_kafka import Consumer, KafkaException

        theirs = client_properties(self._cluster.settings.kafka_properties, self._complaints)
        consumer = Consumer({**self._tuned, **theirs, **PROPERTIES})
        try:
            with uncollected():
                while (left := self._max_bytes - sum(item.bytes for item in self.progress)) > self._max_bytes * _FULL:
                    open_ranges = [item for item in self.progress if not item.done]
                    if not open_ranges or self.halted:
                        return
                    for item in open_ranges:
                        item.quota = item.bytes + max(1.0, left / len(open_ranges))
                    yield from self._round(consumer, open_ranges)
        except (KafkaException, Refused) as error:
            raise self._complaints.translate(error, "messages were read") from error
        finally:
            consumer.close()

    def _round(self, consumer: Consumer, ranges: list[Progress]) -> Iterator[pl.DataFrame]:
        """Read until each range is done or has used up its quota."""
        reading = ranges
        consumer.incremental_assign([_assignment(item) for item in ranges])
        last_progress, reached = time.monotonic(), -1
        while reading and not self.halted:
            messages = consumer.consume(self._chunk_size(), _POLL_SECONDS)
            events = [message for message in messages if message.error() is not None]
            if events:
                messages = [message for message in messages if message.error() is None]
            if messages:
                frame = self._frame(messages)
                if frame.height:
                    yield frame
            for event in events:
                self._handle(consumer, event)
            before, reached = reached, sum(item.next for item in ranges)
            if reached != before:
                last_progress, self._look_after = time.monotonic(), CUT_SECONDS
                self._complaints.clear()
            else:
                self._complaints.check()
                self._raise_if_stalled(reading, time.monotonic() - last_progress)
            if any(item.resting for item in reading):
                consumer.incremental_unassign([_assignment(item) for item in reading if item.resting])
                reading = [item for item in reading if not item.resting]

    def _chunk_size(self) -> int:
        """How many messages to take at once: few where they are large or the batch is nearly full."""
        left = min(_CHUNK_BYTES, max(_LEAST_BYTES, self._max_bytes - sum(item.bytes for item in self.progress)))
        return int(max(1, min(_CHUNK_MESSAGES, left / self._mean_bytes)))

    def _frame(self, messages: list[Message]) -> pl.DataFrame:
        """Turn messages into a frame, without those outside their range, and take down how far each range came."""
        import polars as pl
        from confluent_kafka import Message

        partitions = map(Message.partition, messages)
        if self._only_topic:
            index = pl.Series(list(map(self._by_number.__getitem__, partitions)), dtype=pl.UInt32)
        else:
            places = zip(map(Message.topic, messages), partitions, strict=True)
            index = pl.Series(list(map(self._index.__getitem__, places)), dtype=pl.UInt32)
        times = list(map(Message.timestamp, messages))
        keys = list(map(Message.key, messages))
        payloads = list(map(Message.value, messages))
        headers = headers_of(messages)
        frame = pl.DataFrame(
            {
                "range": index,
                "offset": pl.Series(list(map(Message.offset, messages)), dtype=pl.Int64),
                "timestamp_ms": pl.Series([stamp for _, stamp in times], dtype=pl.Int64),
                "timestamp_type": timestamp_types([kind for kind, _ in times]),
                "key": pl.Series(keys, dtype=pl.Binary),
                "payload": pl.Series(payloads, dtype=pl.Binary),
                "headers": header_series(headers),
            }
        )
        size = frame.select(pl.sum_horizontal(pl.col("payload", "key").bin.size().sum())).item() + header_bytes(headers)
        mean = size / len(messages)
        # More than zero, also where all are empty; large ones may follow a few that are small.
        self._mean_bytes = max(mean + 1, self._mean_bytes / 4)
        return self._take_down(frame, mean)

    def _take_down(self, frame: pl.DataFrame, mean_bytes: float) -> pl.DataFrame:
        """Note how far each range came, and return the frame without messages outside their range.

        The offsets of a partition come in order, so the first and the last of each tell whether there are any.
        """
        import polars as pl

        first, last, counts = bounds(frame)
        if any(first[n] < self.progress[n].next or last[n] >= self.progress[n].range.end for n in last):
            low, high = zip(*((item.next, item.range.end) for item in self.progress), strict=True)
            frame = frame.filter(
                (frame["offset"] >= pl.Series(low).gather(frame["range"]))
                & (frame["offset"] < pl.Series(high).gather(frame["range"]))
            )
            counts = bounds(frame)[2]
        if (own := without(frame, self._copies, first, last)) is not None:
            frame, counts = own, bounds(own)[2]
        for number, offset in last.items():
            item = self.progress[number]
            item.next = max(item.next, min(offset + 1, item.range.end))
            item.messages += counts[number]
            item.bytes += round(counts[number] * mean_bytes)
        return frame

    def _handle(self, consumer: Consumer, event: Message) -> None:
        """Deal with a partition's end and with a head that retention deleted; anything else is an error."""
        from confluent_kafka import KafkaError as Codes
        from confluent_kafka import KafkaException

        error = event.error()
        assert error is not None
        place = (event.topic(), event.partition())
        if place not in self._index:
            self._complaints.add(error)
            return
        item = self.progress[self._index[place]]
        if error.code() == Codes._PARTITION_EOF:
            item.log_end = event.offset()
            if item.log_end is not None and item.log_end >= item.range.end:
                item.next = item.range.end
        elif error.code() in (Codes._AUTO_OFFSET_RESET, Codes.OFFSET_OUT_OF_RANGE):
            self._skip_deleted(consumer, item, error.str())
        elif error.name() in NO_TOPIC:
            raise _changed(item, f"the topic is gone: {error.str()}")
        elif error.name() in _NOT_UNPACKED:
            if item.done:
                return  # It lies past the range's end, and came along with what is before it.
            raise BatchUnreadable(f"messages cannot be unpacked: {error.str()}", **item.where, hint=_UNPACKING)
        elif error.fatal() or not error.retriable():
            acls, raised = [f"Read on topic {place[0]}"], KafkaException(error)
            raise self._complaints.translate(raised, "messages were read", *place, acls=acls)

    def _skip_deleted(self, consumer: Consumer, item: Progress, reason: str) -> None:
        """Retention deleted the head of the range: name the gap and go on behind it."""
        at = item.range.at
        earliest = self._cluster.earliest(at.topic, at.partition)
        if earliest <= item.next:
            raise _changed(item, f"the log does not reach the range: {reason}")
        behind = min(earliest, item.range.end)
        item.gaps.append(Gap(at, item.next, behind, RETENTION))
        item.next = behind
        if not item.done:
            consumer.incremental_unassign([_assignment(item)])
            consumer.incremental_assign([_assignment(item)])

    def _raise_if_stalled(self, waiting: list[Progress], seconds: float) -> None:
        """Give up on a topic that is gone, on a log that ends before the range does, or on a broker that is silent."""
        if seconds <= self._look_after:
            return
        self._look_after = seconds + CUT_SECONDS
        first = waiting[0]
        said = self._complaints.said(3)
        silent = f"nothing came for {seconds:.0f} s" + (f": {said}" if said else "")
        log.warning("%s, partition %s: %s", first.range.at.topic, first.range.at.partition, silent)
        if seconds > self._stall_seconds:
            hint = "Check that the partition has a leader; the next run reads the range again"
            raise BrokerUnavailable(silent, **first.where, hint=hint)
        self._raise_if_gone(waiting)
        for item in waiting:
            if item.log_end is not None and item.log_end < item.range.end:
                raise _changed(item, f"the log ends at {item.log_end}, before the end of the range")

    def _raise_if_gone(self, waiting: list[Progress]) -> None:
        """Ask for the topics that are waited for: the client itself would wait for one that is gone without a word."""
        try:
            present = self._cluster.topic_ids({item.range.at.topic for item in waiting})
        except BrokerUnavailable:
            return
        for item in waiting:
            if not same_topic(item.range.at.topic_id, present.get(item.range.at.topic)):
                raise _changed(item, "the topic was deleted while it was read")


def _changed(item: Progress, what: str) -> TopicChanged:
    hint = "Nothing was committed; the next look at the topic tells what became of it"
    return TopicChanged(what, **item.where, hint=hint)


def _assignment(item: Progress) -> Any:
    from confluent_kafka import TopicPartition as Place

    return Place(item.range.at.topic, item.range.at.partition, item.next)
