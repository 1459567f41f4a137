"""Rules of the ledger: what is written as transactions is read back, and nothing else is taken for it."""

from __future__ import annotations

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import deltalake
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver_pipeline.errors import ArchiveDamaged
from archiver_pipeline.plan import MADE_AGAIN, RETENTION, Committed, Gap, TopicPartition
from archiver_pipeline.storage.folder import Folder
from archiver_pipeline.table import ledger
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.ledger import RecordedGap, Transaction
from archiver_pipeline_tests.batches import ORDERS, archive, event

LAST = 2**63 - 1
SECOND = TopicPartition("orders", "B", 1)
names = st.sampled_from(["gap", "lane", "start", "count", "rewrite", "1", "-", "..", "a.b_c-d"]) | st.from_regex(
    r"[A-Za-z0-9._-]{1,249}", fullmatch=True
)
ids = st.from_regex(r"(-|[A-Za-z0-9_-]{22})(#[2-9])?", fullmatch=True)
partitions = st.builds(TopicPartition, names, ids, st.integers(0, 2**31 - 1))
offsets = st.integers(0, LAST)
known = st.builds(Committed, offsets, offsets, offsets)
gaps = st.builds(Gap, partitions, offsets, offsets, st.sampled_from([RETENTION, MADE_AGAIN]))


@given(
    st.dictionaries(partitions, known, max_size=8),
    st.lists(gaps, max_size=8, unique_by=lambda gap: (gap.at, gap.start, gap.reason)),
    st.dictionaries(st.integers(0, 999), offsets, max_size=4),
)
def test_what_is_written_is_read(
    committed: dict[TopicPartition, Committed], found: list[Gap], lanes: dict[int, int]
) -> None:
    """Offsets, gaps and lanes come back as they were, even for topics named `gap`, `lane`, `start` or `count`."""
    transactions = [
        *(item for at, what in committed.items() for item in ledger.offset_transactions(at, what)),
        *(ledger.gap_transaction(gap) for gap in found),
        *(Transaction(ledger.fence_of(f"lane{lane}"), epoch) for lane, epoch in lanes.items()),
    ]
    assert len({item.app_id for item in transactions}) == len(transactions)
    read = ledger.parse(7, transactions)
    assert read.version == 7
    assert read.committed == committed
    assert sorted((item.gap for item in read.gaps), key=repr) == sorted(found, key=repr)
    assert read.lanes == lanes
    assert all(read.epoch(f"lane/{lane}") == epoch for lane, epoch in lanes.items())
    assert read.numbers == {item.app_id: item.version for item in transactions}


def test_the_names_are_the_contracts() -> None:
    """The transaction of a partition's offset is `{topic}/{topic_id}/{partition}`."""
    at = TopicPartition("orders", "A", 3)
    assert ledger.offset_transactions(at, Committed(9, 2, 5)) == [
        Transaction("orders/A/3", 9),
        Transaction("start/orders/A/3", 2),
        Transaction("count/orders/A/3", 5),
    ]
    assert ledger.gap_transaction(Gap(at, 4, 6, RETENTION)) == Transaction("gap/orders/A/3/4/retention", 6)
    assert ledger.fence_of("lane2") == "lane/2"
    assert ledger.fence_of("seal-2019-08-01T03") == "rewrite/2019-08-01T03"


def test_gaps_are_in_order_and_have_a_time() -> None:
    """Gaps come by partition and offset, with the time of their commit."""
    first, second = Gap(ORDERS, 3, 5, RETENTION), Gap(ORDERS, 20, 30, RETENTION)
    transactions = [Transaction(ledger.gap_transaction(gap).app_id, gap.end, 1500) for gap in (second, first)]
    time = datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)
    assert ledger.parse(0, transactions).gaps == (RecordedGap(first, time), RecordedGap(second, time))


@pytest.mark.parametrize(
    "name",
    ["spark-query", "a/b", "a/b/c", "a/b/-1", "lane/x", "gap/t/i/0/x/retention", "start/t/i/x", "a/b/c/d/e", "/", ""],
)
def test_transactions_of_others_are_passed_over(name: str) -> None:
    """What another program committed under a name of its own disturbs nothing."""
    read = ledger.parse(0, [Transaction(name, 5), Transaction("orders/A/0", 3)])
    assert (read.committed, read.gaps, read.lanes) == ({ORDERS: Committed(3, 0, 0)}, (), {})


def test_an_archive_that_is_not_there_is_empty(tmp_path: Path) -> None:
    """Before the first commit nothing is archived."""
    assert ledger.read(Folder(tmp_path / "nothing")) == ledger.Ledger(-1)
    target = Archive(str(tmp_path / "archive"))
    target.table()
    assert (target.ledger().version, target.ledger().committed) == (0, {})


def with_checkpoints(folder: Path, commits: int, every: int, of_others: bool = False) -> Archive:
    """An archive of that many one-message commits by two lanes, with a checkpoint every so often."""
    target = Archive(str(folder), lanes=2)
    for number in range(commits):
        archive(target, [event()], TopicPartition("orders", "A", number % 3), lane=number % 2)
        if of_others and number % 2:
            deltalake.DeltaTable(folder).alter.set_table_properties({"delta.appendOnly": "false"})
        if number % every == every - 1:
            deltalake.DeltaTable(folder).create_checkpoint()
    return target


def test_a_checkpoint_changes_nothing(tmp_path: Path) -> None:
    """Across checkpoints, and among commits of others, the ledger says what deltalake says of each transaction."""
    target = with_checkpoints(tmp_path / "archive", commits=7, every=3, of_others=True)
    read, table = target.ledger(), target.table()
    assert read.version == table.version() == 10
    assert len(list((tmp_path / "archive" / "_delta_log").glob("*.checkpoint.parquet"))) == 2
    assert read.committed == {
        TopicPartition("orders", "A", number): Committed(count, 0, count) for number, count in enumerate((3, 2, 2))
    }
    assert read.lanes == {0: 4, 1: 3}
    assert {name: table.transaction_version(name) for name in read.numbers} == dict(read.numbers)


def test_the_archives_own_path_is_no_pattern(tmp_path: Path) -> None:
    """Brackets, stars, quotes and equals signs in the path of the archive are just characters, checkpoint or not."""
    target = with_checkpoints(tmp_path / "it's [a]*b" / "x=y", commits=4, every=3)
    assert target.ledger().lanes == {0: 2, 1: 2}
    assert target.snapshot()[0].version() == 4


def test_commits_before_a_checkpoint_may_go(tmp_path: Path) -> None:
    """The log's clean-up removes commits that a checkpoint covers; the ledger needs only what is left."""
    target = with_checkpoints(tmp_path / "archive", commits=5, every=2)
    before = target.ledger()
    for version in range(4):
        (tmp_path / "archive" / "_delta_log" / f"{version:020}.json").unlink()
    assert target.ledger() == before


def test_a_missing_commit_is_named(tmp_path: Path) -> None:
    """A hole in the log is refused with the file that is missing, and with what to do."""
    target = with_checkpoints(tmp_path / "archive", commits=3, every=9)
    missing = tmp_path / "archive" / "_delta_log" / f"{2:020}.json"
    missing.unlink()
    with pytest.raises(ArchiveDamaged) as refused:
        target.ledger()
    assert f"({missing}). Restore this file from a copy" in str(refused.value)


@pytest.mark.parametrize(
    "damage", [b"", b'{"txn":{"appId":"orders/A/0","ver', b'{"txn":5}', b'{"txn":{}}', b"\0" * 9], ids=range(5)
)
def test_a_damaged_commit_is_named(tmp_path: Path, damage: bytes) -> None:
    """A commit that is cut short or overwritten is refused with its path, by reader and writer alike."""
    target = with_checkpoints(tmp_path / "archive", commits=3, every=9)
    broken = tmp_path / "archive" / "_delta_log" / f"{3:020}.json"
    broken.write_bytes(damage)
    for attempt in (target.ledger, lambda: archive(target, [event()])):
        with pytest.raises(ArchiveDamaged) as refused:
            attempt()
        assert f"({broken}). Restore this file from a copy" in str(refused.value)


def test_a_damaged_checkpoint_is_named(tmp_path: Path) -> None:
    """A checkpoint that cannot be read is refused with its path."""
    target = with_checkpoints(tmp_path / "archive", commits=3, every=3)
    (broken,) = (tmp_path / "archive" / "_delta_log").glob("*.checkpoint.parquet")
    broken.write_bytes(broken.read_bytes()[:-100])
    assert target.ledger().version == 3  # It has read the commits already.
    with pytest.raises(ArchiveDamaged) as refused:
        Archive(target.uri).ledger()
    assert str(broken) in str(refused.value)


def test_a_listing_made_in_mid_commit_is_no_damage(tmp_path: Path) -> None:
    """While others commit, the ledger is always read, and never goes back."""
    target = Archive(str(tmp_path / "archive"))
    target.table()
    folder = tmp_path / "archive" / "_delta_log"
    versions = []
    for version in range(1, 40):
        (folder / f"{version:020}.json").write_text(
            json.dumps({"txn": {"appId": "orders/A/0", "version": version}}, separators=(",", ":"))
        )
        versions.append(target.ledger().committed[ORDERS].next)
    assert versions == list(range(1, 40))


def test_what_is_kept_of_the_log_hides_no_commit(tmp_path: Path) -> None:
    """An archive that stays sees each commit of others, checkpoints, their clean-up, and another table in its place."""
    target, other = (Archive(str(tmp_path / "archive"), lanes=2) for _ in range(2))
    log = tmp_path / "archive" / "_delta_log"
    for number in range(9):
        archive(other, [event(f"type{number}")], ORDERS, lane=number % 2)
        if number % 3 == 2:
            deltalake.DeltaTable(other.uri).create_checkpoint()
            for version in range(number + 1):
                (log / f"{version:020}.json").unlink(missing_ok=True)
        if number % 4 != 1:
            state, seen = target.standing()
            fresh, read = Archive(other.uri).standing()
            assert seen == read == other.ledger()
            assert state.types() == fresh.types() == set(target.files()["type"])
            assert (state.metadata["id"], state.writer) == (fresh.metadata["id"], fresh.writer)
    shutil.rmtree(Path(target.uri))
    archive(other, [event()], SECOND)
    assert target.ledger().committed == {SECOND: Committed(1, 0, 1)}


def test_what_other_programs_write_is_read(tmp_path: Path) -> None:
    """JSON with spaces, files that are only like a checkpoint, and an interval that is no number stop nothing."""
    target = Archive(str(tmp_path / "archive"))
    archive(target, [event()], ORDERS)
    log = Path(target.uri) / "_delta_log"
    (log / ".tmp.checkpoint.parquet").write_bytes(b"")
    lines = [
        {"commitInfo": {"operation": "SET TBLPROPERTIES"}},
        {"txn": {"appId": "theirs", "version": 7}},
        {"metaData": {**target.standing()[0].metadata, "configuration": {"delta.checkpointInterval": "abc"}}},
    ]
    text = "".join(json.dumps(line).replace('{"', '{ "', 1) + "\n" for line in lines)
    (log / f"{target.ledger().version + 1:020}.json").write_text(text)
    for reader in (target, Archive(target.uri)):
        state, _ = reader.standing()
        assert state.transactions["theirs"].version == 7
        assert state.metadata["configuration"] == {"delta.checkpointInterval": "abc"}
    archive(target, [event()], ORDERS)
    assert target.ledger().committed[ORDERS] == Committed(2, 0, 2)
