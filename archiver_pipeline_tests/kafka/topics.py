"""Topics made, grown, emptied and deleted on a broker, and where their partitions begin and end."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from confluent_kafka import IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import (  # OffsetSpec is not in its __all__
    AdminClient,
    OffsetSpec,
)
from confluent_kafka.cimpl import NewPartitions, NewTopic

from archiver_pipeline_tests.waiting import LIMIT_SECONDS, wait_for

FAR_TIMESTAMPS = {"message.timestamp.after.max.ms": 2**63 - 1, "message.timestamp.before.max.ms": 2**63 - 1}
"""Topic configuration under which the broker takes any timestamp."""


def create_topic(
    bootstrap_servers: str, name: str, partitions: int = 1, config: Mapping[str, str | int] | None = None
) -> None:
    """Make a topic with one replica and wait until every partition has a leader."""
    admin = _admin(bootstrap_servers)
    texts = {option: str(value) for option, value in (config or {}).items()}
    admin.create_topics([NewTopic(name, partitions, 1, config=texts)])[name].result(LIMIT_SECONDS)
    wait_for(f"leaders of {name}", partial(_has_leaders, admin, name, partitions))


def delete_topic(bootstrap_servers: str, name: str) -> None:
    """Delete a topic and wait until the broker no longer lists it."""
    admin = _admin(bootstrap_servers)
    admin.delete_topics([name])[name].result(LIMIT_SECONDS)
    wait_for(f"the end of topic {name}", lambda: name not in admin.list_topics(timeout=LIMIT_SECONDS).topics)


def add_partitions(bootstrap_servers: str, name: str, total: int) -> None:
    """Grow a topic to `total` partitions and wait until every one has a leader."""
    admin = _admin(bootstrap_servers)
    admin.create_partitions([NewPartitions(name, total)])[name].result(LIMIT_SECONDS)
    wait_for(f"leaders of {name}", partial(_has_leaders, admin, name, total))


def delete_records(bootstrap_servers: str, topic: str, before: Mapping[int, int]) -> None:
    """Delete what lies below an offset, by partition, as retention would; -1 stands for the high watermark."""
    positions = [TopicPartition(topic, partition, offset) for partition, offset in before.items()]
    admin = _admin(bootstrap_servers)
    for future in admin.delete_records(positions).values():
        future.result(LIMIT_SECONDS)


def start_offsets(bootstrap_servers: str, topic: str) -> dict[int, int]:
    """The first offset that every partition still has."""
    admin = _admin(bootstrap_servers)
    return _offsets(admin, topic, _count(admin, topic), OffsetSpec.earliest())


def end_offsets(bootstrap_servers: str, topic: str) -> dict[int, int]:
    """The last stable offset of every partition: where a read_committed reader comes to the end."""
    admin = _admin(bootstrap_servers)
    return _offsets(admin, topic, _count(admin, topic), OffsetSpec.latest())


def _admin(bootstrap_servers: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})


def _count(admin: AdminClient, topic: str) -> int:
    return len(admin.list_topics(topic, timeout=LIMIT_SECONDS).topics[topic].partitions)


def _has_leaders(admin: AdminClient, topic: str, partitions: int) -> bool:
    try:
        return bool(_offsets(admin, topic, partitions, OffsetSpec.latest()))
    except KafkaException:
        return False


def _offsets(admin: AdminClient, topic: str, partitions: int, which: OffsetSpec) -> dict[int, int]:
    asked = {TopicPartition(topic, partition): which for partition in range(partitions)}
    futures = admin.list_offsets(asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=LIMIT_SECONDS)
    return {place.partition: future.result(LIMIT_SECONDS).offset for place, future in futures.items()}
