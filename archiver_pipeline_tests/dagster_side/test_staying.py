"""Rules of a run that stays, under Dagster with PostgreSQL: it is missed at once if it dies, and ends with Dagster."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from archiver_pipeline_tests.dagster_side.deployment import Deployment
from archiver_pipeline_tests.dagster_side.running import RUN, RunningDagster
from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.produce import create_topic
from archiver_pipeline_tests.postgres.server import PostgresServer
from archiver_pipeline_tests.processes import Processes
from archiver_pipeline_tests.server import running
from archiver_pipeline_tests.waiting import wait_for

LIMIT_SECONDS = 150.0
"""Far more than it takes on a busy machine, and far less than the ten minutes that the run would stay."""

pytestmark = pytest.mark.slow


class Staying:
    """Dagster with PostgreSQL as its storage, and a run that stays.

    Attributes:
        postgres: the storage.
        dagster: Dagster.
        processes: all of its processes.
        log: what they say.
    """

    def __init__(self, postgres: PostgresServer, deployment: Deployment, processes: Processes) -> None:
        self.postgres = postgres
        self.processes = processes
        self.dagster = RunningDagster(deployment, processes)
        self.log = deployment.base / "dagster.log"
        self._database = postgres.new_database()
        postgres.write_settings(deployment.home, self._database)

    def outcomes(self) -> list[str]:
        """The states of all runs that archive, the oldest first."""
        rows = self.postgres.ask("SELECT status FROM runs WHERE pipeline_name = 'archive' ORDER BY id", self._database)
        return [status for (status,) in rows]

    def wait_for_a_run(self) -> None:
        """Wait until one is at work."""
        wait_for("a run that stays", lambda: self.outcomes()[-1:] == ["STARTED"] and bool(self.dagster.find(RUN)))


@pytest.fixture(scope="module")
def staying(kafka: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Staying]:
    """One for all tests of this module, of which the last ends it."""
    folder = tmp_path_factory.mktemp("staying")
    create_topic(kafka.bootstrap_servers, folder.name)
    with running(PostgresServer(folder / "postgres"), "data") as postgres, Processes() as processes:
        deployment = Deployment(
            folder / "base", processes, kafka.bootstrap_servers, folder.name,
            ARCHIVER_INTERVAL_SECONDS=2, ARCHIVER_RUN_SECONDS=600,
        )  # fmt: skip
        found = Staying(postgres, deployment, processes)
        try:
            found.dagster.start()
            yield found
        finally:
            found.dagster.kill()


def test_the_end_of_a_run_that_dies_while_the_storage_is_away_is_recorded_when_it_is_back(staying: Staying) -> None:
    """Its lane is free at once then, and not after minutes of silence."""
    staying.wait_for_a_run()
    staying.postgres.stop()
    for process in staying.dagster.find(RUN):
        os.kill(process.pid, signal.SIGKILL)
    wait_for("an end that cannot be recorded", lambda: b"how a run ended could not be" in staying.log.read_bytes())
    staying.postgres.start()
    wait_for("the run's end, recorded", lambda: staying.outcomes()[0] == "FAILURE")


def test_a_run_that_stays_ends_with_dagster(staying: Staying) -> None:
    """Who stops Dagster waits for seconds, not for as long as runs may stay, and no run is left."""
    staying.wait_for_a_run()
    staying.dagster.ask_to_end()
    staying.processes.wait_until_none_lives(LIMIT_SECONDS)
    staying.dagster.wait_until_it_ends()
    assert staying.outcomes()[-1] in ("FAILURE", "CANCELED")
