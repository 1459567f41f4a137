"""A fleet on one machine: Celery workers, each with a BASE_DIR of its own, that take runs from Redis."""

from __future__ import annotations

import shutil
from pathlib import Path

import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.launcher import LaunchRunContext

from archiver_pipeline_tests.postgres.server import PASSWORD, USER, PostgresServer
from archiver_pipeline_tests.processes import CHECKOUT, HOST, Processes, environment
from archiver_pipeline_tests.redis.server import RedisServer

CELERY = CHECKOUT / "deploy" / "celery"


def variables(redis: RedisServer, postgres: PostgresServer, database: str) -> dict[str, str]:
    """The variables that deploy/celery/dagster.yaml and the workers' settings go by."""
    return {
        "CELERY_BROKER_URL": redis.url(0),
        "CELERY_RESULTS_URL": redis.url(1),
        "DAGSTER_POSTGRES_HOST": HOST,
        "DAGSTER_POSTGRES_PORT": str(postgres.port),
        "DAGSTER_POSTGRES_DB": database,
        "DAGSTER_POSTGRES_USER": USER,
        "DAGSTER_POSTGRES_PASSWORD": PASSWORD,
    }


class Worker:
    """A machine of the fleet, with no folder that another one has.

    Attributes:
        base: its BASE_DIR.
        log: what its worker and its runs say.
    """

    def __init__(self, folder: Path, home: Path, given: dict[str, str], queues: str, concurrency: int = 1) -> None:
        """Start it.

        Args:
            folder: everything that it has.
            home: what `dagster.yaml` is copied from.
            given: its settings.
            queues: the queues that it takes runs from.
            concurrency: how many runs it has at once.
        """
        self.base = folder / "base"
        own = folder / "home"
        own.mkdir(parents=True)
        (own / "dagster.yaml").write_text((home / "dagster.yaml").read_text())
        self.log = folder / "worker.log"
        self._processes = Processes()
        celery = ["-m", "celery", "--app", "dagster_celery.app", "worker", "--queues", queues]
        celery += ["--concurrency", str(concurrency), "--hostname", f"{folder.name}@%h", "--loglevel", "INFO"]
        given = {**given, "BASE_DIR": str(self.base), "DAGSTER_HOME": str(own), "PYTHONPATH": str(CELERY)}
        self._main = self._processes.start(
            [*celery, "--without-mingle", "--without-gossip"], environment(given), self.log
        )

    @property
    def ready(self) -> bool:
        """Whether it takes runs."""
        assert self._main.poll() is None, self.log.read_text()
        return " ready." in self.log.read_text()

    def kill(self) -> None:
        """SIGKILL to it and all its runs at once, as a power cut would."""
        self._processes.kill()
        self._main.wait()

    def end(self) -> int:
        """Ask it to end when its runs have, and return its exit code."""
        self._main.terminate()
        return self._main.wait(60)


def launch(instance: dg.DagsterInstance, job: str, request: dg.RunRequest) -> str:
    """Hand a run to the instance's launcher, as the daemon does with what a sensor asks for; returns its id."""
    found = ReconstructableRepository.for_module("archiver_pipeline.definitions", "defs", str(CHECKOUT))
    recon = found.get_reconstructable_job(job)
    definition = recon.get_definition()
    run = instance.create_run_for_job(
        definition,
        run_config=request.run_config,
        tags={**definition.tags, **request.tags},
        job_code_origin=recon.get_python_origin(),
    )
    instance.run_launcher.launch_run(LaunchRunContext(run, None))
    return run.run_id


def home_of(folder: Path) -> Path:
    """DAGSTER_HOME as every machine of a fleet has it."""
    folder.mkdir()
    shutil.copy(CELERY / "dagster.yaml", folder)
    return folder
