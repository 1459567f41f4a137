"""Messages that are erased for good: gone everywhere, nothing else touched, and never brought back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from archiver_pipeline.erasure import begun
from archiver_pipeline.errors import ArchiveDamaged, ArchiveError
from archiver_pipeline.hours import hour_at
from archiver_pipeline.rewrites.backfill import Backfiller
from archiver_pipeline.rewrites.predicate import Predicate
from archiver_pipeline.rewrites.seal import Sealer
from archiver_pipeline.stored.verify import verify
from archiver_pipeline.view import view
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.damaged_hours import HOURS, files_of, flip
from archiver_pipeline_tests.erasing import (
    OF_SECRET,
    SECRET,
    assert_erased,
    erase,
    erased_rows,
    events,
    rows,
    traces,
    users,
    with_settings,
)
from archiver_pipeline_tests.kafka.produce import FAR_TIMESTAMPS, Sent, create_topic, delete_records, produce
from archiver_pipeline_tests.kafka.raw import RawRecord, produce_raw


@pytest.fixture
def archived(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> Archived:
    """An archive of two hours."""
    return users(bootstrap_servers, topic_name, tmp_path)


def tidy(archived: Archived) -> None:
    """Bring the view up to date, and remove what a rewrite has replaced."""
    view.refresh(archived.settings.view_path, archived.archiver().archive)
    Sealer(archived.settings.model_copy(update={"keep_replaced_hours": 0})).clean()


def test_gone_everywhere(archived: Archived) -> None:
    """No byte on the disk tells of the user afterwards; identity and time stay, and all others as they were."""
    before = rows(archived.path)
    assert traces(archived.settings.base_dir)
    done = erase(archived.settings)
    assert (done.messages, len(done.hours), done.good) == (24, 2, True)
    assert_erased(archived, before)


def test_sealed_hours_stay_sealed(archived: Archived) -> None:
    """One hour was sealed before, the other is sealed by being erased from, for both are long over."""
    before = rows(archived.path)
    Sealer(archived.settings).seal(HOURS[0])
    erase(archived.settings)
    assert archived.sql("SELECT DISTINCT sealed FROM hours WHERE type[1] <> '_' OR hr = '03'") == [(True,)]
    assert archived.sql("SELECT sealed FROM hours WHERE type = '_erased'") == [(True,)] * 2
    assert_erased(archived, before)


def test_an_hour_that_is_open_stays_open(archived: Archived) -> None:
    """What is not over is not called sealed, and sealing it later keeps what is erased as it is."""
    before = rows(archived.path)
    long = with_settings(archived, {"seal_grace_minutes": 60 * 24 * 365 * 100})
    erase(long.settings)
    assert archived.sql("SELECT DISTINCT sealed FROM hours") == [(False,)]
    for hour in HOURS[:2]:
        Sealer(archived.settings).seal(hour)
    tidy(archived)
    assert archived.sql("SELECT DISTINCT sealed FROM hours") == [(True,)]
    assert_erased(archived, before)


def test_only_types_with_matches_are_rewritten(archived: Archived) -> None:
    """Files of other types are the same ones afterwards."""
    others = {name for name in archived.listed_files() if name.startswith("type=t1")}
    done = erase(archived.settings, f"type = 't0' AND ({OF_SECRET})")
    assert others <= archived.listed_files()
    assert done.files == 4


def test_messages_without_a_usable_time(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """They are erased like all others, in the place that they have instead of an hour."""
    create_topic(bootstrap_servers, topic_name, 1, FAR_TIMESTAMPS)
    stamps = (-1, 300_000_000_000_000_000, 253_500_000_000_000)
    records = [
        RawRecord(b'{"type": "a", "uid": "%s"}' % user, stamp) for user in (b"x", SECRET.encode()) for stamp in stamps
    ]
    produce_raw(bootstrap_servers, topic_name, records)
    archived = Archived(tmp_path, bootstrap_servers, topic_name, results_topic="")
    archived.run()
    before = rows(archived.path)
    done = erase(archived.settings)
    assert [(item.hour.name, item.erased) for item in done.hours] == [("_unknown", 3)]
    assert_erased(archived, before)
    (mended,) = Backfiller(archived.settings).run([hour_at(None)])
    assert (mended.added, mended.changed, mended.kept) == (0, 0, 3)
    tidy(archived)
    assert_erased(archived, before)


def test_one_after_the_other(archived: Archived) -> None:
    """A second erasure goes into the same file of erased ones; a third finds nothing, and changes nothing."""
    before = rows(archived.path)
    erase(archived.settings, "value LIKE '%user-1%'")
    erase(archived.settings)
    assert rows(archived.path).equals(before.filter(~pl.col("key").is_in([b"user-1", SECRET.encode()])))
    assert archived.sql(
        "SELECT type, count(DISTINCT dt || hr), sum(files) FROM hours WHERE type = '_erased' GROUP BY 1"
    ) == [("_erased", 2, 2)]
    version = archived.version()
    with begun(archived.settings) as erasure:
        assert erasure.look(Predicate(OF_SECRET)).matches.messages == 0
    assert archived.version() == version
    assert verify(archived.settings, against_kafka=True).good


def test_a_batch_after_it(archived: Archived) -> None:
    """What comes later is archived as ever, the user's among it: another erasure takes that out, too."""
    before = rows(archived.path)
    erase(archived.settings)
    produce(archived.bootstrap_servers, archived.settings.topics[0], list(events(0, first=5000)))
    archived.run()
    assert rows(archived.path).height == before.height - 24 + 30
    assert traces(archived.settings.base_dir)
    assert erase(archived.settings).messages == 6
    assert traces(archived.settings.base_dir) == []
    assert verify(archived.settings, against_kafka=True).good


def test_the_view_tells_of_it(archived: Archived) -> None:
    """`erasures` has a row for each: when, a hash of the condition, and how many messages; not the condition."""
    erase(archived.settings)
    erase(archived.settings, "key = 'user-1'::BLOB")
    found = archived.sql(
        'SELECT predicate_hash, messages, "time" BETWEEN now() - INTERVAL 1 HOUR AND now() FROM erasures'
    )
    assert found == [(Predicate(OF_SECRET).digest, 24, True), (Predicate("key = 'user-1'::BLOB").digest, 24, True)]


@pytest.mark.parametrize(
    "options", [{}, {"accept_loss": True}, {"from_kafka": False}], ids=["kafka", "loss", "archive"]
)
def test_no_backfill_brings_it_back(archived: Archived, options: dict[str, Any]) -> None:
    """Whether the hours are good or a file is lost, Kafka has the messages still, and they stay out."""
    before = rows(archived.path)
    erase(archived.settings)
    for _ in range(2):
        done = list(Backfiller(archived.settings, **options).run(HOURS[:2]))
        assert [(item.fault, item.added, item.version) for item in done] == [(None, 0, None)] * 2
        tidy(archived)
        assert_erased(archived, before)
        if options.get("from_kafka", True):
            files_of(archived, HOURS[0], "t0")[0].unlink()
            (mended,) = Backfiller(archived.settings, **options).run(HOURS[:1])
            assert (mended.lost, mended.fault) == (0, None)
            assert mended.added
            tidy(archived)
            assert_erased(archived, before)


def test_another_type_rule_brings_nothing_back(archived: Archived) -> None:
    """What is erased has no type but that, whatever the rules are now."""
    erase(archived.settings)
    changed = with_settings(archived, {"type_path": "constant:all"})
    list(Backfiller(changed.settings).run(HOURS[:2]))
    view.refresh(archived.settings.view_path, archived.archiver().archive)
    assert archived.sql("SELECT type, count(*) FROM messages GROUP BY 1 ORDER BY 1") == [("_erased", 24), ("all", 96)]
    assert traces(archived.settings.base_dir) == []
    assert verify(archived.settings, against_kafka=True).good


def test_a_damaged_file_of_erased_ones(archived: Archived) -> None:
    """Nobody knows then what was erased, so no backfill fills the hour, not even if a loss is accepted."""
    erase(archived.settings)
    (damaged,) = files_of(archived, HOURS[0], "_erased")
    content = damaged.read_bytes()
    flip(damaged)
    (fault,) = verify(archived.settings).faults
    assert fault.path == str(damaged)
    (done,) = Backfiller(archived.settings, accept_loss=True).run(HOURS[:1])
    assert done.fault is not None
    assert "Kafka may still have what was erased" in done.fault
    assert traces(archived.settings.base_dir) == []
    partly = erase(archived.settings, "key = 'user-1'::BLOB")
    assert [bool(item.fault) for item in partly.hours] == [True, False]
    damaged.write_bytes(content)
    with begun(archived.settings) as erasure:
        (left,) = erasure.interrupted()
        assert erasure.do(left).messages == 24
    assert verify(archived.settings, against_kafka=True).good


def test_a_damaged_file_is_named_and_nothing_is_changed(archived: Archived) -> None:
    """Nobody can tell whose messages are in it: the error names it and the remedy, and that mends it."""
    before = rows(archived.path)
    damaged = files_of(archived, HOURS[0], "t1")[0]
    flip(damaged)
    version = archived.version()
    with pytest.raises(ArchiveDamaged, match=f"{damaged.name}.*archiver backfill") as caught:
        erase(archived.settings)
    assert "Nothing was changed" in str(caught.value)
    assert archived.version() == version
    assert not (archived.path / "_erasures").exists()
    list(Backfiller(archived.settings).run(HOURS[:1]))
    erase(archived.settings)
    assert_erased(archived, before)


def test_a_file_that_is_damaged_meanwhile(archived: Archived) -> None:
    """Its hour is left, the other one is done; verify says that something is left, and the next run finishes it."""
    before = rows(archived.path)
    with begun(archived.settings) as erasure:
        predicate = Predicate(OF_SECRET)
        plan = erasure.confirm(predicate, erasure.look(predicate))
        flip(files_of(archived, HOURS[0], "t0")[0])
        done = erasure.do(plan)
    assert [bool(item.fault) for item in done.hours] == [True, False]
    assert not done.good
    assert {fault.kind for fault in verify(archived.settings).faults} == {"changed", "unerased"}
    list(Backfiller(archived.settings).run(HOURS[:1]))
    with begun(archived.settings) as erasure:
        (left,) = erasure.interrupted()
        assert erasure.do(left).messages == 24
        assert erasure.interrupted() == []
    assert_erased(archived, before)


def test_what_another_type_has_by_now(archived: Archived) -> None:
    """What was confirmed is erased although a backfill with other rules has moved it meanwhile."""
    before = rows(archived.path)
    with begun(archived.settings) as erasure:
        predicate = Predicate(f"type = 't0' AND ({OF_SECRET})")
        plan = erasure.confirm(predicate, erasure.look(predicate))
        list(Backfiller(with_settings(archived, {"type_path": "constant:all"}).settings).run(HOURS[:1]))
        done = erasure.do(plan)
    wanted = before.filter(pl.col("type") == "t0", pl.col("key") == SECRET.encode())
    assert (done.messages, done.good) == (wanted.height, True)
    assert erased_rows(archived.path)["offset"].sum() == wanted["offset"].sum()
    assert verify(archived.settings, against_kafka=True).good


def test_one_at_a_time(archived: Archived) -> None:
    """A second erasure beside one at work is refused in a sentence, and verify does not take that one for dead."""
    with begun(archived.settings) as erasure:
        predicate = Predicate(OF_SECRET)
        plan = erasure.confirm(predicate, erasure.look(predicate))
        with pytest.raises(ArchiveError, match="another erasure of this archive is at work"), begun(archived.settings):
            pass
        assert verify(archived.settings).good
        erasure.do(plan)


def test_what_kafka_no_longer_has(archived: Archived) -> None:
    """Where Kafka has lost the messages, the archive is right all the same, and so is the comparison of the rest."""
    before = rows(archived.path)
    delete_records(archived.bootstrap_servers, archived.settings.topics[0], {0: 20, 1: -1})
    erase(archived.settings)
    assert_erased(archived, before)


def test_a_type_that_is_gone(archived: Archived) -> None:
    """Where nothing of a type stays it has no file, no view, and no folder."""
    erase(archived.settings, "type = 't0'")
    assert archived.sql("SELECT DISTINCT type FROM messages ORDER BY 1") == [
        ("_erased",),
        ("_malformed",),
        ("t1",),
        ("t2",),
    ]
    assert [name for (name,) in archived.sql("SELECT type FROM types ORDER BY 1")] == [
        "_erased",
        "_malformed",
        "t1",
        "t2",
    ]
    assert not (archived.path / "type=t0").exists()
    assert verify(archived.settings, against_kafka=True).good


def test_messages_that_came_in_any_order(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Where a late batch belongs before others of its hour, all is sorted first, and none is lost by that."""
    create_topic(bootstrap_servers, topic_name)
    archived = Archived(tmp_path, bootstrap_servers, topic_name, results_topic="")
    sent = [Sent(b'{"type": "a", "uid": "%s"}' % user, None, (), 1_564_628_400_000 + n, 0)
            for n, user in enumerate([b"x", SECRET.encode()] * 50)]  # fmt: skip
    produce(bootstrap_servers, topic_name, sent)
    archived.run()
    before = rows(archived.path)
    assert erase(archived.settings).messages == 50
    assert_erased(archived, before)
