"""Sealing beside others, and killed: what it leaves is removed in its time, and nothing that somebody needs."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import deltalake
import polars as pl
import pytest

from archiver_pipeline.errors import StorageError
from archiver_pipeline.hours import Hour
from archiver_pipeline.storage.folder_staging import leftovers
from archiver_pipeline.table.attempt import batch_of
from archiver_pipeline_tests.batches import (
    commit,
    event,
    files_in,
    offsets_in,
    place,
)
from archiver_pipeline_tests.disk import mounted
from archiver_pipeline_tests.remote_run import ROOT, RemoteRun
from archiver_pipeline_tests.samples import at_step
from archiver_pipeline_tests.sealable import FOUR, THREE, Sealable, filled


@pytest.fixture
def sealable(tmp_path: Path) -> Sealable:
    """An archive of three batches of two types at three o'clock, and one at four."""
    return filled(tmp_path)


def test_replaced_files_stay_for_a_while(sealable: Sealable) -> None:
    """A reader of the version before the seal finds its files until ARCHIVER_KEEP_REPLACED_HOURS have passed."""
    reader = pl.scan_delta(deltalake.DeltaTable(sealable.path))
    old = {path for paths in sealable.listed().values() for path in paths}
    sealable.sealer().seal(THREE)
    assert sealable.keeping(1).clean() == 0
    assert old <= files_in(sealable.path)
    assert reader.collect().height == 31
    make_older(sealable, minutes=59)
    assert sealable.keeping(1).clean() == 0
    make_older(sealable, minutes=2)
    assert sealable.keeping(2).clean() == 0
    assert sealable.keeping(1).clean() == 6
    assert sealable.stray() == set()
    assert sealable.keeping(1).clean() == 0


def make_older(sealable: Sealable, minutes: int) -> None:
    """Let the files that the newest commit took off the list have been taken off earlier."""
    actions = sealable.last_commit()
    for action in actions:
        if "remove" in action:
            action["remove"]["deletionTimestamp"] -= minutes * 60_000
    path = sealable.path / "_delta_log" / f"{sealable.version():020}.json"
    path.write_text("".join(json.dumps(action, separators=(",", ":")) + "\n" for action in actions))


def test_replaced_files_are_found_behind_a_checkpoint(sealable: Sealable) -> None:
    """What was replaced is removed in its time also where the log was put together since."""
    sealable.sealer().seal(THREE)
    version = sealable.version()
    deltalake.DeltaTable(sealable.path).create_checkpoint()
    for number in range(version):
        (sealable.path / "_delta_log" / f"{number:020}.json").unlink()
    assert sealable.keeping(1).clean() == 0
    assert len(sealable.target.removed()) == 6
    assert sealable.sealer().clean() == 6
    assert sealable.stray() == set()


@pytest.mark.parametrize("there", [True, False], ids=["there", "lost before"])
def test_empty_folders_go(tmp_path: Path, there: bool) -> None:
    """Where a replaced file was the last of its folder, the folders go with it, also where somebody removed it."""
    sealable = Sealable(tmp_path)
    sealable.add("x")
    (path,) = sealable.listed()["x"]
    attempt = batch_of(sealable.target, 0)
    table = attempt.table
    table.delete("type = 'x'")
    if not there:
        (sealable.path / path).unlink()
    assert sealable.sealer().clean() == int(there)
    assert not (sealable.path / path).exists()
    assert not (sealable.path / "type=x").exists()


def test_there_is_nothing_to_clean(tmp_path: Path) -> None:
    """Without an archive nothing is made by asking; with one, a second clean-up finds nothing."""
    sealable = Sealable(tmp_path)
    assert (sealable.sealer().clean(), sealable.sealer().due()) == (0, [])
    assert not sealable.path.exists()
    sealable.add("x")
    version = sealable.version()
    assert sealable.sealer().clean() == 0
    assert sealable.version() == version


_SEAL = """
import sys
from pathlib import Path
from archiver_pipeline.hours import parse_hour
from archiver_pipeline.rewrites.seal import Sealer
from archiver_pipeline.settings.settings import Settings

def on_step(name):
    if name == sys.argv[3]:
        print(name, flush=True)
        sys.stdin.read()

settings = Settings(topics=("orders",), BASE_DIR=Path(sys.argv[1]), keep_replaced_hours=0)
Sealer(settings, on_step=on_step).seal(parse_hour(sys.argv[2]))
"""


@contextmanager
def sealing(sealable: Sealable, hour: Hour, step: str) -> Iterator[subprocess.Popen[str]]:
    """A process that seals an hour and waits as the step begins; it is killed (SIGKILL) on the way out."""
    command = [sys.executable, "-c", _SEAL, str(sealable.settings.base_dir), hour.name, step]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == step + "\n"
        yield process
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize(
    ("step", "committed"),
    [("read", False), ("write", False), ("place", False), ("commit", False), ("clean", True)],
)
def test_a_killed_seal_leaves_nothing(sealable: Sealable, step: str, committed: bool) -> None:
    """Whenever it is killed, no message is gone or doubled, and the next clean-up removes what it left and no more."""
    before = sealable.by_delta()
    with sealing(sealable, THREE, step):
        version = sealable.version()
        assert sealable.by_delta().equals(before)
        assert sealable.sealer().clean() == (6 if committed else 0), "nobody cleans behind a living one"
        assert sealable.by_delta().equals(before)
        if step == "commit":
            assert len(files_in(sealable.path)) == 7 + 2
    assert sealable.version() == version
    assert len(leftovers(sealable.path, lambda _: True)) == (step != "read")
    assert sealable.sealer().clean() == (2 if step == "commit" else 0)
    assert sealable.stray() == set()
    assert sealable.by_delta().equals(before)
    assert (sealable.sealer().seal(THREE) is None) == committed
    sealable.sealer().clean()
    assert sealable.by_hive().equals(before)
    assert sealable.stray() == set()


def test_the_next_seal_cleans_up_too(sealable: Sealable) -> None:
    """Sealing an hour removes what a killed seal of that hour left, and leaves other hours' to them."""
    with sealing(sealable, THREE, "commit"), sealing(sealable, FOUR, "commit"):
        pass
    assert sealable.sealer().seal(THREE) is not None
    (left,) = leftovers(sealable.path, lambda _: True)
    assert left.scope == "seal-2019-08-01T04"
    sealable.add("x")
    assert leftovers(sealable.path, lambda _: True) == [left], "batches leave it alone, too"
    assert sealable.sealer().clean() == 1 + 6
    assert sealable.stray() == set()


def test_a_seal_thought_dead_can_never_commit(sealable: Sealable) -> None:
    """A seal whose files were cleaned away while it slept begins anew when it wakes up."""
    before = sealable.by_delta()

    def bury() -> None:
        for lock in (sealable.path / "_staging").glob("seal-*.lock"):
            lock.rename(lock.with_suffix(".gone"))
            lock.write_bytes(b"")
        assert sealable.sealer().clean() > 0

    done = sealable.sealer(on_step=at_step("commit", bury)).seal(THREE)
    assert done is not None
    assert {len(paths) for paths in sealable.listed().values()} == {1}
    assert sealable.by_delta().equals(before)


def test_what_a_live_run_has_placed_stays(sealable: Sealable) -> None:
    """Files of a batch or a seal that has yet to commit are not touched by a clean-up, and then are committed."""
    attempt = batch_of(sealable.target, 0)
    place(attempt, [event()], 31)
    with sealing(sealable, FOUR, "commit"):
        placed = files_in(sealable.path)
        assert len(placed) == 9
        sealable.sealer().seal(THREE)
        assert sealable.sealer().clean() == 6
        assert len(files_in(sealable.path) & placed) == 3
    commit(attempt, 31, 32, messages=1)
    attempt.clean()
    assert sealable.by_delta().height == 32
    assert sealable.sealer().clean() == 1
    assert sealable.stray() == set()


def test_seals_beside_a_busy_lane(sealable: Sealable) -> None:
    """While another process commits message after message, sealing and cleaning go on, and all is there once."""
    with RemoteRun(sealable.path, lane=0) as run:
        run.start("loop:60")
        sealed = 0
        while len(offsets_in(sealable.path)) < 60:
            sealed += sealable.sealer().seal(THREE) is not None
            sealable.keeping(1).clean()
        assert run.answer() == "done"
    assert sealed > 0
    sealable.sealer().seal(THREE)
    sealable.sealer().clean()
    assert offsets_in(sealable.path) == [("orders", "A", 0, number) for number in range(60)]
    assert {len(paths) for paths in sealable.listed().values()} == {1}
    assert sealable.stray() == set()


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_killed_batch_whose_file_was_sealed(tmp_path: Path, checkpoint: bool) -> None:
    """The next batch cleans up behind it, and yet its file, replaced since, stays its time for readers."""
    sealable = Sealable(tmp_path)
    with RemoteRun(sealable.path, lane=0) as run:
        run.do("begin", "write", "place", "commit")
    reader = pl.scan_delta(deltalake.DeltaTable(sealable.path))
    ((path,),) = sealable.listed().values()
    assert sealable.keeping(1).seal(THREE) is not None
    if checkpoint:
        deltalake.DeltaTable(sealable.path).create_checkpoint()
    assert len(leftovers(sealable.path, lambda _: True)) == 1
    sealable.add("x")
    assert leftovers(sealable.path, lambda _: True) == []
    assert (sealable.path / path).exists()
    assert reader.collect().height == 1
    assert sealable.keeping(1).clean() == 0
    assert sealable.sealer().clean() == 1
    assert not (sealable.path / path).exists()
    assert sealable.by_hive()["offset"].to_list() == [0, 1]


@pytest.mark.parametrize("kib", [0, 12, 40, 80, 160, 800])
def test_a_full_disk_stops_a_seal_cleanly(tmp_path: Path, kib: int) -> None:
    """Wherever the disk fills up, the error says so, the hour stays as it was, and is sealed when there is space."""
    chance = random.Random(kib)
    with mounted(tmp_path / "disk", megabytes=6) as disk:
        sealable = Sealable(disk.path)
        for _ in range(3):
            sealable.add(*(f"t{number}" for number in range(5)), text=chance.randbytes(10_000).hex())
        before = sealable.by_delta()
        disk.fill(leave=kib * 1024)
        refused = None
        try:
            sealable.sealer().seal(THREE)
        except StorageError as error:
            refused = str(error)
        disk.free()
        assert sealable.by_delta().equals(before)
        assert (refused is None) == (kib == 800)
        if refused is not None:
            assert "No space left on device" in refused
            assert str(disk.path) in refused
            assert "Free space" in refused
        sealable.sealer().seal(THREE)
        sealable.sealer().clean()
        assert {len(paths) for paths in sealable.listed().values()} == {1}
        assert sealable.by_hive().equals(before)
        assert sealable.stray() == set()
