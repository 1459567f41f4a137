"""Rules for a disk that is full or read-only: an error with path and remedy, an intact archive, and on it goes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from archiver_pipeline.errors import StorageError
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.attempt import batch_of
from archiver_pipeline.view import view
from archiver_pipeline_tests.batches import archive, commit, event, files_in, offsets_in, place
from archiver_pipeline_tests.disk import Disk, mounted


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    """A disk of six megabytes."""
    with mounted(tmp_path / "disk", megabytes=6) as disk:
        yield disk


def assert_helpful(error: StorageError, disk: Disk, what: str) -> None:
    """The error is one line, with what is wrong, the path and what to do."""
    assert what in str(error)
    assert str(disk.path) in str(error)
    assert "Free space, or make the folder writable, and run again" in str(error)
    assert "\n" not in str(error)
    assert "\x1b" not in str(error)


def rows(disk: Disk) -> list[int]:
    """The offsets that the table has."""
    return [row[3] for row in offsets_in(disk.path / "archive")]


@pytest.mark.parametrize("kib", [0, 4, 8, 12, 16, 20])
def test_a_full_disk_loses_nothing(disk: Disk, kib: int) -> None:
    """Wherever the disk fills up, at staging, moving or committing, the table stays as it was and then goes on."""
    target = Archive(str(disk.path / "archive"))
    archive(target, [event()])
    disk.fill(leave=kib * 1024)
    try:
        archive(target, [event(), event("object.two", payload="x" * 50)])
    except StorageError as error:
        assert_helpful(error, disk, "No space left on device")
        assert rows(disk) == [0]
        disk.free()
        archive(target, [event(), event()])
    disk.free()
    assert rows(disk) == [0, 1, 2]
    archive(target, [event()])
    assert rows(disk) == [0, 1, 2, 3]
    assert files_in(disk.path / "archive") == set(target.files()["path"])


def test_a_full_disk_stops_a_new_archive_cleanly(disk: Disk) -> None:
    """An archive that could not be made is made when there is space."""
    disk.fill()
    target = Archive(str(disk.path / "archive"))
    with pytest.raises(StorageError) as refused:
        archive(target, [event()])
    assert_helpful(refused.value, disk, "No space left on device")
    disk.free()
    archive(target, [event()])
    assert rows(disk) == [0]


def test_a_read_only_disk_loses_nothing(disk: Disk) -> None:
    """A disk that has become read-only refuses the batch; what is archived is still read, and later it goes on."""
    target = Archive(str(disk.path / "archive"))
    archive(target, [event()])
    with disk.read_only():
        with pytest.raises(StorageError) as refused:
            archive(target, [event()])
        assert_helpful(refused.value, disk, "Read-only file system")
        with pytest.raises(StorageError):
            Archive(str(disk.path / "another")).table()
        assert rows(disk) == [0]
    archive(target, [event()])
    assert rows(disk) == [0, 1]


def test_a_log_that_cannot_be_written_loses_nothing(disk: Disk) -> None:
    """Where only the commit fails, the batch's files are left to the next run, which archives the offsets."""
    target = Archive(str(disk.path / "archive"))
    archive(target, [event()])
    attempt = batch_of(target, 0)
    place(attempt, [event()], 1)
    with disk.read_only("archive/_delta_log"):
        with pytest.raises(StorageError) as refused:
            commit(attempt, 1, 2)
        assert_helpful(refused.value, disk, "Read-only file system")
    attempt.discard()
    assert rows(disk) == [0]
    archive(target, [event()])
    assert rows(disk) == [0, 1]
    assert files_in(disk.path / "archive") == set(target.files()["path"])


def test_a_full_disk_leaves_the_view_as_it_was(disk: Disk) -> None:
    """A view that cannot be made new stays the old one, whole, and nothing is left beside it."""
    target, path = Archive(str(disk.path / "archive")), disk.path / "archive.duckdb"
    archive(target, [event()])
    view.refresh(path, target)
    archive(target, [event(f"type.{number}", x=1) for number in range(20)])
    names = sorted(entry.name for entry in disk.path.iterdir())
    refused = 0
    for kib in (0, 300, 600, 900, 1200, 1500, 2000, 2500):
        disk.fill(leave=kib * 1024)
        try:
            view.refresh(path, target)
        except StorageError as error:
            refused += 1
            assert_helpful(error, disk, "No space left on device")
            disk.free()
            with duckdb.connect(str(path), read_only=True) as connection:
                assert connection.sql("SELECT count(*) FROM messages").fetchall() == [(1,)]
            assert sorted(entry.name for entry in disk.path.iterdir()) == names
        disk.free()
    assert 1 < refused < 8
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.sql("SELECT count(*) FROM messages").fetchall() == [(21,)]
        assert connection.sql('SELECT count(*) FROM "types"').fetchall() == [(21,)]
