"""Rules of the end: whoever is asked to end (SIGTERM) ends within seconds, and what it left is archived once."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from archiver_pipeline_tests.dagster_side.deployment import JOB, Deployment, run_config
from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.produce import create_topic, produce
from archiver_pipeline_tests.processes import Processes
from archiver_pipeline_tests.samples import numbered
from archiver_pipeline_tests.waiting import wait_for

LIMIT_SECONDS = 60.0
"""Far more than the eight seconds that `ending` grants, and far less than what a run here stays or sleeps."""

TOPIC = "stopped"
CLI = ["-m", "archiver_pipeline.cli"]


@pytest.fixture(scope="module")
def deployment(kafka: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A topic with more than one batch, whose runs stay and sleep long between batches."""
    topic = f"{TOPIC}-{time.time_ns()}"
    create_topic(kafka.bootstrap_servers, topic)
    produce(kafka.bootstrap_servers, topic, numbered(range(3000)))
    with Processes() as processes:
        yield Deployment(
            tmp_path_factory.mktemp("stop") / "base",
            processes,
            kafka.bootstrap_servers,
            topic,
            ARCHIVER_BATCH_MESSAGES=1000,
            ARCHIVER_INTERVAL_SECONDS=600,
        )


def ask_to_end(process: subprocess.Popen[bytes], log: Path) -> int:
    """Send SIGTERM, and return the exit code, which has to come in time."""
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(LIMIT_SECONDS)
    except subprocess.TimeoutExpired:
        pytest.fail(f"it goes on after {LIMIT_SECONDS:.0f} s: {log.read_text()[-2000:]}")


def test_a_run_that_is_asked_to_end_ends_and_is_not_tried_again(deployment: Deployment) -> None:
    """In mid-batch and in the sleep between batches: the run ends, once and for all; the next one goes on."""
    config = deployment.base / "stay.json"
    config.write_text(json.dumps(run_config(stay_seconds=900)))
    (topic,) = deployment.archived.settings.topics
    processes = deployment.processes
    for said in ("2,000 left", ", 0 left"):
        log = deployment.base / f"after-{len(said)}.log"
        process = processes.start([*JOB, "-c", str(config)], deployment.variables, log)
        wait_for(said, lambda log=log, said=said: said in log.read_text(), 120)  # type: ignore[misc]
        assert ask_to_end(process, log) == 1
        assert not processes.living()
    with deployment.instance() as instance:
        records = instance.get_run_records()
        events = [
            event.dagster_event.event_type_value
            for record in records
            for event in instance.all_logs(record.dagster_run.run_id)
            if event.dagster_event
        ]
        assert all(record.dagster_run.is_finished for record in records)
        # Nor is it started again as a whole by Dagster's daemon, which takes its end for a crash.
        assert {record.dagster_run.tags.get("dagster/max_retries") for record in records} == {"0"}
        assert {record.dagster_run.tags.get("dagster/will_retry") for record in records} == {"false"}
    assert (len(records), events.count("STEP_UP_FOR_RETRY")) == (2, 0)
    assert deployment.execute().code == 0
    deployment.archived.assert_equal(topic)


COMMANDS = (["sql", "SELECT count(*) FROM range(1_000_000_000_000) a"], ["tail", "--messages"], ["status"])


def test_a_command_that_is_asked_to_end_ends_by_the_signal(own_kafka: KafkaBroker, tmp_path: Path) -> None:
    """In a query, in a wait for messages, and in one for a broker that hangs: at once, and by the signal itself."""
    create_topic(own_kafka.bootstrap_servers, "orders")
    with Processes() as processes:
        deployment = Deployment(tmp_path / "base", processes, own_kafka.bootstrap_servers, "orders")
        deployment.archived.run()
        own_kafka.pause()
        logs = [tmp_path / f"{arguments[0]}.log" for arguments in COMMANDS]
        started = [
            processes.start([*CLI, *arguments], deployment.variables, log)
            for arguments, log in zip(COMMANDS, logs, strict=True)
        ]
        # Threads of their own: their libraries are at work.
        wait_for("their work", lambda: all(each.num_threads() > 3 for each in processes.living()))
        assert [ask_to_end(*each) for each in zip(started, logs, strict=True)] == [-signal.SIGTERM] * len(COMMANDS)
        own_kafka.resume()
