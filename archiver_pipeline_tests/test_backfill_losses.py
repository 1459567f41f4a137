"""What Kafka cannot make good: it is said how much that is, nothing else stands in for it, and nobody gives it up
by mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from archiver_pipeline.errors import KafkaError
from archiver_pipeline.kafka.cluster import Cluster
from archiver_pipeline.kafka.look import Look
from archiver_pipeline.plan import TopicState
from archiver_pipeline.rewrites.backfill import Backfiller
from archiver_pipeline.status import status
from archiver_pipeline.stored.verify import verify
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.damaged_hours import (
    HOURS,
    assert_good,
    backfill,
    lose,
    messages,
    oldest,
    three_hours,
)
from archiver_pipeline_tests.kafka.produce import Sent, create_topic, delete_records, produce


@pytest.fixture
def archived(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> Archived:
    """An archive of three hours of a topic of two partitions, each hour in two batches, with late messages."""
    return three_hours(bootstrap_servers, topic_name, tmp_path)


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


def test_given_up_messages_are_told(archived: Archived) -> None:
    """Whoever looks later sees how many are gone, and of which hour: nothing counts them as archived."""
    topic = archived.settings.topics[0]
    delete_records(archived.bootstrap_servers, topic, {0: -1, 1: -1})
    oldest(archived, HOURS[1], "t0").unlink()
    (done,) = backfill(archived, HOURS[1:2], accept_loss=True)
    assert done.lost == 10
    assert archived.sql("SELECT * FROM losses") == [("2019-08-01", "04", 10)]
    report, state = verify(archived.settings), status(archived.settings)
    assert (report.good, report.messages, report.given_up) == (True, 174, 10)
    assert (state.messages, state.given_up, state.to_json()["given_up"]) == (174, 10, 10)


def only(partition: int, count: int) -> list[Sent]:
    """Messages of the first hour and one type, all in one partition."""
    return [Sent(sent.value, sent.key, sent.headers, sent.timestamp_ms, partition) for sent in messages(0, count)]


def test_what_is_new_does_not_stand_in_for_what_is_lost(
    bootstrap_servers: str, topic_name: str, tmp_path: Path
) -> None:
    """Twenty messages of one partition are lost for good while twenty of another, from before the start, come in."""
    create_topic(bootstrap_servers, topic_name, partitions=2)
    produce(bootstrap_servers, topic_name, only(0, 20))
    archived = Archived(tmp_path, bootstrap_servers, topic_name, start="latest", keep_replaced_hours=0)
    archived.run()
    produce(bootstrap_servers, topic_name, only(1, 20))
    archived.run()
    delete_records(bootstrap_servers, topic_name, {1: -1})
    lose(archived, HOURS[0])
    (left,) = Backfiller(archived.settings).run(HOURS[:1])
    assert (left.lost, left.version) == (20, None)
    (done,) = backfill(archived, HOURS[:1], accept_loss=True)
    assert (done.lost, done.added) == (20, 20)
    lose(archived, HOURS[0])
    (again,) = backfill(archived, HOURS[:1])
    assert (again.lost, again.added) == (0, 20), "what the backfill put in comes back like any other message"
    report = verify(archived.settings)
    assert (report.good, report.messages, report.given_up) == (True, 20, 20)


def test_another_topic_does_not_stand_in_for_what_is_lost(
    bootstrap_servers: str, topic_name: str, tmp_path: Path
) -> None:
    """A topic that is archived since later has early messages in an hour where those of another one are lost."""
    other = f"{topic_name}-other"
    for name in (topic_name, other):
        create_topic(bootstrap_servers, name, partitions=2)
        produce(bootstrap_servers, name, [*messages(0, 10), *messages(1, 10)])
    first = Archived(tmp_path, bootstrap_servers, topic_name, start="latest", keep_replaced_hours=0)
    first.run()
    backfill(first, HOURS[:1])
    archived = Archived(tmp_path, bootstrap_servers, topic_name, other, start="latest", keep_replaced_hours=0)
    archived.run()
    backfill(archived, HOURS[1:2])
    delete_records(bootstrap_servers, topic_name, {0: -1, 1: -1})
    lose(archived, HOURS[0])
    (left,) = Backfiller(archived.settings).run(HOURS[:1])
    assert (left.lost, left.version) == (10, None)
    (done,) = backfill(archived, HOURS[:1], accept_loss=True)
    assert (done.lost, done.added) == (10, 10)
    report = verify(archived.settings, against_kafka=True)
    assert (report.faults, report.messages, report.given_up) == ((), 30, 10)


def test_no_loss_is_accepted_without_asking_kafka(archived: Archived) -> None:
    """Only Kafka knows whether the messages of a damaged file are lost."""
    gone = oldest(archived, HOURS[0], "t0")
    gone.unlink()
    (left,) = Backfiller(archived.settings, accept_loss=True, from_kafka=False).run(HOURS[:1])
    assert left.version is None
    assert left.fault is not None
    assert "it was not asked" in left.fault
    assert backfill(archived, HOURS[:1])[0].added == 10
    assert_good(archived)


def test_a_partition_that_cannot_be_read_is_not_taken_for_a_loss(
    archived: Archived, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A partition without a leader may have what is missing: the hour waits for it, whatever loss would be accepted."""
    whole = Cluster.look

    def half(self: Cluster) -> Look:
        look = whole(self)
        states = [TopicState(s.topic, s.topic_id, {0: s.partitions[0]}, complete=False) for s in look.topics]
        return Look(tuple(states), look.missing, {(states[0].topic, 1): "partition 1 has no leader"}, look.asked_ms)

    gone = oldest(archived, HOURS[0], "t0")
    gone.unlink()
    version = archived.version()
    with monkeypatch.context() as patched:
        patched.setattr(Cluster, "look", half)
        (left,) = Backfiller(archived.settings, accept_loss=True).run(HOURS[:1])
    assert left.fault is not None
    assert "partition 1 has no leader" in left.fault
    assert (left.added, left.lost, archived.version()) == (5, 5, version)
    assert backfill(archived, HOURS[:1])[0].added == 10
    assert_good(archived)


def test_a_topic_archived_without_its_id_comes_back_with_it(
    bootstrap_servers: str, topic_name: str, tmp_path: Path
) -> None:
    """Messages that were archived before the broker's topic ids were asked for are still the same in Kafka."""
    create_topic(bootstrap_servers, topic_name, partitions=2)
    produce(bootstrap_servers, topic_name, list(messages(0, 30)))
    without = Archived(tmp_path, bootstrap_servers, topic_name, topic_ids="none", keep_replaced_hours=0)
    without.run()
    oldest(without, HOURS[0], "t0").unlink()
    archived = Archived(tmp_path, bootstrap_servers, topic_name, keep_replaced_hours=0)
    (done,) = Backfiller(archived.settings).run(HOURS[:1])
    assert (done.added, done.lost, done.changed) == (10, 0, 0)
    produce(bootstrap_servers, topic_name, list(messages(0, 30, first=100)))
    archived.run()
    oldest(archived, HOURS[0], "t1").unlink()
    (done,) = backfill(archived, HOURS[:1])
    assert (done.read, done.lost, done.changed, done.messages) == (60, 0, 0, 60)
    ids = (
        'SELECT topic_id = \'-\', count(*), count(DISTINCT ("partition", "offset")) FROM messages GROUP BY 1 ORDER BY 1'
    )
    assert archived.sql(ids) == [(False, 30, 30), (True, 30, 30)]
    assert verify(archived.settings, against_kafka=True).good
    with pytest.raises(KafkaError, match="ARCHIVER_TOPIC_IDS"):
        list(Backfiller(without.settings).run(HOURS[:1]))
