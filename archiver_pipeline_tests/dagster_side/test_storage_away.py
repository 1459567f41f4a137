"""Rules of Dagster's storage: it may go away for a while, and archiving goes on as soon as it is back."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from archiver_pipeline_tests.dagster_side.deployment import Deployment
from archiver_pipeline_tests.dagster_side.running import RUN, RunningDagster
from archiver_pipeline_tests.kafka.produce import create_topic
from archiver_pipeline_tests.kafka.topics import wait_for
from archiver_pipeline_tests.postgres.server import PostgresServer
from archiver_pipeline_tests.processes import CHECKOUT, Processes
from archiver_pipeline_tests.server import running

pytestmark = pytest.mark.slow


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[PostgresServer]:
    """A PostgreSQL of the test's own."""
    with running(PostgresServer(tmp_path / "postgres"), "data") as server:
        yield server


def test_the_end_of_a_run_that_dies_while_the_storage_is_away_is_recorded_when_it_is_back(
    tmp_path: Path, processes: Processes, bootstrap_servers: str, topic_name: str, postgres: PostgresServer
) -> None:
    """Its end is recorded then, so that its lane is free at once, and not after minutes of silence."""
    create_topic(bootstrap_servers, topic_name)
    deployment = Deployment(
        tmp_path / "base", processes, bootstrap_servers, topic_name,
        ARCHIVER_INTERVAL_SECONDS=2, ARCHIVER_RUN_SECONDS=600,
    )  # fmt: skip
    database = postgres.new_database()
    ours = yaml.safe_load((CHECKOUT / "deploy" / "dagster.yaml").read_text())
    (deployment.home / "dagster.yaml").write_text(yaml.safe_dump({**ours, **postgres.storage(database)}))
    dagster = RunningDagster(deployment, processes)

    def outcomes() -> list[str]:
        rows = postgres.ask("SELECT status FROM runs WHERE pipeline_name = 'archive' ORDER BY id", database)
        return [status for (status,) in rows]

    try:
        dagster.start()
        wait_for("a run that stays", lambda: outcomes() == ["STARTED"] and bool(dagster.find(RUN)), 90)
        postgres.stop()
        for process in dagster.find(RUN):
            os.kill(process.pid, signal.SIGKILL)
        log = deployment.base / "dagster.log"
        wait_for("an end that cannot be recorded", lambda: b"how a run ended could not be" in log.read_bytes(), 60)
        postgres.start()
        wait_for("the run's end, recorded", lambda: outcomes()[0] == "FAILURE", 60)
    finally:
        dagster.kill()
