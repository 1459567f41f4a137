"""Rules for a disk that fills up in the midst of a seal or backfill: a clear error, nothing changed, and on it goes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from archiver_pipeline.errors import StorageError
from archiver_pipeline.hours import parse_hour
from archiver_pipeline.rewrites.backfill import Backfiller
from archiver_pipeline.rewrites.seal import Sealer
from archiver_pipeline.stored.verify import verify
from archiver_pipeline.view import view
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.disk import Disk, mounted
from archiver_pipeline_tests.kafka.produce import Sent, create_topic, produce

HOUR = parse_hour("2019-08-01T03")
HOUR_MS = 3_600_000
SPACES = (0, 4, 8, 16, 32, 64, 128, 192, 256, 320, 384, 448, 512, 640, 768, 1024, 1536, 2048)
"""KiB that are left, from nothing at all to enough for a rewrite of the hour."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk of twelve megabytes."""
    with mounted(tmp_path / "disk", megabytes=12) as disk:
        yield disk


@pytest.fixture
def archived(disk: Disk, bootstrap_servers: str, topic_name: str) -> Archived:
    """An archive on that disk: an hour of two types that hardly can be compressed, in three batches."""
    chance = random.Random(4)
    create_topic(bootstrap_servers, topic_name, partitions=2)
    archived = Archived(disk.path, bootstrap_servers, topic_name, keep_replaced_hours=0)
    for batch in range(3):
        stamps = [(HOUR.number or 0) * HOUR_MS + batch * 1000 + n for n in range(60)]
        messages = [
            Sent(b'{"type": "t%d", "text": "%s"}' % (stamp % 2, chance.randbytes(1000).hex().encode()), None, (), stamp)
            for stamp in stamps
        ]
        produce(bootstrap_servers, topic_name, messages)
        archived.run()
    return archived


def seal(archived: Archived) -> None:
    """Seal the hour."""
    Sealer(archived.settings).seal(HOUR)


def backfill(archived: Archived) -> None:
    """Read the hour again from Kafka; nothing may be said to be lost."""
    assert [done.fault for done in Backfiller(archived.settings).run([HOUR])] == [None]


def clean(archived: Archived) -> None:
    """Bring the view up to date and remove what is no longer needed."""
    view.refresh(archived.settings.view_path, archived.archiver().archive)
    Sealer(archived.settings).clean()


def assert_helpful(error: StorageError, disk: Disk) -> None:
    """The error is one line, with what is wrong, the path and what to do."""
    text = str(error)
    assert "No space left on device" in text
    assert str(disk.path) in text
    assert "Free space, or make the folder writable, and run again: what is archived is untouched" in text
    assert "\n" not in text
    assert "\x1b" not in text


def refusals(archived: Archived, disk: Disk, rewrite: Callable[[Archived], None]) -> list[int]:
    """Rewrite with more and more space until that succeeds; return the spaces that were too small."""
    refused = []
    for kib in SPACES:
        version, listed = archived.version(), archived.listed_files()
        disk.fill(leave=kib * 1024)
        try:
            rewrite(archived)
        except StorageError as error:
            disk.free()
            assert_helpful(error, disk)
            # A backfill that has mended the hour and had no space to seal it has done half of its work, in one commit.
            if archived.version() != version:
                assert rewrite is backfill
                assert verify(archived.settings, against_kafka=True).good, f"{kib} KiB"
            else:
                assert archived.listed_files() == listed, f"{kib} KiB"
            refused.append(kib)
        else:
            disk.free()
            break
    return refused


def assert_good(archived: Archived) -> None:
    """The archive is what Kafka has, and nothing lies about."""
    clean(archived)
    archived.assert_equal(*archived.settings.topics)
    report = verify(archived.settings, against_kafka=True)
    assert report.good, report.faults
    assert archived.sql("SELECT DISTINCT files, sealed FROM hours") == [(1, True)]


def test_a_disk_full_in_a_seal_changes_nothing(archived: Archived, disk: Disk) -> None:
    """Wherever a seal runs out of space, the table stays as it was, and the next one that has enough seals the hour."""
    refused = refusals(archived, disk, seal)
    assert len(refused) > 5, "the disk was full in many a step"
    assert refused != list(SPACES), "at last there was enough"
    assert_good(archived)


def test_a_disk_full_in_a_backfill_changes_nothing(archived: Archived, disk: Disk) -> None:
    """The same goes for a backfill over a file that is gone; what it could not mend stays as damaged as it was."""
    gone = archived.path / min(archived.listed_files())
    gone.unlink()
    refused = refusals(archived, disk, backfill)
    assert len(refused) > 5
    assert refused != list(SPACES)
    assert_good(archived)


def test_a_disk_full_under_another_type_rule(archived: Archived, disk: Disk) -> None:
    """Nor does a backfill that moves messages to another type leave half of them behind."""
    topic = archived.settings.topics[0]
    moved = Archived(disk.path, archived.bootstrap_servers, topic, type_path="constant:all", keep_replaced_hours=0)
    refused = refusals(moved, disk, backfill)
    assert len(refused) > 5
    assert refused != list(SPACES)
    assert_good(moved)
    assert moved.sql("SELECT DISTINCT type FROM messages") == [("all",)]


def test_a_log_that_cannot_be_written_changes_nothing(archived: Archived, disk: Disk) -> None:
    """Where only the commit of a seal fails, what it had placed goes with the next clean-up."""
    with disk.read_only("archive/_delta_log"):
        with pytest.raises(StorageError) as refused:
            seal(archived)
        assert "Read-only file system" in str(refused.value)
        assert "Free space, or make the folder writable, and run again" in str(refused.value)
    placed = archived.stray_files()
    assert any(name.startswith("type=") for name in placed)
    clean(archived)
    archived.assert_equal(*archived.settings.topics)
    seal(archived)
    assert_good(archived)
