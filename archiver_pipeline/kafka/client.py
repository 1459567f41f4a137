"""How librdkafka's clients are made and waited for: no longer than what they complain of leaves hope."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from archiver_pipeline.errors import AccessDenied, BrokerUnavailable, KafkaError
from archiver_pipeline.kafka import certificate, refusals
from archiver_pipeline.settings import secrets

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

log = logging.getLogger(__name__)

REFUSED_SECONDS = 1.0
"""A client that was refused is waited for so long: another broker of the cluster may answer."""

HANGUP_SECONDS = 2.0
"""A client whose connections are closed one after the other is waited for so long before its first answer. Later it is
taken for a proxy whose broker is down."""

_SLICE_SECONDS = 0.1
_MOST = 100
"""So many complaints are kept: a client that cannot connect has twenty a second."""

_NO_BROKER = {"_TRANSPORT", "_ALL_BROKERS_DOWN", "_TIMED_OUT", "_RESOLVE", "REQUEST_TIMED_OUT", "BROKER_NOT_AVAILABLE"}
_ALERT = 50
"""confluent-kafka hands on librdkafka's alerts and worse with the level CRITICAL, and all else with a lower one."""

_UNAVAILABLE = "Check KAFKA_BOOTSTRAP_SERVERS and that the broker is up; nothing is lost: the next run goes on"
Answer = TypeVar("Answer")


def is_unavailable(error: Any) -> bool:
    """Whether an error of librdkafka says that no broker answered."""
    return error.name() in _NO_BROKER


class Refused(Exception):
    """The client is refused for good: its complaints say why."""


class Complaints:
    """What clients complain of: their errors and, as they are given it for a logger, connections that were closed.

    Attributes:
        errors: the newest complaints, the oldest first.
        answered: whether a broker has ever answered.
    """

    def __init__(self, kafka_properties: Mapping[str, Any]) -> None:
        """Prepare it; the properties are those of the user, with their secrets, which no text is to show."""
        self.errors: list[Any] = []
        self.answered = False
        self._properties = {name: str(value) for name, value in kafka_properties.items()}
        self._refused = self._hung_up = 0.0

    def add(self, error: Any) -> None:
        """Take a complaint; it is librdkafka's `error_cb`."""
        if error.name() == refusals.NO_GROUP:
            return
        self.errors = [*self.errors[1 - _MOST :], error]
        if refusals.is_refusal(error):
            self._refused = self._refused or time.monotonic()
        elif refusals.is_hangup(error):
            self._hung_up = self._hung_up or time.monotonic()
        elif error.name() != "_ALL_BROKERS_DOWN":
            self._hung_up = 0.0

    def log(self, level: int, form: str, *parts: str) -> None:
        """Take a line of librdkafka's log: what is worse than an error is logged, and a closed connection, of which
        `error_cb` is not told, is a complaint."""
        from confluent_kafka import KafkaError as Codes

        text = str(parts[-1]) if parts else form
        if parts and parts[0] == "FAIL":
            error = Codes(Codes._TRANSPORT, text.partition("]: ")[2] or text)
            if refusals.is_hangup(error):
                self.add(error)
        if level >= _ALERT or self._properties.keys() & {"debug", "log_level"}:
            log.log(level, form, *(secrets.mask(str(part), self._properties) for part in parts))

    def clear(self) -> None:
        """Forget all of them, but for what stands until a broker answers."""
        self.errors = [error for error in self.errors if refusals.is_lasting(error)]
        self._refused, self._hung_up = time.monotonic() if self.errors else 0.0, 0.0

    def heard(self) -> None:
        """Take down that a broker has answered."""
        self.answered = True
        if any(map(refusals.is_lasting, self.errors)):
            self.errors, self._refused = [], 0.0

    def check(self) -> None:
        """Raise Refused where to wait any longer is of no use, KafkaException where the client is broken."""
        from confluent_kafka import KafkaException

        now = time.monotonic()
        if broken := [error for error in self.errors if error.fatal()]:
            raise KafkaException(broken[0])
        if self._refused and now - self._refused >= REFUSED_SECONDS:
            raise Refused
        if self._hung_up and not self.answered and now - self._hung_up >= HANGUP_SECONDS:
            raise Refused

    def translate(
        self,
        error: Exception,
        what: str,
        topic: str | None = None,
        partition: int | None = None,
        *,
        acls: Collection[str] = (),
    ) -> KafkaError:
        """Say what an error means: no access, no broker in time, or something else, with secrets masked.

        Args:
            error: what was raised: by librdkafka, or a TimeoutError, or Refused.
            what: what was done, as in `when topics were made`.
            topic, partition: where.
            acls: what is needed for it, each as `Read on topic orders`.
        """
        raised = error.args[0] if error.args and hasattr(error.args[0], "name") else None
        every = [item for item in (raised, *self.errors) if item is not None]
        servers = self._properties.get("bootstrap.servers", "")
        if forbidden := [item for item in every if refusals.is_forbidden(item)]:
            kind = refusals.NO_ACL[forbidden[0].name()]
            wanted = [acl for acl in acls if f" on {kind} " in acl] or acls
            return self.denied(what, wanted, topic, partition, self._said(forbidden[-1:]))
        place: Any = {"topic": topic, "partition": partition}
        if text := self._refusal(every, hung_up=isinstance(error, Refused)):
            hint = refusals.hint(text, self._properties)
            return AccessDenied(f"{servers} refused access when {what}: {text}", hint=hint, **place)
        text = self._said(every) or self.mask(str(error)) or "no answer in time"
        if isinstance(error, TimeoutError) or any(is_unavailable(item) for item in every):
            return BrokerUnavailable(f"{servers} did not answer when {what}: {text}", hint=_UNAVAILABLE, **place)
        return KafkaError(f"{servers} failed when {what}: {text}", hint="The next run tries again", **place)

    def _refusal(self, errors: Collection[Any], *, hung_up: bool) -> str:
        """Why the client is not let in, if that is what errors say."""
        if refused := [item for item in errors if refusals.is_refusal(item)]:
            text = self._said(refused[-1:])
            why = certificate.fault(text, self._properties) if refusals.is_distrust(text) else ""
            return refusals.distrust(text, why) if why else text
        closed = [item for item in errors if refusals.is_hangup(item)] if hung_up else []
        return f"it closes each connection at once: {self._said(closed[-1:])}" if closed else ""

    def denied(
        self, what: str, acls: Collection[str], topic: str | None = None, partition: int | None = None, said: str = ""
    ) -> AccessDenied:
        """Say which ACLs are missing for what was done and how they are granted, or else what was `said`."""
        why = f"{self._properties.get('bootstrap.servers', '')} refused access when {what}: "
        why += refusals.lacking(acls) if acls else said
        hint = refusals.grant(acls, self._properties) if acls else "Check the ACLs"
        return AccessDenied(why, topic=topic, partition=partition, hint=hint)

    def mask(self, text: str) -> str:
        """Return `text` without the value of any secret property."""
        return secrets.mask(text, self._properties)

    def said(self, newest: int = _MOST) -> str:
        """What the newest complaints say, with secrets masked."""
        return self._said(self.errors[-newest:])

    def _said(self, errors: Collection[Any]) -> str:
        return self.mask(refusals.said_by(errors))


def client_properties(kafka_properties: Mapping[str, Any], complaints: Complaints) -> dict[str, Any]:
    """The user's librdkafka properties, with errors and closed connections told to `complaints`."""
    # The client would log ten lines a second while a broker is down; what it complains of is in the error. One that is
    # back is found within a second, not within librdkafka's ten, which is as long as an answer is waited for.
    ours = {"client.id": "archiver", "log_level": "6", "reconnect.backoff.max.ms": "1000"}
    return {**ours, **kafka_properties, "error_cb": complaints.add, "logger": complaints}


def answer(future: Future[Answer], client: AdminClient, complaints: Complaints, seconds: float) -> Answer:
    """Wait for an answer to a question that a client has asked.

    Raises:
        Refused: the client is refused; TimeoutError: nothing came in time; KafkaException: the answer is an error, or
            the client is broken.
    """
    deadline = time.monotonic() + seconds
    while True:
        left = deadline - time.monotonic()
        try:
            found = future.result(min(_SLICE_SECONDS, max(0.0, left)))
        except TimeoutError:
            client.poll(0)
            complaints.check()
            if left <= 0:
                raise
        else:
            complaints.heard()
            return found


def persist(
    call: Callable[[float], Answer], client: Any, complaints: Complaints, seconds: float, *, resumes: bool = True
) -> Answer:
    """Call what blocks in short turns, and take up the complaints between them.

    Args:
        call: takes the seconds that it may take, and may be called again where they were not enough.
        client: the client that it belongs to.
        complaints: the client's.
        seconds: how long all may take.
        resumes: whether a further call goes on where the last one was; if not, the third turn has all the time left.

    Raises:
        Refused: the client is refused; KafkaException: it failed, or did not come to its end in time.
    """
    from confluent_kafka import KafkaException

    deadline, turn = time.monotonic() + seconds, 1.0
    while True:
        left = deadline - time.monotonic()
        try:
            found = call(max(0.001, min(turn, left)))
        except KafkaException as error:
            client.poll(0)
            complaints.check()
            if left <= turn or not (error.args[0].retriable() or is_unavailable(error.args[0])):
                raise
            turn = turn if resumes else 2 * turn if turn < 2 else left
        else:
            complaints.heard()
            return found
