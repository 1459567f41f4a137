"""The generator: JSON events at a steady rate into Kafka topics, with as many late and ugly ones as wanted."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from confluent_kafka import KafkaError as ClientError
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from archiver_pipeline.errors import BrokerUnavailable, SettingsError, WrongUsage
from archiver_pipeline.events import Event, make_events
from archiver_pipeline.kafka.broker import acls_on
from archiver_pipeline.kafka.client import Complaints, Refused, answer, client_properties, persist
from archiver_pipeline.kafka.refusals import is_forbidden

PARTITIONS = 4
"""Partitions of a topic that the generator makes."""

_DEFAULTS = {"linger.ms": 20, "message.timeout.ms": 30_000}
_ACKS = ("acks", "request.required.acks", "enable.idempotence", "retries", "max.in.flight.requests.per.connection")
_CHUNK = 500


@dataclass(frozen=True)
class Generator:
    """What to produce, where and how fast.

    Attributes:
        kafka: librdkafka properties; `bootstrap.servers` at least.
        topics: each message goes to one of them by chance; missing ones are made with `PARTITIONS` partitions.
        types: values of the `type` field.
        rate: messages per second in total; 0 is as fast as possible.
        count: stop after so many messages, None for no such limit.
        seconds: stop after so long, None for no such limit; with a rate it is the same as `count` = rate × seconds.
        keys: whether a message has a key, which is its user.
        headers: whether a message has headers.
        late_share: share of messages stamped up to three hours in the past, 0 to 1.
        ugly_share: share of messages that are cut short, without type, oddly typed, not UTF-8, empty or tombstones.
        seed: what to draw from; the same seed gives the same messages but for their times. None is another each time.
        users: number of distinct users.
        timeout: seconds that a broker may take to answer.
    """

    kafka: Mapping[str, Any]
    topics: tuple[str, ...]
    types: tuple[str, ...] = ("object.one", "object.two", "object.three")
    rate: float = 1000.0
    count: int | None = None
    seconds: float | None = None
    keys: bool = True
    headers: bool = False
    late_share: float = 0.0
    ugly_share: float = 0.0
    seed: int | None = None
    users: int = 1000
    timeout: float = 10.0

    def __post_init__(self) -> None:
        """Raise WrongUsage for a value that makes no sense."""
        for name in ("topics", "types"):
            if not getattr(self, name):
                raise WrongUsage(f"--{name} is empty: name at least one")
        for option, share in (("--late", self.late_share), ("--ugly", self.ugly_share)):
            if not 0 <= share <= 1:
                raise WrongUsage(f"{option} is {share:g}: allowed is a share between 0 and 1, or between 0% and 100%")
        for name, least in (("rate", 0), ("count", 0), ("seconds", 0), ("users", 1)):
            value = getattr(self, name)
            if value is not None and not least <= value < math.inf:
                raise WrongUsage(f"--{name} is {value:g}: allowed is a number from {least} up")


@dataclass(frozen=True)
class Summary:
    """What came of it.

    Attributes:
        sent: messages handed to the client.
        delivered, failed: messages that the broker confirmed, and those it or the client gave up.
        seconds: from the first message to the last confirmation.
        rate: delivered messages per second, as achieved.
        topics: delivered messages by topic.
        bytes: keys and values of all messages sent.
        error: why the first message failed.
    """

    sent: int
    delivered: int
    failed: int
    seconds: float
    rate: float
    topics: Mapping[str, int]
    bytes: int
    error: str | None = None


def generate(
    settings: Generator,
    on_progress: Callable[[int, float], None] | None = None,
    stop: Callable[[], bool] | None = None,
    events: Iterator[Event] | None = None,
) -> Summary:
    """Produce as the settings say, until a limit or until `stop` says so, and wait for what is on its way.

    The rate is kept by the clock: after a stall, what has fallen due is made up for, and the summary tells the rate
    that was achieved.

    Args:
        settings: what to produce.
        on_progress: called with the messages sent and the seconds gone, about once a second and at the end.
        stop: asked ten times a second or more.
        events: what to send; when they are over, it ends. Without them they are made as the settings say.

    Raises:
        SettingsError: librdkafka refuses a property.
        BrokerUnavailable: no broker answered in `timeout`, or none took a message for `message.timeout.ms`.
        AccessDenied: the credentials are refused, or do not allow to write or make a topic.
        KafkaError: a topic could not be made.
    """
    run = _Run(settings)
    events = events or make_events(
        settings.topics,
        settings.types,
        keys=settings.keys,
        headers=settings.headers,
        late_share=settings.late_share,
        ugly_share=settings.ugly_share,
        seed=settings.seed,
        users=settings.users,
    )
    told = 0.0
    while True:
        elapsed = run.elapsed()
        due = due_at(settings, elapsed)
        ended = is_over(settings, run.sent, elapsed) or (stop is not None and stop())
        if on_progress is not None and (ended or elapsed - told >= 1):
            on_progress(run.sent, elapsed)
            told = elapsed
        if ended:
            return run.finish()
        chunk = list(islice(events, int(max(0, min(due - run.sent, _CHUNK)))))
        if not chunk and due > run.sent:
            return run.finish()
        for event in chunk:
            while not run.send(event):
                run.poll(0.05)
        run.poll(0 if run.sent < due else _nap(settings, run.sent, run.elapsed()))


def due_at(settings: Generator, elapsed: float) -> float:
    """How many messages are to have been sent after so many seconds; infinite where neither rate nor count holds."""
    if settings.seconds is not None:
        elapsed = min(elapsed, settings.seconds)
    limit = math.inf if settings.count is None else settings.count
    if settings.rate == 0:
        return limit
    # Rounded, so that 0.1 s at 30 a second are three messages and not, by a hair, four.
    return min(limit, math.ceil(round(elapsed * settings.rate, 6)))


def is_over(settings: Generator, sent: int, elapsed: float) -> bool:
    """Whether the count is reached, or the time is up and what fell due in it is sent."""
    if settings.count is not None and sent >= settings.count:
        return True
    if settings.seconds is None or elapsed < settings.seconds:
        return False
    return settings.rate == 0 or sent >= due_at(settings, elapsed)


def _nap(settings: Generator, sent: int, elapsed: float) -> float:
    # Ticks of 5 ms at least: to wake up for each single message would cost more than the messages.
    return min(max(sent / settings.rate - elapsed, 0.005), 0.1) if settings.rate else 0


class _Tally:
    """Counts the delivery reports of one topic."""

    def __init__(self) -> None:
        self.delivered = self.failed = self.timed_out = 0
        self.error: str | None = None
        self.forbidden: ClientError | None = None

    def __call__(self, error: ClientError | None, _message: object) -> None:
        if error is None:
            self.delivered += 1
            return
        self.failed += 1
        self.timed_out += error.name() == "_MSG_TIMED_OUT"
        self.error = self.error or error.str()
        if is_forbidden(error):
            self.forbidden = error


class _Run:
    """A producer at work, and what became of its messages."""

    def __init__(self, settings: Generator) -> None:
        self._settings = settings
        self._complaints = Complaints(settings.kafka)
        self._tallies = {topic: _Tally() for topic in settings.topics}
        self._producer = self._connect()
        self.sent = 0
        self._bytes = self._delivered = self._timed_out = 0
        self._begun = self._heard = time.monotonic()

    def elapsed(self) -> float:
        return time.monotonic() - self._begun

    def send(self, event: Event) -> bool:
        """Hand a message to the client; False while its queue is full."""
        topic, value, key, timestamp, headers = event
        try:
            self._producer.produce(
                topic, value, key, on_delivery=self._tallies[topic], timestamp=timestamp, headers=headers
            )
        except BufferError:
            return False
        except KafkaException as error:
            acls = acls_on("Write", [topic])
            raise self._complaints.translate(error, "messages were sent", topic, acls=acls) from error
        self.sent += 1
        self._bytes += len(value or b"") + len(key or b"")
        return True

    def poll(self, seconds: float) -> None:
        """Take delivery reports; raises BrokerUnavailable if messages time out and none was taken for a while."""
        self._serve(seconds)
        delivered = sum(tally.delivered for tally in self._tallies.values())
        timed_out = sum(tally.timed_out for tally in self._tallies.values())
        now = time.monotonic()
        if delivered > self._delivered:
            self._delivered, self._timed_out, self._heard = delivered, timed_out, now
        elif timed_out > self._timed_out and now - self._heard >= self._settings.timeout:
            what = f"took no message for {now - self._heard:.0f} s; {delivered} of {self.sent} were delivered before"
            text = f"Kafka at {self._settings.kafka.get('bootstrap.servers')} {what}: {self._complaints.said()}"
            raise BrokerUnavailable(text, hint="Check that the broker is up, and start again")

    def _serve(self, seconds: float) -> None:
        try:
            self._producer.poll(seconds)
            for tally in self._tallies.values():
                if tally.forbidden is not None:
                    raise KafkaException(tally.forbidden)
        except KafkaException as error:
            # An idempotent producer that may write no topic at all is refused before its first message.
            found = [topic for topic, tally in self._tallies.items() if tally.forbidden is not None]
            acls = acls_on("Write", found or self._tallies)
            raise self._complaints.translate(error, "messages were sent", acls=acls) from error

    def finish(self) -> Summary:
        """Wait until the fate of every message is known."""
        while len(self._producer):
            self.poll(0.1)
        seconds = self.elapsed()
        errors = [tally.error for tally in self._tallies.values() if tally.error]
        delivered = {topic: tally.delivered for topic, tally in self._tallies.items()}
        total = sum(delivered.values())
        failed = sum(tally.failed for tally in self._tallies.values())
        rate = total / seconds if seconds else 0.0
        return Summary(self.sent, total, failed, seconds, rate, delivered, self._bytes, errors[0] if errors else None)

    def _connect(self) -> Producer:
        config = {**_DEFAULTS, **client_properties(self._settings.kafka, self._complaints)}
        if not any(name in config for name in _ACKS):
            config["enable.idempotence"] = True  # or a lost answer would double messages that are counted once
        try:
            producer = Producer(config)
        except KafkaException as error:
            text = self._complaints.mask(error.args[0].str())
            raise SettingsError(f"the KAFKA_* settings do not fit together: {text}") from None
        seconds = self._settings.timeout
        try:
            known = persist(
                lambda turn: producer.list_topics(timeout=turn), producer, self._complaints, seconds, resumes=False
            )
        except (KafkaException, Refused) as error:
            raise self._complaints.translate(error, "the broker was asked for its topics") from error
        missing = [topic for topic in self._settings.topics if topic not in known.topics]
        # librdkafka's mock cluster cannot be asked to make topics; there they appear on first use.
        if missing and not str(known.cluster_id).startswith("mockCluster"):
            self._make_topics(missing)
        return producer

    def _make_topics(self, topics: list[str]) -> None:
        admin = AdminClient(client_properties(self._settings.kafka, self._complaints))
        limit = self._settings.timeout
        wanted = [NewTopic(topic, num_partitions=PARTITIONS) for topic in topics]
        for topic, future in admin.create_topics(wanted, request_timeout=limit).items():
            try:
                answer(future, admin, self._complaints, 2 * limit)
            except (KafkaException, TimeoutError, Refused) as error:
                if not isinstance(error, KafkaException) or error.args[0].name() != "TOPIC_ALREADY_EXISTS":
                    acls = acls_on("Create", [topic])
                    raise self._complaints.translate(error, "a topic was made", topic, acls=acls) from error
