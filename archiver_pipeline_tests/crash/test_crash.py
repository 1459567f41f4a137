"""Runs killed at every step, frozen, and side by side: afterwards the table is Kafka, byte for byte and once."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from archiver_pipeline_tests.archived import Archived, wait_until_stable
from archiver_pipeline_tests.crash.run import Run, Trap
from archiver_pipeline_tests.kafka.produce import Sent, create_topic, delete_records, produce, produce_transactions

STEPS = ("plan", "read", "frame", "write", "sync", "place", "check", "commit", "clean", "done", "view", "shown")


@pytest.fixture
def archived(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> Archived:
    """An archive of a topic of 4 partitions with transactions, of which one batch is in the table already."""
    create_topic(bootstrap_servers, topic_name, partitions=4)
    fill(bootstrap_servers, topic_name, seed=1)
    first = Archived(tmp_path, bootstrap_servers, topic_name)
    first.run()
    fill(bootstrap_servers, topic_name, seed=2)
    return first


def fill(bootstrap_servers: str, topic: str, seed: int) -> None:
    """Send two hundred messages in transactions, 30 % of which are aborted."""
    produce_transactions(bootstrap_servers, [topic], 200, abort_share=0.3, seed=seed, per_transaction=20)
    wait_until_stable(bootstrap_servers, topic)


def topic_of(archived: Archived) -> str:
    """The one topic of an archive."""
    return archived.settings.topics[0]


def placed_but_not_listed(archived: Archived) -> set[str]:
    """Parquet files where readers look for them that the table does not list."""
    found = {str(path.relative_to(archived.path)) for path in archived.path.glob("type=*/**/*.parquet")}
    return found - archived.listed_files()


@pytest.mark.parametrize("step", STEPS)
def test_a_run_killed_at_a_step(archived: Archived, runs: list[Run], step: str) -> None:
    """After SIGKILL as the step begins, the next run leaves neither a loss, nor a double, nor a file too many."""
    runs.append(Run(archived.environment(), trap=Trap("KILL", step)))
    assert runs[0].wait() == -9, runs[0].errors
    assert runs[0].step == step
    archived.run()
    archived.assert_equal(topic_of(archived))


def test_the_first_run_of_an_archive_killed(
    bootstrap_servers: str, topic_name: str, tmp_path: Path, runs: list[Run]
) -> None:
    """A run that was killed before its archive had a first batch leaves one that the next run can use."""
    create_topic(bootstrap_servers, topic_name, partitions=4)
    fill(bootstrap_servers, topic_name, seed=1)
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    for step in ("plan", "commit"):
        runs.append(Run(archived.environment(), trap=Trap("KILL", step)))
        assert runs[-1].wait() == -9, runs[-1].errors
    archived.run()
    archived.assert_equal(topic_name)


def test_a_run_killed_while_it_moves_its_files(archived: Archived, runs: list[Run]) -> None:
    """Files that were in place before the commit belong to nobody: the next run removes them, and empty folders too."""
    many = [Sent(b'{"type": "many"}', timestamp_ms=1_564_628_400_000 + n * 3_600_000) for n in range(1500)]
    produce(archived.bootstrap_servers, topic_of(archived), many)

    def staged() -> int:
        return sum(len(list(os.scandir(folder))) for folder in (archived.path / "_staging").glob("lane*[!k]"))

    killed_between = False
    for _ in range(5):
        runs.append(Run(archived.environment()))
        runs[-1].wait_for_step("place")
        while runs[-1].alive() and staged() > 1400:
            pass
        runs[-1].kill()
        killed_between = 0 < staged() < 1500 and bool(placed_but_not_listed(archived))
        if killed_between:
            break
    assert killed_between, "no run was killed between its first file and its last"
    archived.run()
    archived.assert_equal(topic_of(archived))


def test_no_empty_folder_is_left_behind(archived: Archived, runs: list[Run]) -> None:
    """Folders that a killed run had made for its files go, too, where nothing else ever came into them."""
    topic = topic_of(archived)
    many = [Sent(b'{"type": "gone"}', timestamp_ms=1_564_628_400_000 + n * 3_600_000) for n in range(1000)]
    produce(archived.bootstrap_servers, topic, many)
    runs.append(Run(archived.environment()))
    runs[0].wait_for_step("place")
    while runs[0].alive() and not (archived.path / "type=gone").exists():
        pass
    assert runs[0].kill() == -9, runs[0].errors
    delete_records(archived.bootstrap_servers, topic, dict.fromkeys(range(4), -1))
    archived.run()
    assert archived.stray_files() == set()
    assert not (archived.path / "type=gone").exists()


@pytest.mark.slow
def test_runs_killed_at_random_moments(archived: Archived, runs: list[Run]) -> None:
    """One run after the other is killed whenever it may be, while messages come in."""
    chance = random.Random(11)
    for number in range(5):
        runs.append(Run({**archived.environment(), "ARCHIVER_BATCH_MESSAGES": "60"}))
        runs[-1].wait_for_step("plan")
        time.sleep(chance.uniform(0, 1.5))
        runs[-1].kill()
        fill(archived.bootstrap_servers, topic_of(archived), seed=10 + number)
    archived.run()
    archived.assert_equal(topic_of(archived))


def test_a_run_killed_between_commit_and_view(archived: Archived, runs: list[Run]) -> None:
    """A run with nothing left to archive brings the view up to date that a killed one left behind."""
    runs.append(Run(archived.environment(), trap=Trap("KILL", "view")))
    assert runs[0].wait() == -9
    (before,) = archived.sql("SELECT count(*) FROM messages")
    runs.append(Run(archived.environment()))
    assert runs[1].wait() == 0, runs[1].errors
    assert "read" not in runs[1].steps, "there was nothing left to archive"
    (after,) = archived.sql("SELECT count(*) FROM messages")
    assert after > before
    archived.assert_equal(topic_of(archived))


def test_what_a_killed_run_left_is_removed_with_nothing_to_archive(archived: Archived, runs: list[Run]) -> None:
    """A run that finds nothing to archive still removes what a killed one had placed, behind a commit of its fence."""
    runs.append(Run(archived.environment(), trap=Trap("STOP", "commit")))
    runs[0].wait_until_stopped()
    archived.run()
    runs[0].kill()
    left = placed_but_not_listed(archived)
    assert left
    version = archived.version()
    assert archived.run() == []
    assert archived.version() == version + 1
    archived.assert_equal(topic_of(archived))
    assert archived.run() == []
    assert archived.version() == version + 1, "where nothing is left behind, nothing is committed"


def test_a_lock_that_never_got_its_name_is_removed(archived: Archived) -> None:
    """A run killed while it makes its lock file leaves one that stands for nothing: the next run takes it away."""
    archived.run()
    (archived.path / "_staging" / ".lock-left").touch()
    assert archived.run() == []
    assert archived.stray_files() == set()


def test_a_zombie_commits_nothing(archived: Archived, runs: list[Run]) -> None:
    """A run that froze before its commit and wakes up after another one has committed its range: what it had written
    was left alone while it was alive, it commits nothing, and it takes its files away with it."""
    runs.append(Run(archived.environment(), trap=Trap("STOP", "commit")))
    runs[0].wait_until_stopped()
    asleep = placed_but_not_listed(archived)
    assert asleep
    archived.run()
    fill(archived.bootstrap_servers, topic_of(archived), seed=3)
    archived.run()
    assert archived.run() == []
    assert placed_but_not_listed(archived) == asleep, "files of a live run were removed"
    version = archived.version()
    runs[0].resume()
    assert runs[0].wait() == 0, runs[0].errors
    assert archived.version() - version <= 1, "but for its fence the zombie had nothing to commit"
    archived.run()
    archived.assert_equal(topic_of(archived))


@pytest.mark.parametrize("step", ["plan", "read", "place"])
def test_a_zombie_of_an_earlier_step(archived: Archived, runs: list[Run], step: str) -> None:
    """A run that froze before it had read or placed anything does no harm either when it goes on."""
    runs.append(Run(archived.environment(), trap=Trap("STOP", step)))
    runs[0].wait_until_stopped()
    archived.run()
    fill(archived.bootstrap_servers, topic_of(archived), seed=3)
    runs[0].resume()
    assert runs[0].wait() == 0, runs[0].errors
    archived.run()
    archived.assert_equal(topic_of(archived))


@pytest.mark.parametrize("step", ["read", "commit"])
def test_two_runs_of_the_same_range(archived: Archived, runs: list[Run], step: str) -> None:
    """Of two runs that go for the same range at the same moment, one archives it and the other has nothing to do."""
    version = archived.version()
    runs += [Run(archived.environment(), trap=Trap("STOP", step)) for _ in range(2)]
    for run in runs:
        run.wait_until_stopped()
    for run in runs:
        run.resume()
    assert [run.wait() for run in runs] == [0, 0], [run.errors for run in runs]
    assert archived.sql(f"SELECT count(*) FROM batches WHERE version > {version} AND messages > 0") == [(1,)]
    archived.run()
    archived.assert_equal(topic_of(archived))


def test_two_lanes_side_by_side(archived: Archived, runs: list[Run]) -> None:
    """Two lanes that run at once, each killed in its turn, share the partitions between them and lose nothing."""
    environment = {**archived.environment(), "ARCHIVER_LANES": "2", "ARCHIVER_BATCH_MESSAGES": "40"}
    traps = [Trap("KILL", "commit"), Trap("KILL", "clean")]
    for turn in range(2):
        pair = [Run(environment, lane, traps[(lane + turn) % 2]) for lane in range(2)]
        runs += pair
        assert [run.wait() for run in pair] == [-9, -9], [run.errors for run in pair]
    pair = [Run(environment, lane) for lane in range(2)]
    runs += pair
    assert [run.wait() for run in pair] == [0, 0], [run.errors for run in pair]
    archived.assert_equal(topic_of(archived))
    lanes = archived.sql("SELECT DISTINCT lane, unnest(ranges).partition % 2 FROM batches WHERE version > 1")
    assert len(lanes) == 2, "a partition belongs to one lane"


def test_leftovers_of_a_lane_that_is_no_more(archived: Archived, runs: list[Run]) -> None:
    """After a change from two lanes to one, the remaining lane removes what the other had left behind."""
    environment = {**archived.environment(), "ARCHIVER_LANES": "2"}
    runs += [Run(environment, lane, Trap("KILL", "commit")) for lane in range(2)]
    assert [run.wait() for run in runs] == [-9, -9]
    assert placed_but_not_listed(archived)
    archived.run()
    archived.assert_equal(topic_of(archived))
