"""Rules of staging: a killed run leaves nothing that is not found again, and a live one is left alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from archiver_pipeline.errors import StorageError, Superseded
from archiver_pipeline.storage.folder_staging import FolderStaging, in_flight, leftovers, manifest, remove
from archiver_pipeline.storage.staging import Leftover
from archiver_pipeline_tests.batches import files_in
from archiver_pipeline_tests.remote_run import ROOT, RemoteRun

FOLDER = "type=x/dt=2019-08-01/hr=03"


def everyones(_: str) -> bool:
    """Whose leftovers: those of any lane."""
    return True


def placed(archive: Path, scope: str = "lane0", count: int = 2) -> FolderStaging:
    """An attempt that has moved its files into place."""
    attempt = FolderStaging(archive, scope)
    for number in range(count):
        attempt.write(FOLDER, b"%d" % number)
    attempt.sync()
    attempt.place()
    return attempt


def test_files_are_moved_when_all_are_written(tmp_path: Path) -> None:
    """Until `place` nothing lies where readers look; then every file does, under the name that was promised."""
    attempt = FolderStaging(tmp_path, "lane0")
    paths = [attempt.write(FOLDER, content) for content in (b"one", b"two")]
    assert files_in(tmp_path) == set()
    attempt.sync()
    attempt.place()
    assert files_in(tmp_path) == set(paths) == set(attempt.placed)
    assert [(tmp_path / path).read_bytes() for path in paths] == [b"one", b"two"]
    attempt.finish()
    assert files_in(tmp_path) == set(paths)
    assert list((tmp_path / "_staging").iterdir()) == []


def test_the_same_content_has_another_name(tmp_path: Path) -> None:
    """Two attempts with the same content never write to the same file."""
    one, other = placed(tmp_path, count=1), placed(tmp_path, count=1)
    assert set(one.placed).isdisjoint(other.placed)
    assert len(files_in(tmp_path)) == 2


def test_an_attempt_given_up_leaves_nothing(tmp_path: Path) -> None:
    """`discard` removes files, folders and lock, and only its own."""
    (tmp_path / "type=y").mkdir()
    other = placed(tmp_path)
    attempt = FolderStaging(tmp_path, "lane0")
    attempt.write("type=z/dt=2019-08-01/hr=03", b"")
    attempt.place()
    attempt.discard()
    assert files_in(tmp_path) == set(other.placed)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["_staging", "type=x", "type=y"]
    other.discard()
    assert list((tmp_path / "_staging").iterdir()) == []


@pytest.mark.parametrize(("steps", "files"), [(("begin", "stage"), 0), (("write",), 0), (("write", "place"), 1)])
def test_what_a_killed_run_left_is_found(tmp_path: Path, steps: tuple[str, ...], files: int) -> None:
    """Killed before, between or after writing and moving, an attempt is listed with the places of its files."""
    with RemoteRun(tmp_path, lane=3) as run:
        run.do(*steps)
        assert leftovers(tmp_path, everyones) == []
        assert len(in_flight(tmp_path)) == files
    (found,) = leftovers(tmp_path, everyones)
    assert (found.scope, len(found.files)) == ("lane3", files)
    assert set(found.files) == files_in(tmp_path) == in_flight(tmp_path)
    assert leftovers(tmp_path, lambda scope: scope == "lane2") == []
    assert remove(tmp_path, found, keep=()) == files
    assert leftovers(tmp_path, everyones) == []
    assert list((tmp_path / "_staging").iterdir()) == []
    assert files_in(tmp_path) == set()


def test_a_frozen_run_is_not_taken_for_dead(tmp_path: Path) -> None:
    """A run that is stopped (SIGSTOP) still holds its lock: nobody cleans behind it, and it goes on unharmed."""
    with RemoteRun(tmp_path, lane=0) as run:
        run.do("write")
        run.freeze()
        assert leftovers(tmp_path, everyones) == []
        run.thaw()
        run.do("place")
        assert len(files_in(tmp_path)) == 1
        run.freeze()
        assert leftovers(tmp_path, everyones) == []
    assert len(leftovers(tmp_path, everyones)) == 1


_WATCHED = """
import pathlib, sys
from archiver_pipeline.storage.folder_staging import FolderStaging, leftovers
root = pathlib.Path(sys.argv[1])

def watch(event, arguments):
    if event in ("fcntl.flock", "os.mkdir", "os.rename"):
        print(event, sorted(path.suffix for path in root.glob("_staging/*")))

sys.addaudithook(watch)
kept = FolderStaging(root, "lane0")
"""


def test_a_run_just_begun_is_not_taken_for_dead(tmp_path: Path) -> None:
    """An attempt has its lock before it has a name by which others could find it, and a name before it has a folder."""
    command = [sys.executable, "-c", _WATCHED, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[-3:] == ["fcntl.flock ['']", "os.rename ['']", "os.mkdir ['.lock']"]


def test_listed_files_stay(tmp_path: Path) -> None:
    """What the table lists is kept, though its run was killed before it could say that it was done."""
    attempt = placed(tmp_path, count=3)
    attempt.release()
    (found,) = leftovers(tmp_path, everyones)
    assert remove(tmp_path, found, keep={found.files[1]}) == 2
    assert files_in(tmp_path) == {found.files[1]}
    assert leftovers(tmp_path, everyones) == []


class Kept(set[str]):
    """Files to keep; takes down what is still staged when it is asked for the first time."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self.staged: list[str] | None = None

    def __contains__(self, file: object) -> bool:
        if self.staged is None:
            self.staged = sorted(path.name for path in self._folder.iterdir())
        return super().__contains__(file)


def test_staged_files_go_first(tmp_path: Path) -> None:
    """Before a file in place is removed, nothing is left that a process which wakes up now could move there."""
    attempt = FolderStaging(tmp_path, "lane0")
    attempt.write(FOLDER, b"")
    attempt.write("type=y/dt=2019-08-01/hr=03", b"")
    (tmp_path / "type=y" / "dt=2019-08-01").mkdir(parents=True)
    (tmp_path / "type=y" / "dt=2019-08-01" / "hr=03").write_bytes(b"in the way")
    with pytest.raises(StorageError):
        attempt.place()
    attempt.release()
    (found,) = leftovers(tmp_path, everyones)
    keep = Kept(tmp_path / "_staging" / attempt.attempt)
    remove(tmp_path, found, keep)
    assert keep.staged == ["manifest"]


def test_removing_may_be_interrupted(tmp_path: Path) -> None:
    """A run killed while it cleaned leaves an attempt that the next one can remove all the same."""
    placed(tmp_path).release()
    (found,) = leftovers(tmp_path, everyones)
    (tmp_path / found.files[0]).unlink()
    (tmp_path / "_staging" / found.attempt / "manifest").unlink()
    (tmp_path / "_staging" / found.attempt).rmdir()
    assert leftovers(tmp_path, everyones) == [Leftover(found.scope, found.attempt, ())]
    assert remove(tmp_path, found, keep=()) == 1
    assert remove(tmp_path, found, keep=()) == 0
    assert files_in(tmp_path) == set()
    assert list((tmp_path / "_staging").iterdir()) == []


def test_the_manifest_is_there_before_the_first_move(tmp_path: Path) -> None:
    """A run killed between two moves has written down where all of its files go."""
    attempt = FolderStaging(tmp_path, "lane0")
    paths = [attempt.write(f"type={number}/dt=2019-08-01/hr=03", b"") for number in range(3)]
    (tmp_path / "type=1" / "dt=2019-08-01").mkdir(parents=True)
    (tmp_path / "type=1" / "dt=2019-08-01" / "hr=03").write_bytes(b"in the way")
    with pytest.raises(StorageError):
        attempt.place()
    assert manifest(tmp_path, attempt.attempt) == tuple(paths)
    attempt.release()
    (found,) = leftovers(tmp_path, everyones)
    remove(tmp_path, found, keep=())
    assert files_in(tmp_path) == set()


def test_a_run_whose_files_were_removed_moves_none(tmp_path: Path) -> None:
    """A run taken for dead by mistake learns of it when it moves its files, and places nothing."""
    attempt = FolderStaging(tmp_path, "lane0")
    attempt.write(FOLDER, b"")
    remove(tmp_path, Leftover("lane0", attempt.attempt, manifest(tmp_path, attempt.attempt)), keep=())
    with pytest.raises(Superseded, match="another run took this one for dead and removed its files"):
        attempt.place()
    assert files_in(tmp_path) == set()


def test_files_placed_after_they_were_listed_are_removed(tmp_path: Path) -> None:
    """A run taken for dead before it moved its files leaves none behind when it moves them before it is cleaned."""
    attempt = FolderStaging(tmp_path, "lane0")
    attempt.write(FOLDER, b"")
    listed = Leftover("lane0", attempt.attempt, manifest(tmp_path, attempt.attempt))
    attempt.place()
    assert remove(tmp_path, listed, keep=()) == 1
    assert files_in(tmp_path) == set()


def test_many_files_are_forced_to_the_disk_too(tmp_path: Path) -> None:
    """Hundreds of files are written, moved and found like two."""
    attempt = placed(tmp_path, count=300)
    assert len(files_in(tmp_path)) == 300 == len(manifest(tmp_path, attempt.attempt))


def test_a_refused_write_names_path_and_remedy(tmp_path: Path) -> None:
    """Where the folder cannot be made, the error names it and says what to do."""
    (tmp_path / "archive").write_bytes(b"a file where the folder ought to be")
    with pytest.raises(StorageError) as refused:
        FolderStaging(tmp_path / "archive", "lane0")
    assert str(tmp_path / "archive") in str(refused.value)
    assert "A file stands where a folder has to be: move it away" in str(refused.value)


def test_what_is_no_attempt_is_left_alone(tmp_path: Path) -> None:
    """Files of others in the staging folder are neither listed nor touched."""
    (tmp_path / "_staging").mkdir()
    for name in ("lane0-zzz.lock", "notes.lock", ".lane0-0123456789ab.lock", "lane0-0123456789ab"):
        (tmp_path / "_staging" / name).touch()
    assert leftovers(tmp_path, everyones) == []
    assert len(os.listdir(tmp_path / "_staging")) == 4
