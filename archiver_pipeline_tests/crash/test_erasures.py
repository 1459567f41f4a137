"""Erasures killed at every step: the next one finishes what was confirmed, and what was not is as it was."""

from __future__ import annotations

import random
import threading
import uuid
from pathlib import Path

import polars as pl
import pytest

from archiver_pipeline.stored.verify import verify
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.crash.rewriting import backfill, clean, copy_of, environment, seal
from archiver_pipeline_tests.crash.run import Run, Trap
from archiver_pipeline_tests.damaged_hours import HOURS
from archiver_pipeline_tests.erasing import OF_SECRET, assert_erased, erase, events, resume, rows, traces, users
from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.produce import produce

NOT_CONFIRMED = ("look", "confirm")
STEPS = (
    *NOT_CONFIRMED,
    *("plan", "compare", "frame", "write", "sync", "place", "commit", "clean", "done", "view", "remove"),
    *("follow", "forget"),
)
NUMBERS = {"plan": 2, "commit": 2, "place": 2}
"""Steps that are killed in the second hour, too."""


@pytest.fixture(scope="module")
def original(kafka: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> Archived:
    """An archive of two hours, which each test copies."""
    name = f"erasures-{uuid.uuid4().hex[:8]}"
    return users(kafka.bootstrap_servers, name, tmp_path_factory.mktemp("original"))


@pytest.mark.parametrize(
    ("step", "number"), [(step, 1) for step in STEPS] + list(NUMBERS.items()), ids=lambda each: str(each)
)
def test_an_erasure_killed_at_a_step(
    original: Archived, runs: list[Run], tmp_path: Path, step: str, number: int
) -> None:
    """Whatever comes after SIGKILL, a batch, a seal or a backfill, the next erasure makes an end of it."""
    archived = copy_of(original, tmp_path / "killed", results_topic="")
    before = rows(archived.path)
    runs.append(Run(environment(archived), trap=Trap("KILL", step, number), work=f"erase:{OF_SECRET}"))
    assert runs[-1].wait() == -9, runs[-1].errors
    confirmed = step not in NOT_CONFIRMED
    report = verify(archived.settings, against_kafka=True)
    assert {fault.kind for fault in report.faults} == ({"unerased"} if confirmed else set())
    assert archived.run() == []
    following = (seal, backfill, clean)[STEPS.index(step) % 3]
    following(archived)
    still = rows(archived.path)
    assert still.equals(before.join(still.select("partition", "offset"), on=["partition", "offset"], how="semi"))
    # What was confirmed needs no condition any more.
    runs.append(Run(environment(archived), work=f"erase:{'false' if confirmed else OF_SECRET}"))
    assert runs[-1].wait() == 0, runs[-1].errors
    clean(archived)
    assert_erased(archived, before)
    assert archived.sql("SELECT sum(messages) FROM erasures") == [(24,)]


@pytest.mark.slow
def test_erasures_killed_at_random_moments(
    bootstrap_servers: str, topic_name: str, runs: list[Run], tmp_path: Path
) -> None:
    """One after the other is killed whenever it may be, while batches, seals and backfills go on."""
    chance = random.Random(11)
    archived = users(bootstrap_servers, topic_name, tmp_path / "archive", keep_replaced_hours=0)
    for number in range(6):
        runs.append(Run(environment(archived), work=f"erase:{OF_SECRET}"))
        runs[-1].wait_for_step("look")
        threading.Event().wait(chance.uniform(0, 0.6))
        runs[-1].kill()
        produce(bootstrap_servers, topic_name, list(events(number % 2, first=10_000 * (number + 1))))
        archived.run()
        (seal if number % 2 else backfill)(archived, HOURS[number % 2])
    runs.append(Run(environment(archived), work=f"erase:{OF_SECRET}"))
    assert runs[-1].wait() == 0, runs[-1].errors
    clean(archived)
    assert traces(archived.settings.base_dir) == []
    assert verify(archived.settings, against_kafka=True).good
    assert archived.stray_files() == set()
    table = pl.read_delta(str(archived.path))
    assert table.height == 120 + 6 * 30
    assert table.select("partition", "offset").is_duplicated().sum() == 0
    assert rows(archived.path).height == table.height - (24 + 6 * 6)


def test_an_erasure_in_process_finishes_it(original: Archived, runs: list[Run], tmp_path: Path) -> None:
    """Another condition is erased behind the one that was interrupted, and both are counted each for itself."""
    archived = copy_of(original, tmp_path / "killed", results_topic="")
    runs.append(Run(environment(archived), trap=Trap("KILL", "commit", 2), work=f"erase:{OF_SECRET}"))
    assert runs[-1].wait() == -9
    erase(archived.settings, "key = 'user-2'::BLOB")
    runs.append(Run(environment(archived), work="erase:false"))
    assert runs[-1].wait() == 0, runs[-1].errors
    assert archived.sql("SELECT messages FROM erasures ORDER BY 1") == [(24,), (24,)]
    assert traces(archived.settings.base_dir) == []
    assert verify(archived.settings, against_kafka=True).good


def test_a_seal_that_is_killed_after_it(original: Archived, runs: list[Run], tmp_path: Path) -> None:
    """An erasure is not done as long as a seal that began before is at work, and what that leaves when killed goes."""
    archived = copy_of(original, tmp_path / "killed", results_topic="")
    before = rows(archived.path)
    runs.append(Run(environment(archived), trap=Trap("STOP", "commit"), work=f"seal:{HOURS[0]}"))
    runs[-1].wait_until_stopped()
    done = erase(archived.settings, patience_seconds=0)
    assert (len(done.busy), done.good) == (1, False)
    runs[-1].kill()
    assert [item.good for item in resume(archived.settings)] == [True]
    archived.run()
    clean(archived)
    assert_erased(archived, before)
