"""Rewrites killed at every step: afterwards the table is Kafka, byte for byte and once, whatever comes next."""

from __future__ import annotations

import random
import threading
import uuid
from pathlib import Path

import pytest

from archiver_pipeline.storage.folder_staging import leftovers
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.crash.rewriting import (
    HOUR,
    assert_good,
    assert_sealed,
    backfill,
    clean,
    copy_of,
    environment,
    fill,
    new_archive,
    seal,
)
from archiver_pipeline_tests.crash.run import Run, Trap
from archiver_pipeline_tests.kafka.broker import KafkaBroker

COMMITTED = ("clean", "done", "view", "remove")
SEAL_STEPS = ("plan", "read", "frame", "write", "sync", "place", "commit", *COMMITTED)
BACKFILL_STEPS = ("read", "plan", "compare", "frame", "write", "sync", "place", "commit", *COMMITTED)


@pytest.fixture(scope="module")
def original(kafka: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> Archived:
    """An archive of one hour in three batches, which each test copies."""
    return new_archive(tmp_path_factory.mktemp("original"), kafka.bootstrap_servers, f"rewrites-{uuid.uuid4().hex[:8]}")


def killed(runs: list[Run], archived: Archived, work: str, trap: Trap) -> Run:
    """Rewrite the hour in a process that is killed at a step."""
    runs.append(Run(environment(archived), trap=trap, work=f"{work}:{HOUR}"))
    assert runs[-1].wait() == -9, runs[-1].errors
    return runs[-1]


def clean_copy(archived: Archived, folder: Path) -> None:
    """Assert that after a kill nothing but a clean-up makes the archive good; on a copy, so that others can follow."""
    copy = copy_of(archived, folder, type_path=archived.settings.type_path)
    clean(copy)
    assert leftovers(copy.path, lambda _: True) == []
    assert_good(copy)


@pytest.mark.parametrize("step", SEAL_STEPS)
def test_a_seal_killed_at_a_step(original: Archived, runs: list[Run], tmp_path: Path, step: str) -> None:
    """After SIGKILL as a seal's step begins, the next seal, backfill or clean-up makes all good."""
    archived = copy_of(original, tmp_path / "killed")
    assert killed(runs, archived, "seal", Trap("KILL", step)).step == step
    clean_copy(archived, tmp_path / "copy")
    assert archived.run() == [], "the next batch finds nothing to do"
    following = seal if SEAL_STEPS.index(step) % 2 else backfill
    following(archived)
    assert_good(archived)
    assert_sealed(archived)


@pytest.mark.parametrize("step", BACKFILL_STEPS)
def test_a_backfill_killed_at_a_step(original: Archived, runs: list[Run], tmp_path: Path, step: str) -> None:
    """The same goes for a backfill that moves messages to other types, and then seals what is left of the hour."""
    archived = copy_of(original, tmp_path / "killed", type_path="$.uid")
    assert killed(runs, archived, "backfill", Trap("KILL", step)).step == step
    clean_copy(archived, tmp_path / "copy")
    assert archived.run() == []
    backfill(archived)
    assert_good(archived)
    assert_sealed(archived)
    types = {name for (name,) in archived.sql("SELECT DISTINCT type FROM messages WHERE type[1] <> '_'")}
    assert types, "the rule has given types"
    assert all(name.startswith("u") for name in types), types


@pytest.mark.parametrize("step", ["compare", "commit", "clean", "remove"])
def test_a_backfill_killed_while_it_mends(original: Archived, runs: list[Run], tmp_path: Path, step: str) -> None:
    """A backfill that is killed over missing and damaged files leaves them to the next one, or has mended them."""
    archived = copy_of(original, tmp_path / "killed")
    gone, changed, *_ = (archived.path / name for name in sorted(archived.listed_files()))
    gone.unlink()
    changed.write_bytes(changed.read_bytes()[:-8])
    killed(runs, archived, "backfill", Trap("KILL", step))
    backfill(archived)
    assert_good(archived)
    assert_sealed(archived)


def test_a_batch_cleans_nothing_of_a_killed_rewrite(original: Archived, runs: list[Run], tmp_path: Path) -> None:
    """Batches leave to rewrites what rewrites left, and the next rewrite of the hour takes it away by itself."""
    archived = copy_of(original, tmp_path / "killed")
    killed(runs, archived, "seal", Trap("KILL", "commit"))
    left = archived.stray_files()
    assert any("seal-" in name for name in left)
    assert archived.run() == []
    assert archived.stray_files() == left
    runs.append(Run(environment(archived), trap=Trap("KILL", "view"), work=f"seal:{HOUR}"))
    assert runs[-1].wait() == -9
    assert not any(name in archived.stray_files() for name in left if name.startswith("type=")), "fenced by its commit"
    clean(archived)
    assert_good(archived)


@pytest.mark.slow
@pytest.mark.parametrize("work", ["seal", "backfill"])
def test_rewrites_killed_at_random_moments(
    bootstrap_servers: str, topic_name: str, runs: list[Run], tmp_path: Path, work: str
) -> None:
    """One rewrite after the other is killed whenever it may be, while batches come in."""
    chance = random.Random(7)
    archived = new_archive(tmp_path / "archive", bootstrap_servers, topic_name)
    for number in range(4):
        runs.append(Run(environment(archived), work=f"{work}:{HOUR}"))
        runs[-1].wait_for_step("plan" if work == "seal" else "read")
        if chance.random() < 0.5:
            runs[-1].wait_for_step("place")
        threading.Event().wait(chance.uniform(0, 0.15))
        runs[-1].kill()
        fill(bootstrap_servers, topic_name, seed=100 + number, count=40)
        archived.run()
    backfill(archived)
    assert_good(archived)
    assert_sealed(archived)
