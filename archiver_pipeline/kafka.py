"""The Kafka side: which topics there are and how far they reach."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from archiver_pipeline.errors import AccessDenied, BrokerUnavailable, KafkaError, TopicChanged
from archiver_pipeline.look import Look
from archiver_pipeline.plan import NO_TOPIC_ID, TopicPartition, TopicState, Watermarks, life_of
from archiver_pipeline.setting_types import REPLAYS_TOPIC
from archiver_pipeline.settings import Settings

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10.0
"""How long a question to the broker may take."""

_NO_ACCESS = {
    "_AUTHENTICATION",
    "SASL_AUTHENTICATION_FAILED",
    "TOPIC_AUTHORIZATION_FAILED",
    "CLUSTER_AUTHORIZATION_FAILED",
}
NO_TOPIC = {"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION", "UNKNOWN_TOPIC_ID"}
_NO_BROKER = {"_TRANSPORT", "_ALL_BROKERS_DOWN", "_TIMED_OUT", "_RESOLVE", "REQUEST_TIMED_OUT", "BROKER_NOT_AVAILABLE"}


class Cluster:
    """A Kafka cluster, asked through librdkafka's admin client; each question may take `timeout` seconds."""

    def __init__(self, settings: Settings, timeout: float = TIMEOUT_SECONDS) -> None:
        settings.require_kafka()
        self.settings = settings
        self._timeout = timeout
        self._complaints: list[Any] = []

    @cached_property
    def admin(self) -> AdminClient:
        """The client that asks; what it raises is to be translated."""
        from confluent_kafka.admin import AdminClient

        return AdminClient(client_properties(self.settings, self._complaints.append), logger=log)

    def look(self) -> Look:
        """Find the wanted topics and ask for their ids, earliest offsets and last stable offsets.

        Raises:
            BrokerUnavailable: no broker answered in time.
            AccessDenied: the credentials are refused.
        """
        asked_ms = int(time.time() * 1000)
        with self.translated("the broker was asked for its topics"):
            names, idle = self._wanted()
            states, missing = self._described(names)
            marks, unread = self._watermarks(
                [(topic, number) for topic, (_, numbers) in states.items() for number in numbers]
            )
        topics = tuple(
            TopicState(
                topic,
                topic_id,
                {number: marks[topic, number] for number in numbers if (topic, number) in marks},
                complete=all((topic, number) in marks for number in numbers),
            )
            for topic, (topic_id, numbers) in sorted(states.items())
        )
        return Look(tuple(state for state in topics if state.partitions), (*idle, *missing), unread, asked_ms)

    def topic_ids(self, topics: Iterable[str]) -> dict[str, str]:
        """Return the present id of each topic; a topic that is gone has none in the answer."""
        with self.translated("the broker was asked for topic ids"):
            states, _ = self._described(sorted(set(topics)))
        return {topic: topic_id for topic, (topic_id, _) in states.items()}

    def check_topics(self, read: Iterable[TopicPartition]) -> None:
        """Make sure that no topic was made again while it was read; one that is gone was read under its own id.

        Raises:
            TopicChanged: one was.
        """
        expected = {at.topic: at.topic_id for at in read}
        if self.settings.topic_ids == "none" or not expected:
            return
        present = self.topic_ids(expected)
        for topic, topic_id in expected.items():
            if topic in present and not same_topic(topic_id, present[topic]):
                raise TopicChanged("the topic was made again while it was read", topic=topic)

    def earliest(self, topic: str, partition: int) -> int:
        """Return a partition's earliest offset."""
        with self.translated("the broker was asked for an earliest offset", topic, partition):
            marks, unread = self._watermarks([(topic, partition)])
        if (topic, partition) not in marks:
            raise KafkaError(unread[topic, partition], topic=topic, partition=partition)
        return marks[topic, partition].earliest

    def offsets_at(self, places: Collection[TopicPartition], timestamp_ms: int) -> dict[TopicPartition, int | None]:
        """Return for each partition the first offset with a timestamp at or after the given one, None without one.

        However out of order the timestamps are: no message before that offset has reached it. The broker finds no
        timestamp below 0, which would mean something else to it (KIP-79).
        """
        from confluent_kafka import TopicPartition as Place
        from confluent_kafka.admin import OffsetSpec

        wanted = OffsetSpec.for_timestamp(timestamp_ms) if timestamp_ms >= 0 else OffsetSpec.earliest()
        with self.translated("the broker was asked for the offsets of a time"):
            asked = {Place(at.topic, at.partition): wanted for at in places}
            answers = self.admin.list_offsets(asked, request_timeout=self._timeout) if asked else {}
            found = {
                (place.topic, place.partition): future.result(self._timeout).offset for place, future in answers.items()
            }
        offsets = {at: found[at.topic, at.partition] for at in places}
        return {at: offset if offset >= 0 else None for at, offset in offsets.items()}

    def compacted(self, topics: Collection[str]) -> set[str]:
        """Return those topics of which Kafka may drop single messages: `cleanup.policy` has `compact`. It raises as
        `configuration` does."""
        return {topic for topic, found in self.configuration(topics).items() if "compact" in found["cleanup.policy"]}

    def configuration(self, topics: Collection[str]) -> dict[str, dict[str, str]]:
        """Return the configuration of topics, by name.

        Raises:
            AccessDenied: the credentials do not allow to describe the configuration of a topic.
        """
        from confluent_kafka.admin import ConfigResource, ResourceType

        with self.translated("the broker was asked for the configuration of topics"):
            wanted = [ConfigResource(ResourceType.TOPIC, topic) for topic in sorted(topics)]
            futures = self.admin.describe_configs(wanted, request_timeout=self._timeout) if wanted else {}
            answers = {resource.name: future.result(self._timeout) for resource, future in futures.items()}
        return {topic: {name: entry.value for name, entry in found.items()} for topic, found in answers.items()}

    def start_offset(self, at: TopicPartition, marks: Watermarks) -> int:
        """Return where a partition of a topic seen for the first time begins, by `ARCHIVER_START`."""
        if self.settings.start == "earliest":
            return marks.earliest
        if self.settings.start_time is None:
            return marks.end
        found = self.offsets_at([at], int(self.settings.start_time.timestamp() * 1000))[at]
        return marks.end if found is None else min(found, marks.end)

    @contextmanager
    def translated(self, what: str, topic: str | None = None, partition: int | None = None) -> Iterator[None]:
        """Turn a librdkafka error into one of the archiver's own, with what the client complained of meanwhile."""
        from confluent_kafka import KafkaException

        self._complaints.clear()
        try:
            yield
        except (KafkaException, TimeoutError) as error:
            self.admin.poll(0)
            raise translate(error, what, self.settings, self._complaints, topic, partition) from error

    def _wanted(self) -> tuple[list[str], list[str]]:
        """Return the names of the wanted topics; a regex never matches an internal topic or a results topic."""
        plain = [name for name in self.settings.topics if not name.startswith("^")]
        patterns = [re.compile(name) for name in self.settings.topics if name.startswith("^")]
        if not patterns:
            return sorted(set(plain)), []
        # What the archiver itself sends would come back and be counted for ever.
        own = {self.settings.results_topic, self.settings.positions_topic, REPLAYS_TOPIC}
        every = self.admin.list_topics(timeout=self._timeout).topics
        present = [name for name in every if not name.startswith("__") and name not in own]
        matched = {name for name in present if any(pattern.match(name) for pattern in patterns)}
        idle = [pattern.pattern for pattern in patterns if not any(pattern.match(name) for name in present)]
        return sorted({*plain, *matched}), [f"no topic matches {pattern}" for pattern in idle]

    def _described(self, names: list[str]) -> tuple[dict[str, tuple[str, list[int]]], list[str]]:
        """Return id and partition numbers of each topic, and a sentence for each that is missing."""
        from confluent_kafka import KafkaException, TopicCollection

        if not names:
            return {}, []
        if self.settings.topic_ids == "none":
            return self._listed(names)
        states: dict[str, tuple[str, list[int]]] = {}
        missing = []
        futures = self.admin.describe_topics(TopicCollection(names), request_timeout=self._timeout)
        for name, future in futures.items():
            try:
                description = future.result(self._timeout)
            except KafkaException as error:
                if error.args[0].name() not in NO_TOPIC:
                    raise
                missing.append(f"topic {name} does not exist")
            else:
                if not description.is_internal or name in self.settings.topics:
                    states[name] = (_url_safe(description.topic_id), sorted(part.id for part in description.partitions))
        return states, missing

    def _listed(self, names: list[str]) -> tuple[dict[str, tuple[str, list[int]]], list[str]]:
        """The same for a broker without topic ids."""
        present = self.admin.list_topics(timeout=self._timeout).topics
        found = {name: (NO_TOPIC_ID, sorted(present[name].partitions)) for name in names if name in present}
        return found, [f"topic {name} does not exist" for name in names if name not in present]

    def _watermarks(
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
            answer = {}
            for place, future in futures.items():
                try:
                    answer[place.topic, place.partition] = future.result(self._timeout).offset
                except KafkaException as error:
                    if error.args[0].name() in _NO_BROKER | _NO_ACCESS:
                        raise
                    at = place.topic, place.partition
                    unread[at] = f"topic {place.topic}, partition {place.partition}: {error.args[0].str()}"
            answers.append(answer)
        earliest, end = answers
        both = earliest.keys() & end.keys()
        return {place: Watermarks(max(0, earliest[place]), end[place]) for place in both}, unread


def client_properties(settings: Settings, complain: Callable[[Any], None]) -> dict[str, Any]:
    """The user's librdkafka properties, with errors reported to `complain`."""
    # The client would log ten lines a second while a broker is down; what it complains of is in the error. One that is
    # back is found within a second, not within librdkafka's ten, which is as long as an answer is waited for.
    ours = {"client.id": "archiver", "log_level": "2", "reconnect.backoff.max.ms": "1000"}
    return {**ours, **settings.kafka_properties, "error_cb": complain}


def _url_safe(topic_id: Any) -> str:
    """Write a topic id as Kafka's own tools do, in URL-safe base64 (RFC 4648); librdkafka uses `/` and `+`."""
    return str(topic_id).replace("/", "_").replace("+", "-")


def same_topic(recorded: str, present: str | None) -> bool:
    """Tell whether the broker's present topic id is the one under which a batch archives."""
    return present is not None and life_of(recorded)[0] == present


def said_by(errors: Iterable[Any]) -> str:
    """What librdkafka's errors say, each sentence once and without how long it took."""
    return "; ".join(dict.fromkeys(re.sub(r" \(after \d+ms [^)]*\)", "", error.str()) for error in errors))


def translate(
    error: Exception,
    what: str,
    settings: Settings,
    complaints: Iterable[Any] = (),
    topic: str | None = None,
    partition: int | None = None,
) -> KafkaError:
    """Say what a librdkafka error means: no access, no broker in time, or something else, with secrets masked."""
    inner = [item for item in (error.args[0] if error.args else None, *complaints) if hasattr(item, "name")]
    names = {item.name() for item in inner}
    text = settings.mask(said_by(inner) or str(error) or "no answer in time")
    servers = settings.kafka_properties.get("bootstrap.servers", "")
    place: Mapping[str, Any] = {"topic": topic, "partition": partition}
    if names & _NO_ACCESS or any("SSL handshake failed" in item.str() for item in inner):
        hint = (
            "Check KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_* and KAFKA_SSL_*, and the ACLs: Describe and Read on the topics"
        )
        return AccessDenied(f"{servers} refused access when {what}: {text}", hint=hint, **place)
    if isinstance(error, TimeoutError) or names & _NO_BROKER:
        hint = "Check KAFKA_BOOTSTRAP_SERVERS and that the broker is up; the next run goes on where this one stopped"
        return BrokerUnavailable(f"{servers} did not answer when {what}: {text}", hint=hint, **place)
    return KafkaError(f"{servers} failed when {what}: {text}", hint="The next run tries again", **place)
