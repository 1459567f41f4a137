"""Rules of the job `archive`: a pass, explicit ranges, lanes, a run that stays, and what each leaves in Dagster."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from archiver_pipeline_tests.dagster_side.conftest import Load, MakeDeployment
from archiver_pipeline_tests.dagster_side.deployment import JOB, MESSAGES, Deployment, plain, run_config, wanted
from archiver_pipeline_tests.kafka.broker import SHORT_LIVED, KafkaBroker
from archiver_pipeline_tests.kafka.produce import Sent, create_topic, produce
from archiver_pipeline_tests.processes import Processes

FAILURE_LIMIT_SECONDS = 180.0
SECRET = "hunter2-secret"


def numbered(numbers: Iterable[int], partitions: int = 1) -> list[Sent]:
    """A message for each number, going round the partitions."""
    return [Sent(json.dumps({"type": "object.one", "seq": n}).encode(), partition=n % partitions) for n in numbers]


def run(definitions: dg.Definitions, instance: dg.DagsterInstance, **config: Any) -> dg.ExecuteInProcessResult:
    """Run the job in this process, with this run config if any."""
    job = definitions.resolve_job_def("archive")
    given = run_config(**config) if config else None
    return job.execute_in_process(run_config=given, instance=instance, raise_on_error=False)


def materializations(result: dg.ExecuteInProcessResult) -> list[dict[str, Any]]:
    """Metadata of every materialization of `messages` in a run."""
    return [
        plain(event.materialization)
        for event in result.all_events
        if event.is_step_materialization and event.asset_key == MESSAGES
    ]


def batches(result: dg.ExecuteInProcessResult) -> list[list[tuple[int, int]]]:
    """Start and end of each range, by materialization."""
    return [[(row["start"], row["end"]) for row in each["offsets"]] for each in materializations(result)]


@dataclass(frozen=True)
class Attempt:
    """A run against a broker that is down, begun before the tests that need no time of their own."""

    broker: KafkaBroker
    deployment: Deployment
    process: subprocess.Popen[bytes]
    log: Path
    began: float


@pytest.fixture(scope="module", autouse=True)
def attempt_without_broker(kafka: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attempt]:
    """A run that fails while the other tests of this module go on: its time limits take more than a minute."""
    folder = tmp_path_factory.mktemp("down")
    broker = KafkaBroker(folder / "kafka", options=SHORT_LIVED)
    log = folder / "run.log"
    with Processes() as processes:
        deployment = Deployment(
            folder / "base", processes, broker.bootstrap_servers, "down", KAFKA_SASL_PASSWORD=SECRET
        )
        process = processes.start(JOB, deployment.variables, log)
        yield Attempt(broker, deployment, process, log, time.monotonic())
        processes.kill()
        process.wait()
    broker.close()
    shutil.rmtree(broker.data / "logs", ignore_errors=True)


def test_a_pass_drains_the_topic_in_bounded_batches(deploy: MakeDeployment, topic_name: str) -> None:
    """`dagster job execute` archives up to the end offsets in bounded batches, each a materialization, and exits 0."""
    deployment = deploy(topic_name, ARCHIVER_BATCH_MESSAGES=1000)
    create_topic(deployment.bootstrap_servers, topic_name, partitions=2)
    produce(deployment.bootstrap_servers, topic_name, numbered(range(2500), 2))
    ended = deployment.execute()
    assert ended.code == 0, ended.said
    for line in ("1,000 messages in", "1,500 left", "500 left", "2,500 so far"):
        assert line in ended.said
    found = deployment.materializations()
    assert [(each["messages"], each["lag"]) for each in found] == [(1000, 1500), (1000, 500), (500, 0)]
    deployment.archived.assert_equal(topic_name)

    ended = deployment.execute()
    assert ended.code == 0, ended.said
    assert "nothing to archive" in ended.said
    assert len(deployment.materializations()) == 3


def test_a_materialization_says_what_its_batch_did(deploy: MakeDeployment, load: Load, topic_name: str) -> None:
    """Offsets as a table, and numbers that the UI can plot: messages, bytes, files, lag, rate, table version."""
    deployment = deploy(topic_name, ARCHIVER_BATCH_MESSAGES=60)
    create_topic(deployment.bootstrap_servers, topic_name, partitions=2)
    produce(deployment.bootstrap_servers, topic_name, numbered(range(100), 2))
    with dg.DagsterInstance.ephemeral() as instance:
        result = run(load(deployment), instance)
        first, second = materializations(result)
        tags = instance.get_runs()[0].tags
        (observed,) = instance.fetch_observations(dg.AssetKey(["kafka", topic_name]), limit=1).records
    assert first["offsets"] == [
        {"topic": topic_name, "partition": number, "start": 0, "end": 30, "messages": 30, "lag": 20}
        for number in (0, 1)
    ]
    assert first["types"] == [{"type": "object.one", "messages": 60}]
    assert f"FROM messages WHERE topic = '{topic_name}'" in first["summary"]
    assert first["where"].startswith("type=object.one/dt=")
    assert 0 < first["freshness seconds"] == first["lag seconds"] < 600
    assert (second["lag seconds"], second["dagster/row_count"]) == (0, 100)
    for label in ("messages", "bytes", "files", "lag", "messages per second", "table version"):
        assert isinstance(first[label], int | float), label
    assert [(each["messages"], each["lag"]) for each in (first, second)] == [(60, 40), (40, 0)]
    assert second["table version"] == deployment.archived.version()
    payload = sum(len(message.value or b"") for message in numbered(range(60)))
    assert payload <= first["bytes"] <= payload + 2 * 60
    assert tags["archiver/topics"] == topic_name
    assert tags["archiver/ranges"] == f"{topic_name}/0 [0, 50), {topic_name}/1 [0, 50)"
    assert tags["archiver/messages"] == "100"
    topic = plain(observed.asset_observation)
    assert (topic["end offset"], topic["lag"], topic["partitions"]) == (100, 0, 2)


def test_explicit_ranges_are_archived_as_far_as_they_follow_on(
    deploy: MakeDeployment, load: Load, topic_name: str
) -> None:
    """A range is archived exactly; what of it lies below the committed offset is skipped."""
    deployment = deploy(topic_name)
    create_topic(deployment.bootstrap_servers, topic_name, partitions=2)
    produce(deployment.bootstrap_servers, topic_name, numbered(range(200), 2))
    definitions = load(deployment)
    with dg.DagsterInstance.ephemeral() as instance:
        assert batches(run(definitions, instance, ranges=[wanted(topic_name, 1, 0, 30)])) == [[(0, 30)]]
        assert batches(run(definitions, instance, ranges=[wanted(topic_name, 1, 10, 50)])) == [[(30, 50)]]
        assert batches(run(definitions, instance, ranges=[wanted(topic_name, 1, 0, 50)])) == []
        assert deployment.archived.next_offsets(topic_name) == {0: 0, 1: 50}
        both = [wanted(topic_name, 0, 0, 10), wanted(topic_name, 1, 50, 60)]
        assert batches(run(definitions, instance, ranges=both)) == [[(0, 10), (50, 60)]]
        assert batches(run(definitions, instance)) == [[(10, 100), (60, 100)]]
    deployment.archived.assert_equal(topic_name)


def test_a_range_that_would_leave_a_hole_is_refused_at_once(deploy: MakeDeployment, topic_name: str) -> None:
    """A range past the committed offset ends the run with an error that says where to begin, and without a retry."""
    deployment = deploy(topic_name)
    create_topic(deployment.bootstrap_servers, topic_name)
    produce(deployment.bootstrap_servers, topic_name, numbered(range(100)))
    ended = deployment.execute(ranges=[wanted(topic_name, 0, 10, 20)])
    assert ended.code == 1
    assert (
        f"past the next offset to archive, which is 0 (topic {topic_name}, partition 0, offsets [10, 20))" in ended.said
    )
    assert "Begin the range at 0 or below" in ended.said
    with deployment.instance() as instance:
        (record,) = instance.get_run_records()
        logs = instance.all_logs(record.dagster_run.run_id)
    assert dg.DagsterEventType.STEP_UP_FOR_RETRY not in {entry.dagster_event_type for entry in logs}
    assert deployment.materializations() == []


def test_a_range_of_a_topic_that_is_not_there_is_an_error(deploy: MakeDeployment, load: Load, topic_name: str) -> None:
    """The error names topic and partition, and is not retried."""
    deployment = deploy(topic_name)
    create_topic(deployment.bootstrap_servers, topic_name)
    with dg.DagsterInstance.ephemeral() as instance:
        result = run(load(deployment), instance, ranges=[wanted(topic_name, 7, 0, 20)])
    assert not result.success
    assert not [event for event in result.all_events if event.is_step_up_for_retry]
    (failure,) = result.get_step_failure_events()
    assert f"no such topic or partition among those to archive (topic {topic_name}, partition 7)" in str(
        failure.step_failure_data.error
    )


def test_every_lane_is_archived_and_dagsters_database_may_go(deploy: MakeDeployment, topic_name: str) -> None:
    """A run by hand does all lanes, and says so; with Dagster's folder deleted between two, all is there once."""
    deployment = deploy(topic_name, ARCHIVER_LANES=3)
    create_topic(deployment.bootstrap_servers, topic_name, partitions=4)
    produce(deployment.bootstrap_servers, topic_name, numbered(range(400), 4))
    ended = deployment.execute()
    assert ended.code == 0, ended.said
    assert {each["lane"] for each in deployment.materializations()} == {"0", "1", "2"}
    with deployment.instance() as instance:
        (only,) = instance.get_runs()
    assert only.tags["archiver/messages"] == "400"
    deployment.archived.assert_equal(topic_name)

    shutil.rmtree(deployment.home)
    deployment.home.mkdir()
    produce(deployment.bootstrap_servers, topic_name, numbered(range(400, 800), 4))
    ended = deployment.execute()
    assert ended.code == 0, ended.said
    assert sum(each["messages"] for each in deployment.materializations()) == 400
    deployment.archived.assert_equal(topic_name)


def test_a_run_of_one_lane_leaves_the_others_alone(deploy: MakeDeployment, load: Load, topic_name: str) -> None:
    """The sensor's runs have a lane each: one that fails or is slow keeps none of the others."""
    deployment = deploy(topic_name, ARCHIVER_LANES=2)
    create_topic(deployment.bootstrap_servers, topic_name, partitions=2)
    produce(deployment.bootstrap_servers, topic_name, numbered(range(100), 2))
    definitions = load(deployment)
    with dg.DagsterInstance.ephemeral() as instance:
        assert batches(run(definitions, instance, lane=0)) == [[(0, 50)]]
        assert sorted(deployment.archived.next_offsets(topic_name).values()) == [0, 50]
        assert batches(run(definitions, instance, lane=1)) == [[(0, 50)]]
    deployment.archived.assert_equal(topic_name)


def test_a_run_that_stays_reports_each_batch(deploy: MakeDeployment, load: Load, topic_name: str) -> None:
    """For `stay_seconds` a run archives what comes, batch after batch, each with a materialization of its own."""
    deployment = deploy(topic_name, ARCHIVER_INTERVAL_SECONDS=0.5)
    create_topic(deployment.bootstrap_servers, topic_name)
    produce(deployment.bootstrap_servers, topic_name, numbered(range(10)))
    over = threading.Event()
    sent = [10]

    def trickle() -> None:
        while not over.wait(0.2):
            produce(deployment.bootstrap_servers, topic_name, numbered(range(sent[0], sent[0] + 10)))
            sent[0] += 10

    producer = threading.Thread(target=trickle)
    producer.start()
    began = time.monotonic()
    with dg.DagsterInstance.ephemeral() as instance:
        try:
            result = run(load(deployment), instance, stay_seconds=4)
        finally:
            over.set()
            producer.join()
        assert result.success
        assert 4 <= time.monotonic() - began < 60
        found = batches(result)
        assert len(found) >= 3
        assert [ranges[0][0] for ranges in found] == [0, *(ranges[0][1] for ranges in found[:-1])]
        run(load(deployment), instance)
    deployment.archived.assert_equal(topic_name)


def test_a_run_refreshes_the_view_though_nothing_is_to_be_archived(
    deploy: MakeDeployment, load: Load, topic_name: str
) -> None:
    """A run killed between commit and view leaves the view behind, or missing: the next one mends it."""
    deployment = deploy(topic_name)
    create_topic(deployment.bootstrap_servers, topic_name)
    produce(deployment.bootstrap_servers, topic_name, numbered(range(10)))
    archived = deployment.archived
    archived.run()
    old = archived.settings.view_path.read_bytes()
    produce(deployment.bootstrap_servers, topic_name, numbered(range(10, 20)))
    archived.archiver().batch()
    assert archived.sql("SELECT count(*) FROM messages") == [(10,)]
    definitions = load(deployment)
    with dg.DagsterInstance.ephemeral() as instance:
        assert run(definitions, instance).success
        assert archived.sql("SELECT count(*) FROM messages") == [(20,)]
        archived.settings.view_path.unlink()
        assert run(definitions, instance).success
        assert archived.sql("SELECT count(*) FROM messages") == [(20,)]
        archived.settings.view_path.write_bytes(old)
        assert run(definitions, instance).success
    archived.assert_equal(topic_name)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_run_without_a_broker_fails_in_time_and_the_next_one_makes_it_good(attempt_without_broker: Attempt) -> None:
    """With the broker down a run fails within a set time, retries included, and says what to check, but no secret."""
    attempt, deployment = attempt_without_broker, attempt_without_broker.deployment
    left = FAILURE_LIMIT_SECONDS - (time.monotonic() - attempt.began)
    assert attempt.process.wait(max(1.0, left)) == 1
    said = attempt.log.read_text()
    assert f"{attempt.broker.bootstrap_servers} did not answer when the broker was asked for its topics" in said
    assert "Check KAFKA_BOOTSTRAP_SERVERS and that the broker is up" in said
    assert SECRET not in said
    assert deployment.holds(SECRET) == []

    attempt.broker.start()
    create_topic(deployment.bootstrap_servers, "down")
    produce(deployment.bootstrap_servers, "down", numbered(range(10)))
    ended = deployment.execute()
    assert ended.code == 0, ended.said
    deployment.archived.assert_equal("down")
