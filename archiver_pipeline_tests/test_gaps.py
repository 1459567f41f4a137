"""Rules for offsets without a message: those that Kafka left out are no gap, those that retention took are named."""

from __future__ import annotations

from pathlib import Path

from confluent_kafka import Producer

from archiver_pipeline_tests.archived import Archived, wait_until_stable
from archiver_pipeline_tests.kafka.produce import (
    Sent,
    create_topic,
    delete_records,
    end_offsets,
    produce,
    produce_transactions,
    read_all,
    start_offsets,
)
from archiver_pipeline_tests.samples import FIRST_MS, SMALL_FETCHES, at_step, numbered, ranges
from archiver_pipeline_tests.waiting import wait_for


def test_only_committed_transactions_are_archived(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Of transactions of which 30 % are aborted, exactly the committed messages are archived, in any number of batches;
    the offsets of markers and aborted messages are no gap."""
    topics = [f"{topic_name}-{number}" for number in range(2)]
    for topic in topics:
        create_topic(bootstrap_servers, topic, partitions=2)
    archived = Archived(tmp_path, bootstrap_servers, *topics, batch_messages=150)
    for seed in range(2):
        produce_transactions(bootstrap_servers, topics, 400, abort_share=0.3, seed=seed, per_transaction=20)
        wait_until_stable(bootstrap_servers, *topics)
        assert len(archived.run()) >= 3
    archived.assert_equal(*topics)
    assert archived.gaps() == []
    for topic in topics:
        assert archived.next_offsets(topic) == end_offsets(bootstrap_servers, topic)


def test_nothing_but_aborted_messages(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """A range of which every message was aborted ends like any other, with no file and the offsets moved on."""
    create_topic(bootstrap_servers, topic_name)
    produce_transactions(bootstrap_servers, [topic_name], 50, abort_share=1.0)
    wait_until_stable(bootstrap_servers, topic_name)
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    (batch,) = archived.run()
    assert (batch.messages, batch.files) == (0, 0)
    assert archived.next_offsets(topic_name) == end_offsets(bootstrap_servers, topic_name)
    assert archived.gaps() == []
    archived.assert_equal(topic_name)


def test_an_open_transaction_does_not_hang_the_batch(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """A batch ends at the last stable offset; what lies behind an open transaction comes when that has ended."""
    create_topic(bootstrap_servers, topic_name)
    produce(bootstrap_servers, topic_name, numbered(range(10)))
    producer = Producer({"bootstrap.servers": bootstrap_servers, "transactional.id": topic_name, "log_level": 0})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic_name, b'{"type": "open"}', timestamp=FIRST_MS)
    assert producer.flush(30) == 0
    produce(bootstrap_servers, topic_name, numbered(range(10, 20)))
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    (batch,) = archived.run()
    assert (ranges([batch]), batch.lag) == ([[(0, 0, 10)]], 0)
    assert archived.run() == []
    producer.commit_transaction(30)
    wait_until_stable(bootstrap_servers, topic_name)
    (batch,) = archived.run()
    assert batch.messages == 11
    archived.assert_equal(topic_name)


def test_the_holes_of_a_compacted_topic_are_no_gap(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Of a compacted topic what is left is archived; offsets that compaction took are not named as lost."""
    create_topic(bootstrap_servers, topic_name, config={"cleanup.policy": "compact", "segment.ms": 100})
    produce(bootstrap_servers, topic_name, [Sent(b"%d" % number, b"k") for number in range(50)])

    def left() -> int:
        produce(bootstrap_servers, topic_name, [Sent(b"more", b"other")])
        return len(read_all(bootstrap_servers, topic_name)[0])

    wait_for("compaction", lambda: left() < 10)
    archived = Archived(tmp_path, bootstrap_servers, topic_name, batch_messages=20)
    assert len(archived.run()) >= 3
    assert archived.gaps() == []
    assert archived.next_offsets(topic_name) == end_offsets(bootstrap_servers, topic_name)
    kept = {message.offset for message in archived.messages(topic_name)[0]}
    assert kept >= {message.offset for message in read_all(bootstrap_servers, topic_name)[0]}
    assert len(kept) < 20


def test_a_head_deleted_before_the_batch_is_a_named_gap(
    bootstrap_servers: str, topic_name: str, tmp_path: Path
) -> None:
    """What retention took before it was archived is named with its offsets, and the archive goes on behind it."""
    create_topic(bootstrap_servers, topic_name, partitions=2)
    produce(bootstrap_servers, topic_name, [*numbered(range(10)), *numbered(range(10), 1)])
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    archived.run()
    produce(bootstrap_servers, topic_name, [*numbered(range(10, 30)), *numbered(range(10, 30), 1)])
    delete_records(bootstrap_servers, topic_name, {0: 17, 1: 5})
    (batch,) = archived.run()
    assert ranges([batch]) == [[(0, 17, 30), (1, 10, 30)]]
    assert archived.gaps() == [(topic_name, 0, 10, 17, "retention")]
    assert archived.run() == [], "a gap is recorded once"
    offsets = {at: [message.offset for message in found] for at, found in archived.messages(topic_name).items()}
    assert offsets == {0: [*range(10), *range(17, 30)], 1: [*range(30)]}


def test_all_that_was_left_deleted_is_a_gap(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Where retention took everything up to the end, the gap is recorded although there is nothing to read."""
    create_topic(bootstrap_servers, topic_name)
    produce(bootstrap_servers, topic_name, numbered(range(10)))
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    archived.run()
    produce(bootstrap_servers, topic_name, numbered(range(10, 20)))
    delete_records(bootstrap_servers, topic_name, {0: -1})
    (batch,) = archived.run()
    assert batch.messages == 0
    assert archived.gaps() == [(topic_name, 0, 10, 20, "retention")]
    assert archived.next_offsets(topic_name) == {0: 20}
    assert archived.run() == []


def test_a_head_deleted_between_plan_and_read_is_a_named_gap(
    bootstrap_servers: str, topic_name: str, tmp_path: Path
) -> None:
    """Retention that is faster than the read costs only what it deleted: the batch goes on behind it."""
    create_topic(bootstrap_servers, topic_name, partitions=2)
    produce(bootstrap_servers, topic_name, [*numbered(range(100)), *numbered(range(100), 1)])
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    faster = at_step("read", lambda: delete_records(bootstrap_servers, topic_name, {0: 60}))
    (batch,) = archived.run(on_step=faster)
    assert (ranges([batch]), batch.messages) == ([[(0, 0, 100), (1, 0, 100)]], 140)
    assert archived.gaps() == [(topic_name, 0, 0, 60, "retention")]
    archived.assert_equal(topic_name)


def test_a_head_deleted_while_it_is_read_is_a_named_gap(
    bootstrap_servers: str, topic_name: str, tmp_path: Path
) -> None:
    """Retention that overtakes the reader in the middle of the range: every offset is archived or in the gap."""
    create_topic(bootstrap_servers, topic_name)
    for first in range(0, 500, 5):
        produce(bootstrap_servers, topic_name, numbered(range(first, first + 5), size=4_000))
    archived = Archived(tmp_path, bootstrap_servers, topic_name, kafka=SMALL_FETCHES)
    overtake = at_step("frame", lambda: delete_records(bootstrap_servers, topic_name, {0: 480}))
    (batch,) = archived.run(on_step=overtake)
    ((_, _, start, end, reason),) = archived.gaps()
    assert (end, reason) == (480, "retention")
    assert 0 < start < 480
    assert [message.offset for message in archived.messages(topic_name)[0]] == [*range(start), *range(480, 500)]
    assert batch.messages == start + 20
    assert archived.next_offsets(topic_name) == {0: 500}
    assert start_offsets(bootstrap_servers, topic_name) == {0: 480}


def test_everything_deleted_while_it_is_read_is_a_named_gap(
    bootstrap_servers: str, topic_name: str, tmp_path: Path
) -> None:
    """Retention that takes the whole range, and messages past it, leaves a gap that ends with the range."""
    create_topic(bootstrap_servers, topic_name)
    produce(bootstrap_servers, topic_name, numbered(range(100)))
    archived = Archived(tmp_path, bootstrap_servers, topic_name)

    def overtake() -> None:
        produce(bootstrap_servers, topic_name, numbered(range(100, 120)))
        delete_records(bootstrap_servers, topic_name, {0: 110})

    batches = archived.run(on_step=at_step("read", overtake))
    assert ranges(batches)[0] == [(0, 0, 100)]
    assert sum(batch.messages for batch in batches) == 0
    assert ranges(archived.run()) == [[(0, 110, 120)]]
    assert archived.gaps() == [(topic_name, 0, 0, 100, "retention"), (topic_name, 0, 100, 110, "retention")]
    archived.assert_equal(topic_name)
