"""Rules of leases: who is dead is told by the store's clock alone, and who was taken for dead leaves nothing."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from archiver_pipeline.errors import StorageError, Superseded
from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.storage import bucket_staging
from archiver_pipeline.storage.bucket import Bucket
from archiver_pipeline.stored.files import check_file, listed_files
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.attempt import Attempt, batch_of
from archiver_pipeline.view import view
from archiver_pipeline_tests.batches import archive, event, write
from archiver_pipeline_tests.disk import mounted
from archiver_pipeline_tests.objects.conftest import Through, through_proxy
from archiver_pipeline_tests.objects.gateway import Gateway
from archiver_pipeline_tests.objects.proxy import PASS


@dataclass(frozen=True)
class Stored:
    """An archive in a bucket of its own, and the folder that the server keeps it in."""

    archive: Archive
    folder: Path
    scratch: Path

    def files(self) -> set[str]:
        """All objects but those of the log and the clock."""
        found = {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()}
        return {name for name in found if not name.startswith("_delta_log/")} - {"_staging/clock"}

    def listed(self) -> set[str]:
        """The objects that the table lists."""
        return set(self.archive.files()["path"])


@pytest.fixture
def stored(gateway: Gateway, tmp_path: Path) -> Stored:
    """An archive with a batch in it."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    found = Archive(f"{gateway.make_bucket(name)}/archive", scratch=tmp_path / "scratch")
    archive(found, [event()] * 3)
    return Stored(found, gateway.buckets / name / "archive", tmp_path / "scratch")


@contextmanager
def asleep(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whoever is at work now is taken for dead, as if it had slept for long."""
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(bucket_staging, "DEAD_AFTER", -1)
        yield


def sleeper(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> Attempt:
    """An attempt that has written its files and not sent them, behind which another one has cleaned meanwhile."""
    monkeypatch.setattr(bucket_staging, "RENEW_SECONDS", 3600.0)
    attempt = batch_of(stored.archive, 0)
    write(attempt, [event()] * 2, 3)
    with asleep(monkeypatch):
        archive(stored.archive, [event()] * 2)
    return attempt


def test_who_wakes_up_sends_nothing(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt whose lease was removed meanwhile puts no file into place, and leaves none."""
    attempt = sleeper(stored, monkeypatch)
    with pytest.raises(Superseded, match="took this one for dead"):
        attempt.staging.place()
    attempt.discard()
    assert stored.files() == stored.listed()


def test_a_lease_that_was_taken_over_is_lost(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two that want to be alone the second is refused, unless the first has slept: then the first is out."""
    storage = stored.archive.storage
    assert isinstance(storage, Bucket)
    with storage.alone("work"):
        assert storage.is_busy("work")
        with pytest.raises(BlockingIOError), storage.alone("work"):
            pass
        with asleep(monkeypatch):
            other = bucket_staging.Lease(storage, "_work.lease")
            other.begin()
    assert storage.is_busy("work"), "the first has left the second's lease alone"
    other.end()
    assert not storage.is_busy("work")


@pytest.fixture
def judged(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Iterator[Through]:
    """A proxy before the server; its judge may be replaced."""
    with through_proxy(gateway, monkeypatch) as put:
        yield put


def test_files_go_before_the_lease_that_names_them(stored: Stored, judged: Through) -> None:
    """Where the store refuses to remove a file, its lease stays, and the next run removes both."""
    attempt = batch_of(stored.archive, 0)
    write(attempt, [event()] * 2, 3)
    attempt.staging.place()
    judged(lambda method, _: 403 if method == "POST" else PASS)  # So many objects are removed by one call.
    Attempt.discard(_through(stored, attempt))
    assert len(stored.files() - stored.listed()) == 2
    judged(lambda *_: PASS)
    archive(stored.archive, [event()])
    assert stored.files() == stored.listed()


def _through(stored: Stored, attempt: Attempt) -> Attempt:
    """The attempt, whose client goes by the environment as it is now."""
    storage = stored.archive.storage
    for name in ("_store", "ranges", "_large"):
        storage.__dict__.pop(name, None)
    return attempt


def test_who_may_only_read_can_look(stored: Stored, judged: Through, tmp_path: Path) -> None:
    """While somebody is at work, one that may not write still finds out what belongs to it."""
    attempt = batch_of(stored.archive, 0)
    write(attempt, [event()] * 2, 3)
    attempt.staging.place()
    judged(lambda method, _: 403 if method in ("PUT", "POST", "DELETE") else PASS)
    reader = Archive(stored.archive.uri, scratch=tmp_path / "reader").storage
    assert reader.in_flight() == {file.path for file in attempt.files}
    assert reader.living(lambda _: True) == {attempt.staging.attempt}
    judged(lambda *_: PASS)
    _through(stored, attempt).discard()


def test_a_full_local_disk_is_no_damage(stored: Stored, tmp_path: Path) -> None:
    """Where a copy finds no room, nobody says that the object is missing or changed."""
    archive(stored.archive, [event(text=uuid.uuid4().hex * 20_000)])
    with mounted(tmp_path / "disk", megabytes=1) as disk:
        reader = Archive(stored.archive.uri, scratch=disk.path / "scratch")
        disk.fill()
        for file in listed_files(reader.files()):
            with pytest.raises(StorageError, match="the local disk cannot hold"):
                check_file(reader.storage, file, 2)


def test_a_fault_of_the_store_leaves_the_view_as_it_was(stored: Stored, judged: Through, tmp_path: Path) -> None:
    """A refresh that cannot read new files fails, instead of taking them for missing; the next one shows them."""
    path = tmp_path / "archive.duckdb"
    view.refresh(path, stored.archive)
    shown = path.read_bytes()
    archive(stored.archive, [event("other")] * 3)
    judged(lambda method, name: 403 if "type=other" in name and method != "PUT" else PASS)
    reader = Archive(stored.archive.uri, scratch=tmp_path / "reader")
    with pytest.raises(StorageError, match="refused"):
        view.refresh(path, reader)
    assert path.read_bytes() == shown
    judged(lambda *_: PASS)
    assert view.refresh(path, stored.archive) == stored.archive.ledger().version


def test_lanes_that_race_lose_nothing(stored: Stored, tmp_path: Path) -> None:
    """Lanes that want the same version at the same moment all come through: the store gives each version once."""

    def lane(number: int) -> None:
        own = Archive(stored.archive.uri, lanes=4, scratch=tmp_path / "scratch")
        for _ in range(8):
            archive(own, [event()] * 2, TopicPartition("orders", "A", number + 1), number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lane, range(4)))
    committed = stored.archive.ledger().committed
    assert {at.partition: what.next for at, what in committed.items()} == {0: 3, 1: 16, 2: 16, 3: 16, 4: 16}
    assert int(stored.archive.files()["messages"].sum()) == 3 + 4 * 16
    assert stored.files() == stored.listed()
