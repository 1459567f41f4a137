"""Messages for the crash test: transactions over several topics, half of them before the kills, the rest meanwhile."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Sequence

from confluent_kafka import KafkaException, Producer

from archiver_pipeline_tests.waiting import LIMIT_SECONDS, wait_for

_FIRST_MS = 1_564_628_400_000  # 2019-08-01T03:00:00Z
_TYPES = ("object.one", "object.two", "object/три", "order", "Order")
_PER_TRANSACTION = 700
_FILL = "x" * 100


class Workload:
    """A thread that sends transactions, as many as it is allowed to.

    Attributes:
        sent: messages sent so far, aborted ones among them.
        committed: messages of committed transactions so far.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topics: Sequence[str],
        partitions: int,
        messages: int,
        abort_share: float,
        seed: int,
    ) -> None:
        """Prepare it.

        Args:
            bootstrap_servers: address of the broker.
            topics: topics that exist.
            partitions: how many each has.
            messages: how many are to be committed.
            abort_share: share of the transactions that are aborted, with all their messages.
            seed: makes the same messages again.
        """
        self.sent = 0
        self.committed = 0
        self._topics, self._partitions = topics, partitions
        self._messages = messages
        self._abort_share = abort_share
        self._chance = random.Random(seed)
        self._allowed = messages // 2
        self._changed = threading.Condition()
        self._finished = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="workload", daemon=True)
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "transactional.id": f"crash-{seed}",
                "linger.ms": 5,
                "queue.buffering.max.messages": 10 * _PER_TRANSACTION,
                "log_level": 0,
            }
        )

    def start(self) -> None:
        """Begin to send."""
        self._producer.init_transactions(LIMIT_SECONDS)
        self._thread.start()

    def wait_for_first_half(self) -> None:
        """Wait until one half is committed."""
        wait_for("the first half", lambda: self.committed >= self._messages // 2 or self._error is not None, 600)

    def allow(self, share: float) -> None:
        """Let it send as much of the second half as `share` says."""
        self._allow_up_to(int(self._messages * (1 + share) / 2))

    def allow_more(self) -> None:
        """Let it send a little more, beyond the planned number if need be."""
        self._allow_up_to(self.committed + self._messages // 50)

    def finish(self) -> None:
        """Let it send what is left and wait for its end; raises what it failed with."""
        self._allow_up_to(self._messages)
        with self._changed:
            self._finished = True
            self._changed.notify()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _allow_up_to(self, messages: int) -> None:
        with self._changed:
            self._allowed = max(self._allowed, messages)
            self._changed.notify()

    def _run(self) -> None:
        try:
            while self._may_go_on():
                self._transaction()
        except (KafkaException, BufferError) as error:
            self._error = error

    def _may_go_on(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self.committed < self._allowed or self._finished)
            return self.committed < self._allowed

    def _transaction(self) -> None:
        chance = self._chance
        count = min(chance.randint(1, 2 * _PER_TRANSACTION), self._allowed - self.committed)
        self._producer.begin_transaction()
        for number in range(self.sent, self.sent + count):
            topic = chance.choice(self._topics)
            value, key, headers = self._message(number)
            partition = chance.randrange(self._partitions)
            stamp = _FIRST_MS + number * 20
            self._producer.produce(topic, value, key, partition, timestamp=stamp, headers=headers)
        self._producer.flush(LIMIT_SECONDS)
        self.sent += count
        if chance.random() < self._abort_share:
            self._producer.abort_transaction(LIMIT_SECONDS)
        else:
            self._producer.commit_transaction(LIMIT_SECONDS)
            self.committed += count

    def _message(self, number: int) -> tuple[bytes | None, bytes | None, list[tuple[str, str | bytes | None]]]:
        """A payload, a key and headers: mostly JSON, with bytes that are no text and tombstones among them."""
        chance = self._chance
        kind = chance.random()
        value: bytes | None = None
        if kind < 0.9:
            fields = {"type": chance.choice(_TYPES), "uid": f"u{number % 1000}", "seq": number, "fill": _FILL}
            value = json.dumps(fields, ensure_ascii=False).encode()
        elif kind < 0.97:
            value = chance.randbytes(40)
        key = None if number % 5 == 0 else b"k%d" % number
        return value, key, [("n", b"%d" % number), ("empty", None)] if number % 7 == 0 else []
