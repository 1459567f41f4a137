"""Topics with messages in hours of long ago, which are closed as soon as they are archived."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from archiver_pipeline_tests.dagster_side.deployment import Deployment
from archiver_pipeline_tests.kafka.produce import Sent, create_topic, produce
from archiver_pipeline_tests.kafka.topics import FAR_TIMESTAMPS

HOUR_MS = 3_600_000
THREE = 1_564_628_400_000
"""2019-08-01T03:00:00Z, the first of the hours here."""

CONFIG: Mapping[str, str | int] = {**FAR_TIMESTAMPS, "retention.ms": -1}


def key(number: int) -> str:
    """The partition key of an hour, counted from the first one."""
    return f"2019-08-01-{3 + number:02}:00"


def name(number: int) -> str:
    """The name of an hour, counted from the first one."""
    return f"2019-08-01T{3 + number:02}"


def messages(hour: int, count: int = 5, **fields: Any) -> list[Sent]:
    """Messages of one type in an hour."""
    value = json.dumps({"type": "object.one", "uid": 7, **fields}).encode()
    return [Sent(value, timestamp_ms=THREE + hour * HOUR_MS + n * 1000) for n in range(count)]


def fill(deployment: Deployment, topic: str, hours: Iterable[int], batches: int = 2) -> None:
    """Make the topic and archive messages of these hours in several batches, so that each hour has as many files."""
    create_topic(deployment.bootstrap_servers, topic, config=CONFIG)
    for _ in range(batches):
        add(deployment, topic, [sent for hour in hours for sent in messages(hour)])


def add(deployment: Deployment, topic: str, what: list[Sent]) -> None:
    """Produce messages and archive them."""
    produce(deployment.bootstrap_servers, topic, what)
    deployment.archived.run()
