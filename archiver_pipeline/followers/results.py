"""The results topic: every version of a finished minute as JSON, sent exactly once.

A transaction (KIP-98) holds records and the position, which is a record of a small compacted topic. Whoever begins with
the same transactional id fences those before. The id is that of the state: no two archives share it, and a state made
anew has a position of its own. What its predecessor has left open is ended by the broker, after a minute.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from archiver_pipeline.errors import KafkaError, Superseded
from archiver_pipeline.followers.store import Result, Store
from archiver_pipeline.kafka.broker import Broker, acls_on
from archiver_pipeline.kafka.client import client_properties, persist
from archiver_pipeline.kafka.compacted import (
    COMPACTED,
    PATIENCE_SECONDS,
    SMALL,
    TRANSACTION_SECONDS,
    committed_records,
    make_topics,
)
from archiver_pipeline.settings.aggregates import Aggregate
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.steps import OnStep

if TYPE_CHECKING:
    from confluent_kafka import Producer

log = logging.getLogger(__name__)

_AT_ONCE = 10_000
_FENCED = {"_FENCED", "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH"}


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
        self._broker = Broker(settings)
        self.id = f"archiver-{aggregate.name}-{store.id}"
        self.patience_seconds = PATIENCE_SECONDS

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
            self._persist(producer, producer.init_transactions)
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
        self._persist(producer, producer.commit_transaction)

    def _persist(self, producer: Producer, call: Callable[[float], Any]) -> None:
        persist(call, producer, self._broker.complaints, TRANSACTION_SECONDS)

    @property
    def _acls(self) -> list[str]:
        """What may turn out to be missing while it sends."""
        topics = self._settings.results_topic, self._settings.positions_topic
        return [f"Write on transactional id {self.id}", *acls_on("Write", topics)]

    def _producer(self) -> Producer:
        from confluent_kafka import Producer

        properties = client_properties(self._settings.kafka_properties, self._broker.complaints)
        own = {
            "transactional.id": self.id,
            "transaction.timeout.ms": round(TRANSACTION_SECONDS * 1000),
            "compression.type": "lz4",
            # As Java's clients choose the partition of a key.
            "partitioner": "murmur2_random",
            "queue.buffering.max.messages": 10 * _AT_ONCE,
        }
        return Producer({**properties, **own})

    def _make_topics(self) -> None:
        """Make the topics that are missing, and make sure that both may be written."""
        results, positions = self._settings.results_topic, self._settings.positions_topic
        make_topics(self._broker, {results: (-1, COMPACTED), positions: (1, SMALL)})
        needed = {results: ("Write",), positions: ("Read", "Write")}
        self._broker.require(f"results were to be sent to {results}", needed)

    def _position(self) -> tuple[int, str]:
        """Read how far the state was sent, and the token of its last sending; 0 where it never was."""
        topic, why = self._settings.positions_topic, f"how far results were sent to {self._settings.results_topic}"
        records = committed_records(self._broker, topic, why, self.patience_seconds)
        own = [json.loads(value) for key, value in records if key == self.id.encode() and value is not None]
        return max(((found["seq"], found["token"]) for found in own), default=(0, ""))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        from confluent_kafka import KafkaException

        what = f"results were sent to {self._settings.results_topic}"
        try:
            with self._broker.translated(what, self._settings.results_topic, acls=self._acls):
                yield
        except BufferError as error:
            raise self._broker.complaints.translate(error, what, self._settings.results_topic) from error
        except KafkaError as error:
            cause = error.__cause__
            if isinstance(cause, KafkaException) and cause.args[0].name() in _FENCED:
                raise Superseded(
                    f"another run sends to {self._settings.results_topic}",
                    hint="Nothing is lost or doubled: it goes on",
                ) from cause
            raise


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
