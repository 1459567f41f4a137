"""The Kafka side: which topics there are and how far they reach."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable

from archiver_pipeline.errors import KafkaError, TopicChanged
from archiver_pipeline.kafka.broker import TIMEOUT_SECONDS, Broker, acls_on, denial
from archiver_pipeline.kafka.look import EVERY, Look
from archiver_pipeline.plan import TopicPartition, TopicState, Watermarks, life_of
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.settings.types import REPLAYS_TOPIC


class Cluster(Broker):
    """The topics of the settings in a Kafka cluster."""

    def __init__(self, settings: Settings, timeout: float = TIMEOUT_SECONDS) -> None:
        settings.require_kafka()
        super().__init__(settings, timeout)

    def look(self, *, reads: bool = True) -> Look:
        """Find the wanted topics and ask for their ids, earliest offsets and last stable offsets.

        A topic that is forbidden counts as one that cannot be read now, unless all are. To read is not asked for where
        `reads` is false.

        Raises:
            BrokerUnavailable: no broker answered in time.
            AccessDenied: the credentials are refused, or allow nothing.
        """
        asked_ms = int(time.time() * 1000)
        what = "the broker was asked for its topics"
        with self.translated(what):
            names, idle = self._wanted()
            found = self.described(names, reads=reads)
            places = [(topic, number) for topic, (_, numbers) in found.states.items() for number in numbers]
            marks, unread = self.watermarks(places)
        if found.denied and not found.states:
            raise self.complaints.denied(what, found.denied.values())
        topics = tuple(
            TopicState(
                topic,
                topic_id,
                {number: marks[topic, number] for number in numbers if (topic, number) in marks},
                complete=all((topic, number) in marks for number in numbers),
            )
            for topic, (topic_id, numbers) in sorted(found.states.items())
        )
        unread |= {(topic, EVERY): denial(topic, acl) for topic, acl in found.denied.items()}
        return Look(tuple(state for state in topics if state.partitions), (*idle, *found.missing), unread, asked_ms)

    def topic_ids(self, topics: Iterable[str]) -> dict[str, str]:
        """Return the present id of each topic; a topic that is gone has none in the answer.

        Raises:
            BrokerUnavailable: no broker answered in time.
            AccessDenied: the credentials are refused, or do not allow to describe one of them.
        """
        what = "the broker was asked for topic ids"
        with self.translated(what):
            found = self.described(sorted(set(topics)), reads=False)
        if found.denied:
            raise self.complaints.denied(what, found.denied.values())
        return {topic: topic_id for topic, (topic_id, _) in found.states.items()}

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
                hint = "Nothing of it was committed: the next run reads the new topic from its beginning"
                raise TopicChanged("the topic was made again while it was read", topic=topic, hint=hint)

    def earliest(self, topic: str, partition: int) -> int:
        """Return a partition's earliest offset."""
        what = "the broker was asked for an earliest offset"
        with self.translated(what, topic, partition):
            marks, unread = self.watermarks([(topic, partition)])
        if (topic, EVERY) in unread:
            raise self.complaints.denied(what, acls_on("Describe", [topic]))
        if (topic, partition) not in marks:
            hint = "Check that the broker has the partition and a leader for it; the next run tries again"
            raise KafkaError(unread[topic, partition], topic=topic, partition=partition, hint=hint)
        return marks[topic, partition].earliest

    def offsets_at(self, places: Collection[TopicPartition], timestamp_ms: int) -> dict[TopicPartition, int | None]:
        """Return for each partition the first offset with a timestamp at or after the given one, None without one.

        However out of order the timestamps are: no message before that offset has reached it. The broker finds no
        timestamp below 0, which would mean something else to it (KIP-79).
        """
        from confluent_kafka import TopicPartition as Place
        from confluent_kafka.admin import OffsetSpec

        wanted = OffsetSpec.for_timestamp(timestamp_ms) if timestamp_ms >= 0 else OffsetSpec.earliest()
        acls = acls_on("Describe", [at.topic for at in places])
        with self.translated("the broker was asked for the offsets of a time", acls=acls):
            asked = {Place(at.topic, at.partition): wanted for at in places}
            answers = self.admin.list_offsets(asked, request_timeout=self._timeout) if asked else {}
            found = {(at.topic, at.partition): self.answer(future).offset for at, future in answers.items()}
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

        what = "the broker was asked for the configuration of topics"
        with self.translated(what, acls=acls_on("DescribeConfigs", topics)):
            wanted = [ConfigResource(ResourceType.TOPIC, topic) for topic in sorted(topics)]
            futures = self.admin.describe_configs(wanted, request_timeout=self._timeout) if wanted else {}
            answers = {resource.name: self.answer(future) for resource, future in futures.items()}
        return {topic: {name: entry.value for name, entry in found.items()} for topic, found in answers.items()}

    def start_offset(self, at: TopicPartition, marks: Watermarks) -> int:
        """Return where a partition of a topic seen for the first time begins, by `ARCHIVER_START`."""
        if self.settings.start == "earliest":
            return marks.earliest
        if self.settings.start_time is None:
            return marks.end
        found = self.offsets_at([at], int(self.settings.start_time.timestamp() * 1000))[at]
        return marks.end if found is None else min(found, marks.end)

    def _wanted(self) -> tuple[list[str], list[str]]:
        """Return the names of the wanted topics; a regex never matches an internal topic or a results topic."""
        plain = [name for name in self.settings.topics if not name.startswith("^")]
        patterns = [re.compile(name) for name in self.settings.topics if name.startswith("^")]
        if not patterns:
            return sorted(set(plain)), []
        # What the archiver itself sends would come back and be counted for ever.
        own = {self.settings.results_topic, self.settings.positions_topic, REPLAYS_TOPIC}
        every = self.listing().topics
        present = [name for name in every if not name.startswith("__") and name not in own]
        matched = {name for name in present if any(pattern.match(name) for pattern in patterns)}
        idle = [pattern.pattern for pattern in patterns if not any(pattern.match(name) for name in present)]
        secured = self.settings.kafka_properties.get("security.protocol", "plaintext").lower() != "plaintext"
        why = " that the ACLs allow to Describe" if secured else ""
        return sorted({*plain, *matched}), [f"no topic{why} matches {pattern}" for pattern in idle]


def same_topic(recorded: str, present: str | None) -> bool:
    """Tell whether the broker's present topic id is the one under which a batch archives."""
    return present is not None and life_of(recorded)[0] == present
