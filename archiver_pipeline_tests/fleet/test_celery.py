"""Rules of runs on many machines by Celery: lanes side by side, and a machine that is gone takes nothing with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from archiver_pipeline.defs import runs
from archiver_pipeline_tests.dagster_side.conftest import Load, MakeDeployment
from archiver_pipeline_tests.dagster_side.ticks import Ticks
from archiver_pipeline_tests.fleet.workers import CELERY, Worker, launch, variables
from archiver_pipeline_tests.kafka.produce import Sent, create_topic, produce
from archiver_pipeline_tests.objects.conftest import in_bucket
from archiver_pipeline_tests.objects.gateway import Gateway
from archiver_pipeline_tests.postgres.server import PostgresServer
from archiver_pipeline_tests.redis.server import RedisServer
from archiver_pipeline_tests.server import running
from archiver_pipeline_tests.waiting import wait_for

MANY, TYPES, PARTITIONS = 8_000, 100, 4
TASK = "dagster-celery/task_id"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    # dagster-celery makes its task anew for each run, which Celery tells once in a process; it is the same one.
    pytest.mark.filterwarnings("ignore:Task name 'execute_job' is already registered"),
]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """The queue between the daemon and the workers."""
    with running(RedisServer(tmp_path / "redis"), "data") as server:
        yield server


def test_a_machine_that_is_gone_takes_nothing_with_it(
    deploy: MakeDeployment, load: Load, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    bootstrap_servers: str, topic_name: str, gateway: Gateway, postgres: PostgresServer, redis: RedisServer,
) -> None:  # fmt: skip
    """Two machines without a common folder have a lane each. One is cut off in mid-batch: its lane counts as at work
    for as long as its run might live, then the other machine goes on with it, and the bucket has every message once.
    """
    toml = tmp_path / "archiver.toml"
    toml.write_text('[run_tags.archive]\n"dagster-celery/queue" = "archive"\n')
    archived = in_bucket(tmp_path / "home", bootstrap_servers, topic_name, gateway, lanes=2)
    settings = {
        "ARCHIVER_URI": archived.settings.uri,
        "ARCHIVER_LANES": 2,
        "ARCHIVER_BATCH_MESSAGES": 400,
        "ARCHIVER_CONFIG": toml,
        "ARCHIVER_VIEW": "off",
        **gateway.environment(),
        **variables(redis, postgres, postgres.new_database()),
    }
    create_topic(archived.bootstrap_servers, topic_name, partitions=PARTITIONS)
    made = ({"type": f"object.{n % TYPES}", "seq": n} for n in range(MANY))
    produce(
        archived.bootstrap_servers,
        topic_name,
        [Sent(json.dumps(item).encode(), partition=n % PARTITIONS) for n, item in enumerate(made)],
    )
    deployment = deploy(topic_name, **settings)
    (deployment.home / "dagster.yaml").write_text((CELERY / "dagster.yaml").read_text())
    definitions = load(deployment)
    workers = [Worker(tmp_path / name, deployment.home, deployment.settings, "archive") for name in ("one", "two")]
    try:
        with dg.DagsterInstance.from_config(str(deployment.home)) as instance:
            sensor = Ticks(definitions, instance, "archive")
            wait_for("the workers", lambda: all(worker.ready for worker in workers), 240)
            begun = {
                request.tags["archiver/lane"]: launch(instance, "archive", request) for request in sensor.requests()
            }
            assert set(begun) == {"0", "1"}
            staging = archived.path / "_staging"
            wait_for("a batch of both lanes", lambda: {"0", "1"} <= _lanes_at_work(staging), 240)
            first = next(lane for lane, run in begun.items() if _has(workers[0], instance, run))
            second = begun["1" if first == "0" else "0"]
            workers[0].kill()
            wait_for("the end of the other lane", lambda: sensor.status(second) == "SUCCESS", 240)
            assert sensor.status(begun[first]) == "STARTED", "nobody can tell that yet"
            assert "is at work" in sensor.skips()
            monkeypatch.setattr(runs, "SILENT_SECONDS", 1.0)
            (again,) = sensor.requests()
            assert again.tags["archiver/lane"] == first
            third = launch(instance, "archive", again)
            wait_for("the lane to go on", lambda: sensor.status(third) in ("SUCCESS", "FAILURE"), 240)
            assert sensor.status(third) == "SUCCESS", workers[1].log.read_text()
            assert "lag 0" in sensor.skips()
            assert not list(deployment.base.glob("archive.duckdb")), "ARCHIVER_VIEW is off"
        assert workers[1].end() == 0
    finally:
        for worker in workers:
            worker.kill()
    archived.run()
    assert archived.compare(topic_name).equal


def _lanes_at_work(staging: Path) -> set[str]:
    """The lanes that have sent a part of a batch that is not committed."""
    try:
        return {path.name[4:].partition("-")[0] for path in staging.iterdir() if path.name.startswith("lane")}
    except FileNotFoundError:
        return set()


def _has(worker: Worker, instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether a worker took a run."""
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run.tags[TASK] in worker.log.read_text()
