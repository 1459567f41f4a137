"""Rules for runs whose disk fails under them while a broker has messages: the next run makes it good."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from archiver_pipeline.errors import ArchiveDamaged, StorageError
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.disk import Disk, mounted
from archiver_pipeline_tests.kafka.produce import create_topic, produce
from archiver_pipeline_tests.samples import at_step, numbered


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk of 16 megabytes."""
    with mounted(tmp_path / "disk", megabytes=16) as disk:
        yield disk


def begun(folder: Path, bootstrap_servers: str, topic: str) -> Archived:
    """An archive with a batch in it, and more to archive."""
    create_topic(bootstrap_servers, topic)
    produce(bootstrap_servers, topic, numbered(range(100)))
    archived = Archived(folder, bootstrap_servers, topic)
    archived.run()
    produce(bootstrap_servers, topic, numbered(range(100, 200), size=1000))
    return archived


@pytest.mark.parametrize("step", ["plan", "read", "frame", "sync", "place", "check", "commit"])
def test_a_disk_that_fills_up_in_mid_batch(bootstrap_servers: str, topic_name: str, disk: Disk, step: str) -> None:
    """Whenever the disk fills up, the error names the path and what to do, the table is as before and can be read, and
    once there is space the next run archives the batch."""
    archived = begun(disk.path, bootstrap_servers, topic_name)
    before = archived.messages(topic_name)
    with pytest.raises(
        StorageError, match=rf"No space left.*\({disk.path}.*Free space.* and run again: what is archived"
    ):
        archived.run(on_step=at_step(step, disk.fill))
    assert archived.messages(topic_name) == before
    disk.free()
    assert sum(batch.messages for batch in archived.run()) == 100
    archived.assert_equal(topic_name)


@pytest.mark.parametrize("folder", ["archive/_staging", "archive/_delta_log"])
def test_a_folder_that_becomes_read_only(bootstrap_servers: str, topic_name: str, disk: Disk, folder: str) -> None:
    """Where a folder of the archive refuses writes, nothing is committed, and afterwards nothing is lost or left."""
    archived = begun(disk.path, bootstrap_servers, topic_name)
    before = archived.messages(topic_name)
    with disk.read_only(folder), pytest.raises(StorageError, match=r"Read-only file system.*make the folder writable"):
        archived.run()
    assert archived.messages(topic_name) == before
    archived.run()
    archived.assert_equal(topic_name)


def test_a_damaged_log(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """A commit that was cut short is named with its path; nothing is changed, and with the file back it goes on."""
    archived = begun(tmp_path, bootstrap_servers, topic_name)
    newest = max((archived.path / "_delta_log").glob("*.json"))
    whole = newest.read_bytes()
    newest.write_bytes(whole[: len(whole) // 2])
    files = {path for path in archived.path.rglob("*") if path.is_file()}
    with pytest.raises(ArchiveDamaged, match=rf"{newest}.*Restore this file from a copy; nothing was changed"):
        archived.run()
    assert {path for path in archived.path.rglob("*") if path.is_file()} == files
    newest.write_bytes(whole)
    archived.run()
    archived.assert_equal(topic_name)


def test_a_lost_log(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Files whose log is gone are not taken for an empty archive: everything would be archived a second time."""
    archived = begun(tmp_path, bootstrap_servers, topic_name)
    log, safe = archived.path / "_delta_log", tmp_path / "safe"
    shutil.move(log, safe)
    with pytest.raises(ArchiveDamaged, match=rf"has files but its log is gone \({log}\)\. Restore the log's folder"):
        archived.run()
    assert not log.exists()
    shutil.move(safe, log)
    archived.run()
    archived.assert_equal(topic_name)


def test_a_lost_file_does_not_stop_the_archive(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """A listed file that is missing is for `verify` to find; new messages are archived all the same."""
    archived = begun(tmp_path, bootstrap_servers, topic_name)
    lost = archived.path / min(archived.listed_files())
    safe = shutil.move(lost, tmp_path / "safe.parquet")
    (batch,) = [batch for batch in [archived.archiver().batch()] if batch is not None]
    assert batch.messages == 100
    shutil.move(safe, lost)
    archived.run()
    archived.assert_equal(topic_name)
