"""Runs on a bucket killed at every step: afterwards the table is Kafka, once, and no object is left over."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from archiver_pipeline.table.archive import archive_of
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.crash.rewriting import HOUR, clean, environment, fill
from archiver_pipeline_tests.crash.run import Run, Trap
from archiver_pipeline_tests.kafka.produce import create_topic
from archiver_pipeline_tests.objects.conftest import in_bucket
from archiver_pipeline_tests.objects.gateway import Gateway
from archiver_pipeline_tests.waiting import wait_for


@pytest.fixture
def archived(bootstrap_servers: str, topic_name: str, tmp_path: Path, gateway: Gateway) -> Archived:
    """An archive of a topic with transactions in a bucket: two batches in it, and more to archive."""
    create_topic(bootstrap_servers, topic_name, partitions=2)
    found = in_bucket(tmp_path, bootstrap_servers, topic_name, gateway, keep_replaced_hours=0)
    for seed in (1, 2):
        fill(bootstrap_servers, topic_name, seed)
        found.run()
    fill(bootstrap_servers, topic_name, 3)
    return found


def settle(archived: Archived) -> None:
    """Do what the runs after a killed one do, once its lease is over."""
    archived.run()
    storage = archive_of(archived.settings).storage
    wait_for("the lease of the killed run to end", lambda: not storage.living(lambda _: True))
    archived.run()
    clean(archived)


@pytest.mark.parametrize(
    ("work", "step", "delay"),
    [
        ("archive", "place", 0.0),
        ("archive", "place", 0.004),
        ("archive", "commit", 0.0),
        ("archive", "commit", 0.003),
        ("archive", "clean", 0.0),
        (f"seal:{HOUR.name}", "place", 0.004),
        (f"seal:{HOUR.name}", "clean", 0.0),
        (f"backfill:{HOUR.name}", "commit", 0.0),
    ],
)
def test_a_run_killed_at_a_step(archived: Archived, runs: list[Run], work: str, step: str, delay: float) -> None:
    """After SIGKILL as a step begins, or in its midst, nothing is lost, doubled or left over."""
    # By another type rule a backfill has something to do.
    variables = {**environment(archived), **({"ARCHIVER_TYPE_PATH": "$.seq"} if work.startswith("backfill") else {})}
    runs.append(Run(variables, trap=Trap("KILL", step, delay=delay), work=work))
    assert runs[0].wait() in (-signal.SIGKILL, 0), runs[0].errors
    settle(archived)
    archived.assert_equal(archived.settings.topics[0])
