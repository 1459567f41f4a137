"""Messages sent to Kafka in transactions, each with the position behind it and recorded before it can be read."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import groupby
from typing import TYPE_CHECKING, Any

from archiver_pipeline.errors import AccessDenied, KafkaError, Superseded
from archiver_pipeline.kafka.client import Complaints, Refused, client_properties, persist
from archiver_pipeline.kafka.compacted import TRANSACTION_SECONDS
from archiver_pipeline.replay.outgoing import Outgoing
from archiver_pipeline.replay.position import Place, Position, records
from archiver_pipeline.replay.recorder import Recorder, Runs
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.settings.types import REPLAYS_TOPIC
from archiver_pipeline.steps import OnStep

if TYPE_CHECKING:
    from confluent_kafka import Message

log = logging.getLogger(__name__)

_FENCED = {"_FENCED", "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH", "_STATE"}
_TRIES = 3
_AGAIN = "Run the same command again: it goes on where this one stopped, and sends nothing twice"
_QUEUE_MESSAGES, _QUEUE_KBYTES = 1_000_000, 256 * 1024
_BATCH_BYTES, _MOST_BYTES = 1_000_000, 1_000_000_000


class Stale(Exception):
    """What was to be sent is not to be sent any more; the transaction was aborted."""


class Sender:
    """Sends messages of one replay.

    Attributes:
        transactions: how many were committed.
    """

    def __init__(self, settings: Settings, id: str, *, by_key: bool, on_step: OnStep = lambda _: None) -> None:
        """Prepare it; nothing is asked of the broker yet.

        Args:
            settings: the cluster.
            id: the replay's.
            by_key: leave the choice of the partition to the partitioner of Java's clients.
            on_step: told of each step of a transaction.
        """
        self.transactions = 0
        self._settings = settings
        self._id = id
        self._on_step = on_step
        # Others may write between our messages: then the offset of each is asked for.
        self._each = by_key
        self._complaints = Complaints(settings.kafka_properties)
        self._producer: Any = None

    def begin(self, limit: int) -> None:
        """Fence those before, whose open transaction ends by it.

        Args:
            limit: the `max.message.bytes` of the strictest topic: a batch of several messages may not be larger.
        """
        from confluent_kafka import Producer

        own = {
            "transactional.id": self._transactional_id,
            "transaction.timeout.ms": round(TRANSACTION_SECONDS * 1000),
            "partitioner": "murmur2_random",
            "linger.ms": 20,
            "batch.size": max(1, min(_BATCH_BYTES, limit)),
            "message.max.bytes": _MOST_BYTES,
            "queue.buffering.max.messages": _QUEUE_MESSAGES,
            "queue.buffering.max.kbytes": _QUEUE_KBYTES,
        }
        theirs = client_properties(self._settings.kafka_properties, self._complaints)
        with self._translated():
            self._producer = Producer({"compression.type": "lz4", **theirs, **own})
            self._persist(self._producer.init_transactions)

    @property
    def _transactional_id(self) -> str:
        return f"archiver-replay-{self._id}"

    def _persist(self, call: Callable[[float], None]) -> None:
        persist(call, self._producer, self._complaints, TRANSACTION_SECONDS)

    def send(
        self,
        messages: Outgoing,
        before: Position,
        after: Callable[[Mapping[Place, tuple[int, int]]], Position],
        recorder: Recorder,
        check: Callable[[], None],
    ) -> Position:
        """Send messages in one transaction, whose offsets are recorded first, and return the position behind them.

        Args:
            messages: the messages.
            before: the position that the transaction begins at.
            after: makes the position behind them of the first offset and the one past the last of each partition.
            recorder: records the offsets.
            check: asked before they are recorded, and before the commit; it raises what keeps them from being sent.

        Raises:
            Stale, TopicChanged: as `check` raises them; nothing of them was sent.
            Superseded: another run of this replay goes on.
            KafkaError: the broker failed; nothing of them was sent.
            StorageError: the archive's log cannot be written.
        """
        from confluent_kafka import KafkaException

        for attempt in range(_TRIES):
            try:
                return self._try(messages, before, after, recorder, check)
            except KafkaException as error:
                self._abort()
                if not error.args[0].txn_requires_abort() or attempt == _TRIES - 1:
                    raise self._error(error) from error
                log.warning("the transaction is tried again: %s", self._settings.mask(error.args[0].str()))
            except _Interleaved:
                self._abort()
                if self._each:
                    raise KafkaError("the broker did not tell the offsets of messages", hint=_AGAIN) from None
                log.info("others write to the same partitions: each message's offset is asked for")
                self._each = True
            except BaseException as error:
                self._abort()
                if isinstance(error, TimeoutError | Refused):
                    raise self._error(error) from error
                raise
        raise AssertionError("unreachable")

    def note(self, before: Position, after: Position) -> None:
        """Write a position in a transaction of its own. Raises as `send` does."""
        with self._translated():
            self._producer.begin_transaction()
            self._write(before, after)
            self._commit()

    def _try(
        self,
        messages: Outgoing,
        before: Position,
        after: Callable[[Mapping[Place, tuple[int, int]]], Position],
        recorder: Recorder,
        check: Callable[[], None],
    ) -> Position:
        self._on_step("send")
        self._producer.begin_transaction()
        runs = self._runs(messages, self._produce(messages))
        check()
        self._on_step("record")
        recorder.record(runs)
        self._on_step("commit")
        following = after({place: (every[0][0], every[-1][1]) for place, every in runs.items()})
        self._write(before, following)
        check()
        self._commit()
        self._on_step("committed")
        recorder.committed()
        self.transactions += 1
        return following

    def _write(self, before: Position, after: Position) -> None:
        for key, value in records(self._id, after, before):
            self._producer.produce(REPLAYS_TOPIC, value, key)

    def _commit(self) -> None:
        """Commit, and ask again where the answer is late: it says whether it is done."""
        self._persist(self._producer.commit_transaction)

    def _produce(self, messages: Outgoing) -> dict[Place, list[int]]:
        """Hand all messages to the client, wait until they are written, and return the offsets that it told."""
        from confluent_kafka import KafkaException

        told: dict[Place, list[int]] = {}
        failed: list[Any] = []

        def on_delivery(error: Any, message: Message) -> None:
            if error is not None:
                failed.append(error)
            else:
                place = message.topic() or "", message.partition() or 0
                told.setdefault(place, []).append(-1 if message.offset() is None else int(message.offset() or 0))

        rows, begin = messages.rows, 0
        if self._each:
            self._hand_over(rows, on_delivery)
        else:
            for index in messages.edges():
                self._hand_over(rows[begin:index], None)
                self._hand_over(rows[index : index + 1], on_delivery)
                begin = index + 1
        self._on_step("flush")
        self._flush()
        if failed:
            raise KafkaException(failed[0])
        return told

    def _hand_over(self, rows: Iterable[tuple[Any, ...]], on_delivery: Callable[..., None] | None) -> None:
        produce, poll = self._producer.produce, self._producer.poll
        for topic, partition, key, payload, milliseconds, headers in rows:
            while True:
                try:
                    # By their places, which is faster: topic, value, key, partition, callback, on_delivery, timestamp.
                    if headers:
                        produce(topic, payload, key, partition, on_delivery, None, milliseconds, headers)
                    else:
                        produce(topic, payload, key, partition, on_delivery, None, milliseconds)
                    break
                except BufferError:
                    poll(0.05)

    def _flush(self) -> None:
        """Wait until every message is written or given up; what failed fails the commit."""
        deadline = time.monotonic() + 2 * TRANSACTION_SECONDS
        while self._producer.flush(1.0):
            self._complaints.check()
            if time.monotonic() > deadline:
                raise TimeoutError

    def _runs(self, messages: Outgoing, told: Mapping[Place, list[int]]) -> Runs:
        """The offsets of all messages, as far as they follow on from each other.

        Raises:
            _Interleaved: only the first and the last are known, and there are others between them.
        """
        if self._each:
            if sum(map(len, told.values())) != len(messages.rows) or any(min(every) < 0 for every in told.values()):
                raise _Interleaved
            return {place: list(_consecutive(sorted(every))) for place, every in told.items()}
        runs = {}
        for topic, partition, count in messages.frame.group_by("target", "partition").len().iter_rows():
            every = told.get((topic, partition), [])
            if not every or min(every) < 0 or max(every) - min(every) + 1 != count:
                raise _Interleaved
            runs[topic, partition] = [(min(every), max(every) + 1)]
        return runs

    def _abort(self) -> None:
        from confluent_kafka import KafkaException

        with suppress(KafkaException, Refused):
            self._persist(self._producer.abort_transaction)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        from confluent_kafka import KafkaException

        try:
            yield
        except (KafkaException, TimeoutError, Refused) as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> KafkaError | Superseded:
        name = error.args[0].name() if error.args and hasattr(error.args[0], "name") else ""
        if name in _FENCED:
            return Superseded("another run of this replay goes on", hint="Nothing was doubled: leave it to that run")
        acls = [f"Write on transactional id {self._transactional_id}", f"Write on topic {REPLAYS_TOPIC}"]
        failed = self._complaints.translate(error, "messages were sent", acls=acls)
        if not isinstance(failed, AccessDenied):
            failed.hint = _AGAIN
        return failed


class _Interleaved(Exception):
    """Others wrote to a partition between our messages, or an offset is not known."""


def _consecutive(offsets: list[int]) -> Iterator[tuple[int, int]]:
    for _, every in groupby(enumerate(offsets), key=lambda item: item[1] - item[0]):
        run = [offset for _, offset in every]
        yield run[0], run[-1] + 1
