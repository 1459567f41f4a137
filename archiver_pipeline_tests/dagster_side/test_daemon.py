"""Rules of the whole: webserver, daemon, code server or run killed in mid-batch, and every message is there once."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from archiver_pipeline_tests.dagster_side.deployment import Deployment
from archiver_pipeline_tests.dagster_side.running import CODE_SERVER, DAEMON, RUN, USER_CODE, RunningDagster
from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.produce import Sent, create_topic, produce
from archiver_pipeline_tests.processes import Processes
from archiver_pipeline_tests.waiting import wait_for

MANY = 20_000
BATCH_MESSAGES = 4_000
TYPES = 100
"""So many files a batch has that writing it takes long enough to be seen and killed on any machine."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dagster(kafka: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDagster]:
    """Dagster as `make dev` runs it, for every topic of this module; a test that kills it starts it again."""
    with Processes() as processes:
        deployment = Deployment(
            tmp_path_factory.mktemp("daemon") / "base",
            processes,
            kafka.bootstrap_servers,
            "^daemon-.*",
            ARCHIVER_INTERVAL_SECONDS=2,
            ARCHIVER_BATCH_MESSAGES=BATCH_MESSAGES,
        )
        running = RunningDagster(deployment, processes)
        try:
            running.start()
            yield running
        finally:
            running.kill()


Fill = Callable[[int], str]


@pytest.fixture
def fill(bootstrap_servers: str, topic_name: str) -> Iterator[Fill]:
    """Makes a topic of two partitions, into which so many messages go from then on: no batch of it goes unseen."""
    topic = f"daemon-{topic_name}"

    def send(count: int) -> None:
        messages = (
            Sent(json.dumps({"type": f"object.{n % TYPES}", "seq": n}).encode(), partition=n % 2) for n in range(count)
        )
        produce(bootstrap_servers, topic, list(messages))

    with ThreadPoolExecutor(1) as aside:
        sending: list[Future[None]] = []

        def make(count: int) -> str:
            create_topic(bootstrap_servers, topic, partitions=2)
            sending.append(aside.submit(send, count))
            return topic

        yield make
        for each in sending:
            each.result()


def test_messages_are_archived_and_shown(dagster: RunningDagster, fill: Fill) -> None:
    """What is produced appears in DuckDB; the UI has a materialization with its offsets, and every check's answer."""
    topic = fill(300)
    dagster.wait_until_archived(topic, 300)
    wait_for("the end of the run, which reports", lambda: not dagster.find(RUN))
    dagster.deployment.archived.assert_equal(topic)
    answer = dagster.graphql(
        """{ assetNodes(assetKeys: [{path: ["messages"]}]) {
            staleStatus
            assetMaterializations(limit: 1) { metadataEntries {
                label ... on IntMetadataEntry { intValue } ... on TableMetadataEntry { table { records } } } }
            assetChecksOrError { ... on AssetChecks { checks { name executionForLatestMaterialization { status } } } }
        } }"""
    )
    (node,) = answer["assetNodes"]
    (materialization,) = node["assetMaterializations"]
    entries = {entry["label"]: entry for entry in materialization["metadataEntries"]}
    rows = [json.loads(record) for record in entries["offsets"]["table"]["records"]]
    assert {(row["topic"], row["partition"], row["end"]) for row in rows} == {(topic, 0, 150), (topic, 1, 150)}
    assert entries["lag"]["intValue"] == 0
    assert node["staleStatus"] == "FRESH"
    checks = node["assetChecksOrError"]["checks"]
    assert {check["executionForLatestMaterialization"]["status"] for check in checks} == {"SUCCEEDED"}
    assert len(checks) == 4


def test_the_sensor_says_that_nothing_is_left(dagster: RunningDagster, fill: Fill) -> None:
    """Once all is archived, a tick skips, and its reason has the numbers."""
    topic = fill(10)
    dagster.wait_until_archived(topic, 10)

    def reason() -> str:
        answer = dagster.graphql(
            """{ sensorOrError(sensorSelector: {repositoryLocationName: "archiver_pipeline.definitions",
                repositoryName: "__repository__", sensorName: "archive_sensor"})
                { ... on Sensor { sensorState { status ticks(limit: 1) { status skipReason } } } } }"""
        )
        state = answer["sensorOrError"]["sensorState"]
        assert state["status"] == "RUNNING"
        return str(state["ticks"][0]["skipReason"])

    wait_for("a tick without work", lambda: reason().endswith("topics; lane 0: lag 0"))


def test_a_killed_run_is_made_good(dagster: RunningDagster, fill: Fill) -> None:
    """SIGKILL of a run in mid-batch: it is seen to have failed, and the next one archives what it left."""
    topic = fill(MANY)
    dagster.kill_in_mid_batch(RUN)
    dagster.wait_until_archived(topic, MANY)
    dagster.deployment.archived.assert_equal(topic)
    answer = dagster.graphql("""{ runsOrError(filter: {pipelineName: "archive"})
            { ... on Runs { results { status tags { key value } } } } }""")
    runs = answer["runsOrError"]["results"]
    assert [run["status"] for run in runs].count("FAILURE") == 1
    assert runs[0]["status"] in ("STARTED", "SUCCESS")
    assert not [run for run in runs for tag in run["tags"] if tag["key"] == "dagster/retry_number"]


def test_a_killed_code_server_is_made_good(dagster: RunningDagster, fill: Fill) -> None:
    """SIGKILL of the code server, with a run under way: Dagster starts another one, and nothing else is needed."""
    topic = fill(MANY)
    dagster.kill_in_mid_batch(CODE_SERVER, USER_CODE)
    dagster.wait_until_archived(topic, MANY)
    dagster.deployment.archived.assert_equal(topic)


def test_a_killed_daemon_is_made_good(dagster: RunningDagster, fill: Fill) -> None:
    """SIGKILL of the daemon, which ends `make dev`: started again, it goes on, and a run that lived on does no harm."""
    topic = fill(MANY)
    dagster.kill_in_mid_batch(DAEMON)
    dagster.wait_until_it_ends()
    dagster.start()
    dagster.wait_until_archived(topic, MANY)
    dagster.deployment.archived.assert_equal(topic)


def test_a_power_cut_is_made_good(dagster: RunningDagster, fill: Fill) -> None:
    """SIGKILL of everything in mid-batch: started again on the same folders, the next run takes up the rest.

    That run is by hand here: for minutes the sensor takes the dead run, which nobody reported, for one at work.
    """
    topic = fill(MANY)
    dagster.kill_in_mid_batch()
    dagster.start()
    ended = dagster.deployment.execute()
    assert ended.code == 0, ended.said
    dagster.wait_until_archived(topic, MANY)
    dagster.deployment.archived.assert_equal(topic)
