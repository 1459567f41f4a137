"""Lanes as runs of Celery workers, an archive in a bucket: two workers against one, and a run that is killed."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
from dagster._core.launcher import WorkerStatus
from rich.console import Console

from archiver_pipeline_tests.fleet.workers import Worker, home_of, launch, variables
from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.produce import create_topic
from archiver_pipeline_tests.objects.gateway import Gateway
from archiver_pipeline_tests.postgres.server import PostgresServer
from archiver_pipeline_tests.redis.server import RedisServer
from archiver_pipeline_tests.waiting import wait_for
from bench.load import fill
from bench.results import record

TOPIC, LANES, PARTITIONS = "celery", 4, 8
LIMIT_SECONDS = 900.0


def main() -> None:
    """Measure both, print them, and record them; fails where a count is wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench.celery", description=__doc__)
    parser.add_argument("--messages", type=int, default=2_000_000, help="to archive each time (default 2,000,000)")
    given = parser.parse_args()
    console = Console()
    with (
        KafkaBroker() as broker, PostgresServer() as postgres, RedisServer() as redis, Gateway() as gateway,
        tempfile.TemporaryDirectory(prefix="archiver-bench-") as folder,
    ):  # fmt: skip
        create_topic(broker.bootstrap_servers, TOPIC, partitions=PARTITIONS)
        fill(broker.bootstrap_servers, TOPIC, PARTITIONS, given.messages, 284)
        shared = {
            "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
            "ARCHIVER_TOPICS": TOPIC,
            "ARCHIVER_LANES": str(LANES),
            "ARCHIVER_VIEW": "off",
            **gateway.environment(),
            **variables(redis, postgres, postgres.new_database()),
        }
        base = Path(folder)
        home = home_of(base / "home")
        os.environ.update(shared | {"BASE_DIR": str(base / "here"), "DAGSTER_HOME": str(home)})
        seconds: dict[str, float] = {}
        with dg.DagsterInstance.from_config(str(home)) as instance:
            for count in (1, 2):
                own = shared | {"ARCHIVER_URI": f"{gateway.make_bucket(f'workers-{count}')}/archive"}
                workers = [Worker(base / f"of{count}-{number}", home, own, "archive") for number in range(count)]
                try:
                    wait_for("the workers", lambda workers=workers: all(one.ready for one in workers), 120)  # type: ignore[misc]
                    seconds[str(count)] = _archive(instance)
                    _check(own, given.messages)
                    noticed = _killed(instance) if count == 2 else 0.0
                finally:
                    for worker in workers:
                        worker.kill()
    figures: dict[str, Any] = {
        "messages": given.messages,
        "lanes": LANES,
        "seconds_by_workers": {count: round(value, 2) for count, value in seconds.items()},
        "messages_per_second": {count: round(given.messages / value) for count, value in seconds.items()},
        "two_against_one": round(seconds["1"] / seconds["2"], 3),
        "seconds_until_a_killed_run_is_known": round(noticed, 2),
    }
    console.print(figures)
    record("celery", f"python -m bench.celery --messages {given.messages}", figures)


def _archive(instance: dg.DagsterInstance) -> float:
    """A run for each lane; seconds from the first request to the end of the last one."""
    began = time.monotonic()
    runs = [launch(instance, "archive", _request(lane)) for lane in range(LANES)]
    wait_for("the lanes", lambda: all(_status(instance, run).is_finished for run in runs), LIMIT_SECONDS)
    took = time.monotonic() - began
    if not all(_status(instance, run).is_success for run in runs):
        raise RuntimeError("a run failed")
    return took


def _request(lane: int, **config: object) -> dg.RunRequest:
    from archiver_pipeline.defs.assets import OP

    given = {"ops": {OP: {"config": {"lane": lane, **config}}}}
    return dg.RunRequest(run_config=given, tags={"archiver/lane": str(lane), "dagster-celery/queue": "archive"})


def _check(variables_: Mapping[str, str], messages: int) -> None:
    """Raise RuntimeError unless the archive has so many messages."""
    from archiver_pipeline.settings.settings import load
    from archiver_pipeline.table.archive import archive_of

    os.environ.update(variables_)
    found = sum(item.messages for item in archive_of(load()).ledger().committed.values())
    if found != messages:
        raise RuntimeError(f"the archive has {found:,} of {messages:,} messages")


def _killed(instance: dg.DagsterInstance) -> float:
    """Kill the process of a run, not its worker: seconds until the launcher says that the run has failed."""
    run_id = launch(instance, "archive", _request(0, stay_seconds=300))
    wait_for("the run", lambda: _status(instance, run_id).status is dg.DagsterRunStatus.STARTED, 60)
    ours = [entry for entry in instance.all_logs(run_id) if "Started process for run (pid:" in entry.message]
    process = psutil.Process(int(ours[0].message.rpartition("pid: ")[2].rstrip(").")))
    process.kill()
    began = time.monotonic()

    def is_known() -> bool:
        health = instance.run_launcher.check_run_worker_health(_status(instance, run_id))
        return health.status is WorkerStatus.FAILED

    wait_for("the worker to tell", is_known, 60)
    return time.monotonic() - began


def _status(instance: dg.DagsterInstance, run_id: str) -> dg.DagsterRun:
    run = instance.get_run_by_id(run_id)
    assert run is not None
    return run


if __name__ == "__main__":
    main()
