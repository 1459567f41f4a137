"""Questions to a Kafka cluster through librdkafka's admin client: topics, what is allowed on them, watermarks."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from archiver_pipeline.kafka import refusals
from archiver_pipeline.kafka.client import Complaints, Refused, answer, client_properties, is_unavailable, persist
from archiver_pipeline.kafka.look import EVERY
from archiver_pipeline.plan import NO_TOPIC_ID, Watermarks
from archiver_pipeline.settings.settings import Settings

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

TIMEOUT_SECONDS = 10.0
"""How long a question to the broker may take."""

NO_TOPIC = {"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION", "UNKNOWN_TOPIC_ID"}


@dataclass(frozen=True)
class Topics:
    """What the broker says of some topics.

    Attributes:
        states: of each that is there its id and the numbers of its partitions.
        missing: a sentence for each that is not.
        denied: for each that is forbidden the ACL that is missing.
    """

    states: dict[str, tuple[str, list[int]]]
    missing: list[str]
    denied: dict[str, str]


class Broker:
    """A Kafka cluster, asked through librdkafka's admin client; each question may take `timeout` seconds.

    Attributes:
        settings: whose cluster it is.
        complaints: what the client complained of since the last question began.
    """

    def __init__(self, settings: Settings, timeout: float = TIMEOUT_SECONDS) -> None:
        settings.require_broker()
        self.settings = settings
        self._timeout = timeout
        self.complaints = Complaints(settings.kafka_properties)

    @cached_property
    def admin(self) -> AdminClient:
        """The client that asks; what it raises is to be translated."""
        from confluent_kafka.admin import AdminClient

        return AdminClient(client_properties(self.settings.kafka_properties, self.complaints))

    def require(self, what: str, needed: Mapping[str, Collection[str]]) -> None:
        """Make sure that what is about to be done to topics is allowed.

        Args:
            what: what is about to be done, for the error.
            needed: for each topic the operations, such as `Write`; one that is not there needs none.

        Raises:
            AccessDenied: one is not; it names all that are not.
        """
        if self.settings.topic_ids == "none" or not needed:
            return
        with self.translated(what):
            acls = [acl for topic, wanted in sorted(needed.items()) for acl in self._lacking(topic, wanted)]
        if acls:
            raise self.complaints.denied(what, acls)

    @contextmanager
    def translated(
        self, what: str, topic: str | None = None, partition: int | None = None, acls: Collection[str] = ()
    ) -> Iterator[None]:
        """Turn a librdkafka error into one of the archiver's own, with what the client complained of meanwhile."""
        from confluent_kafka import KafkaException

        if "admin" in self.__dict__:
            # What it complained of since the last question is of no use, and would come first.
            self.admin.poll(0)
            self.complaints.clear()
        try:
            yield
        except (KafkaException, TimeoutError, Refused) as error:
            self.admin.poll(0)
            raise self.complaints.translate(error, what, topic, partition, acls=acls) from error

    def answer(self, future: Future[Any]) -> Any:
        """Wait for an answer. Raises KafkaException, TimeoutError and Refused, which `translated` takes."""
        return answer(future, self.admin, self.complaints, self._timeout)

    def listing(self, topic: str | None = None) -> Any:
        """The cluster's metadata: of one topic, or of all that may be described. Raises as `answer` does."""
        names = () if topic is None else (topic,)
        ask = self.admin.list_topics
        return persist(
            lambda seconds: ask(*names, timeout=seconds), self.admin, self.complaints, self._timeout, resumes=False
        )

    def described(self, names: list[str], *, reads: bool) -> Topics:
        """Ask for id and partitions of topics, and whether they may be described and, where that counts, read."""
        from confluent_kafka import KafkaException

        if not names:
            return Topics({}, [], {})
        if self.settings.topic_ids == "none":
            return self._listed(names)
        states: dict[str, tuple[str, list[int]]] = {}
        missing, denied = [], {}
        for name, future in self._descriptions(names).items():
            try:
                description = self.answer(future)
            except KafkaException as error:
                if refusals.is_forbidden(error.args[0]):
                    denied[name] = f"Describe on topic {name}"
                elif error.args[0].name() in NO_TOPIC:
                    missing.append(f"topic {name} does not exist")
                else:
                    raise
            else:
                if reads and not _allows(description, "Read"):
                    denied[name] = f"Read on topic {name}"
                elif not description.is_internal or name in self.settings.topics:
                    states[name] = (_url_safe(description.topic_id), sorted(part.id for part in description.partitions))
        return Topics(states, missing, denied)

    def _lacking(self, topic: str, needed: Collection[str]) -> list[str]:
        """Which of some operations on a topic are not allowed; none where it is not there."""
        from confluent_kafka import KafkaException

        try:
            description = self.answer(self._descriptions([topic])[topic])
        except KafkaException as error:
            if error.args[0].name() in NO_TOPIC:
                return []
            if refusals.is_forbidden(error.args[0]):
                return [f"{operation} on topic {topic}" for operation in ("Describe", *needed)]
            raise
        return [f"{operation} on topic {topic}" for operation in needed if not _allows(description, operation)]

    def _descriptions(self, names: list[str]) -> dict[str, Future[Any]]:
        from confluent_kafka import TopicCollection

        asked = TopicCollection(names)
        return self.admin.describe_topics(asked, include_authorized_operations=True, request_timeout=self._timeout)

    def _listed(self, names: list[str]) -> Topics:
        """The same for a broker without topic ids."""
        present = self.listing().topics
        found = {name: (NO_TOPIC_ID, sorted(present[name].partitions)) for name in names if name in present}
        return Topics(found, [f"topic {name} does not exist" for name in names if name not in present], {})

    def watermarks(
        self, places: list[tuple[str, int]]
    ) -> tuple[dict[tuple[str, int], Watermarks], dict[tuple[str, int], str]]:
        """Ask for earliest and last stable offsets; a partition without a leader has a sentence instead."""
        from confluent_kafka import IsolationLevel, KafkaException
        from confluent_kafka import TopicPartition as Place
        from confluent_kafka.admin import OffsetSpec

        if not places:
            return {}, {}
        answers: list[dict[tuple[str, int], int]] = []
        unread = {}
        wanted = [Place(topic, number) for topic, number in places]
        # Both are asked for before either is waited for: over ten thousand partitions each takes the broker a while.
        asked = [
            self.admin.list_offsets(
                dict.fromkeys(wanted, spec),
                isolation_level=IsolationLevel.READ_COMMITTED,
                request_timeout=self._timeout,
            )
            for spec in (OffsetSpec.earliest(), OffsetSpec.latest())
        ]
        for futures in asked:
            offsets = {}
            for place, future in futures.items():
                try:
                    offsets[place.topic, place.partition] = self.answer(future).offset
                except KafkaException as error:
                    if is_unavailable(error.args[0]) or refusals.is_refusal(error.args[0]):
                        raise
                    if refusals.is_forbidden(error.args[0]):
                        unread[place.topic, EVERY] = denial(place.topic, f"Describe on topic {place.topic}")
                    else:
                        at = place.topic, place.partition
                        unread[at] = f"topic {place.topic}, partition {place.partition}: {error.args[0].str()}"
            answers.append(offsets)
        earliest, end = answers
        both = earliest.keys() & end.keys()
        return {place: Watermarks(max(0, earliest[place]), end[place]) for place in both}, unread


def _url_safe(topic_id: Any) -> str:
    """Write a topic id as Kafka's own tools do, in URL-safe base64 (RFC 4648); librdkafka uses `/` and `+`."""
    return str(topic_id).replace("/", "_").replace("+", "-")


def acls_on(operation: str, topics: Iterable[str]) -> list[str]:
    """Name an ACL on each topic: `Read on topic orders`."""
    return [f"{operation} on topic {topic}" for topic in sorted(set(topics))]


def denial(topic: str, acl: str) -> str:
    """Say which ACL is missing for a topic."""
    return f"topic {topic} cannot be read: {refusals.lacking([acl])}"


def _allows(description: Any, operation: str) -> bool:
    """Whether a topic may be asked for; a broker older than 2.3 does not tell (KIP-430)."""
    allowed = description.authorized_operations
    return not allowed or operation.upper() in {each.name.replace("_", "") for each in allowed}
