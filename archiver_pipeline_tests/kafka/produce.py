"""Topics made, written and read back on a broker, without any of the archiver's own code.

Timestamps 0 and below, which librdkafka does not send as they are, and header keys that are not UTF-8: see `raw`.
"""

from __future__ import annotations

import json
import random
import uuid
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from operator import methodcaller
from typing import Any, NamedTuple

from confluent_kafka import (
    TIMESTAMP_CREATE_TIME,
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka import Message as ClientMessage

from archiver_pipeline_tests.kafka.topics import (
    FAR_TIMESTAMPS,
    add_partitions,
    create_topic,
    delete_records,
    delete_topic,
    end_offsets,
    start_offsets,
)
from archiver_pipeline_tests.waiting import LIMIT_SECONDS

__all__ = [
    "FAR_TIMESTAMPS",
    "UNREADABLE_HEADERS",
    "Message",
    "Sent",
    "add_partitions",
    "create_topic",
    "delete_records",
    "delete_topic",
    "end_offsets",
    "produce",
    "produce_transactions",
    "read_all",
    "start_offsets",
]

UNREADABLE_HEADERS: tuple[tuple[str, bytes | None], ...] = (("<a header key is not UTF-8>", None),)
"""What `read_all` gives for headers that confluent-kafka cannot hand out."""

_TIMESTAMP_TYPES = {TIMESTAMP_CREATE_TIME: "create", TIMESTAMP_LOG_APPEND_TIME: "append"}
_FIRST_TIMESTAMP_MS = 1_564_628_400_000  # 2019-08-01T03:00:00Z
_TYPES = ("object.one", "object.two", "object/три")

# Called directly, `headers()` on a key that is not UTF-8 returns a broken list and leaves its exception to whatever
# runs next; through `methodcaller` the interpreter notices and raises SystemError here.
_headers_of = methodcaller("headers")


@dataclass(frozen=True)
class Sent:
    """A message to produce.

    Attributes:
        value: the payload, None for a tombstone.
        key: None where there is none.
        headers: pairs in order, repeats allowed.
        timestamp_ms: milliseconds since 1970, over 0; None for the time of sending.
        partition: None leaves it to librdkafka's partitioner.
    """

    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp_ms: int | None = None
    partition: int | None = None


class Message(NamedTuple):
    """A message as Kafka hands it out; `timestamp` in milliseconds, `timestamp_type` is create, append or none."""

    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp: int
    timestamp_type: str


def produce(bootstrap_servers: str, topic: str, messages: Sequence[Sent]) -> list[tuple[int, int]]:
    """Send the messages in order and wait for the broker to have them all.

    Returns:
        (partition, offset) of each message.

    Raises:
        KafkaException: the broker refused a message, or did not answer in `LIMIT_SECONDS`.
    """
    placed: dict[int, tuple[int, int]] = {}
    producer = _producer(bootstrap_servers)
    for number, message in enumerate(messages):
        _send(producer, topic, message, partial(_note_place, placed, number))
    _flush(producer)
    return [placed[number] for number in range(len(messages))]


def produce_transactions(
    bootstrap_servers: str,
    topics: Sequence[str],
    count: int,
    abort_share: float = 0.2,
    seed: int = 0,
    per_transaction: int = 10,
) -> dict[tuple[str, int], list[Message]]:
    """Send `count` random messages over all partitions of the topics, in transactions, of which some are aborted.

    Aborted messages reach the log, too. Payloads are JSON of three types, bytes that are no text, empty, or tombstones.

    Returns:
        What was committed, by (topic, partition) and as `read_all` is to give it back.
    """
    choice = random.Random(seed)
    sizes = {topic: len(end_offsets(bootstrap_servers, topic)) for topic in topics}
    producer = _producer(bootstrap_servers, {"transactional.id": f"test-{uuid.uuid4()}"})
    producer.init_transactions(LIMIT_SECONDS)
    committed: dict[tuple[str, int], list[Message]] = defaultdict(list)
    for first in range(0, count, per_transaction):
        producer.begin_transaction()
        placed: dict[int, tuple[int, int]] = {}
        batch: list[tuple[str, Sent]] = []
        for number in range(first, min(first + per_transaction, count)):
            topic = choice.choice(topics)
            batch.append((topic, _random_message(choice, number, sizes[topic])))
            _send(producer, *batch[-1], partial(_note_place, placed, number - first))
        _flush(producer)
        if choice.random() < abort_share:
            producer.abort_transaction(LIMIT_SECONDS)
            continue
        producer.commit_transaction(LIMIT_SECONDS)
        for index, (topic, sent) in enumerate(batch):
            partition, offset = placed[index]
            assert sent.timestamp_ms is not None
            message = Message(offset, sent.key, sent.value, sent.headers, sent.timestamp_ms, "create")
            committed[topic, partition].append(message)
    return dict(committed)


def read_all(bootstrap_servers: str, topic: str) -> dict[int, list[Message]]:
    """Read every committed message that the broker still has, by partition; every partition is a key.

    Raises:
        TimeoutError: nothing came for `LIMIT_SECONDS` and the end was not reached.
        KafkaException: the broker refused a fetch.
    """
    # Numbers and not OFFSET_BEGINNING, which waits half a second for its look-up.
    starts = start_offsets(bootstrap_servers, topic)
    ends = end_offsets(bootstrap_servers, topic)
    found: dict[int, list[Message]] = {partition: [] for partition in ends}
    config = {
        "bootstrap.servers": bootstrap_servers,
        "group.id": f"reader-{uuid.uuid4()}",
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
        # The end of a partition is told by an empty answer, which waits for news as long as this.
        "fetch.wait.max.ms": 20,
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "log_level": 0,
    }
    consumer = Consumer(config)
    try:
        consumer.assign([TopicPartition(topic, partition, start) for partition, start in starts.items()])
        while ends:
            message = consumer.poll(LIMIT_SECONDS)
            if message is None:
                raise TimeoutError(f"no message of {topic} in {LIMIT_SECONDS:.0f} s; waiting for the ends {ends}")
            partition, offset = message.partition(), message.offset()
            assert partition is not None
            assert offset is not None
            error = message.error()
            if error is None:
                found[partition].append(_message(message, offset))
            elif error.code() != KafkaError._PARTITION_EOF:
                raise KafkaException(error)
            elif partition in ends and offset >= ends[partition]:
                del ends[partition]
    finally:
        consumer.close()
    return found


def _message(message: ClientMessage, offset: int) -> Message:
    kind, timestamp = message.timestamp()
    try:
        headers = tuple(_headers_of(message) or ())
    except (SystemError, UnicodeDecodeError):
        headers = UNREADABLE_HEADERS
    key, value = message.key(), message.value()
    assert not isinstance(key, str)
    assert not isinstance(value, str)
    return Message(offset, key, value, headers, timestamp, _TIMESTAMP_TYPES.get(kind, "none"))


def _random_message(choice: random.Random, number: int, partitions: int) -> Sent:
    text = json.dumps({"type": choice.choice(_TYPES), "uid": f"u{choice.randrange(20)}", "seq": number})
    kind = choice.random()
    value = text.encode() if kind < 0.8 else choice.randbytes(40) if kind < 0.9 else b"" if kind < 0.95 else None
    return Sent(
        value=value,
        key=choice.choice((None, b"", b"k%d" % number, choice.randbytes(8))),
        headers=tuple(
            (choice.choice(("a", "b", "ключ")), choice.choice((None, b"", choice.randbytes(4))))
            for _ in range(choice.randrange(4))
        ),
        timestamp_ms=_FIRST_TIMESTAMP_MS + number * 1000,
        partition=choice.randrange(partitions),
    )


def _producer(bootstrap_servers: str, more: Mapping[str, Any] | None = None) -> Producer:
    config = {
        "bootstrap.servers": bootstrap_servers,
        # In order without idempotence, whose first message waits half a second or more for a producer id.
        "acks": "all",
        "max.in.flight.requests.per.connection": 1,
        "linger.ms": 5,
        "message.max.bytes": 20 * 1024 * 1024,
        "message.timeout.ms": 60_000,  # at most the time-out of a transaction
        "log_level": 0,
    }
    return Producer({**config, **(more or {})})


def _send(producer: Producer, topic: str, message: Sent, note: Callable[[KafkaError | None, Any], None]) -> None:
    if message.timestamp_ms is not None and message.timestamp_ms <= 0:
        raise ValueError(f"librdkafka does not send timestamp {message.timestamp_ms} as it is; use raw.produce_raw")
    while True:
        try:
            producer.produce(
                topic,
                message.value,
                message.key,
                -1 if message.partition is None else message.partition,
                on_delivery=note,
                timestamp=message.timestamp_ms or 0,
                headers=list(message.headers),
            )
        except BufferError:
            producer.poll(0.1)
        else:
            producer.poll(0)
            return


def _note_place(places: dict[int, tuple[int, int]], number: int, error: KafkaError | None, message: Any) -> None:
    if error is not None:
        raise KafkaException(error)
    places[number] = (message.partition(), message.offset())


def _flush(producer: Producer) -> None:
    left = producer.flush(LIMIT_SECONDS)
    if left:
        raise TimeoutError(f"{left} messages were not delivered in {LIMIT_SECONDS:.0f} s")
