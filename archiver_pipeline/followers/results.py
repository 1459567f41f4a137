"""The results topic: every version of a finished minute as JSON, sent exactly once.

A transaction (KIP-98) holds records and the position, which is a record of a small compacted topic: offsets of a
consumer group would expire after seven idle days. Whoever begins with the same transactional id fences those before.
The id is that of the state: no two archives share it, and a state made anew has a position of its own. What its
predecessor has left open is ended by the broker, after a minute.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from archiver_pipeline.aggregates import Aggregate
from archiver_pipeline.errors import KafkaError, Superseded
from archiver_pipeline.followers.store import Result, Store
from archiver_pipeline.kafka import TIMEOUT_SECONDS, client_properties, translate
from archiver_pipeline.settings import Settings
from archiver_pipeline.steps import OnStep

if TYPE_CHECKING:
    from confluent_kafka import Producer
    from confluent_kafka.admin import AdminClient

log = logging.getLogger(__name__)

_AT_ONCE = 10_000
_TRANSACTION_SECONDS = 60.0
_PATIENCE_SECONDS = _TRANSACTION_SECONDS + 15
"""The broker ends a transaction when it is too old, at its next look: every ten seconds, unless it is set otherwise."""
_FENCED = {"_FENCED", "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH"}
_COMPACTED = {"cleanup.policy": "compact"}
_SMALL = {**_COMPACTED, "segment.ms": "86400000", "min.cleanable.dirty.ratio": "0.1"}


class ResultsTopic:
    """Sends the versions of an aggregate to `ARCHIVER_RESULTS_TOPIC`.

    Attributes:
        id: the transactional id, and the key of the position.
        patience_seconds: for how long transactions of others may keep the position from being read.
    """

    def __init__(self, settings: Settings, aggregate: Aggregate, store: Store) -> None:
        self._settings = settings
        self._aggregate = aggregate
        self._store = store
        self._complaints: list[Any] = []
        self.id = f"archiver-{aggregate.name}-{store.id}"
        self.patience_seconds = _PATIENCE_SECONDS

    def send(self, on_step: OnStep = lambda _: None) -> int:
        """Send what was not sent yet and return how many records that were.

        Args:
            on_step: told before each transaction.

        Raises:
            Superseded: another run sends.
            KafkaError: the broker failed, or another's transaction stays open; what is not committed is sent by the
                next run.
            FollowerError: another process has begun the state again, or holds it for too long.
        """
        store = self._store
        if not self._waiting(0, 1):
            return 0
        with self._translated():
            self._make_topics()
            producer = self._producer()
            producer.init_transactions(_TRANSACTION_SECONDS)
            # Only now is nobody else at it, and every transaction before is over.
            (sent, token), count = self._position(), 0
            if sent and not store.has_sent(token):
                # The state was put back from a copy: what waits was never sent under these numbers.
                with store.transaction():
                    store.renumber(sent)
            while results := self._waiting(sent, _AT_ONCE):
                on_step("send")
                with store.transaction():
                    token = store.begin_sending(token)
                self._commit(producer, results, token)
                sent, count = results[-1].seq, count + len(results)
        with store.transaction():
            store.forget(sent)
        if count:
            log.info("%s: sent %d results", self._settings.results_topic, count)
        return count

    def _waiting(self, after: int, limit: int) -> list[Result]:
        """Versions after a `seq`; none that another process has made since it began the state again."""
        with self._store.transaction():
            return self._store.results(after, limit)

    def _commit(self, producer: Producer, results: Iterable[Result], token: str) -> None:
        """Send results and the position behind them in one transaction."""
        producer.begin_transaction()
        topic, seq = self._settings.results_topic, 0
        for result in results:
            key, value = record(result, self._aggregate)
            producer.produce(topic, value, key)
            seq = result.seq
        producer.produce(self._settings.positions_topic, json.dumps({"seq": seq, "token": token}), self.id)
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
        from confluent_kafka.admin import NewTopic

        if self._settings.topic_ids == "none":
            return  # Such a broker, the demo's own, makes topics as they are used.
        present = self._admin.list_topics(timeout=TIMEOUT_SECONDS).topics
        wanted = [
            NewTopic(self._settings.results_topic, -1, -1, config=_COMPACTED),
            NewTopic(self._settings.positions_topic, 1, -1, config=_SMALL),
        ]
        missing = [topic for topic in wanted if topic.topic not in present]
        futures = self._admin.create_topics(missing, request_timeout=TIMEOUT_SECONDS) if missing else {}
        for future in futures.values():
            try:
                future.result(TIMEOUT_SECONDS)
            except KafkaException as error:
                if error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                    raise

    def _position(self) -> tuple[int, str]:
        """Read how far the state was sent, and the token of its last sending; 0 where it never was."""
        records = self._records(self._settings.positions_topic)
        own = [json.loads(value) for key, value in records if key == self.id.encode() and value is not None]
        return max(((found["seq"], found["token"]) for found in own), default=(0, ""))

    def _records(self, topic: str) -> Iterator[tuple[bytes | None, bytes | None]]:
        """Every committed record that a topic has now, by partition and in order.

        The end of a partition is told at its last stable offset, where the oldest open transaction begins: what was
        committed behind that is waited for.

        Raises:
            KafkaError: a transaction stays open for too long.
        """
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
            left = self._ends(topic, present.partitions)
            consumer.assign([Place(topic, number, OFFSET_BEGINNING) for number in left])
            deadline, is_held = time.monotonic() + self.patience_seconds, False
            while left:
                message = consumer.poll(max(0.0, deadline - time.monotonic()) if is_held else TIMEOUT_SECONDS)
                if message is None:
                    raise self._held(topic) if is_held else TimeoutError
                error = message.error()
                if error is None:
                    yield message.key(), message.value()
                elif error.name() == "_PARTITION_EOF":
                    number, offset = message.partition() or 0, message.offset() or 0
                    if offset >= left.get(number, 0):
                        left.pop(number, None)
                    elif not is_held:
                        is_held = True
                        log.warning("%s: waiting for a transaction of another producer to end", topic)
                elif not error.retriable():
                    raise KafkaException(error)

    def _ends(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """The high watermark of each partition, past all that was written, whether its transaction is over or not."""
        from confluent_kafka import IsolationLevel
        from confluent_kafka import TopicPartition as Place
        from confluent_kafka.admin import OffsetSpec

        asked = {Place(topic, number): OffsetSpec.latest() for number in partitions}
        how: Any = {"isolation_level": IsolationLevel.READ_UNCOMMITTED, "request_timeout": TIMEOUT_SECONDS}
        futures = self._admin.list_offsets(asked, **how) if asked else {}
        return {place.partition: future.result(TIMEOUT_SECONDS).offset for place, future in futures.items()}

    def _held(self, topic: str) -> KafkaError:
        return KafkaError(
            f"a transaction of another producer was open for {self.patience_seconds:.0f} s, and how far results were "
            f"sent to {self._settings.results_topic} lies behind it",
            topic=topic,
            hint="The next run tries again; kafka-transactions.sh finds and aborts a transaction that hangs",
        )

    @cached_property
    def _admin(self) -> AdminClient:
        from confluent_kafka.admin import AdminClient

        return AdminClient(client_properties(self._settings, self._complaints.append), logger=log)

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
    """Key and value of a version, as the topic has them: `{minute}/{topic}/{type}`, and a JSON object.

    JSON has no infinite number (RFC 8259, section 6): a sum that has left the range of a double is null.
    """
    moment = datetime.fromtimestamp(result.start, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    value = {
        aggregate.window: moment,
        **dict(zip(aggregate.group_by, result.groups, strict=True)),
        **{name: _finite(value) for name, value in zip(aggregate.measures, result.values, strict=True)},
        "revision": result.revision,
    }
    # A slash parts groups; only the last one, a type for example, keeps those it has.
    *most, last = (moment, *result.groups)
    key = "/".join((*(group.replace("%", "%25").replace("/", "%2F") for group in most), last))
    return key, json.dumps(value, ensure_ascii=False, allow_nan=False)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
