"""The archive against Kafka, message by message, by a plain consumer and none of the archiver's own code."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import methodcaller
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from archiver_pipeline_tests.kafka.produce import UNREADABLE_HEADERS, Message

NO_TIME = -1
"""Kafka's timestamp of a message without one."""

LARGEST_MS = (2**63 - 1) // 1000
"""The largest time in milliseconds that a 64-bit count of microseconds holds; others are null in the archive."""

ARCHIVED_UNREADABLE_HEADERS = (("_malformed", None),)
"""What the archive has in place of headers that confluent-kafka cannot hand out."""

_TIMESTAMP_TYPES = {0: "none", 1: "create", 2: "append"}
_CHUNK = 5_000
_headers_of = methodcaller("headers")


@dataclass
class Comparison:
    """The archive against Kafka, side by side; all but `messages` ought to be 0.

    Attributes:
        messages: what Kafka has.
        lost: messages of Kafka that the archive has not.
        doubled: rows of the archive with an offset that came before.
        differing: messages of which some byte differs.
        extra: rows of the archive that Kafka does not hand out, such as aborted ones.
        examples: a few of those, in words.
    """

    messages: int = 0
    lost: int = 0
    doubled: int = 0
    differing: int = 0
    extra: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def equal(self) -> bool:
        """Whether the archive has exactly what Kafka has."""
        return not (self.lost or self.doubled or self.differing or self.extra)

    def note(self, kind: str, what: str) -> None:
        """Count one fault."""
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.examples) < 20:
            self.examples.append(f"{kind}: {what:.500}")


def compare(kafka: Iterable[Message], rows: Iterator[Message], result: Comparison, place: tuple[str, int]) -> None:
    """Go through both in the order of offsets and add to `result` what differs."""
    row = next(rows, None)
    for message in kafka:
        wanted = as_archived(message)
        while row is not None and row.offset < message.offset:
            result.note("extra", f"{place} {row}")
            row = next(rows, None)
        if row is None or row.offset > message.offset:
            result.note("lost", f"{place} {wanted}")
            continue
        if row != wanted:
            result.note("differing", f"{place} archive {row}, Kafka {wanted}")
        row = next(rows, None)
        while row is not None and row.offset == message.offset:
            result.note("doubled", f"{place} {row}")
            row = next(rows, None)
    while row is not None:
        result.note("extra", f"{place} {row}")
        row = next(rows, None)


def as_archived(message: Message) -> Message:
    """A message of Kafka as the archive is to have it: a time that no column holds is null, shown as `NO_TIME`."""
    timestamp, kind = message.timestamp, message.timestamp_type
    if timestamp == NO_TIME or kind == "none":
        timestamp, kind = NO_TIME, "none"
    elif abs(timestamp) > LARGEST_MS:
        timestamp = NO_TIME
    headers = ARCHIVED_UNREADABLE_HEADERS if message.headers == UNREADABLE_HEADERS else message.headers
    return message._replace(timestamp=timestamp, timestamp_type=kind, headers=headers)


def kafka_messages(bootstrap_servers: str, topic: str, partition: int, start: int, end: int) -> Iterator[Message]:
    """Yield the committed messages of the offsets `[start, end)`, where `end` is not past the last stable offset."""
    config = {
        "bootstrap.servers": bootstrap_servers,
        "group.id": f"compare-{uuid.uuid4()}",
        "isolation.level": "read_committed",
        "auto.offset.reset": "error",
        "fetch.wait.max.ms": 20,
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "log_level": 0,
    }
    consumer = Consumer(config)
    try:
        consumer.assign([TopicPartition(topic, partition, start)])
        while start < end:
            for message in consumer.consume(_CHUNK, 0.05):
                error, offset = message.error(), message.offset()
                assert offset is not None
                if error is None and offset >= end:
                    return
                if error is None:
                    yield _kafka_message(message, offset)
                    start = offset + 1
                elif error.code() == KafkaError._PARTITION_EOF:
                    start = max(start, offset)
                else:
                    raise KafkaException(error)
    finally:
        consumer.close()


def _kafka_message(message: Any, offset: int) -> Message:
    kind, timestamp = message.timestamp()
    try:
        headers = tuple(_headers_of(message) or ())
    except (SystemError, UnicodeDecodeError):
        headers = UNREADABLE_HEADERS
    return Message(offset, message.key(), message.value(), headers, timestamp, _TIMESTAMP_TYPES[kind])
