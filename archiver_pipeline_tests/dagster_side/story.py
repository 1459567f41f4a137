"""An archive with a story: hours of long ago, messages lost to retention, and an hour that cannot be mended."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

from archiver_pipeline_tests.dagster_side.deployment import Deployment
from archiver_pipeline_tests.dagster_side.filled import fill, key, messages
from archiver_pipeline_tests.dagster_side.running import RunningDagster
from archiver_pipeline_tests.kafka.produce import Sent, create_topic, delete_records, produce
from archiver_pipeline_tests.waiting import wait_for

HOURS = (0, 1, 2)
BAD_HOUR = 1
GAP = (30, 45)
"""Offsets of clicks that are gone before they are archived, with all of Kafka that was archived before them."""

_BACKFILL = """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
    __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
_STATE = "query($id: String!) { partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }"


@dataclass(frozen=True)
class Topics:
    """The names of the topics: orders of now, and clicks of long ago."""

    orders: str = "orders"
    clicks: str = "clicks"


def orders(numbers: range) -> list[Sent]:
    """Orders of now, in two partitions."""
    choice = random.Random(numbers.start)

    def payload(number: int) -> bytes:
        kind = choice.choice(("order.placed", "order.paid"))
        return json.dumps({"type": kind, "uid": choice.randrange(500), "n": number}).encode()

    return [Sent(payload(number), partition=number % 2) for number in numbers]


def prepare(deployment: Deployment, topics: Topics) -> None:
    """Make the topics and archive old hours of clicks; then lose messages of it before they are archived."""
    servers = deployment.bootstrap_servers
    create_topic(servers, topics.orders, partitions=2)
    fill(deployment, topics.clicks, HOURS)
    produce(servers, topics.clicks, messages(max(HOURS), 20))
    delete_records(servers, topics.clicks, {0: GAP[1]})


def damage(deployment: Deployment) -> None:
    """Damage an hour of clicks for good: Kafka has none of its messages any more."""
    files = deployment.archived.path.glob(f"type=*/dt=2019-08-01/hr={3 + BAD_HOUR:02}/*.parquet")
    for path in files:
        content = bytearray(path.read_bytes())
        content[len(content) // 4] ^= 0xFF
        path.write_bytes(content)


def backfill(dagster: RunningDagster, hours: tuple[int, ...] = HOURS) -> str:
    """Ask for hours to be read from Kafka again, as the button of the UI does; return the backfill's id."""
    params = {
        "assetSelection": [{"path": ["sealed_hours"]}],
        "partitionNames": [key(number) for number in hours],
        "title": "Read three hours again",
    }
    answer = dagster.graphql(_BACKFILL, {"params": params})["launchPartitionBackfill"]
    assert answer["__typename"] == "LaunchBackfillSuccess", answer
    return str(answer["backfillId"])


def wait_until_done(dagster: RunningDagster, backfill_id: str, seconds: float = 180) -> str:
    """Wait for the end of a backfill, and return how it ended."""
    state = ""

    def is_over() -> bool:
        nonlocal state
        state = str(dagster.graphql(_STATE, {"id": backfill_id})["partitionBackfillOrError"]["status"])
        return state.startswith("COMPLETED") or state == "FAILED"

    wait_for("the end of the backfill", is_over, seconds)
    return state
