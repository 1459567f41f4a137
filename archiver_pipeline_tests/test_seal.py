"""Sealing: an hour's files become one per type, and no message changes by it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest

from archiver_pipeline.batch.classifier import Classifier
from archiver_pipeline.batch.writer import BatchWriter
from archiver_pipeline.envelope import is_sealed, parse_type_rule, type_name
from archiver_pipeline.errors import ArchiveDamaged
from archiver_pipeline.hours import parse_hour
from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.table.attempt import batch_of
from archiver_pipeline.table.schema import delta_schema
from archiver_pipeline.view import hour_fields
from archiver_pipeline_tests.batches import (
    ORDERS,
    archive,
    commit,
    event,
    place,
    raw_frame,
)
from archiver_pipeline_tests.samples import at_step
from archiver_pipeline_tests.sealable import FOUR, THREE, UNKNOWN, Sealable, filled
from archiver_pipeline_tests.ugly_messages import LONG, LONG_EMOJI, UGLY_TYPES


@pytest.fixture
def sealable(tmp_path: Path) -> Sealable:
    """An archive of three batches of two types at three o'clock, and one at four."""
    return filled(tmp_path)


def test_an_hour_becomes_one_file_per_type(sealable: Sealable) -> None:
    """Every type has one file, numbers say what was done, other hours are left alone, and all messages are there."""
    before, size = sealable.by_delta(), int(sealable.target.files(hour=THREE)["bytes"].sum())
    four = sealable.listed(FOUR)
    steps: list[str] = []
    done = sealable.sealer(on_step=steps.append).seal(THREE)
    assert done is not None
    assert (done.hour, done.types, done.files_before, done.files_after, done.messages) == (THREE, ("x", "y"), 6, 2, 30)
    assert (done.bytes_before, done.version) == (size, sealable.version())
    after = sealable.target.files(hour=THREE)
    assert (done.bytes_after, done.seconds > 0) == (after["bytes"].sum(), True)
    assert [step for step in dict.fromkeys(steps) if step != "frame"] == [
        *("plan", "read", "write", "sync", "place", "commit", "clean", "done")
    ]
    assert {name: len(paths) for name, paths in sealable.listed().items()} == {"x": 1, "y": 1}
    assert all(is_sealed(path) for paths in sealable.listed().values() for path in paths)
    assert sealable.listed(FOUR) == four
    assert sealable.by_delta().equals(before)
    assert sealable.sealer().clean() == 6
    assert sealable.by_hive().equals(before)
    assert sealable.stray() == set()


def test_a_sealed_hour_is_left_alone(sealable: Sealable) -> None:
    """A second time there is nothing to do, and so it is for an hour without messages; no version is made."""
    sealer = sealable.sealer()
    sealer.seal(THREE)
    version = sealable.version()
    for whole in (False, True):
        assert sealer.seal(THREE, whole=whole) is None
        assert sealable.sealer().seal(parse_hour("2020-02-02T02"), whole=whole) is None
    assert sealable.version() == version
    assert list((sealable.path / "_staging").iterdir()) == []


def test_messages_keep_their_time_in_the_archive(sealable: Sealable) -> None:
    """A sealed file counts as archived since the oldest of those that it stands for."""
    oldest = sealable.target.files(hour=THREE)["added"].min()
    sealable.sealer().seal(THREE)
    assert set(sealable.target.files(hour=THREE)["added"]) == {oldest}


def test_a_seal_changes_no_data(sealable: Sealable) -> None:
    """Its commit says of every file that no message changes, says what it is, and moves no offset."""
    before = sealable.target.ledger()
    sealable.sealer().seal(THREE)
    actions = sealable.last_commit()
    files = [action[kind] for action in actions for kind in ("add", "remove") if kind in action]
    assert len(files) == 8
    assert [file["dataChange"] for file in files] == [False] * 8
    removed = [action["remove"] for action in actions if "remove" in action]
    assert {item["partitionValues"]["type"] for item in removed} == {"x", "y"}
    assert all(item["size"] and item["deletionTimestamp"] for item in removed)
    (said,) = [action["commitInfo"] for action in actions if "commitInfo" in action]
    assert (said["run_id"], said["rewrite"], said["hour"]) == ("test", "seal", "2019-08-01T03")
    after = sealable.target.ledger()
    assert (after.committed, after.gaps, after.lanes) == (before.committed, before.gaps, before.lanes)
    assert (after.changed, after.epoch("rewrite/2019-08-01T03")) == ({}, 1)


def test_late_messages_seal_what_they_change(sealable: Sealable) -> None:
    """Messages that come after the seal, of an old type and a new one, leave the third type's file as it is."""
    sealable.sealer().seal(THREE)
    before = sealable.listed()
    sealable.add("x", "z", count=2)
    rows = sealable.by_delta()
    done = sealable.sealer().seal(THREE)
    assert done is not None
    assert (done.types, done.files_before, done.files_after, done.messages) == (("x", "z"), 3, 2, 19)
    after = sealable.listed()
    assert after["y"] == before["y"]
    assert after["x"] != before["x"]
    sealable.sealer().clean()
    assert sealable.by_delta().equals(rows)
    assert sealable.by_hive().equals(rows)


def test_a_large_seal_is_not_written_again_for_a_little(sealable: Sealable) -> None:
    """A few late messages beside a file of two megabytes become a file of their own, until the whole is asked for."""
    chance = random.Random(1)
    archive(sealable.target, [event("x", text=chance.randbytes(5000).hex()) for _ in range(400)])
    sealable.sealer().seal(THREE)
    (large,) = sealable.listed()["x"]
    assert (sealable.path / large).stat().st_size > 1024**2
    for _ in range(3):
        sealable.add("x")
        sealable.sealer().seal(THREE)
    assert large in sealable.listed()["x"]
    assert len(sealable.listed()["x"]) == 2
    rows = sealable.by_delta()
    done = sealable.sealer().seal(THREE, whole=True)
    assert done is not None
    assert (done.types, done.files_after) == (("x",), 1)
    assert sealable.by_delta().equals(rows)
    assert sealable.sealer().seal(THREE, whole=True) is None


def test_a_trickle_of_wide_messages_leaves_few_files(tmp_path: Path) -> None:
    """Where the report on a hundred fields is larger than the message that came late, the files stay few as well."""
    sealable = Sealable(tmp_path)
    for number in range(6):
        sealable.add("x", **{f"field_{index}": index * number for index in range(100)})
        sealable.sealer().seal(THREE)
    assert len(sealable.listed()["x"]) == 1


def test_types_of_any_name(tmp_path: Path) -> None:
    """Slashes, quotes, percent signs, emoji, line ends, dots or two hundred bytes: sealed, read, and cleaned up."""
    sealable = Sealable(tmp_path)
    names = [*UGLY_TYPES, LONG, LONG_EMOJI]
    for _ in range(2):
        sealable.add(*names)
    before = sealable.by_delta()
    done = sealable.sealer().seal(THREE)
    assert done is not None
    assert set(done.types) == set(before["type"]) >= {type_name(name) for name in names}
    assert {len(paths) for paths in sealable.listed().values()} == {1}
    assert sealable.by_delta().equals(before)
    assert sealable.sealer().clean() == done.files_before
    assert sealable.stray() == set()
    assert sealable.by_hive().equals(before)
    sealable.add(*names[:3])
    assert sealable.sealer().seal(THREE) is not None
    assert sealable.sealer().clean() == 6


def test_messages_of_any_content(tmp_path: Path) -> None:
    """Headers, bytes that are no text, empty payloads and tombstones are after sealing what they were before."""
    sealable = Sealable(tmp_path)
    headers = [("h", b"\xff"), ("h", None), ("", b"")]
    payloads = [b"\xff\x00", b"", None, b'{"type": "x"}', b"{", '{"type": "x", "text": "日本🎉\\u0000"}'.encode()]
    archive(sealable.target, payloads, headers=headers)
    archive(sealable.target, payloads)
    before = sealable.by_delta()
    done = sealable.sealer().seal(THREE)
    assert done is not None
    assert done.types == ("_malformed", "_tombstone", "x")
    assert sealable.by_delta().equals(before)
    sealable.sealer().clean()
    assert sealable.by_hive().equals(before)


def test_messages_without_a_time(tmp_path: Path) -> None:
    """The hour of messages whose time is unknown, or beyond any calendar, is sealed like any other."""
    sealable = Sealable(tmp_path)
    for stamps in ([-1, -1], [2**62, 9_000_000_000_000_000], [-1, -(2**50)]):
        archive(sealable.target, [event(), event("two")], milliseconds=stamps)
    before = sealable.by_delta()
    done = sealable.sealer().seal(UNKNOWN)
    assert done is not None
    assert (done.hour.name, done.files_before, done.files_after) == ("_unknown", 6, 2)
    assert sealable.by_delta().equals(before)
    assert sealable.sealer().clean() == 6
    assert sealable.by_hive().equals(before)


def test_messages_that_are_archived_out_of_order(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where a late file has lower offsets, which memory cannot put right, its hour is sorted before it is written."""
    sealable = Sealable(tmp_path)
    large = event("x", text="x" * 1_000_000)
    for first, payloads in ((100, [large, event("y")] * 150), (0, [event("x"), event("y")] * 50), (400, [event("x")])):
        attempt = batch_of(sealable.target, 0)
        place(attempt, payloads, first)
        commit(attempt, first, first + len(payloads), ORDERS, len(payloads))
        attempt.clean()
    before = sealable.by_delta()
    with caplog.at_level("INFO"):
        done = sealable.sealer().seal(THREE)
    assert done is not None
    assert (done.types, done.files_after, done.messages) == (("x", "y"), 2, 401)
    assert "are sorted first: offset 0 of" in caplog.text
    for name, start in (("x", 0), ("y", 1)):
        (path,) = sealable.listed()[name]
        wanted = [*range(start, 400, 2), *([400] if name == "x" else [])]
        assert pl.read_parquet(sealable.path / path)["offset"].to_list() == wanted
    assert sealable.by_delta().equals(before)
    sealable.sealer().clean()
    assert sealable.stray() == set()


def test_messages_of_very_many_partitions(tmp_path: Path) -> None:
    """A hundred partitions with a few messages each are one sorted file with one row group."""
    sealable = Sealable(tmp_path)
    for number in reversed(range(100)):
        archive(sealable.target, [event("x")] * 3, TopicPartition("orders", "A", number))
    before = sealable.by_delta()
    assert sealable.sealer().seal(THREE) is not None
    (path,) = sealable.listed()["x"]
    found = pl.read_parquet(sealable.path / path)
    assert found["partition"].to_list() == [number for number in range(100) for _ in range(3)]
    assert pq.read_metadata(sealable.path / path).num_row_groups == 1
    assert sealable.by_delta().equals(before)


def damage(path: Path) -> None:
    """Change one byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [damage, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_damaged_file_is_never_sealed(sealable: Sealable, harm: Any) -> None:
    """A changed, missing or empty file stops the seal with an error that names it and the remedy; nothing changes."""
    version, listed = sealable.version(), sealable.listed()
    path = sealable.path / listed["y"][1]
    harm(path)
    with pytest.raises(ArchiveDamaged, match=r"hour 2019-08-01T03 cannot be sealed") as refused:
        sealable.sealer().seal(THREE)
    assert str(path) in str(refused.value)
    assert "The hour was left as it was" in str(refused.value)
    assert "archiver backfill" in str(refused.value)
    assert (sealable.version(), sealable.listed()) == (version, listed)
    assert sealable.stray() == set()
    assert list((sealable.path / "_staging").iterdir()) == []
    assert sealable.sealer().seal(FOUR) is not None, "other hours are sealed all the same"


def test_an_archive_of_an_earlier_release(tmp_path: Path) -> None:
    """A table that was made without the properties for sealing is sealed, cleaned and read as any other."""
    sealable = Sealable(tmp_path)
    sealable.path.mkdir()
    deltalake.DeltaTable.create(
        sealable.path,
        schema=delta_schema(),
        partition_by=["type", "dt", "hr"],
        configuration={"delta.logRetentionDuration": "interval 30 days", "delta.checkpointInterval": "100"},
    )
    for _ in range(3):
        sealable.add("x")
    before = sealable.by_delta()
    assert sealable.sealer().seal(THREE) is not None
    assert sealable.keeping(1).clean() == 0
    assert sealable.sealer().clean() == 3
    assert sealable.by_delta().equals(sealable.by_hive())
    assert sealable.by_delta().equals(before)


def test_a_batch_commits_while_its_hour_is_sealed(sealable: Sealable) -> None:
    """Messages that are committed in mid-seal are not lost, and wait for the next seal."""
    done = sealable.sealer(on_step=at_step("commit", lambda: sealable.add("x", "z"))).seal(THREE)
    assert done is not None
    assert done.messages == 30
    assert sealable.by_delta().height == 33
    again = sealable.sealer().seal(THREE)
    assert again is not None
    assert again.types == ("x", "z")
    assert sealable.by_delta()["offset"].to_list() == list(range(33))


def test_of_two_seals_of_one_hour_one_wins(sealable: Sealable) -> None:
    """The other one looks again, and finds what is left to do, if anything is."""
    before = sealable.by_delta()

    def other() -> None:
        assert sealable.sealer().seal(THREE) is not None

    assert sealable.sealer(on_step=at_step("commit", other)).seal(THREE) is None
    assert sealable.by_delta().equals(before)
    assert {len(paths) for paths in sealable.listed().values()} == {1}
    sealable.sealer().clean()
    assert sealable.stray() == set()


def test_every_reader_reads_on(sealable: Sealable) -> None:
    """deltalake, Polars and DuckDB, by the table's list of files, have the same messages before and after."""

    def counts() -> list[int]:
        table = deltalake.DeltaTable(sealable.path)
        with duckdb.connect() as connection:
            (by_duckdb,) = connection.execute("SELECT count(*) FROM read_parquet(?)", [table.file_uris()]).fetchall()
        by_query = deltalake.QueryBuilder().register("t", table).execute("SELECT \"offset\" FROM t WHERE type = 'x'")
        filtered = pl.scan_delta(str(sealable.path)).filter(pl.col("type") == "x", pl.col("hr") == "03").collect()
        return [
            int(by_duckdb[0]),
            sum(batch.num_rows for batch in pl.DataFrame(by_query.read_all()).to_arrow().to_batches()),
            filtered.height,
            sum(table.get_add_actions(flatten=True).column("num_records").to_pylist()),
        ]

    before = counts()
    sealable.sealer().seal(THREE)
    assert counts() == before == [31, 16, 15, 31]
    old = deltalake.DeltaTable(sealable.path, version=sealable.version() - 1)
    assert pl.read_delta(old).height == 31, "as long as they are kept, versions before can be read"


def test_a_table_with_many_sealed_hours_is_read_through_its_checkpoint(tmp_path: Path) -> None:
    """Seals, batches and checkpoints in turns: the ledger and the list of files stay what they are."""
    sealable = Sealable(tmp_path)
    for hour in range(6):
        for _ in range(2):
            sealable.add("x", "y", hour=hour)
        sealable.sealer().seal(parse_hour(f"2019-08-01T{3 + hour:02}"))
        deltalake.DeltaTable(sealable.path).create_checkpoint()
    ledger = sealable.target.ledger()
    assert (ledger.committed[ORDERS].next, ledger.committed[ORDERS].messages) == (24, 24)
    assert sealable.sealer().clean() == 24
    assert sealable.target.files().height == 12
    assert sealable.by_hive().equals(sealable.by_delta())


@pytest.mark.slow
def test_a_type_of_very_many_topics(tmp_path: Path) -> None:
    """A few messages of each of very many topics share row groups, and all of them are looked at for their fields."""
    sealable = Sealable(tmp_path)
    for turn in range(2):
        attempt = batch_of(sealable.target, 0)
        places = [TopicPartition(f"topic.{number:04}", "A", 0) for number in range(500)]
        frame = pl.concat([raw_frame([event("x", n=turn)] * 3, turn * 3, range_number=n) for n in range(len(places))])
        writer = BatchWriter(attempt.take, attempt.staging.scratch)
        for classified in Classifier(places, lambda _: parse_type_rule("$.type"), {"x"}, 10).over([frame]):
            writer.add(classified)
        writer.close()
        attempt.staging.place()
        attempt.commit([], {})
        attempt.clean()
    sealed = sealable.sealer().seal(THREE)
    assert sealed is not None
    assert (sealed.files_after, sealed.messages) == (1, 3000)
    (path,) = sealable.listed()["x"]
    with pq.ParquetFile(sealable.path / path) as parquet:
        assert parquet.num_row_groups == 1
        report = hour_fields.parse(parquet.metadata.metadata[hour_fields.KEY.encode()].decode())
    assert report is not None
    assert (report.messages, report.looked_at) == (3000, 3000)
    assert {item.field for item in report.fields} == {"type", "n"}
