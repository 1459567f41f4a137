"""Rules of the archive: files and offsets are committed in one step, once, whoever else is at it."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

import deltalake
import duckdb
import polars as pl
import pytest

from archiver_pipeline.errors import ArchiveDamaged, Superseded
from archiver_pipeline.events import ODD_TYPES
from archiver_pipeline.plan import RETENTION, Committed, Gap, TopicPartition
from archiver_pipeline.storage.folder_staging import leftovers
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.attempt import batch_of
from archiver_pipeline_tests.batches import ORDERS, archive, commit, event, files_in, offsets_in, place
from archiver_pipeline_tests.remote_run import RemoteRun

SECOND = TopicPartition("orders", "A", 1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the archive of a test lies; nothing is there yet."""
    return tmp_path / "archive"


def listed(folder: Path) -> set[str]:
    """The files that the table lists, as the archive names them."""
    return set(Archive(str(folder)).files()["path"])


def assert_intact(folder: Path, *offsets: int, at: TopicPartition = ORDERS) -> None:
    """The partition has exactly these offsets, and every file that the table lists is there."""
    rows = [row[3] for row in offsets_in(folder) if row[:3] == (at.topic, at.topic_id, at.partition)]
    assert rows == list(offsets)
    assert listed(folder) <= files_in(folder)


def test_a_commit_holds_files_offsets_and_fence(folder: Path) -> None:
    """One version of the table has the batch's rows, its offsets, its gaps and one more commit of its lane."""
    target = Archive(str(folder), lanes=3)
    attempt = batch_of(target, 2)
    gap = Gap(ORDERS, 0, 4, RETENTION)
    place(attempt, [event(), event("object.two")], 4)
    assert commit(attempt, 4, 6, messages=2, gaps=[gap]) == 1
    seen = target.ledger()
    assert (seen.version, seen.committed, seen.lanes) == (1, {ORDERS: Committed(6, 4, 2)}, {2: 1})
    (found,) = seen.gaps
    assert found.gap == gap
    assert found.time is not None
    assert abs((datetime.now(UTC) - found.time).total_seconds()) < 600
    deltalake.DeltaTable(folder).create_checkpoint()
    assert target.ledger() == seen
    assert_intact(folder, 4, 5)


def test_of_two_runs_of_one_range_one_wins(folder: Path) -> None:
    """Of two attempts from one snapshot with the same offsets the second is refused, and its files are never listed."""
    target = Archive(str(folder))
    first, second = batch_of(target, 0), batch_of(target, 0)
    for attempt in (first, second):
        place(attempt, [event(), event()], 0)
    commit(first, 0, 2, messages=2)
    with pytest.raises(Superseded, match="another run of lane 0 committed first"):
        commit(second, 0, 2, messages=2)
    second.discard()
    first.clean()
    assert_intact(folder, 0, 1)
    assert files_in(folder) == listed(folder), "nothing of it is in the log: its files go at once"
    archive(target, [event()])
    assert_intact(folder, 0, 1, 2)
    assert files_in(folder) == listed(folder)


def test_a_log_that_is_put_back_in_mid_run_is_noticed(folder: Path, tmp_path: Path) -> None:
    """A run whose snapshot was undone by a restore is refused, though the table has its version again by another's."""
    target = Archive(str(folder))
    archive(target, [event()] * 10)
    log, copy = folder / "_delta_log", tmp_path / "copy"
    shutil.copytree(log, copy)
    archive(target, [event()] * 10)
    slow = batch_of(target, 0)
    place(slow, [event()] * 10, 20)
    shutil.rmtree(log)
    shutil.copytree(copy, log)
    archive(Archive(str(folder)), [event()] * 5)
    with pytest.raises(Superseded):
        commit(slow, 20, 30, messages=10)
    assert target.ledger().committed[ORDERS] == Committed(15, 0, 15)


def test_two_lanes_never_take_the_same_offsets(folder: Path) -> None:
    """Runs of two lanes that both move one partition, as when their number changes: the second is refused."""
    target = Archive(str(folder), lanes=2)
    first, second = batch_of(target, 0), batch_of(target, 1)
    for attempt in (first, second):
        place(attempt, [event()], 0)
    commit(first, 0, 1)
    with pytest.raises(Superseded):
        commit(second, 0, 1)
    assert_intact(folder, 0)


def test_lanes_commit_side_by_side(folder: Path) -> None:
    """Two lanes with partitions of their own both succeed from one snapshot."""
    target = Archive(str(folder), lanes=2)
    first, second = batch_of(target, 0), batch_of(target, 1)
    place(first, [event()], 0, ORDERS)
    place(second, [event()], 0, SECOND)
    assert (commit(first, 0, 1, ORDERS), commit(second, 0, 1, SECOND)) == (1, 2)
    assert_intact(folder, 0, at=ORDERS)
    assert_intact(folder, 0, at=SECOND)


@pytest.mark.parametrize("cleaned_up", [False, True])
def test_a_run_thought_dead_can_never_commit(folder: Path, cleaned_up: bool) -> None:
    """After others of its lane committed, an old run is refused, even where its partition did not move.

    So it is when the log's clean-up has removed the version that it began from.
    """
    target = Archive(str(folder))
    zombie = batch_of(target, 0)
    place(zombie, [event()], 0, SECOND)
    for _ in range(5):
        archive(target, [event()])
    if cleaned_up:
        deltalake.DeltaTable(folder).create_checkpoint()
        for version in range(5):
            (folder / "_delta_log" / f"{version:020}.json").unlink()
    with pytest.raises(Superseded):
        commit(zombie, 0, 1, SECOND)
    zombie.discard()
    assert_intact(folder, *range(5))
    assert target.ledger().committed == {ORDERS: Committed(5, 0, 5)}


def test_a_frozen_run_wakes_up_too_late(folder: Path) -> None:
    """A run that was frozen before its commit, while others went on, is refused when it wakes up."""
    with RemoteRun(folder, lane=0) as run:
        run.do("begin", "write", "place")
        run.freeze()
        run.start("commit")
        target = Archive(str(folder))
        assert [archive(target, [event()]) for _ in range(3)] == [1, 2, 3]
        run.thaw()
        assert run.answer() == "Superseded"
    archive(target, [event()])
    assert_intact(folder, 0, 1, 2, 3)
    assert files_in(folder) == listed(folder)


def test_a_lost_answer_is_no_refusal(folder: Path) -> None:
    """A commit that went through and then reported an error is recognised as one's own, and its files stay.

    The error is a real one: the checkpoint that follows the commit cannot be written, a folder being in its place.
    """
    target = Archive(str(folder))
    archive(target, [event()])
    deltalake.DeltaTable(folder).alter.set_table_properties({"delta.checkpointInterval": "1"})
    attempt = batch_of(target, 0)
    place(attempt, [event(), event()], 1)
    in_the_way = folder / "_delta_log" / f"{3:020}.checkpoint.parquet"
    (in_the_way / "x").mkdir(parents=True)
    assert commit(attempt, 1, 3, messages=2) == 3
    attempt.discard()
    (in_the_way / "x").rmdir()
    in_the_way.rmdir()
    assert_intact(folder, 0, 1, 2)
    archive(target, [event()])
    assert_intact(folder, 0, 1, 2, 3)
    assert leftovers(folder, lambda _: True) == []


def test_files_of_a_commit_are_never_given_up(folder: Path) -> None:
    """Whatever fails after a commit was tried, its files stay until the log tells whether they belong to the table."""
    target = Archive(str(folder))
    attempt = batch_of(target, 0)
    place(attempt, [event()], 0)
    commit(attempt, 0, 1)
    attempt.discard()
    assert_intact(folder, 0)
    archive(target, [event()])
    assert_intact(folder, 0, 1)


@pytest.mark.parametrize(
    ("steps", "archived"),
    [
        (("write",), 0),
        (("write", "place"), 0),
        (("write", "place", "commit"), 1),
        (("write", "place", "commit", "clean"), 1),
    ],
)
def test_the_next_run_cleans_up_behind_a_killed_one(folder: Path, steps: tuple[str, ...], archived: int) -> None:
    """Whenever a run is killed, the next one keeps what it committed and removes all else, with its own commit."""
    target = Archive(str(folder))
    with RemoteRun(folder, lane=0) as run:
        run.do("begin", *steps)
    assert_intact(folder, *range(archived))
    attempt = batch_of(target, 0)
    assert len(attempt.leftovers) == ("clean" not in steps)
    place(attempt, [event()], archived)
    commit(attempt, archived, archived + 1, messages=1)
    assert attempt.clean() == (steps == ("write", "place"))
    assert_intact(folder, *range(archived + 1))
    assert files_in(folder) == listed(folder)
    assert list((folder / "_staging").iterdir()) == []


def test_a_run_with_nothing_to_archive_can_clean_up(folder: Path) -> None:
    """A commit of the fence alone moves no offset, and lets what a killed run left be removed."""
    target = Archive(str(folder))
    archive(target, [event()])
    before = target.ledger()
    with RemoteRun(folder, lane=0) as run:
        run.do("begin", "write", "place")
    attempt = batch_of(target, 0)
    attempt.commit([], {})
    assert attempt.clean() == 1
    seen = target.ledger()
    assert (seen.committed, seen.epoch("lane/0")) == (before.committed, before.epoch("lane/0") + 1)
    assert files_in(folder) == listed(folder)


def test_a_lane_cleans_behind_itself_only(folder: Path) -> None:
    """What a run of another lane left is that lane's business, as long as there is such a lane."""
    with RemoteRun(folder, lane=1, lanes=2) as run:
        run.do("begin", "write", "place")
    two, one = Archive(str(folder), lanes=2), Archive(str(folder), lanes=1)
    archive(two, [event()])
    assert len(files_in(folder) - listed(folder)) == 1
    archive(one, [event()])
    assert files_in(folder) == listed(folder)
    assert one.ledger().lanes == {0: 2, 1: 1}


def test_a_lane_that_is_no_more_is_fenced(folder: Path) -> None:
    """A run of a lane that no longer exists, and whose files were removed, can never commit them."""
    zombie = batch_of(Archive(str(folder), lanes=4), 3)
    place(zombie, [event()], 0, SECOND)
    zombie.staging.release()
    archive(Archive(str(folder), lanes=2), [event()])
    assert files_in(folder) == listed(folder)
    with pytest.raises(Superseded):
        commit(zombie, 0, 1, SECOND)
    assert_intact(folder, 0)


def test_six_writers_lose_nothing(folder: Path) -> None:
    """Six processes, two of each of three lanes, make the archive and commit as fast as they can: all is there once."""
    runs = [RemoteRun(folder, lane=number % 3, lanes=3, partition=number % 3) for number in range(6)]
    try:
        for run in runs:
            run.start("loop:10")
        # Read the while: what is committed never goes back, and a log that is written just now is no damaged one.
        target, seen, limit = Archive(str(folder), lanes=3), -1, time.monotonic() + 60
        while sum(what.next for what in target.ledger().committed.values()) < 30:
            assert target.ledger().version >= seen
            seen = target.ledger().version
            assert time.monotonic() < limit
            time.sleep(0.01)
        assert [run.answer() for run in runs] == ["done"] * 6
    finally:
        for run in runs:
            run.kill()
    assert offsets_in(folder) == [("orders", "A", number, offset) for number in range(3) for offset in range(10)]
    assert target.snapshot()[1].lanes == {0: 10, 1: 10, 2: 10}
    for lane in range(3):
        archive(target, [event()], TopicPartition("orders", "A", lane), lane)
    assert files_in(folder) == listed(folder)


def test_a_kill_while_the_table_is_made_is_no_harm(folder: Path) -> None:
    """A log's folder without a commit in it is an archive that is not there yet."""
    (folder / "_delta_log").mkdir(parents=True)
    target = Archive(str(folder))
    assert not target.exists()
    assert archive(target, [event()]) == 1
    assert_intact(folder, 0)


def test_a_table_that_cannot_be_read_is_not_made_anew(folder: Path) -> None:
    """A log whose first commit is damaged is an error that names it, and nothing is written."""
    archive(Archive(str(folder)), [event()])
    broken = folder / "_delta_log" / f"{0:020}.json"
    broken.write_text('{"commitInfo":{}}\n')
    with pytest.raises(ArchiveDamaged, match="the table's log cannot be read") as refused:
        archive(Archive(str(folder)), [event()])
    assert "\n" not in str(refused.value)
    assert "\x1b" not in str(refused.value)
    assert broken.read_text() == '{"commitInfo":{}}\n'


def test_every_reader_gives_back_odd_types(folder: Path) -> None:
    """Types with slashes, dots, quotes, emoji or line ends come back from Polars, DuckDB and the archive itself."""
    archive(Archive(str(folder)), [event(name) for name in ODD_TYPES])
    by_us = set(Archive(str(folder)).files()["type"])
    by_polars = set(pl.read_delta(str(folder))["type"])
    with duckdb.connect() as connection:
        every = f"read_parquet('{folder}/type=*/**/*.parquet', hive_types_autocast = false)"
        by_duckdb = {name for (name,) in connection.execute(f"SELECT DISTINCT type FROM {every}").fetchall()}
    assert len(by_us) == len(ODD_TYPES)
    assert by_us == by_polars == by_duckdb
    assert listed(folder) == files_in(folder)
    assert batch_of(Archive(str(folder)), 0).types() == by_us
