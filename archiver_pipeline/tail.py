"""The smallest consumer: messages as they come, from every partition of the wanted topics."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from archiver_pipeline.envelope import FIRST_MS, LAST_MS
from archiver_pipeline.errors import KafkaError
from archiver_pipeline.frames import Headers, headers_of
from archiver_pipeline.kafka.broker import acls_on
from archiver_pipeline.kafka.client import Complaints, Refused, client_properties
from archiver_pipeline.kafka.cluster import Cluster
from archiver_pipeline.kafka.refusals import NO_GROUP
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.tail_text import PayloadTexts

log = logging.getLogger(__name__)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_POLL_SECONDS = 0.2
_CHUNK = 500
_PROPERTIES = {
    "group.id": "archiver",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    # Only where retention deletes what is about to be read.
    "auto.offset.reset": "earliest",
    "isolation.level": "read_committed",
    "fetch.wait.max.ms": 100,
}
_TIMESTAMP_TYPES = {0: "none", 1: "create", 2: "append"}


@dataclass(frozen=True)
class Echo:
    """A message as it came.

    Attributes:
        topic, partition, offset: where it was.
        timestamp: milliseconds since 1970, None where it has none.
        timestamp_type: create, append or none.
        key, value: as they came, None for none.
        headers: pairs in order.
        decoded: the JSON of a payload in a Schema Registry's format, None for any other.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int | None
    timestamp_type: str
    key: bytes | None
    value: bytes | None
    headers: Headers
    decoded: str | None = None

    @property
    def time(self) -> str | None:
        """The timestamp in ISO form, UTC; None where it has none or no calendar holds it."""
        if self.timestamp is None or not FIRST_MS <= self.timestamp <= LAST_MS:
            return None
        moment = _EPOCH + timedelta(milliseconds=self.timestamp)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def line(self) -> str:
        """The message as one line: time, topic/partition@offset, key and value; `-` stands for none."""
        time = self.time or ("-" if self.timestamp is None else str(self.timestamp))
        value = self.value if self.decoded is None else self.decoded.encode()
        return f"{time} {self.topic}/{self.partition}@{self.offset} {_printable(self.key)} {_printable(value)}"

    def to_json(self) -> str:
        """The message as one line of JSON; bytes that are not UTF-8 are in base64 under a name with `_base64`."""
        content: dict[str, Any] = {
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "time": self.time,
            "timestamp": self.timestamp,
            "timestamp_type": self.timestamp_type,
            **_text("key", self.key),
            **(_text("value", self.value) if self.decoded is None else _both(self.decoded, self.value)),
            "headers": [{"key": key, **_text("value", value)} for key, value in self.headers],
        }
        return json.dumps(content, ensure_ascii=False)


def echoes(settings: Settings, from_beginning: bool = False) -> Iterator[Echo | None]:
    """Yield messages as they come, and None each time when nothing came for a moment.

    Topics and partitions are those of the start; an interruption of the broker is waited for.

    Raises:
        BrokerUnavailable: no broker answered at the start.
        AccessDenied, KafkaError: the broker refused.
    """
    from confluent_kafka import Consumer, KafkaException
    from confluent_kafka import TopicPartition as Place

    look = Cluster(settings).look()
    for warning in look.warnings:
        log.warning("%s", warning)
    places = [
        Place(state.topic, number, marks.earliest if from_beginning else marks.end)
        for state in look.topics
        for number, marks in state.partitions.items()
    ]
    if not places:
        raise KafkaError("there is no topic to follow", hint="Check ARCHIVER_TOPICS, or make the topics first")
    complaints = Complaints(settings.kafka_properties)
    complaints.answered = True  # The cluster has.
    consumer = Consumer({**client_properties(settings.kafka_properties, complaints), **_PROPERTIES})
    texts = PayloadTexts(settings)
    try:
        consumer.assign(places)
        while True:
            messages = consumer.consume(_CHUNK, _POLL_SECONDS)
            for message in messages:
                error = message.error()
                if error is not None and error.name() != NO_GROUP and not error.retriable():
                    acls = acls_on("Read", [str(message.topic())])
                    raise complaints.translate(KafkaException(error), "messages were followed", acls=acls)
            complaints.check()
            good = [message for message in messages if message.error() is None]
            every = [headers or [] for headers in headers_of(good)]
            for message, headers, text in zip(good, every, texts.of(good, every), strict=True):
                yield _echo(message, headers, text)
            if good:
                complaints.clear()
            else:
                yield None
    except (KafkaException, Refused) as error:
        raise complaints.translate(error, "messages were followed") from error
    finally:
        consumer.close()


def _echo(message: Any, headers: Headers, decoded: str | None) -> Echo:
    kind, stamp = message.timestamp()
    known = kind != 0 and stamp != -1
    return Echo(
        message.topic(),
        message.partition(),
        message.offset(),
        stamp if known else None,
        _TIMESTAMP_TYPES[kind] if known else "none",
        message.key(),
        message.value(),
        headers,
        decoded,
    )


def _printable(content: bytes | None) -> str:
    """Show bytes in one line: what is no text or no printable character is escaped."""
    if content is None:
        return "-"
    text = content.decode(errors="backslashreplace")
    return text if text.isprintable() else "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def _text(name: str, content: bytes | None) -> dict[str, str | None]:
    try:
        return {name: None if content is None else content.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(content or b"").decode()}


def _both(decoded: str, payload: bytes | None) -> dict[str, str]:
    """The JSON of a payload, and the payload itself."""
    return {"value": decoded, "value_base64": base64.b64encode(payload or b"").decode()}
