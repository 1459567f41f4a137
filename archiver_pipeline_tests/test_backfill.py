"""Hours read again from Kafka: what is damaged, wrong or not there is mended, and a good message never goes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from archiver_pipeline.backfill import Backfilled, Backfiller
from archiver_pipeline.errors import RangeRefused
from archiver_pipeline.hours import Hour, hour_at
from archiver_pipeline.seal import Sealer
from archiver_pipeline.verify import verify
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.kafka.produce import FAR_TIMESTAMPS, Sent, create_topic, delete_records, produce

HOUR_MS = 3_600_000
FIRST_HOUR = 434_619
"""2019-08-01T03 in hours since 1970."""

HOURS = [hour_at(FIRST_HOUR + number) for number in range(3)]


def messages(hour: int, count: int = 60, partitions: int = 2, **fields: int) -> Iterator[Sent]:
    """Messages of three types, spread over an hour and the partitions."""
    for number in range(count):
        value = b'{"type": "t%d", "seq": %d}' % (number % 3, fields.get("first", 0) + number)
        stamp = (FIRST_HOUR + hour) * HOUR_MS + number * HOUR_MS // count
        yield Sent(value, b"k%d" % number, (("h", b"x"),), stamp, number % partitions)


@pytest.fixture
def archived(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> Archived:
    """An archive of three hours of a topic of two partitions, each hour in two batches, with late messages."""
    create_topic(bootstrap_servers, topic_name, partitions=2)
    archive = Archived(tmp_path, bootstrap_servers, topic_name, keep_replaced_hours=0)
    for hour in range(3):
        for half in range(2):
            produce(bootstrap_servers, topic_name, list(messages(hour, 30, first=30 * half)))
            archive.run()
    produce(bootstrap_servers, topic_name, list(messages(0, 4, first=1000)))  # Late by two hours.
    archive.run()
    return archive


def backfill(archived: Archived, hours: list[Hour], **options: Any) -> list[Backfilled]:
    """Backfill hours and bring the view up to date."""
    done = list(Backfiller(archived.settings, **options).run(hours))
    archived.run()
    Sealer(archived.settings).clean()
    return done


def files_of(archived: Archived, hour: Hour, kind: str = "") -> list[Path]:
    """The files that the table lists for an hour, or for one type of it."""
    folder = f"dt={hour.dt}/hr={hour.hr}/"
    return sorted(archived.path / name for name in archived.listed_files() if folder in name and f"type={kind}" in name)


def oldest(archived: Archived, hour: Hour, kind: str) -> Path:
    """The first file that was archived of a type and hour."""
    return min(files_of(archived, hour, kind), key=lambda path: path.stat().st_mtime_ns)


def flip(path: Path) -> None:
    """Change one byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)


def assert_good(archived: Archived) -> None:
    """Assert that the archive is what Kafka has, in its own eyes and side by side."""
    report = verify(archived.settings, against_kafka=True)
    assert report.good, report.faults
    archived.assert_equal(*archived.settings.topics)


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
    for path in files_of(archived, HOURS[0]):
        path.unlink()
    (done,) = backfill(archived, HOURS[:1])
    assert (done.added, done.lost, done.kept) == (64, 0, 0)
    assert_good(archived)


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


def test_a_loss_is_said_and_given_up_only_on_request(archived: Archived) -> None:
    """With a file and half of its messages gone for good, the hour stays as it is until somebody accepts the loss."""
    topic = archived.settings.topics[0]
    gone = oldest(archived, HOURS[0], "t0")
    delete_records(archived.bootstrap_servers, topic, {0: 8, 1: 8})
    gone.unlink()
    version = archived.version()
    (left,) = list(Backfiller(archived.settings).run(HOURS[:1]))
    assert left.version is None
    assert left.lost > 0
    assert left.fault is not None
    assert str(gone) in left.fault
    assert "--accept-loss" in left.fault
    assert archived.version() == version
    (done,) = backfill(archived, HOURS[:1], accept_loss=True)
    assert (done.lost, done.added, done.fault) == (left.lost, 10 - left.lost, None)
    assert "lost and given up" in done.sentence()
    assert archived.sql("SELECT count(*) FROM messages") == [(184 - left.lost,)]
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
