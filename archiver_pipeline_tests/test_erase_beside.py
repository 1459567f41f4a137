"""An erasure beside others at work, on a full disk, and after killed runs: nothing is lost, doubled or left behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from archiver_pipeline.erasure import begun
from archiver_pipeline.errors import StorageError
from archiver_pipeline.rewrites.backfill import Backfiller
from archiver_pipeline.rewrites.predicate import Predicate
from archiver_pipeline.rewrites.seal import Sealer
from archiver_pipeline.storage.folder_staging import FolderStaging
from archiver_pipeline.stored.verify import verify
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.attempt import batch_of
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.batches import place
from archiver_pipeline_tests.damaged_hours import HOURS
from archiver_pipeline_tests.disk import Disk, mounted
from archiver_pipeline_tests.erasing import OF_SECRET, SECRET, assert_erased, erase, events, resume, rows, traces, users
from archiver_pipeline_tests.kafka.produce import produce
from archiver_pipeline_tests.samples import at_step

SPACES = (0, 4, 8, 16, 32, 64, 128, 192, 256, 320, 384, 448, 512, 640, 768, 1024, 1536, 2048)
"""KiB that are left, from nothing at all to enough."""


@pytest.fixture
def archived(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> Archived:
    """An archive of two hours."""
    return users(bootstrap_servers, topic_name, tmp_path / "data", keep_replaced_hours=0)


def seal(archived: Archived) -> None:
    """Seal both hours."""
    for hour in HOURS[:2]:
        Sealer(archived.settings).seal(hour, whole=True)


def backfill(archived: Archived) -> None:
    """Backfill both hours."""
    assert [done.fault for done in Backfiller(archived.settings).run(HOURS[:2])] == [None, None]


@pytest.mark.parametrize("step", ["plan", "compare", "write", "place", "commit", "view", "remove"])
@pytest.mark.parametrize("other", [seal, backfill])
def test_beside_a_rewrite(archived: Archived, step: str, other: Callable[[Archived], None]) -> None:
    """Whenever another rewrite of the hour commits, the erasure looks at the hour again."""
    before = rows(archived.path)
    done = erase(archived.settings, on_step=at_step(step, lambda: other(archived)))
    assert (done.messages, done.good) == (24, True)
    archived.run()
    Sealer(archived.settings).clean()
    assert_erased(archived, before)


@pytest.mark.parametrize("step", ["plan", "read", "write", "place", "commit"])
def test_a_seal_beside_it(archived: Archived, step: str) -> None:
    """A seal that began before gives way, and puts no old message back."""
    before = rows(archived.path)
    impatient = at_step(step, lambda: erase(archived.settings, patience_seconds=0))
    Sealer(archived.settings, on_step=impatient).seal(HOURS[0], whole=True)
    assert all(done.good for done in resume(archived.settings))
    archived.run()
    Sealer(archived.settings).clean()
    assert_erased(archived, before)


@pytest.mark.parametrize("step", ["read", "compare", "write", "commit"])
def test_a_backfill_beside_it(archived: Archived, step: str) -> None:
    """So does a backfill, which has what was erased in its hands, as Kafka has it."""
    before = rows(archived.path)
    lost = next(archived.path.glob(f"type=t1/dt={HOURS[0].dt}/hr={HOURS[0].hr}/*.parquet"))
    content = lost.read_bytes()

    def meanwhile() -> None:
        lost.write_bytes(content)
        assert erase(archived.settings, patience_seconds=0).busy, "it has such messages in its hands"

    lost.unlink()
    list(Backfiller(archived.settings, on_step=at_step(step, meanwhile)).run(HOURS[:1]))
    assert [done.good for done in resume(archived.settings)] == [True]
    archived.run()
    Sealer(archived.settings).clean()
    assert_erased(archived, before)


@pytest.mark.parametrize("step", ["look", "confirm", "compare", "commit", "view", "remove"])
def test_beside_a_batch(archived: Archived, step: str) -> None:
    """A batch of the same hour commits beside it, and none of its messages is lost or doubled."""
    before = rows(archived.path)
    sent = [each for each in events(0, first=7000) if SECRET.encode() not in (each.value or b"")]
    produce(archived.bootstrap_servers, archived.settings.topics[0], sent)
    erase(archived.settings, on_step=at_step(step, lambda: archived.run()))
    archived.run()
    assert rows(archived.path).height == before.height - 24 + len(sent)
    assert traces(archived.settings.base_dir) == []
    assert verify(archived.settings, against_kafka=True).good
    assert archived.stray_files() == set()


@pytest.mark.parametrize("step", ["read", "write", "place", "commit"])
def test_a_batch_around_it(archived: Archived, step: str) -> None:
    """The files that a live batch has staged or placed are left alone by it."""
    before = rows(archived.path)
    sent = [each for each in events(0, first=7000) if SECRET.encode() not in (each.value or b"")]
    produce(archived.bootstrap_servers, archived.settings.topics[0], sent)
    archived.run(on_step=at_step(step, lambda: erase(archived.settings)))
    assert rows(archived.path).height == before.height - 24 + len(sent)
    assert traces(archived.settings.base_dir) == []
    assert verify(archived.settings, against_kafka=True).good


def test_what_killed_runs_left(archived: Archived) -> None:
    """Files that a killed batch has placed, or a killed rewrite staged, go as well, whosever they were."""
    before = rows(archived.path)
    for scope in ("lane0", "lane7", f"seal-{HOURS[0].name}", f"mend-{HOURS[1].name}", "seal-2001-01-01T00"):
        killed = FolderStaging(archived.path, scope)
        (killed.scratch / "run.arrow").write_text(SECRET)
        killed.write("type=x/dt=2019-08-01/hr=03", SECRET.encode())
        killed.place()
        killed.write("type=x/dt=2019-08-01/hr=03", SECRET.encode())
        killed.release()
    assert len(traces(archived.path / "_staging")) == 10
    erase(archived.settings)
    assert list((archived.path / "_staging").iterdir()) == []
    assert_erased(archived, before)


def test_a_disk_that_is_full(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Wherever it fills up: one clear line, nothing lost, and what was confirmed is finished once there is room."""
    with mounted(tmp_path / "disk", megabytes=12) as disk:
        archived = users(bootstrap_servers, topic_name, disk.path, keep_replaced_hours=0)
        before = rows(archived.path)
        failed = [error for error in _with_less(disk, archived) if error is not None]
        assert failed
        for error in failed:
            assert "\n" not in str(error)
            assert str(disk.path) in str(error)
        disk.free()
        with begun(archived.settings) as erasure:
            for plan in erasure.interrupted():
                erasure.do(plan)
        assert_erased(archived, before)


def _with_less(disk: Disk, archived: Archived) -> Iterator[StorageError | None]:
    """Erase with ever more space."""
    for space in SPACES:
        disk.fill(leave=space * 1024)
        try:
            with begun(archived.settings) as erasure:
                plans = erasure.interrupted()
                if not plans:
                    predicate = Predicate(OF_SECRET)
                    plans = [erasure.confirm(predicate, erasure.look(predicate))]
                for plan in plans:
                    erasure.do(plan)
        except StorageError as error:
            yield error
        else:
            yield None
        disk.free()
        verify_kinds = {fault.kind for fault in verify(archived.settings, against_kafka=True).faults}
        assert verify_kinds <= {"unerased"}


def test_a_lane_of_its_own(archived: Archived) -> None:
    """The commit that fences a dead lane moves no offset."""
    ledger = Archive(archived.settings.archive_uri).ledger()
    attempt = batch_of(Archive(archived.settings.archive_uri), 0)
    place(attempt, [b"{}"], 0)
    attempt.staging.release()
    erase(archived.settings)
    assert Archive(archived.settings.archive_uri).ledger().committed == ledger.committed
    assert archived.stray_files() == set()
