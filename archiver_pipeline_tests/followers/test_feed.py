"""Rules of the feed: what a follower lacks is found without reading what it has, or a file again and again."""

from __future__ import annotations

from pathlib import Path

import pytest

from archiver_pipeline.followers.base import FollowerPosition
from archiver_pipeline.followers.feed import Feed
from archiver_pipeline.hours import Hour
from archiver_pipeline.plan import RETENTION, Gap, TopicPartition
from archiver_pipeline.rewrites.seal import Sealer
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.attempt import batch_of
from archiver_pipeline_tests.batches import AUGUST_FIRST_AT_THREE, HOUR_MS, archive, commit, event, place
from archiver_pipeline_tests.followers.workload import catch_up_now

BUSY, QUIET = TopicPartition("orders", "A", 0), TopicPartition("orders", "A", 1)
HOURS = 20


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of an archive whose hours are sealed at once."""
    return Settings(topics=("orders",), BASE_DIR=tmp_path, seal_grace_minutes=0, keep_replaced_hours=0)


@pytest.fixture
def target(settings: Settings) -> Archive:
    """An archive without anything in it."""
    return Archive(settings.archive_uri)


def forget_the_log(target: Archive) -> None:
    """Clean up the table's log up to its newest commit."""
    target.table().create_checkpoint()
    for path in sorted((Path(target.uri) / "_delta_log").glob("*.json"))[:-1]:
        path.unlink()


def test_partitions_of_unlike_pace(settings: Settings, target: Archive) -> None:
    """A late follower of a partition with 30 messages an hour and of one with 2 reads each hour once or twice."""
    for hour in range(HOURS):
        for at, count in ((BUSY, 30), (QUIET, 2)):
            archive(target, [event()] * count, at, milliseconds=AUGUST_FIRST_AT_THREE + hour * HOUR_MS)
    catch_up_now(target)
    hours = target.files().select("dt", "hr").unique().rows()
    for dt, hr in hours:
        assert Sealer(settings).seal(Hour(dt, hr))
    Sealer(settings).clean()
    forget_the_log(target)
    feed = Feed(target, max_messages=64)
    steps = list(feed.steps(FollowerPosition()))
    rows = [frame.height for step in steps for frame in feed.frames(step, ("offset",))]
    assert len(steps) >= HOURS // 2
    assert sum(rows) == HOURS * 32
    assert sum(len(step.paths) for step in steps) <= 2 * HOURS


def test_a_partition_that_begins_behind_a_gap(target: Archive) -> None:
    """The log is gone back through to the first batch behind the gap, and no further."""
    for _ in range(5):
        archive(target, [event()], QUIET)
    attempt = batch_of(target, 0)
    place(attempt, [event()] * 3, 10, BUSY)
    commit(attempt, 10, 13, BUSY, 3, [Gap(BUSY, 0, 10, RETENTION)])
    attempt.clean()
    forget_the_log(target)
    (step,) = Feed(target).steps(FollowerPosition({BUSY: 0, QUIET: 5}))
    assert step.messages == 3
    assert step.ranges == {BUSY: (0, 13)}
    assert len(step.paths) == 1
