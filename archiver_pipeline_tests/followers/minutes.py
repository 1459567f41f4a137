"""Minutes in tests: events at a minute, a pass of their follower, and what the files and the topic then have."""

from __future__ import annotations

import json
from contextlib import closing
from datetime import UTC, datetime
from typing import Any, NoReturn

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from archiver_pipeline.followers.catch_up import CaughtUp, catch_up
from archiver_pipeline.followers.registry import followers
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.followers.aggregate_kit import Counted, minutes_in
from archiver_pipeline_tests.kafka.produce import Sent

MINUTE_MS = 60_000
AUGUST = 1_564_628_400_000
NAME = "events_per_minute"


def follow(archived: Archived, name: str = NAME, **more: Any) -> CaughtUp:
    """One pass of a follower."""
    with closing(followers(archived.settings)[name]()) as follower:
        return catch_up(follower, archived.settings, **more)


def minutes(archived: Archived, name: str = NAME) -> Counted:
    """What the Parquet files have."""
    return minutes_in(archived.settings.base_dir / "aggregates" / name)


def at(minute: int) -> datetime:
    """A minute, counted from three o'clock on the first of August 2019."""
    return datetime.fromtimestamp((AUGUST + minute * MINUTE_MS) / 1000, UTC)


def sent(minute: int, user: object = "u", kind: str = "one", partition: int = 0, second: int = 0) -> Sent:
    """An event of a user at a minute."""
    value = json.dumps({"type": kind, "uid": user}).encode()
    return Sent(value, None, (), AUGUST + minute * MINUTE_MS + second * 1000, partition)


def versions(bootstrap_servers: str, topic: str) -> list[dict[str, Any]]:
    """Every committed record of the results topic, by partition and in order, its key checked."""
    properties = {
        "bootstrap.servers": bootstrap_servers,
        "group.id": "test",
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
    }
    found = []
    with closing(Consumer(properties)) as consumer:
        left = set(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in left])
        while left:
            message = consumer.poll(10)
            assert message is not None
            if message.error() is not None:
                left.discard(message.partition())
                continue
            value = json.loads(message.value() or b"", parse_constant=refuse)
            assert (message.key() or b"").decode() == f"{value['minute']}/{value['topic']}/{value['type']}"
            found.append(value)
    return found


def refuse(number: str) -> NoReturn:
    """Refuse what only some readers of JSON take for a number."""
    raise AssertionError(f"{number} is no JSON")


def assert_each_once(records: list[dict[str, Any]]) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Assert that each version of a minute is there once, revisions in order and without a hole; the newest ones."""
    newest: dict[tuple[str, str, str], dict[str, Any]] = {}
    for record in records:
        key = record["minute"], record["topic"], record["type"]
        assert record["revision"] == newest.get(key, {"revision": 0})["revision"] + 1, record
        newest[key] = record
    return newest
