"""Rules of an archive in a bucket: the same as in a folder, for whoever writes it and whoever reads it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import deltalake
import polars as pl
import pytest

from archiver_pipeline.cli.shell import View
from archiver_pipeline.erasure import begun
from archiver_pipeline.errors import StorageError, Superseded
from archiver_pipeline.fields import literal
from archiver_pipeline.rewrites.backfill import Backfiller
from archiver_pipeline.rewrites.predicate import Predicate
from archiver_pipeline.rewrites.seal import Sealer
from archiver_pipeline.stored.verify import verify
from archiver_pipeline.table.archive import Archive, archive_of
from archiver_pipeline.table.attempt import batch_of
from archiver_pipeline.view import view
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.batches import ORDERS, commit, event, place
from archiver_pipeline_tests.kafka.produce import produce
from archiver_pipeline_tests.replays import replay
from archiver_pipeline_tests.samples import numbered

READER = {"allow_http": "true"}
"""What other readers have to be told of a server without TLS."""


@pytest.fixture
def filled(archived: Archived) -> Archived:
    """An archive of 300 messages of one hour in two batches."""
    send(archived, range(200))
    archived.run()
    send(archived, range(200, 300))
    archived.run()
    return archived


def send(archived: Archived, numbers: range) -> None:
    """Send messages to both partitions."""
    messages = [message for n in numbers for message in numbered([n], partition=n % 2, kind=f"object.{n % 3}")]
    produce(archived.bootstrap_servers, archived.settings.topics[0], messages)


def test_batches_are_what_kafka_has(filled: Archived) -> None:
    """Every message is there once, to the table's readers and to the view, and nothing else lies in the bucket."""
    filled.assert_equal(filled.settings.topics[0])
    assert filled.stray_files() == set()


def test_others_read_it_by_its_address(filled: Archived) -> None:
    """Polars and deltalake read the table, and Polars its plain files, with credentials from the environment."""
    uri = filled.settings.archive_uri
    table = deltalake.DeltaTable(uri, storage_options=READER)
    assert len(table.file_uris()) == 6
    assert pl.scan_delta(uri, storage_options=READER).select(pl.len()).collect().item() == 300
    plain = pl.scan_parquet(f"{uri}/type=object.1/**/*.parquet", storage_options=READER, hive_partitioning=True)
    assert plain.select(pl.len()).collect().item() == 100


def test_names_of_types_may_be_anything(archived: Archived) -> None:
    """A type with slashes, blanks, quotes or of other alphabets is read back as it was."""
    kinds = ["a/b", "with blank", "quo'te\"", "тип", "a%2Fb", "..", "a=b", "plus+and&"]
    produce(archived.bootstrap_servers, archived.settings.topics[0], [m for k in kinds for m in numbered([1], kind=k)])
    archived.run()
    assert {kind for (kind,) in archived.sql("SELECT DISTINCT type FROM messages")} == set(kinds)
    for kind in kinds:
        assert archived.sql(f"SELECT type, field(value, '$.seq') FROM latest({literal(kind)})") == [(kind, "1")]
    hour = "messages_between('2019-08-01 03:00+00', '2019-08-01 04:00+00')"
    assert archived.sql(f"SELECT count(value) FROM {hour}") == [(len(kinds),)]
    frame = pl.scan_delta(archived.settings.archive_uri, storage_options=READER).select("type").collect()
    assert set(frame["type"]) == set(kinds)
    assert verify(archived.settings).good


def test_an_hour_is_sealed_and_cleaned(filled: Archived) -> None:
    """Sealing makes one object of each type, old ones go when their time has come, and all messages stay."""
    sealer = Sealer(filled.settings.model_copy(update={"keep_replaced_hours": 0}))
    (due,) = sealer.due(patient=False)
    sealed = sealer.seal(due.hour)
    assert sealed is not None
    assert (sealed.files_before, sealed.files_after, sealed.messages) == (6, 3, 300)
    assert len(filled.stray_files()) == 6
    view.refresh(filled.settings.view_path, sealer.archive)
    assert sealer.clean() == 6
    filled.assert_equal(filled.settings.topics[0])


def test_a_backfill_brings_back_what_is_lost(filled: Archived) -> None:
    """An object that somebody deleted and one that somebody changed are named by `verify` and mended from Kafka."""
    lost, changed = sorted(filled.listed_files())[:2]
    (filled.path / lost).unlink()
    content = bytearray((filled.path / changed).read_bytes())
    content[100] ^= 1
    (filled.path / changed).write_bytes(content)
    faults = {(fault.kind, fault.path) for fault in verify(filled.settings).faults if fault.path.endswith(".parquet")}
    uri = filled.settings.archive_uri
    assert faults == {("missing", f"{uri}/{lost}"), ("changed", f"{uri}/{changed}")}
    settings = filled.settings.model_copy(update={"keep_replaced_hours": 0})
    (done,) = Backfiller(settings).run([due.hour for due in Sealer(settings).due(patient=False)])
    assert done.fault is None
    assert set(done.mended) == {f"{uri}/{lost}", f"{uri}/{changed}"}
    view.refresh(settings.view_path, archive_of(settings))
    Sealer(settings).clean()
    report = verify(filled.settings, against_kafka=True)
    assert report.good, report.faults
    filled.assert_equal(filled.settings.topics[0])


def test_an_object_that_nobody_knows_is_named(filled: Archived) -> None:
    """What lies beside the table's objects and belongs to no run is told by `verify`, with its address."""
    stranger = f"{min(filled.listed_files()).rpartition('/')[0]}/stranger.parquet"
    shutil.copyfile(filled.path / min(filled.listed_files()), filled.path / stranger)
    (fault,) = verify(filled.settings).faults
    assert (fault.kind, fault.path) == ("unlisted", f"{filled.settings.archive_uri}/{stranger}")


def test_an_erasure_leaves_nothing(filled: Archived) -> None:
    """What matches is gone from every object, the plan and its lease with it, and the rest is as it was."""
    predicate = Predicate("(value->>'$.seq')::INT % 10 = 7")
    with begun(filled.settings) as erasure:
        found = erasure.look(predicate)
        assert found.matches.messages == 30
        done = erasure.do(erasure.confirm(predicate, found))
    assert done.good
    assert done.messages == 30
    assert filled.sql("SELECT count(*) FROM messages WHERE type <> '_erased'") == [(270,)]
    assert filled.stray_files() == set()
    assert verify(filled.settings, against_kafka=True).good


def test_it_goes_out_again(filled: Archived) -> None:
    """What is sent back to Kafka from a bucket is all of it, and is not archived twice."""
    done = replay(filled)
    assert done.messages == 300
    filled.run()
    assert verify(filled.settings).messages == 300


def test_commands_take_it_as_any_archive(filled: Archived, tmp_path: Path) -> None:
    """`status`, `verify`, `export` and `sql` work on a bucket, and name it by its address."""

    def archiver(*arguments: str) -> str:
        command = [sys.executable, "-m", "archiver_pipeline.cli", *arguments]
        environment = {**os.environ, **filled.environment()}
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    uri = filled.settings.archive_uri
    assert json.loads(archiver("status", "--json"))["archive"] == uri
    assert json.loads(archiver("verify", "--json"))["archive"] == uri
    archiver("export", "--all", "--format", "jsonl", "--out", "out.jsonl")
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 300
    assert archiver("sql", "--csv", "SELECT count(*) AS n, count(DISTINCT seq) AS s FROM object_1") == "n,s\n100,100\n"


def test_two_runs_of_a_lane_commit_once(filled: Archived) -> None:
    """Of two attempts from one snapshot the second is refused, and leaves nothing of what it has sent."""
    target = archive_of(filled.settings)
    one, other = batch_of(target, 0), batch_of(target, 0)
    for attempt in (one, other):
        place(attempt, [event()] * 5, 0)
    commit(one, 0, 5, ORDERS, 5)
    with pytest.raises(Superseded):
        commit(other, 0, 5, ORDERS, 5)
    one.clean()
    other.discard()
    assert filled.stray_files() == set()


def test_lanes_commit_side_by_side(filled: Archived) -> None:
    """Two lanes that commit the same version at once both come through, one after the other."""
    target = archive_of(filled.settings.model_copy(update={"lanes": 2}))
    one, other = batch_of(target, 0), batch_of(target, 1)
    second = type(ORDERS)(ORDERS.topic, ORDERS.topic_id, 1)
    place(one, [event()] * 5, 0)
    place(other, [event()] * 5, 0, second)
    assert commit(one, 0, 5, ORDERS, 5) + 1 == commit(other, 0, 5, second, 5)
    for attempt in (one, other):
        attempt.clean()
    assert filled.stray_files() == set()


@pytest.mark.parametrize("work", [lambda a: a.run(), lambda a: verify(a.settings), lambda a: Sealer(a.settings).due()])
def test_the_local_disk_is_left_as_it_was(filled: Archived, work: Callable[[Archived], object], tmp_path: Path) -> None:
    """Copies and files on their way are kept below `scratch` alone, and little of them."""
    work(filled)
    there = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*") if path.is_file()}
    assert there <= {"archive.duckdb", "archive.duckdb.lock", "scratch"}
    assert sum(path.stat().st_size for path in (tmp_path / "scratch").rglob("*") if path.is_file()) < 600 * 1024**2


def test_a_duckdb_file_of_another_archive_is_told(filled: Archived) -> None:
    """A wrong prefix beside the right BASE_DIR is named, and no message of the other archive is shown."""
    other = Archive(filled.settings.archive_uri + "2", scratch=filled.settings.base_dir / "scratch")
    shell = View(filled.settings.view_path, other.storage.attach)
    with pytest.raises(StorageError, match=r"shows another archive.*Check ARCHIVER_URI and BASE_DIR"):
        shell.run("SELECT count(value) FROM messages", "csv")
