"""The topics that a replay sends to: there or made, and checked to take and keep every message."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Mapping
from functools import cached_property

from archiver_pipeline.errors import AccessDenied, KafkaError, RangeRefused
from archiver_pipeline.kafka.cluster import Cluster
from archiver_pipeline.kafka.compacted import make_topics
from archiver_pipeline.plan import TopicPartition, TopicState, life_of
from archiver_pipeline.replay.limits import needed, obstacles
from archiver_pipeline.replay.wanted import Wanted
from archiver_pipeline.stored.survey import Survey

log = logging.getLogger(__name__)

_DEFAULT_LIMIT = 1_048_588
_LEADER_SECONDS = 30.0


class Target:
    """The topics that a replay sends to."""

    def __init__(self, cluster: Cluster, wanted: Wanted, places: Collection[TopicPartition]) -> None:
        """Take the cluster, whose settings name the topics, and the topic partitions that messages may come from."""
        self._cluster = cluster
        self._wanted = wanted
        self._places = places

    def limit(self) -> int:
        """The `max.message.bytes` of the strictest topic that is there."""
        limits = (int(config.get("max.message.bytes", _DEFAULT_LIMIT)) for config in self._configs.values())
        return min(limits, default=_DEFAULT_LIMIT)

    def checked(self, survey: Survey, *, make: bool = True) -> list[TopicState]:
        """The topics that messages go to, made if that is wanted and `make` is true.

        Raises:
            AccessDenied: one may not be written, or not be made; nothing was sent.
            RangeRefused: one is missing, or would not take or keep the messages; nothing was sent.
        """
        sources = sorted({at.topic for at in survey.places})
        wanted = sorted({self._wanted.target(topic) for topic in sources})
        self._cluster.require("messages were to be sent", dict.fromkeys(wanted, ("Write",)))
        states = self._states()
        if missing := [topic for topic in wanted if topic not in states]:
            if not self._wanted.create_topics:
                raise RangeRefused(
                    f"there is no topic {', '.join(missing)} to send to",
                    hint="Make it with as many partitions as it had, or give --create-topics; nothing was sent",
                )
            if make:
                self._make(missing, survey)
                states = self._states()
        there = [topic for topic in sources if self._wanted.target(topic) in states]
        every = [self._obstacles(states[self._wanted.target(topic)], topic, survey) for topic in there]
        if found := [text for some in every for text in some]:
            raise RangeRefused("; ".join(dict.fromkeys(found)), hint="Nothing was sent")
        self._warn_of_originals(survey, states)
        return [states[topic] for topic in wanted if topic in states]

    def _warn_of_originals(self, survey: Survey, states: Mapping[str, TopicState]) -> None:
        """Say which topics still have what they are sent."""
        twice = {
            at.topic
            for at in survey.places
            if (state := states.get(self._wanted.target(at.topic))) is not None
            and (state.topic, state.topic_id) == (at.topic, life_of(at.topic_id)[0])
            and at.partition in state.partitions
            and state.partitions[at.partition].earliest < survey.last(at)
        }
        for topic in sorted(twice):
            log.warning("topic %s still has some of the messages that it is sent: its readers get them twice", topic)

    def _states(self) -> dict[str, TopicState]:
        return {state.topic: state for state in self._cluster.look(reads=False).topics}

    @cached_property
    def _configs(self) -> Mapping[str, Mapping[str, str]]:
        """The configuration of the topics that are there; none where that may not be asked."""
        if self._cluster.settings.topic_ids == "none":
            return {}  # Such a broker, the demo's own, cannot be asked.
        topics = self._states()
        try:
            return self._cluster.configuration(topics)
        except AccessDenied as error:
            log.warning("the limits of the topics are not known: %s", error)
            return {}

    def _obstacles(self, state: TopicState, source: str, survey: Survey) -> list[str]:
        highest = max(at.partition for at in survey.places if at.topic == source)
        config, now_ms = self._configs.get(state.topic, {}), int(time.time() * 1000)
        count = max(state.partitions) + 1
        return list(obstacles(state.topic, count, config, survey.measures(source), highest, self._wanted, now_ms))

    def _make(self, missing: Collection[str], survey: Survey) -> None:
        """Make topics with as many partitions as the archive has of those that they stand for."""
        topics = {}
        for name in missing:
            sources = {at.topic for at in survey.places if self._wanted.target(at.topic) == name}
            count = max(at.partition for at in self._places if at.topic in sources) + 1
            configs = [needed(survey.measures(topic)) for topic in sorted(sources)]
            topics[name] = count, max(configs, key=lambda config: int(config.get("max.message.bytes", 0)))
        with self._cluster.translated("topics were made"):
            make_topics(self._cluster, topics)
        deadline = time.monotonic() + _LEADER_SECONDS
        while not set(missing) <= {name for name, state in self._states().items() if state.complete}:
            if time.monotonic() > deadline:
                raise KafkaError(
                    f"the new topics {', '.join(missing)} have no leaders after {_LEADER_SECONDS:.0f} s",
                    hint="Check that the brokers are up, then run the same command again; nothing was sent",
                )
            time.sleep(0.2)
