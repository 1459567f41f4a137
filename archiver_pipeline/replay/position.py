"""How far a replay has come: records of a compacted topic, written in the transaction of the messages themselves.

{id}                                  the run, how many messages it has, whether it is done, and the topics' ids
{id}/{topic}/{topic_id}/{partition}   of the archive: the next offset to send, the end, and how many were sent
{id}>{topic}/{partition}              of the target: its id, the offset of the first message, the one past the last
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from archiver_pipeline.kafka.broker import acls_on
from archiver_pipeline.kafka.cluster import Cluster
from archiver_pipeline.kafka.compacted import SMALL, committed_records, make_topics
from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.settings.types import REPLAYS_TOPIC
from archiver_pipeline.stored.parquet import Ranges

Place = tuple[str, int]
"""A topic and a partition that messages are sent to."""


@dataclass(frozen=True)
class Position:
    """How far a replay has come.

    Attributes:
        run: counts up each time that the whole is sent again; 0 before the first time.
        messages: how many the run has.
        done: whether all were sent.
        ranges: the offsets `[next, end)` of the archive that are still to be sent.
        sent: how many messages of each topic partition of the archive were sent.
        reached: the first offset and the one past the last of each partition that they were sent to.
        topics: the topics that they are sent to, and Kafka's id of each.
    """

    run: int = 0
    messages: int = 0
    done: bool = False
    ranges: Ranges = field(default_factory=dict)
    sent: Mapping[TopicPartition, int] = field(default_factory=dict)
    reached: Mapping[Place, tuple[int, int]] = field(default_factory=dict)
    topics: Mapping[str, str] = field(default_factory=dict)

    @property
    def total(self) -> int:
        """How many messages were sent."""
        return sum(self.sent.values())

    def moved(
        self, following: Mapping[TopicPartition, tuple[int, int]], reached: Mapping[Place, tuple[int, int]]
    ) -> Position:
        """The position behind more messages.

        Args:
            following: for each topic partition of the archive the next offset to send, and how many more were sent.
            reached: the first offset and the one past the last that each partition took of them.
        """
        ranges = {at: (next_, self.ranges[at][1]) for at, (next_, _) in following.items()}
        sent = {at: self.sent.get(at, 0) + count for at, (_, count) in following.items()}
        spans = {place: (self.reached.get(place, item)[0], item[1]) for place, item in reached.items()}
        return replace(
            self,
            ranges={**self.ranges, **ranges},
            sent={**self.sent, **sent},
            reached={**self.reached, **spans},
        )

    def without(self, lost: Collection[str], target: Callable[[str], str], whole: Ranges) -> Position:
        """The position once topics have lost what was sent to them: they were deleted, or made again.

        Args:
            lost: those topics.
            target: says where the messages of a topic go.
            whole: all offsets of each topic partition of the archive.
        """
        again = {at: item for at, item in whole.items() if target(at.topic) in lost}
        return replace(
            self,
            done=self.done and not again,
            # All that the archive has of them now, which may be more than it had then.
            ranges={**self.ranges, **again},
            sent={at: 0 if at in again else count for at, count in self.sent.items()},
            reached={place: item for place, item in self.reached.items() if place[0] not in lost},
        )


def records(id: str, now: Position, before: Position) -> Iterator[tuple[str, str]]:
    """Key and value of what is new in a position."""
    head = {name: getattr(now, name) for name in ("run", "messages", "done", "topics")}
    if head != {name: getattr(before, name) for name in head}:
        yield id, json.dumps(head)
    for at, (next_, end) in now.ranges.items():
        sent = now.sent.get(at, 0)
        if now.run != before.run or before.ranges.get(at) != (next_, end) or before.sent.get(at, 0) != sent:
            value = {"run": now.run, "next": next_, "end": end, "sent": sent}
            yield f"{id}/{at.topic}/{at.topic_id}/{at.partition}", json.dumps(value)
    for (topic, partition), (first, end) in now.reached.items():
        if before.reached.get((topic, partition)) != (first, end):
            span = {"run": now.run, "topic_id": now.topics[topic], "first": first, "end": end}
            yield f"{id}>{topic}/{partition}", json.dumps(span)


def read(cluster: Cluster, id: str) -> Position:
    """Read the position of a replay from the cluster that it sends to; the topic is made if it is not there.

    Raises:
        KafkaError: the broker failed, or another's transaction stays open.
    """
    what = "the position of a replay was read"
    with cluster.translated(what, REPLAYS_TOPIC, acls=acls_on("Read", [REPLAYS_TOPIC])):
        make_topics(cluster, {REPLAYS_TOPIC: (1, SMALL)})
        cluster.require(what, {REPLAYS_TOPIC: ("Read", "Write")})
        every = committed_records(cluster, REPLAYS_TOPIC, "how far the replay has come")
        own = ((key.decode(), value) for key, value in every if key is not None and value is not None)
        found = {key: json.loads(value) for key, value in own if key.startswith(id)}
    return _parsed(id, found)


def _parsed(id: str, found: Mapping[str, Any]) -> Position:
    whole = found.get(id)
    if whole is None:
        return Position()
    ranges, sent, reached = {}, {}, {}
    for key, value in found.items():
        if key == id or value["run"] != whole["run"]:
            continue
        if key[len(id)] == ">":
            topic, _, partition = key[len(id) + 1 :].rpartition("/")
            if value["topic_id"] == whole["topics"].get(topic):
                reached[topic, int(partition)] = value["first"], value["end"]
        else:
            topic, topic_id, partition = key[len(id) + 1 :].split("/")
            at = TopicPartition(topic, topic_id, int(partition))
            ranges[at], sent[at] = (value["next"], value["end"]), value["sent"]
    return Position(whole["run"], whole["messages"], whole["done"], ranges, sent, reached, whole["topics"])
