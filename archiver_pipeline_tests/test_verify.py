"""Rules of the verification, held against archives of real topics that are then damaged by hand."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import deltalake
import polars as pl
import pytest
from deltalake.transaction import AddAction, RemoveAction
from hypothesis import given
from hypothesis import strategies as st

from archiver_pipeline import envelope
from archiver_pipeline.errors import ArchiveError, SettingsError
from archiver_pipeline.plan import Committed, TopicPartition
from archiver_pipeline.stored.digest import Sums, hashes
from archiver_pipeline.stored.files import SoundFile
from archiver_pipeline.stored.rows import windows
from archiver_pipeline.stored.verify import Report, verify
from archiver_pipeline.table.attempt import batch_of
from archiver_pipeline.table.ledger import offset_transactions
from archiver_pipeline.table.schema import delta_schema
from archiver_pipeline_tests.archived import Archived, topic_id_of, wait_until_stable
from archiver_pipeline_tests.kafka.produce import (
    Sent,
    create_topic,
    delete_records,
    delete_topic,
    end_offsets,
    produce,
    produce_transactions,
    start_offsets,
)
from archiver_pipeline_tests.kafka.raw import RawRecord, produce_raw
from archiver_pipeline_tests.kafka.topics import FAR_TIMESTAMPS
from archiver_pipeline_tests.waiting import wait_for

FIRST_MS = 1_564_628_400_000  # 2019-08-01T03:00:00Z
UGLY = (
    Sent(b'{"type": "a"}', b"k", (("h", b"1"), ("h", None), ("", b"\xff")), FIRST_MS),
    Sent(b"\xff\xfe", b"\xff", (), FIRST_MS),
    Sent(None, b"k", (("only", b"header"),), FIRST_MS),
    Sent(b"", None, (), FIRST_MS),
)


@pytest.fixture
def archived(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> Archived:
    """An archive of one topic with two partitions of 60 messages each, of three types."""
    create_topic(bootstrap_servers, topic_name, 2)
    produce(bootstrap_servers, topic_name, list(_messages(120)))
    archive = Archived(tmp_path / "data", bootstrap_servers, topic_name)
    archive.run()
    return archive


def _messages(count: int) -> Iterator[Sent]:
    for number in range(count):
        value = b'{"type": "t%d", "seq": %d}' % (number % 3, number)
        yield Sent(value, b"k%d" % number, (), FIRST_MS + number * 1000, number % 2)


def _listed(archived: Archived) -> list[Path]:
    return sorted(archived.path / name for name in archived.listed_files())


def _only_fault(report: Report, kind: str, path: Path) -> str:
    assert [(fault.kind, fault.path) for fault in report.faults] == [(kind, str(path))], report.faults
    assert path.is_absolute()
    assert str(report.faults[0]).startswith(f"{kind}: {path}: ")
    assert "\n" not in str(report.faults[0])
    assert not report.good
    return report.faults[0].what


def _commit_file(archived: Archived, source: Path, name: str, messages: int | None = None) -> Path:
    """Commit a copy of a listed file beside it, as a program other than the archiver might."""
    path = source.with_name(name)
    path.write_bytes(source.read_bytes())
    relative = str(path.relative_to(archived.path))
    stats = json.dumps({"numRecords": pl.read_parquet(source).height if messages is None else messages})
    action = AddAction(relative, path.stat().st_size, envelope.partition_values(relative), FIRST_MS, True, stats)
    _commit(archived, [action])
    return path


def _commit(archived: Archived, actions: list[AddAction | RemoveAction], **numbers: int) -> None:
    properties = deltalake.CommitProperties(
        app_transactions=[deltalake.Transaction(name, number) for name, number in numbers.items()]
    )
    deltalake.DeltaTable(archived.path).create_write_transaction(
        actions,
        mode="append",
        schema=delta_schema(),
        partition_by=list(envelope.PARTITION_COLUMNS),
        commit_properties=properties,
    )


def test_an_archive_as_it_was_made_is_good(archived: Archived) -> None:
    """Nothing is found in an archive that nobody touched, and the report counts what it has."""
    report = verify(archived.settings, against_kafka=True)
    assert report.faults == ()
    assert report.good
    assert (report.messages, report.partitions, report.files) == (120, 2, len(archived.listed_files()))
    assert report.bytes == sum(path.stat().st_size for path in _listed(archived))
    assert report.version == archived.version()
    assert report.kafka is not None
    assert [(item.range.start, item.range.end, item.in_kafka, item.in_archive) for item in report.kafka.partitions] == [
        (0, 60, 60, 60),
        (0, 60, 60, 60),
    ]


def test_a_deleted_file_is_missing(archived: Archived) -> None:
    """A file that the log lists and that is gone is named once, although its messages are then too few as well."""
    gone = _listed(archived)[1]
    gone.unlink()
    what = _only_fault(verify(archived.settings), "missing", gone)
    assert what == f"listed by the table's log (version {archived.version()}) but not there"


@pytest.mark.parametrize("place", [0, 4, -200, -1], ids=["magic", "data", "footer", "end"])
def test_a_changed_byte_is_found(archived: Archived, place: int) -> None:
    """One byte that is another one is found wherever it is, and the other files are checked all the same."""
    first, second = _listed(archived)[:2]
    content = bytearray(first.read_bytes())
    content[place] ^= 1
    first.write_bytes(content)
    second.unlink()
    report = verify(archived.settings)
    assert [(fault.kind, fault.path) for fault in report.faults] == [("changed", str(first)), ("missing", str(second))]
    assert "hash" in report.faults[0].what


def test_a_cut_file_is_changed(archived: Archived) -> None:
    """A file of another length than the log says is changed."""
    path = _listed(archived)[0]
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-10])
    what = _only_fault(verify(archived.settings), "changed", path)
    assert what == f"it has {size - 10:,} bytes, the table's log says {size:,}"


def test_a_file_added_by_hand_is_unlisted(archived: Archived) -> None:
    """A Parquet file that the log does not list is found in whatever folder of a type it lies."""
    for folder in ("type=t0/dt=2019-08-01/hr=03", "type=new", "type=t0/dt=2019-08-01/hr=03/deep/er"):
        path = archived.path / folder / "by-hand.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_listed(archived)[0].read_bytes())
        _only_fault(verify(archived.settings), "unlisted", path)
        path.unlink()


def test_files_in_flight_are_no_fault(archived: Archived) -> None:
    """A file that a run has placed and not yet committed is no fault; once nobody knows of it, it is."""
    attempt = batch_of(archived.archiver().archive, 0)
    attempt.write({"type": "t0", "dt": "2019-08-01", "hr": "03"}, b"not committed yet", {})
    attempt.staging.place()
    assert verify(archived.settings).good
    placed = archived.path / attempt.files[0].path
    attempt.staging.finish()
    _only_fault(verify(archived.settings), "unlisted", placed)


def test_files_waiting_for_removal_are_no_fault(archived: Archived) -> None:
    """A file that a rewrite has replaced may stay on disk for a while, also when a checkpoint tells of it."""
    old = _listed(archived)[0]
    relative = str(old.relative_to(archived.path))
    content = old.read_bytes()
    new = old.with_name(envelope.file_name("rewrite", 0, hashlib.sha256(content).hexdigest()))
    new.write_bytes(content)
    values: dict[str, str | None] = {**envelope.partition_values(relative)}
    rows = pl.read_parquet(old).height
    remove = RemoveAction(relative, False, time.time_ns() // 1_000_000, len(content), values)
    added = str(new.relative_to(archived.path))
    add = AddAction(added, len(content), values, FIRST_MS, False, json.dumps({"numRecords": rows}))
    _commit(archived, [remove, add])
    assert verify(archived.settings).faults == ()
    _commit(archived, [], other=1)
    deltalake.DeltaTable(archived.path).create_checkpoint()
    for commit in sorted((archived.path / "_delta_log").glob("*.json"))[:-1]:
        commit.unlink()
    assert verify(archived.settings).faults == ()
    old.unlink()
    assert verify(archived.settings).good


def test_doubled_rows_are_named_with_both_files(archived: Archived) -> None:
    """The same messages in two files are a fault that names both, the topic partition and the offsets."""
    source = _listed(archived)[0]
    copy = _commit_file(archived, source, "copy.parquet")
    report = verify(archived.settings, against_kafka=True)
    assert {fault.kind for fault in report.faults} == {"doubled"}
    assert {fault.path for fault in report.faults} == {str(copy)}
    assert all(f"also in {source}" in fault.what for fault in report.faults)
    offsets = pl.read_parquet(source).group_by("partition").agg(pl.len(), pl.min("offset"), high=pl.max("offset"))
    for partition, count, low, high in offsets.iter_rows():
        what = (
            f"{count} messages of topic {archived.settings.topics[0]}, partition {partition}, offsets {low} to {high}"
        )
        assert any(what in fault.what for fault in report.faults)
    assert report.kafka is not None
    assert not any(item.equal for item in report.kafka.partitions)


def test_a_row_count_that_is_off_is_found(archived: Archived) -> None:
    """The rows of a file are counted against the log, and those of a partition against the ledger."""
    source = _listed(archived)[0]
    copy = _commit_file(archived, source, "copy.parquet", messages=7)
    what = _only_fault(verify(archived.settings), "changed", copy)
    assert what == f"it holds {pl.read_parquet(source).height} messages, the table's log says 7"


def test_a_ledger_that_counts_otherwise_is_found(archived: Archived, topic_name: str) -> None:
    """Fewer messages than the ledger counts are missing; more, or some outside of what is archived, are a change."""
    at = TopicPartition(topic_name, topic_id_of(archived.bootstrap_servers, topic_name), 1)
    for changed, kind, says in [
        (Committed(60, 0, 61), "missing", "has 60 messages in its files, the ledger counts 61"),
        (Committed(60, 0, 59), "changed", "has 60 messages in its files, the ledger counts 59"),
        (Committed(59, 0, 60), "changed", "offset 59, outside of [0, 59), which is archived"),
        (Committed(60, 1, 60), "changed", "offset 0, outside of [1, 60), which is archived"),
    ]:
        _commit(archived, [], **{item.app_id: item.version for item in offset_transactions(at, changed)})
        report = verify(archived.settings)
        assert [fault.kind for fault in report.faults] == [kind]
        assert says in report.faults[0].what
    _commit(archived, [], **{item.app_id: item.version for item in offset_transactions(at, Committed(60, 0, 60))})
    _commit(archived, [], **{f"gap/{topic_name}/{at.topic_id}/1/58/retention": 60})
    report = verify(archived.settings)
    assert {fault.kind for fault in report.faults} == {"changed"}
    assert all("the gap [58, 60)" in fault.what for fault in report.faults)


def test_a_file_under_another_hour_is_found(archived: Archived) -> None:
    """A file whose messages are of another hour than its folder says is changed."""
    source = _listed(archived)[0]
    content = source.read_bytes()
    path = source.parents[1] / "hr=04" / envelope.file_name("moved", 0, hashlib.sha256(content).hexdigest())
    path.parent.mkdir()
    path.write_bytes(content)
    relative = str(path.relative_to(archived.path))
    stats = json.dumps({"numRecords": pl.read_parquet(source).height})
    _commit(archived, [AddAction(relative, len(content), envelope.partition_values(relative), FIRST_MS, True, stats)])
    assert _only_fault(verify(archived.settings), "changed", path) == "it holds messages of hour 2019-08-01T03"


def test_ugly_messages_compare_equal(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Headers, tombstones, bytes that are no text, aborted transactions and odd times are the same on both sides."""
    topics = (topic_name, f"{topic_name}-tx")
    create_topic(bootstrap_servers, topics[0], 2, FAR_TIMESTAMPS)
    create_topic(bootstrap_servers, topics[1], 3)
    produce(bootstrap_servers, topics[0], UGLY)
    stamps = (-1, -1000, 0, -(2**63), 2**63 - 1, 253_402_300_800_000)
    records = [RawRecord(b"v", stamp, None, ((b"\xff\xfe", b"1"),)) for stamp in stamps]
    produce_raw(bootstrap_servers, topics[0], records, 1)
    produce_transactions(bootstrap_servers, topics[1:], 300, abort_share=0.4)
    wait_until_stable(bootstrap_servers, *topics)
    archived = Archived(tmp_path, bootstrap_servers, *topics, batch_messages=100)
    archived.run()
    report = verify(archived.settings, against_kafka=True)
    assert report.faults == ()
    assert report.kafka is not None
    assert len(report.kafka.partitions) == 5
    assert all(item.equal for item in report.kafka.partitions)
    assert sum(item.in_kafka for item in report.kafka.partitions) == report.messages < 310


@pytest.mark.parametrize(
    "change",
    [
        {"key": b"other"},
        {"key": None},
        {"value": "other"},
        {"value": None},
        {"headers": [{"key": "a", "value": None}]},
        {"timestamp_type": "append"},
        {"us": 1},
        {"partition": 1},
    ],
    ids=lambda change: next(iter(change)),
)
def test_any_part_of_a_message_changes_its_hash(change: dict[str, object]) -> None:
    """Key, payload, headers, timestamp, its type and the partition all count, and null is not empty."""
    row: dict[str, object] = {
        "partition": 0,
        "offset": 5,
        "us": 0,
        "timestamp_type": "create",
        "key": b"",
        "value": "",
        "value_bytes": None,
        "headers": None,
    }
    assert _hash(row) != _hash({**row, **change})


def _hash(row: dict[str, object]) -> bytes:
    schema: dict[str, Any] = {
        "partition": pl.Int32,
        "offset": pl.Int64,
        "us": pl.Int64,
        "timestamp_type": pl.String,
        "key": pl.Binary,
        "value": pl.String,
        "value_bytes": pl.Binary,
        "headers": pl.List(pl.Struct({"key": pl.String, "value": pl.Binary})),
    }
    frame = pl.DataFrame([row], schema=schema)
    found: bytes = hashes(frame.with_columns(timestamp=pl.col("us").cast(pl.Datetime("us", "UTC"))))[0]
    return found


@given(st.permutations(range(6)), st.integers(1, 5))
def test_a_digest_does_not_depend_on_order_or_parts(order: list[int], cut: int) -> None:
    """Messages give the same digest in any order and in any number of frames, and another one if one is left out."""
    frame = pl.DataFrame(
        {
            "range": pl.Series([0] * 6, dtype=pl.UInt32),
            "partition": pl.Series([0] * 6, dtype=pl.Int32),
            "offset": list(range(6)),
            "timestamp": pl.Series([None] * 6, dtype=pl.Datetime("us", "UTC")),
            "timestamp_type": ["none"] * 6,
            "key": pl.Series([None] * 6, dtype=pl.Binary),
            "value": ["same"] * 6,
            "value_bytes": pl.Series([None] * 6, dtype=pl.Binary),
            "headers": pl.Series([None] * 6, dtype=pl.List(pl.Struct({"key": pl.String, "value": pl.Binary}))),
        }
    )
    whole, parts, fewer = Sums(), Sums(), Sums()
    whole.add(frame)
    for part in (frame[order][:cut], frame[order][cut:]):
        parts.add(part)
    fewer.add(frame[order][1:])
    assert whole.totals() == parts.totals() != fewer.totals()
    assert whole.differing(parts) == {}
    assert whole.differing(fewer) == {0: [0]}


def test_what_differs_from_kafka_is_narrowed_down(archived: Archived, topic_name: str) -> None:
    """A changed message, one that the archive lacks and one that Kafka lacks are named with offset and file."""
    path = _listed(archived)[0]
    frame = pl.read_parquet(path, hive_partitioning=False)
    changed, dropped = frame.row(0, named=True), frame.row(1, named=True)
    other = frame.filter(pl.int_range(pl.len()) != 1).with_columns(
        key=pl.when(pl.int_range(pl.len()) == 0).then(pl.lit(b"forged")).otherwise("key")
    )
    new = _replace(archived, path, other)
    report = verify(archived.settings, against_kafka=True)
    texts = [str(fault) for fault in report.faults]
    place = f"topic {topic_name}, partition"
    assert any(text.startswith(f"missing: {archived.path}: {place} {dropped['partition']} has 59 ") for text in texts)
    named = f"{place} {dropped['partition']}: 1 message that Kafka has not in its files; offsets {dropped['offset']}."
    assert any(text.startswith(f"missing: {archived.path}: {named}") for text in texts)
    named = f"{place} {changed['partition']}: 1 message not as in Kafka; offsets {changed['offset']}."
    assert any(text.startswith(f"changed: {new}: {named}") for text in texts)
    assert len(texts) == 3


def test_messages_that_kafka_does_not_hand_out_are_found(
    bootstrap_servers: str, topic_name: str, tmp_path: Path
) -> None:
    """A row at the offset of an aborted message is a fault, even where the ledger counts it."""
    create_topic(bootstrap_servers, topic_name)
    produce_transactions(bootstrap_servers, [topic_name], 40, abort_share=0.5)
    wait_until_stable(bootstrap_servers, topic_name)
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    archived.run()
    path = _listed(archived)[0]
    frame = pl.read_parquet(path, hive_partitioning=False)
    present = {message.offset for message in archived.messages(topic_name)[0]}
    ghost = min(set(range(max(present))) - present)
    new = _replace(archived, path, pl.concat([frame, frame[:1].with_columns(offset=pl.lit(ghost, pl.Int64))]))
    at = TopicPartition(topic_name, topic_id_of(bootstrap_servers, topic_name), 0)
    known = archived.archiver().archive.ledger().committed[at]
    counted = Committed(known.next, known.first, known.messages + 1)
    _commit(archived, [], **{item.app_id: item.version for item in offset_transactions(at, counted)})
    assert verify(archived.settings).good
    what = _only_fault(verify(archived.settings, against_kafka=True), "changed", new)
    assert what.endswith(f"1 message that Kafka does not hand out; offsets {ghost}")


def _replace(archived: Archived, path: Path, frame: pl.DataFrame) -> Path:
    """Put other rows in the place of a listed file, with a name and a log that vouch for them."""
    frame.write_parquet(path.with_name("draft"))
    content = path.with_name("draft").read_bytes()
    path.with_name("draft").unlink()
    new = path.with_name(envelope.file_name("forged", 0, hashlib.sha256(content).hexdigest()))
    new.write_bytes(content)
    relative, added = str(path.relative_to(archived.path)), str(new.relative_to(archived.path))
    values: dict[str, str | None] = {**envelope.partition_values(relative)}
    remove = RemoveAction(relative, True, FIRST_MS, path.stat().st_size, values)
    stats = json.dumps({"numRecords": frame.height})
    _commit(archived, [remove, AddAction(added, len(content), values, FIRST_MS, True, stats)])
    return new


def test_only_what_both_still_have_is_compared(archived: Archived, topic_name: str) -> None:
    """What retention has deleted from Kafka stays in the archive alone, and that is no fault."""
    delete_records(archived.bootstrap_servers, topic_name, {0: 25, 1: -1})
    report = verify(archived.settings, against_kafka=True)
    assert report.faults == ()
    assert report.kafka is not None
    assert [(item.range.start, item.in_kafka, item.in_archive) for item in report.kafka.partitions] == [(25, 35, 35)]


def test_retention_at_the_same_time(archived: Archived, topic_name: str) -> None:
    """Messages that Kafka deletes between the first look and the read are left out on both sides."""

    def on_progress(what: str, done: int, total: int) -> None:
        if what == "rows" and start_offsets(archived.bootstrap_servers, topic_name)[0] == 0:
            delete_records(archived.bootstrap_servers, topic_name, {0: 25})

    report = verify(archived.settings, against_kafka=True, on_progress=on_progress)
    assert report.faults == ()
    assert report.kafka is not None
    assert report.kafka.partitions[0].in_kafka == report.kafka.partitions[0].in_archive == 35


def test_compacted_messages_stay_in_the_archive(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Messages that compaction drops from Kafka are no fault, while a changed one among them still is."""
    create_topic(bootstrap_servers, topic_name, config={"cleanup.policy": "compact", "segment.ms": 100})
    produce(bootstrap_servers, topic_name, [Sent(b"%d" % number, b"k") for number in range(10)])
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    archived.run()

    def compacted() -> bool:
        produce(bootstrap_servers, topic_name, [Sent(b"more", b"other")])
        report = verify(archived.settings, against_kafka=True)
        assert report.faults == ()
        assert report.kafka is not None
        return report.kafka.partitions[0].in_kafka < 10

    wait_for("compaction", compacted)


def test_topics_that_are_gone_are_noted(archived: Archived, topic_name: str) -> None:
    """A topic deleted since is no fault and said; what is not archived yet is not looked at."""
    produce(archived.bootstrap_servers, topic_name, list(_messages(10)))
    assert verify(archived.settings, against_kafka=True).good
    delete_topic(archived.bootstrap_servers, topic_name)
    report = verify(archived.settings, against_kafka=True)
    assert report.faults == ()
    assert report.kafka is not None
    assert report.kafka.notes == (f"topic {topic_name} does not exist",)
    create_topic(archived.bootstrap_servers, topic_name, 2)
    wait_for("the topic", lambda: bool(end_offsets(archived.bootstrap_servers, topic_name)))
    report = verify(archived.settings, against_kafka=True)
    assert report.kafka is not None
    assert "made again" in report.kafka.notes[0]


@pytest.mark.slow
def test_a_broker_that_is_down_does_not_hide_faults(archived: Archived, topic_name: str) -> None:
    """What the archive itself has wrong is told although Kafka cannot be asked, and that is told, too."""
    gone = _listed(archived)[0]
    gone.unlink()
    report = verify(Archived(archived.settings.base_dir, "127.0.0.1:9", topic_name).settings, against_kafka=True)
    assert _only_fault(report, "missing", gone)
    assert report.kafka is None
    assert "did not answer" in str(report.kafka_error)


def test_files_replaced_meanwhile_start_it_over(archived: Archived) -> None:
    """A file that a rewrite replaces and removes while it is verified is no fault: the newer table is checked."""
    path = _listed(archived)[0]

    def on_progress(what: str, done: int, total: int) -> None:
        if what == "files" and done == total and path.exists():
            _replace(archived, path, pl.read_parquet(path, hive_partitioning=False))
            path.unlink()

    report = verify(archived.settings, on_progress=on_progress)
    assert report.faults == ()
    assert report.version == archived.version()


def test_no_archive_is_an_error(tmp_path: Path, bootstrap_servers: str) -> None:
    """Where there is nothing to verify, nothing is said to be good, and no archive is made."""
    archived = Archived(tmp_path, bootstrap_servers, "t")
    with pytest.raises(ArchiveError, match="there is no archive yet"):
        verify(archived.settings)
    assert not archived.path.exists()


def test_kafka_without_an_address_is_a_wrong_setting(archived: Archived) -> None:
    """To compare with Kafka takes a broker's address, which is said before anything is read."""
    with pytest.raises(SettingsError, match="KAFKA_BOOTSTRAP_SERVERS"):
        verify(Archived(archived.settings.base_dir, "", *archived.settings.topics).settings, against_kafka=True)


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 100)), max_size=30), st.integers(1, 300))
def test_windows_cover_every_offset_once(spans: list[tuple[int, int]], messages: int) -> None:
    """Every offset that a file may hold falls into one window, which has all files that may hold it."""
    files = [SoundFile(str(n), str(n), "t", size + 1, low, low + size) for n, (low, size) in enumerate(spans)]
    cut = windows(files, messages)
    for file in files:
        for offset in (file.first, file.last, (file.first + file.last) // 2):
            found = [window for window in cut if window.low <= offset < window.high]
            assert len(found) == 1
            assert file in found[0].files
