"""Rewrites, batches and clean-ups of one hour at once, each also from a table as it was before the others committed."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from archiver_pipeline.hours import hour_at
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.crash.rewriting import (
    HOUR,
    PER_BATCH,
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
from archiver_pipeline_tests.kafka.produce import Sent, create_topic, produce

SEAL, BACKFILL = f"seal:{HOUR}", f"backfill:{HOUR}"


@pytest.fixture(scope="module")
def original(kafka: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> Archived:
    """An archive of one hour in three batches and, in Kafka only, a fourth; each test copies it."""
    topic = f"side-by-side-{uuid.uuid4().hex[:8]}"
    archived = new_archive(tmp_path_factory.mktemp("original"), kafka.bootstrap_servers, topic)
    fill(kafka.bootstrap_servers, topic, seed=77)
    return archived


def frozen(archived: Archived, work: str, step: str) -> Run:
    """A run that freezes itself as a step begins."""
    return Run(environment(archived), trap=Trap("STOP", step), work=work)


def assert_first_try(run: Run) -> None:
    """Assert that a batch was committed as it was planned: no rewrite has refused or failed it."""
    assert "starting over" not in run.errors
    assert run.steps[: run.steps.index("view")].count("commit") == 1, run.steps


def finish(archived: Archived) -> None:
    """Clean up, and assert that the archive is right; then seal what came late, and assert it again."""
    archived.run()
    clean(archived)
    assert_good(archived)
    seal(archived)
    assert_good(archived)
    assert_sealed(archived)


@pytest.mark.parametrize(
    ("step", "order"), [("read", (3, 2, 1, 0)), ("commit", (0, 1, 2, 3)), ("commit", (3, 2, 1, 0))]
)
def test_a_batch_two_seals_and_a_backfill_at_once(
    original: Archived, runs: list[Run], tmp_path: Path, step: str, order: tuple[int, ...]
) -> None:
    """All begin from one table and go on at one moment: none fails, and nothing is lost or doubled."""
    archived = copy_of(original, tmp_path / "archive", type_path="$.uid")
    rewrite = "compare" if step == "read" else step
    works = [("archive", step), (SEAL, step), (SEAL, step), (BACKFILL, rewrite)]
    runs += [frozen(archived, *work) for work in works]
    for run in runs:
        run.wait_until_stopped()
    for number in order:
        runs[number].resume()
    assert [run.wait() for run in runs] == [0, 0, 0, 0], [run.errors for run in runs]
    assert_first_try(runs[0])
    finish(archived)


@pytest.mark.parametrize(
    ("work", "step"),
    [
        (SEAL, "read"),
        (SEAL, "frame"),
        (SEAL, "commit"),
        (BACKFILL, "compare"),
        (BACKFILL, "frame"),
        (BACKFILL, "commit"),
        ("archive", "read"),
        ("archive", "commit"),
    ],
)
def test_a_run_with_a_table_of_the_past(
    original: Archived, runs: list[Run], tmp_path: Path, work: str, step: str
) -> None:
    """A run that froze wakes up after others have archived, backfilled and sealed the hour and have removed the files
    that it was about to read: it starts over, or finds nothing to do, and fails in no way."""
    archived = copy_of(original, tmp_path / "archive")
    runs.append(frozen(archived, work, step))
    runs[0].wait_until_stopped()
    if work != "archive":
        archived.run()
    backfill(copy_with_rule(archived, "$.uid"))
    seal(archived)
    assert_good_but_for(archived, runs[0])
    runs[0].resume()
    assert runs[0].wait() == 0, runs[0].errors
    if work == "archive":
        assert_first_try(runs[0])
    finish(archived)


def copy_with_rule(archived: Archived, rule: str) -> Archived:
    """The same archive, with another type rule."""
    topics = archived.settings.topics
    return Archived(
        archived.settings.base_dir, archived.bootstrap_servers, *topics, type_path=rule, keep_replaced_hours=0
    )


def assert_good_but_for(archived: Archived, run: Run) -> None:
    """Assert that the files of a live run were left alone, and that nothing else lies about."""
    strays = {name for name in archived.stray_files() if not name.startswith("_staging/")}
    wanted = {"archive": "lane0-", "seal": "seal-", "backfill": "seal-"}[run.work.partition(":")[0]]
    assert all(Path(name).name.startswith(wanted) for name in strays), strays


@pytest.mark.parametrize(("work", "step"), [(SEAL, "read"), (SEAL, "commit"), (BACKFILL, "read"), (BACKFILL, "commit")])
def test_messages_that_come_meanwhile_stay(
    original: Archived, runs: list[Run], tmp_path: Path, work: str, step: str
) -> None:
    """What is appended to the hour between a rewrite's look at the table and its commit is neither lost nor doubled,
    and does not make the rewrite begin again."""
    archived = copy_of(original, tmp_path / "archive", type_path="$.uid" if work == BACKFILL else "$.type")
    runs.append(frozen(archived, work, step))
    runs[0].wait_until_stopped()
    (batch,) = archived.run()
    assert 0 < batch.messages <= PER_BATCH
    runs[0].resume()
    assert runs[0].wait() == 0, runs[0].errors
    if work == SEAL:
        assert runs[0].steps.count("plan") == 1
    clean(archived)
    assert_good(archived)
    finish(archived)


def test_of_two_rewrites_one_commits(original: Archived, runs: list[Run], tmp_path: Path) -> None:
    """Of two seals from one table the second finds nothing to do, and its files go with the next clean-up."""
    archived = copy_of(original, tmp_path / "archive")
    version = archived.version()
    runs += [frozen(archived, SEAL, "commit") for _ in range(2)]
    for run in runs:
        run.wait_until_stopped()
    for run in runs:
        run.resume()
        assert run.wait() == 0, run.errors
    assert [run.steps.count("plan") for run in runs] == [1, 2]
    assert archived.version() <= version + 2, "one seal, and at most a fence"
    finish(archived)


def test_rewrites_of_different_hours_do_not_meet(
    bootstrap_servers: str, topic_name: str, runs: list[Run], tmp_path: Path
) -> None:
    """Seals of several hours from one table all commit at once."""
    create_topic(bootstrap_servers, topic_name, partitions=2)
    archived = Archived(tmp_path / "archive", bootstrap_servers, topic_name, keep_replaced_hours=0)
    hours = [hour_at((HOUR.number or 0) + number) for number in range(3)]
    for _ in range(2):
        stamps = [(hour.number or 0) * 3_600_000 + n for hour in hours for n in range(20)]
        produce(bootstrap_servers, topic_name, [Sent(b'{"type": "a"}', timestamp_ms=stamp) for stamp in stamps])
        archived.run()
    runs += [frozen(archived, f"seal:{hour}", "commit") for hour in hours]
    for run in runs:
        run.wait_until_stopped()
    for run in runs:
        run.resume()
    assert [run.wait() for run in runs] == [0, 0, 0], [run.errors for run in runs]
    assert [run.steps.count("plan") for run in runs] == [1, 1, 1]
    clean(archived)
    assert_good(archived)
    for hour in hours:
        assert_sealed(archived, hour)
