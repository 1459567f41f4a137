"""Rules of the end: whoever is asked to end (SIGTERM) ends within seconds, and what it left is archived once."""

import json
import multiprocessing
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.instance.ref import InstanceRef

from archiver_pipeline import ending
from archiver_pipeline.defs import code_server
from archiver_pipeline.defs.runs import heartbeat
from archiver_pipeline_tests.dagster_side.deployment import JOB, Deployment, run_config
from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.produce import create_topic, produce
from archiver_pipeline_tests.processes import CHECKOUT, HOST, Processes
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
        assert {record.dagster_run.tags.get("dagster/max_retries") for record in records} == {"-1"}
        # Where two tags were written at once this one may be missing: the daemon then goes by the other one.
        assert "true" not in {record.dagster_run.tags.get("dagster/will_retry") for record in records}
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


BACKFILLED = {"dagster/backfill": "b"}
"""The tag of a run of a backfill from the UI."""


@dg.op
def asked_to_end(context: dg.OpExecutionContext) -> None:
    """Is asked to end by a signal, in mid-work."""
    heartbeat(context, "work")
    if "is canceled" in context.run.tags:
        context.instance.report_run_canceling(context.run)
    ending._asked[-1]()
    raise KeyboardInterrupt


@dg.op
def at_work(context: dg.OpExecutionContext) -> None:
    """Does its work."""
    heartbeat(context, "work")


@dg.job(executor_def=dg.in_process_executor)
def stopped_work() -> None:
    """A run that is asked to end."""
    asked_to_end()


@dg.job(executor_def=dg.in_process_executor)
def work() -> None:
    """A run that nobody asks to end."""
    at_work()


@pytest.fixture
def record() -> Iterator[dg.DagsterInstance]:
    """Dagster's own record, with the retries that are shipped."""
    shipped = yaml.safe_load((CHECKOUT / "deploy" / "dagster.yaml").read_text())
    with dg.DagsterInstance.ephemeral(settings={"run_retries": shipped["run_retries"]}) as instance:
        yield instance


def executed(
    instance: dg.DagsterInstance, job: dg.JobDefinition, tags: Mapping[str, str], parent: str | None = None
) -> dg.DagsterRun:
    """A run as it is on record after its end."""
    run = instance.create_run_for_job(job, tags=tags, parent_run_id=parent, root_run_id=parent)
    execute_run(InMemoryJob(job), run, instance)
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found


def test_a_run_that_is_asked_to_end_is_tried_again_only_in_a_backfill(record: dg.DagsterInstance) -> None:
    """Nobody else asks for its hour again, unless somebody has canceled that very run; then nor does Dagster."""
    by_hand = executed(record, stopped_work, {})
    hour = executed(record, stopped_work, BACKFILLED)
    canceled = executed(record, stopped_work, {**BACKFILLED, "is canceled": "yes"})
    sensors = executed(record, stopped_work, {"dagster/max_retries": "0"})
    assert [(run.status.value, run.tags.get("dagster/will_retry")) for run in (by_hand, hour, canceled, sensors)] == [
        ("FAILURE", "false"),
        ("FAILURE", "true"),
        ("CANCELED", None),
        ("FAILURE", "false"),
    ]
    assert sensors.tags["dagster/max_retries"] == "0"


def test_a_run_that_is_executed_again_is_tried_again_if_it_dies(record: dg.DagsterInstance) -> None:
    """It has the tags of the run that it repeats, but was not asked to end; a sensor's is still never tried again."""
    before = executed(record, stopped_work, {})
    again = executed(record, work, before.tags, before.run_id)
    sensors = executed(record, work, {"dagster/max_retries": "0"}, before.run_id)
    assert [run.tags["dagster/max_retries"] for run in (again, sensors)] == ["3", "0"]


class Server:
    """A code server that is to end, with one run."""

    def __init__(self, run_id: str, ref: InstanceRef) -> None:
        """Have that run at work, of a Dagster with that record."""
        self.asked = threading.Event()
        self.cleared = 0
        self._shutdown_once_executions_finish_event = threading.Event()
        self._shutdown_once_executions_finish_event.set()
        self._execution_lock = threading.Lock()
        self._termination_events = {run_id: self.asked}
        self._executions: dict[str, tuple[Any, Any]] = {run_id: (multiprocessing.Process(), ref)}

    def look(self) -> None:
        """Look after its runs once, as its thread does twice a second."""
        code_server._clear(self, lambda _: self.clear())  # type: ignore[arg-type]

    def clear(self) -> None:
        """Clear away what has ended."""
        self.cleared += 1


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs get no time to finish, and no other server is known."""
    monkeypatch.setattr(code_server, "FINISH_SECONDS", -1.0)
    monkeypatch.setattr(code_server, "_signalled", set())
    monkeypatch.setattr(code_server, "_ended_at", {})


@pytest.mark.usefixtures("at_once")
def test_a_run_is_asked_to_end_though_dagsters_database_does_not_answer(tmp_path: Path) -> None:
    """That its end is wanted is recorded if it can be, and waited for no longer than a moment."""
    with socket.create_server((HOST, 0)) as silent:
        url = f"postgresql://dagster@{HOST}:{silent.getsockname()[1]}/dagster"
        (tmp_path / "dagster.yaml").write_text(yaml.safe_dump({"storage": {"postgres": {"postgres_url": url}}}))
        server = Server("run", InstanceRef.from_dir(str(tmp_path)))
        code_server._note_signal(server, lambda _: None)  # type: ignore[arg-type]
        began = time.monotonic()
        server.look()
        assert server.asked.is_set()
        assert time.monotonic() - began < 20, "whoever stops Dagster kills what is left after some seconds"


@pytest.mark.usefixtures("at_once")
def test_a_run_that_no_sensor_asks_for_goes_on_after_a_reload_and_is_looked_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each look opens Dagster's record. One that fails is made again, and ended runs are cleared away all the same."""
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        run = instance.create_run_for_job(work, status=dg.DagsterRunStatus.STARTED)
        server = Server(run.run_id, instance.get_ref())
    process, ref = server._executions.pop(run.run_id)
    server._executions[run.run_id] = process, None
    server.look()
    assert server.cleared == 1
    assert "a run could not be asked to end" in caplog.text
    server._executions[run.run_id] = process, ref
    server.look()
    caplog.clear()
    server._executions[run.run_id] = process, None
    server.look()
    assert (server.cleared, server.asked.is_set(), caplog.text) == (3, False, "")
