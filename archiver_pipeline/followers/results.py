"""The results topic: every version of a finished minute as JSON, sent exactly once.

A transaction (KIP-98) holds records and the position, which is a record of a small compacted topic: offsets of a
consumer group would expire after seven idle days. Whoever begins with the same transactional id fences those before.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from archiver_pipeline.aggregates import Aggregate
from archiver_pipeline.errors import KafkaError, Superseded
from archiver_pipeline.followers.store import Result, Store
from archiver_pipeline.kafka import TIMEOUT_SECONDS, client_properties, translate
from archiver_pipeline.settings import Settings

if TYPE_CHECKING:
    from confluent_kafka import Producer

log = logging.getLogger(__name__)

_AT_ONCE = 10_000
_TRANSACTION_SECONDS = 60.0
_FENCED = {"_FENCED", "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH"}
_COMPACTED = {"cleanup.policy": "compact"}
_SMALL = {**_COMPACTED, "segment.ms": "86400000", "min.cleanable.dirty.ratio": "0.1"}


class ResultsTopic:
    """Sends the versions of an aggregate to `ARCHIVER_RESULTS_TOPIC`."""

    def __init__(self, settings: Settings, aggregate: Aggregate) -> None:
        self._settings = settings
        self._aggregate = aggregate
        self._complaints: list[Any] = []
        place = f"{settings.archive_uri}\n{settings.results_topic}\n{aggregate.name}"
        self.id = f"archiver-{aggregate.name}-{hashlib.sha256(place.encode()).hexdigest()[:16]}"

    def send(self, store: Store) -> int:
        """Send what was not sent yet and return how many records that were.

        Raises:
            Superseded: another run sends.
            KafkaError: the broker failed; what it has not committed is sent by the next run.
        """
        if not store.results(0, 1):
            return 0
        with self._translated():
            self._make_topics()
            producer = self._producer()
            producer.init_transactions(_TRANSACTION_SECONDS)
            # Only now is nobody else at it, and every transaction before is over.
            sent, count = self._position(store.id), 0
            if sent > store.newest():
                # The state was put back from a copy: what waits was never sent under these numbers.
                with store.transaction():
                    store.renumber(sent)
            while results := store.results(sent, _AT_ONCE):
                self._commit(producer, results, store.id)
                sent, count = results[-1].seq, count + len(results)
        with store.transaction():
            store.forget(sent)
        if count:
            log.info("%s: sent %d results", self._settings.results_topic, count)
        return count

    def _commit(self, producer: Producer, results: Iterable[Result], store_id: str) -> None:
        """Send results and the position behind them in one transaction."""
        producer.begin_transaction()
        topic, seq = self._settings.results_topic, 0
        for result in results:
            key, value = record(result, self._aggregate)
            producer.produce(topic, value, key)
            seq = result.seq
        place = json.dumps({"store": store_id, "seq": seq})
        producer.produce(self._settings.positions_topic, place, self.id)
        producer.commit_transaction(_TRANSACTION_SECONDS)

    def _producer(self) -> Producer:
        from confluent_kafka import Producer

        properties = client_properties(self._settings, self._complaints.append)
        own = {
            "transactional.id": self.id,
            "transaction.timeout.ms": round(_TRANSACTION_SECONDS * 1000),
            "compression.type": "lz4",
            # As Java's clients choose the partition of a key.
            "partitioner": "murmur2_random",
            "queue.buffering.max.messages": 10 * _AT_ONCE,
        }
        return Producer({**properties, **own}, logger=log)

    def _make_topics(self) -> None:
        """Make the topics that are missing, with as many replicas as the broker gives by default."""
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient, NewTopic

        if self._settings.topic_ids == "none":
            return  # Such a broker, the demo's own, makes topics as they are used.
        admin = AdminClient(client_properties(self._settings, self._complaints.append), logger=log)
        present = admin.list_topics(timeout=TIMEOUT_SECONDS).topics
        wanted = [
            NewTopic(self._settings.results_topic, -1, -1, config=_COMPACTED),
            NewTopic(self._settings.positions_topic, 1, -1, config=_SMALL),
        ]
        missing = [topic for topic in wanted if topic.topic not in present]
        futures = admin.create_topics(missing, request_timeout=TIMEOUT_SECONDS) if missing else {}
        for future in futures.values():
            try:
                future.result(TIMEOUT_SECONDS)
            except KafkaException as error:
                if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                    raise

    def _position(self, store_id: str) -> int:
        """Read how far the state with this id was sent; 0 where it never was."""
        found: dict[str, Any] = {"store": "", "seq": 0}
        for key, value in self._records(self._settings.positions_topic):
            if key == self.id.encode() and value is not None:
                found = json.loads(value)
        return int(found["seq"]) if found["store"] == store_id else 0

    def _records(self, topic: str) -> Iterator[tuple[bytes | None, bytes | None]]:
        """Every committed record of a topic, by partition and in order."""
        from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException
        from confluent_kafka import TopicPartition as Place

        properties = {
            **client_properties(self._settings, self._complaints.append),
            "group.id": "archiver",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
        with closing(Consumer(properties, logger=log)) as consumer:
            present = consumer.list_topics(topic, timeout=TIMEOUT_SECONDS).topics[topic]
            left = set(present.partitions)
            consumer.assign([Place(topic, number, OFFSET_BEGINNING) for number in left])
            while left:
                message = consumer.poll(TIMEOUT_SECONDS)
                if message is None:
                    raise TimeoutError
                error = message.error()
                if error is None:
                    yield message.key(), message.value()
                elif error.name() == "_PARTITION_EOF":
                    left.discard(message.partition())
                elif not error.retriable():
                    raise KafkaException(error)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        from confluent_kafka import KafkaException

        self._complaints.clear()
        try:
            yield
        except (KafkaException, BufferError, TimeoutError) as error:
            name = error.args[0].name() if error.args and hasattr(error.args[0], "name") else ""
            if name in _FENCED:
                raise Superseded(f"another run sends to {self._settings.results_topic}") from error
            what = f"results were sent to {self._settings.results_topic}"
            raised: KafkaError = translate(error, what, self._settings, self._complaints, self._settings.results_topic)
            raise raised from error


def record(result: Result, aggregate: Aggregate) -> tuple[str, str]:
    """Key and value of a version, as the topic has them: `{minute}/{topic}/{type}`, and a JSON object."""
    moment = datetime.fromtimestamp(result.start, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    value = {
        aggregate.window: moment,
        **dict(zip(aggregate.group_by, result.groups, strict=True)),
        **dict(zip(aggregate.measures, result.values, strict=True)),
        "revision": result.revision,
    }
    return "/".join((moment, *result.groups)), json.dumps(value, ensure_ascii=False)
