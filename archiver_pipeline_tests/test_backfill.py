"""Hours read again from Kafka: what is damaged, wrong or not there is mended, and a good message never goes."""

from __future__ import annotations

import os
import random
import resource
from pathlib import Path

import deltalake
import pytest

from archiver_pipeline.errors import RangeRefused
from archiver_pipeline.hours import Hour, hour_at
from archiver_pipeline.rewrites.backfill import Backfiller
from archiver_pipeline.stored.verify import verify
from archiver_pipeline.table.archive import Archive
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.damaged_hours import (
    FIRST_HOUR,
    HOUR_MS,
    HOURS,
    assert_good,
    backfill,
    files_of,
    flip,
    lose,
    messages,
    oldest,
    three_hours,
)
from archiver_pipeline_tests.kafka.produce import FAR_TIMESTAMPS, Sent, create_topic, delete_records, produce
from archiver_pipeline_tests.kafka.raw import RawRecord, produce_raw


@pytest.fixture
def archived(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> Archived:
    """An archive of three hours of a topic of two partitions, each hour in two batches, with late messages."""
    return three_hours(bootstrap_servers, topic_name, tmp_path)


def test_a_good_hour_is_left_as_it_is(archived: Archived) -> None:
    """Nothing differs, and so no message is written anew; the hour, long over, is sealed."""
    before = {topic: archived.messages(topic) for topic in archived.settings.topics}
    done = backfill(archived, HOURS)
    assert [(item.hour, item.read, item.added, item.changed, item.version) for item in done] == [
        (HOURS[0], 64, 0, 0, None),
        (HOURS[1], 60, 0, 0, None),
        (HOURS[2], 60, 0, 0, None),
    ]
    assert archived.sql("SELECT DISTINCT sealed FROM hours") == [(True,)]
    assert {topic: archived.messages(topic) for topic in archived.settings.topics} == before
    version = archived.version()
    backfill(archived, HOURS)
    assert archived.version() == version, "a second time there is nothing to do at all"
    assert_good(archived)


def test_damage_is_mended(archived: Archived) -> None:
    """One file deleted and one byte changed in another: verify names both, a backfill mends both, verify says good."""
    gone, changed = oldest(archived, HOURS[0], "t0"), oldest(archived, HOURS[1], "t1")
    gone.unlink()
    flip(changed)
    found = {(fault.kind, fault.path) for fault in verify(archived.settings).faults}
    assert found == {("missing", str(gone)), ("changed", str(changed))}
    one, two, three = backfill(archived, HOURS)
    assert (one.mended, two.mended, three.mended) == ((str(gone),), (str(changed),), ())
    assert (one.added, one.lost, two.added, two.lost) == (10, 0, 10, 0)
    assert "1 damaged or missing file replaced" in one.sentence()
    assert_good(archived)


def test_late_messages_are_found_wherever_they_lie(archived: Archived) -> None:
    """Files of an hour that hold late messages only, far behind the others, come back as well."""
    lose(archived, HOURS[0])
    (done,) = backfill(archived, HOURS[:1])
    assert (done.added, done.lost, done.kept) == (64, 0, 0)
    assert_good(archived)


def test_an_hour_without_any_message(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """What lies before the start is read for it, since late messages may be there: none is, and nothing changes."""
    create_topic(bootstrap_servers, topic_name, partitions=2)
    for hour in (0, 2):
        produce(bootstrap_servers, topic_name, list(messages(hour, 20)))
    archived = Archived(tmp_path, bootstrap_servers, topic_name, start="latest", keep_replaced_hours=0)
    archived.run()
    (none,) = Backfiller(archived.settings).run(HOURS[1:2])
    assert (none.read, none.messages, none.version, none.fault) == (0, 0, None, None)


def test_a_changed_type_rule_is_applied(archived: Archived, tmp_path: Path) -> None:
    """Messages move to the type that the present rule gives them, those of other hours stay where they are."""
    topic = archived.settings.topics[0]
    changed = Archived(tmp_path, archived.bootstrap_servers, topic, type_path="constant:all", keep_replaced_hours=0)
    (done,) = backfill(changed, HOURS[:1])
    assert (done.retyped, done.added, done.changed) == (64, 0, 0)
    types = changed.sql("SELECT hr, type, sum(messages)::INT FROM hours GROUP BY ALL ORDER BY ALL")
    assert types == [("03", "all", 64), *((hr, f"t{n}", 20) for hr in ("04", "05") for n in range(3))]
    assert_good(changed)


def test_the_rule_is_applied_without_kafka(archived: Archived, tmp_path: Path) -> None:
    """An hour that Kafka no longer has gets its types from what the archive holds."""
    topic = archived.settings.topics[0]
    before = archived.messages(topic)
    delete_records(archived.bootstrap_servers, topic, {0: -1, 1: -1})
    changed = Archived(tmp_path, archived.bootstrap_servers, topic, type_path="constant:all", keep_replaced_hours=0)
    done = backfill(changed, HOURS, from_kafka=False)
    assert [(item.read, item.retyped) for item in done] == [(0, 64), (0, 60), (0, 60)]
    assert changed.sql("SELECT DISTINCT type FROM messages") == [("all",)]
    assert changed.messages(topic) == before


def test_hours_from_before_the_start_are_filled(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """An archive that began later gets an earlier hour, counted and known to be there, and no other one."""
    create_topic(bootstrap_servers, topic_name, partitions=2)
    for hour in range(3):
        produce(bootstrap_servers, topic_name, list(messages(hour)))
    late = list(messages(0, 4, first=1000))
    produce(bootstrap_servers, topic_name, late)
    archived = Archived(tmp_path, bootstrap_servers, topic_name, start="latest", keep_replaced_hours=0)
    archived.run()
    produce(bootstrap_servers, topic_name, list(messages(2, 10, first=100)))
    archived.run()
    (done,) = backfill(archived, HOURS[:1])
    assert (done.read, done.added, done.kept) == (64, 64, 0)
    assert archived.sql("SELECT hr, sum(messages)::INT FROM hours GROUP BY 1 ORDER BY 1") == [("03", 64), ("05", 10)]
    assert archived.sql("SELECT sum(messages)::INT FROM offsets") == [(74,)]
    report = verify(archived.settings, against_kafka=True)
    assert report.good, report.faults
    assert backfill(archived, HOURS[:1])[0].version is None
    (again,) = (files_of(archived, HOURS[0])[0],)
    again.unlink()
    (mended,) = backfill(archived, HOURS[:1])
    assert (mended.added, mended.lost) == (22, 0)
    report = verify(archived.settings, against_kafka=True)
    assert report.good, report.faults
    backfill(archived, HOURS[1:])
    assert_good(archived)


def test_what_kafka_has_lost_is_kept(archived: Archived) -> None:
    """Where Kafka has lost half of an hour, the archive keeps it all, whatever else is mended."""
    topic = archived.settings.topics[0]
    before = archived.messages(topic)
    delete_records(archived.bootstrap_servers, topic, {0: 15, 1: 15})
    (done,) = backfill(archived, HOURS[:1])
    assert (done.read, done.kept, done.version) == (34, 30, None)
    assert archived.messages(topic) == before
    files_of(archived, HOURS[1])[0].unlink()
    assert backfill(archived, HOURS[1:2])[0].added == 10
    assert archived.messages(topic) == before
    assert verify(archived.settings).good


def test_nothing_past_the_committed_offsets_comes_in(archived: Archived) -> None:
    """Messages that are still to be archived are left to the next batch, and are there once afterwards."""
    produce(archived.bootstrap_servers, archived.settings.topics[0], list(messages(0, 50, first=5000)))
    (done,) = backfill(archived, HOURS[:1])
    assert (done.read, done.added) == (64, 0)
    assert_good(archived)


def test_stamps_out_of_order(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """With stamps in no order at all, 1970 and the year 9999 among them, every message finds back into its hour."""
    create_topic(bootstrap_servers, topic_name, 2, FAR_TIMESTAMPS)
    chance = random.Random(5)
    some = [1, FIRST_HOUR * HOUR_MS + 5, (FIRST_HOUR + 1) * HOUR_MS, 253_402_300_799_000]
    stamps = [chance.choice(some) for _ in range(200)]
    sent = [Sent(b'{"type": "t%d"}' % (n % 3), None, (), stamp, n % 2) for n, stamp in enumerate(stamps)]
    produce(bootstrap_servers, topic_name, sent)
    archived = Archived(tmp_path, bootstrap_servers, topic_name, batch_messages=40, keep_replaced_hours=0)
    archived.run()
    hours = [Hour(dt, hr) for dt, hr in archived.sql("SELECT DISTINCT dt, hr FROM hours ORDER BY ALL")]
    assert [hour.name for hour in hours] == ["1970-01-01T00", "2019-08-01T03", "2019-08-01T04", "9999-12-31T23"]
    for path in archived.path.glob("type=t1/**/*.parquet"):
        path.unlink()
    done = backfill(archived, hours)
    assert sum(item.added for item in done) == 67 or sum(item.added for item in done) == 66
    assert_good(archived)
    assert archived.sql("SELECT DISTINCT dt FROM hours WHERE NOT sealed") == [("9999-12-31",)]


def test_an_empty_archive_cannot_be_filled(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Without a committed offset it is not known how far to read; the error says what to do first."""
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    with pytest.raises(RangeRefused, match="Archive something first"):
        list(Backfiller(archived.settings).run(HOURS))


def test_two_fills_at_once_fill_once(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Whenever another backfill of the hour commits, this one starts over: no message comes twice."""
    create_topic(bootstrap_servers, topic_name, partitions=2)
    produce(bootstrap_servers, topic_name, list(messages(0, 20)))
    archived = Archived(tmp_path, bootstrap_servers, topic_name, start="latest", keep_replaced_hours=0)
    archived.run()
    produce(bootstrap_servers, topic_name, list(messages(2, 4)))
    archived.run()

    class Between(Archive):
        """Lets another backfill commit between two looks of the planned rewrite at the archive."""

        def table(self, version: int | None = None) -> deltalake.DeltaTable:
            found = super().table(version)
            if planned and not others:
                others.append(0)
                others.extend(item.added for item in Backfiller(archived.settings).run(HOURS[:1]))
            return found

    planned: list[str] = []
    others: list[int] = []
    one = Backfiller(archived.settings, on_step=lambda step: planned.append(step) if step == "plan" else None)
    one.archive = Between(archived.settings.archive_uri)
    (done,) = one.run(HOURS[:1])
    assert (others, done.version) == ([0, 20], None)
    archived.run()
    assert archived.sql('SELECT count(*), count(DISTINCT ("partition", "offset")) FROM messages') == [(24, 24)]
    assert verify(archived.settings, against_kafka=True).good


def test_a_wrong_rule_is_put_right_at_the_limit_of_types(
    bootstrap_servers: str, topic_name: str, tmp_path: Path
) -> None:
    """Ids taken for types fill the archive up to its limit; with the right rule no message stays in `_other`."""
    create_topic(bootstrap_servers, topic_name, partitions=2)
    for hour in range(2):
        values = [b'{"id": "u%d", "type": "t%d"}' % (100 * hour + number, number % 3) for number in range(100)]
        stamp = (FIRST_HOUR + hour) * HOUR_MS
        produce(bootstrap_servers, topic_name, [Sent(value, timestamp_ms=stamp + n) for n, value in enumerate(values)])
    wrong = Archived(tmp_path, bootstrap_servers, topic_name, type_path="$.id", max_types=50, keep_replaced_hours=0)
    wrong.run()
    assert wrong.sql("SELECT count(DISTINCT type) FROM messages") == [(51,)]
    right = Archived(tmp_path, bootstrap_servers, topic_name, max_types=50, keep_replaced_hours=0)
    backfill(right, HOURS[:2])
    assert right.sql("SELECT DISTINCT type FROM messages ORDER BY 1") == [("t0",), ("t1",), ("t2",)]
    assert_good(right)


@pytest.mark.slow
def test_an_hour_of_more_types_than_files_may_be_open(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """A process may have so many files open, and an hour more types than that: it is mended all the same."""
    create_topic(bootstrap_servers, topic_name)
    stamp = FIRST_HOUR * HOUR_MS
    sent = [Sent(b'{"type": "t%d"}' % (number % 160), timestamp_ms=stamp + number) for number in range(480)]
    produce(bootstrap_servers, topic_name, sent)
    archived = Archived(tmp_path, bootstrap_servers, topic_name, keep_replaced_hours=0)
    archived.run()
    lose(archived, HOURS[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 140, hard))
    try:
        (done,) = Backfiller(archived.settings).run(HOURS[:1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (done.added, done.files_after) == (480, 160)
    archived.run()
    assert_good(archived)


def test_messages_without_a_usable_time_come_back(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """They have no hour by which Kafka could find them, so all of Kafka is read; others are left as they are."""
    create_topic(bootstrap_servers, topic_name, 1, FAR_TIMESTAMPS)
    far = [FIRST_HOUR * HOUR_MS * 1000, 300_000_000_000_000_000, -1]
    produce_raw(bootstrap_servers, topic_name, [RawRecord(b'{"type": "a"}', stamp) for stamp in far])
    produce(bootstrap_servers, topic_name, list(messages(0, 5, partitions=1)))
    archived = Archived(tmp_path, bootstrap_servers, topic_name, keep_replaced_hours=0)
    archived.run()
    lose(archived, hour_at(None))
    (done,) = backfill(archived, [hour_at(None)])
    assert (done.read, done.added, done.messages, done.fault) == (3, 3, 3, None)
    assert_good(archived)
