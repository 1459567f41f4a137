"""Rules of backfills: hours read from Kafka again, from the UI and from the command line, several to a run."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
import pytest

from archiver_pipeline.defs.hours import HOURS_PER_RUN
from archiver_pipeline_tests.dagster_side.deployment import Deployment
from archiver_pipeline_tests.dagster_side.filled import fill, messages
from archiver_pipeline_tests.dagster_side.running import RunningDagster
from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.produce import delete_records, produce
from archiver_pipeline_tests.processes import Processes
from archiver_pipeline_tests.waiting import wait_for

TOPIC = "backfill-orders"
HOURS = range(30)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def key(number: int) -> str:
    """The partition key of an hour, counted from the first one of the topic."""
    return f"2019-08-{1 + (3 + number) // 24:02}-{(3 + number) % 24:02}:00"


@pytest.fixture(scope="module")
def dagster(kafka: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDagster]:
    """Dagster as `make dev` runs it, on an archive of thirty hours."""
    with Processes() as processes:
        deployment = Deployment(
            tmp_path_factory.mktemp("backfill") / "base", processes, kafka.bootstrap_servers, TOPIC,
            ARCHIVER_INTERVAL_SECONDS=2,
        )  # fmt: skip
        fill(deployment, TOPIC, HOURS)
        running = RunningDagster(deployment, processes)
        try:
            running.start()
            yield running
        finally:
            running.kill()


def launch(dagster: RunningDagster, keys: Sequence[str]) -> str:
    """Ask for a backfill of hours as the UI does, and return its id."""
    answer = dagster.graphql(
        f"""mutation {{ launchPartitionBackfill(backfillParams: {{
            assetSelection: [{{path: ["sealed_hours"]}}], partitionNames: {json.dumps(list(keys))} }})
            {{ __typename ... on LaunchBackfillSuccess {{ backfillId }} ... on PythonError {{ message }} }} }}"""
    )["launchPartitionBackfill"]
    assert answer["__typename"] == "LaunchBackfillSuccess", answer
    return str(answer["backfillId"])


def end_of(dagster: RunningDagster, backfill: str, seconds: float = 480) -> dict[str, Any]:
    """What the UI shows of a backfill once it is over: its status, and how many hours are done and failed."""

    def shown() -> dict[str, Any]:
        answer = dagster.graphql(
            f"""{{ partitionBackfillOrError(backfillId: "{backfill}") {{ ... on PartitionBackfill {{
                status assetBackfillData {{ assetBackfillStatuses {{ ... on AssetPartitionsStatusCounts {{
                    numPartitionsTargeted numPartitionsMaterialized numPartitionsFailed }} }} }} }} }} }}"""
        )["partitionBackfillOrError"]
        return dict(answer)

    wait_for(f"the end of backfill {backfill}", lambda: shown()["status"].startswith("COMPLETED"), seconds)
    found = shown()
    (counts,) = found["assetBackfillData"]["assetBackfillStatuses"]
    return {"status": found["status"], **counts}


def runs_of(deployment: Deployment, backfill: str) -> list[dg.RunRecord]:
    """The runs of a backfill."""
    with deployment.instance() as instance:
        return list(instance.get_run_records(dg.RunsFilter(tags={"dagster/backfill": backfill})))


def most_at_once(records: Sequence[dg.RunRecord]) -> int:
    """How many of these runs were at work at the same moment."""
    moments = [(record.start_time, 1) for record in records] + [(record.end_time, -1) for record in records]
    most = now = 0
    for _, change in sorted(moments, key=lambda item: (item[0] or 0.0, item[1])):
        now += change
        most = max(most, now)
    return most


def test_hours_are_backfilled_from_the_ui(dagster: RunningDagster) -> None:
    """Neighbouring hours share a run, every hour has a materialization of its own, and all of them turn green."""
    backfill = launch(dagster, [key(n) for n in HOURS])
    assert end_of(dagster, backfill) == {
        "status": "COMPLETED_SUCCESS",
        "numPartitionsTargeted": len(HOURS),
        "numPartitionsMaterialized": len(HOURS),
        "numPartitionsFailed": 0,
    }
    assert len(runs_of(dagster.deployment, backfill)) == -(-len(HOURS) // HOURS_PER_RUN)
    shown = dagster.deployment.hours()
    assert {key(n) for n in HOURS} <= shown.keys()
    assert shown[key(0)][-1]["read"] == 10
    dagster.deployment.archived.run()
    assert dagster.deployment.archived.compare(TOPIC).equal
    (node,) = dagster.graphql(
        """{ assetNodes(assetKeys: [{path: ["sealed_hours"]}]) {
            staleStatus
            partitionStats { numMaterialized numFailed }
            assetChecksOrError { ... on AssetChecks { checks { name executionForLatestMaterialization { status } } } }
        } }"""
    )["assetNodes"]
    assert node["partitionStats"] == {"numMaterialized": len(HOURS), "numFailed": 0}
    assert node["staleStatus"] == "FRESH"
    checks = node["assetChecksOrError"]["checks"]
    assert {each["name"]: each["executionForLatestMaterialization"]["status"] for each in checks} == {
        "fields_are_stable": "SUCCEEDED",
        "every_hour_is_whole": "SUCCEEDED",
    }


def test_hours_are_backfilled_from_the_command_line_and_archiving_does_not_wait(dagster: RunningDagster) -> None:
    """`dagster job backfill` queues a run for each hour, two at most are at work at a time; new messages go first."""
    deployment, hours = dagster.deployment, range(2, 10)
    before = deployment.hours()
    ended = deployment.dagster(
        *["job", "backfill", "-m", "archiver_pipeline.definitions", "-j", "backfill", "--noprompt"],
        *["--from", key(hours[0]), "--to", key(hours[-1])],
    )
    assert ended.code == 0, ended.said
    backfill = ended.out.split("Launched backfill job `")[1].split("`")[0]
    produce(deployment.bootstrap_servers, TOPIC, messages(0))
    dagster.wait_until_archived(TOPIC, len(HOURS) * 10 + 5)
    waiting = [record for record in runs_of(deployment, backfill) if record.dagster_run.status.value == "QUEUED"]
    assert waiting, "new messages were archived only after the backfill"

    def over() -> bool:
        records = runs_of(deployment, backfill)
        return len(records) == len(hours) and all(record.dagster_run.is_finished for record in records)

    wait_for("the end of the backfill", over, 480)
    records = runs_of(deployment, backfill)
    assert {record.dagster_run.status for record in records} == {dg.DagsterRunStatus.SUCCESS}
    assert most_at_once(records) <= 2
    after = deployment.hours()
    assert {hour for hour in after if len(after[hour]) > len(before.get(hour, []))} >= {key(n) for n in hours}


def test_an_hour_that_cannot_be_mended_fails_alone(dagster: RunningDagster) -> None:
    """A damaged file whose messages Kafka no longer has: its hour is red, its neighbours are green."""
    deployment = dagster.deployment
    damaged = next(
        deployment.archived.path / path for path in deployment.archived.listed_files() if "08-01/hr=05" in path
    )
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    delete_records(deployment.bootstrap_servers, TOPIC, {0: -1})
    backfill = launch(dagster, [key(n) for n in range(1, 4)])
    assert end_of(dagster, backfill) == {
        "status": "COMPLETED_FAILED",
        "numPartitionsTargeted": 3,
        "numPartitionsMaterialized": 2,
        "numPartitionsFailed": 1,
    }
    (record,) = runs_of(deployment, backfill)
    with deployment.instance() as instance:
        (entry,) = instance.all_logs(record.dagster_run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    assert entry.dagster_event is not None
    assert "hour 2019-08-01T05 could not be done" in str(entry.dagster_event.step_failure_data.error)
