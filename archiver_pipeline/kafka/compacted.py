"""Small compacted topics that say how far something has come: made where they are missing, and read to their end.

Offsets of a consumer group expire after seven idle days; the last record of a key is kept for ever.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from typing import Any

from archiver_pipeline.errors import KafkaError
from archiver_pipeline.kafka.broker import TIMEOUT_SECONDS, Broker
from archiver_pipeline.kafka.client import client_properties
from archiver_pipeline.kafka.refusals import NO_GROUP, is_forbidden

log = logging.getLogger(__name__)

TRANSACTION_SECONDS = 60.0
"""How long a transaction may be open."""

PATIENCE_SECONDS = TRANSACTION_SECONDS + 15
"""The broker ends a transaction when it is too old, at its next look: every ten seconds, unless it is set otherwise."""

_POLL_SECONDS = 0.5

COMPACTED = {"cleanup.policy": "compact"}
SMALL = {**COMPACTED, "segment.ms": "86400000", "min.cleanable.dirty.ratio": "0.1"}


def make_topics(broker: Broker, topics: Mapping[str, tuple[int, Mapping[str, str]]]) -> list[str]:
    """Make those topics that are missing and return their names.

    Args:
        broker: the cluster, whose `translated` this is in.
        topics: of each the number of partitions, -1 for as many as the broker gives, and its configuration; replicas
            are as many as the broker gives by default.

    Raises:
        AccessDenied: one may not be made.
        KafkaException, TimeoutError, Refused: the broker refused or did not answer.
    """
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import NewTopic

    known = broker.listing()
    if str(known.cluster_id).startswith("mockCluster"):
        return []  # The demo's broker makes topics as they are used.
    present = known.topics
    missing = [
        NewTopic(name, count, -1, config=dict(config))
        for name, (count, config) in topics.items()
        if name not in present
    ]
    futures = broker.admin.create_topics(missing, request_timeout=TIMEOUT_SECONDS) if missing else {}
    forbidden = []
    for name, future in futures.items():
        try:
            broker.answer(future)
        except KafkaException as error:
            if is_forbidden(error.args[0]):
                forbidden.append(f"Create on topic {name}")
            elif error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                raise
    if forbidden:
        raise broker.complaints.denied("topics were made", forbidden)
    return [topic.topic for topic in missing]


def committed_records(
    broker: Broker, topic: str, why: str, patience_seconds: float = PATIENCE_SECONDS
) -> Iterator[tuple[bytes | None, bytes | None]]:
    """Yield key and value of every committed record that a topic has now, by partition and in order.

    The end of a partition is told at its last stable offset, where the oldest open transaction begins: what was
    committed behind that is waited for.

    Args:
        broker: the cluster, whose `translated` this is in.
        topic: the topic, which is there.
        why: what lies in the topic, for the error.
        patience_seconds: for how long transactions of others may be in the way.

    Raises:
        KafkaError: a transaction stays open for too long.
        KafkaException, TimeoutError, Refused: the broker refused or did not answer.
    """
    from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException
    from confluent_kafka import TopicPartition as Place

    properties = {
        **client_properties(broker.settings.kafka_properties, broker.complaints),
        "group.id": "archiver",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
    }
    with closing(Consumer(properties)) as consumer:
        left = _ends(broker, topic, broker.listing(topic).topics[topic].partitions)
        consumer.assign([Place(topic, number, OFFSET_BEGINNING) for number in left])
        deadline, is_held = time.monotonic() + patience_seconds, False
        silent = time.monotonic() + TIMEOUT_SECONDS
        while left:
            message = consumer.poll(_POLL_SECONDS)
            if message is None:
                broker.complaints.check()
                if time.monotonic() > (deadline if is_held else silent):
                    raise _held(topic, why, patience_seconds) if is_held else TimeoutError
                continue
            silent = time.monotonic() + TIMEOUT_SECONDS
            error = message.error()
            if error is None:
                yield message.key(), message.value()
            elif error.name() == "_PARTITION_EOF":
                number, offset = message.partition() or 0, message.offset() or 0
                if offset >= left.get(number, 0):
                    left.pop(number, None)
                elif not is_held:
                    is_held = True
                    told = "%s: waiting for a transaction of another producer to end, for %.0f s at most"
                    log.warning(told, topic, patience_seconds)
            elif error.name() != NO_GROUP and not error.retriable():
                raise KafkaException(error)


def _ends(broker: Broker, topic: str, partitions: Iterable[int]) -> dict[int, int]:
    """The high watermark of each partition, past all that was written, whether its transaction is over or not."""
    from confluent_kafka import IsolationLevel
    from confluent_kafka import TopicPartition as Place
    from confluent_kafka.admin import OffsetSpec

    asked = {Place(topic, number): OffsetSpec.latest() for number in partitions}
    how: Any = {"isolation_level": IsolationLevel.READ_UNCOMMITTED, "request_timeout": TIMEOUT_SECONDS}
    futures = broker.admin.list_offsets(asked, **how) if asked else {}
    return {place.partition: broker.answer(future).offset for place, future in futures.items()}


def _held(topic: str, why: str, seconds: float) -> KafkaError:
    return KafkaError(
        f"a transaction of another producer was open for {seconds:.0f} s, and {why} lies behind it",
        topic=topic,
        hint="The next run tries again; kafka-transactions.sh finds and aborts a transaction that hangs",
    )
