"""Rules that the broker and its helpers keep, so that other tests may lean on them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient

from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.produce import (
    FAR_TIMESTAMPS,
    UNREADABLE_HEADERS,
    Message,
    Sent,
    add_partitions,
    create_topic,
    delete_records,
    delete_topic,
    end_offsets,
    produce,
    produce_transactions,
    read_all,
)
from archiver_pipeline_tests.kafka.raw import RawRecord, RecordsRefused, produce_raw
from archiver_pipeline_tests.waiting import wait_for

HOUR_MS = 3_600_000


def test_what_was_produced_is_read_back(bootstrap_servers: str, topic_name: str) -> None:
    """Value, key, headers with repeats and nulls, timestamp and partition come back as they were sent."""
    create_topic(bootstrap_servers, topic_name, partitions=2)
    headers = (("a", b"1"), ("a", None), ("", b""))
    sent = [
        Sent(b"one", b"k", headers, 1_564_628_400_000, 0),
        Sent(None, b"\xff", (), 1, 1),
        Sent(b"", None, (), 2, 0),
    ]
    assert produce(bootstrap_servers, topic_name, sent) == [(0, 0), (1, 0), (0, 1)]
    assert read_all(bootstrap_servers, topic_name) == {
        0: [Message(0, b"k", b"one", headers, 1_564_628_400_000, "create"), Message(1, None, b"", (), 2, "create")],
        1: [Message(0, b"\xff", None, (), 1, "create")],
    }


def test_only_committed_transactions_are_read(bootstrap_servers: str, topic_name: str) -> None:
    """Of transactions, of which a share is aborted, exactly the committed ones are read, byte for byte."""
    topics = [f"{topic_name}-{number}" for number in range(2)]
    for topic in topics:
        create_topic(bootstrap_servers, topic, partitions=2)
    committed = produce_transactions(bootstrap_servers, topics, 400, abort_share=0.4, seed=7)
    read = {(topic, at): got for topic in topics for at, got in read_all(bootstrap_servers, topic).items() if got}
    assert read == committed
    assert 0 < sum(map(len, committed.values())) < 400
    assert sum(sum(end_offsets(bootstrap_servers, topic).values()) for topic in topics) > 400


def test_a_frozen_broker_goes_on_where_it_was(own_kafka: KafkaBroker, topic_name: str) -> None:
    """While the broker is frozen nobody gets an answer; afterwards all is as before."""
    create_topic(own_kafka.bootstrap_servers, topic_name)
    produce(own_kafka.bootstrap_servers, topic_name, [Sent(b"before")])
    own_kafka.pause()
    admin = AdminClient({"bootstrap.servers": own_kafka.bootstrap_servers, "log_level": 0})
    with pytest.raises(KafkaException):
        admin.list_topics(timeout=1)
    own_kafka.resume()
    produce(own_kafka.bootstrap_servers, topic_name, [Sent(b"after")])
    assert [message.value for message in read_all(own_kafka.bootstrap_servers, topic_name)[0]] == [b"before", b"after"]


def test_a_killed_broker_comes_back_with_its_data(own_kafka: KafkaBroker, topic_name: str) -> None:
    """After SIGKILL and a restart the broker has the same address and the same messages."""
    address = own_kafka.bootstrap_servers
    create_topic(address, topic_name)
    produce(address, topic_name, [Sent(b"%d" % number) for number in range(100)])
    before = read_all(address, topic_name)
    own_kafka.kill()
    own_kafka.restart()
    assert own_kafka.bootstrap_servers == address
    assert read_all(address, topic_name) == before


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent is gone")
def test_the_broker_dies_with_the_process_that_started_it(kafka: KafkaBroker, tmp_path: Path) -> None:
    """A test process ended by SIGKILL leaves no broker behind."""
    code = (
        "import pathlib, sys, time\n"
        "from archiver_pipeline_tests.kafka.broker import KafkaBroker\n"
        "broker = KafkaBroker(pathlib.Path(sys.argv[1]))\n"
        "broker.start()\n"
        "print(broker.process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "kafka")]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as owner:
        assert owner.stdout is not None
        broker = int(owner.stdout.readline())
        os.kill(broker, 0)
        owner.send_signal(signal.SIGKILL)
    wait_for("the end of the broker", lambda: not _lives(broker))


@pytest.mark.parametrize(
    ("timestamp", "usual"),
    [
        (0, True),
        (-1, True),
        (-1000, True),
        (-(2**63), False),
        (253_402_300_800_000, False),
        (2**63 - 1, False),
    ],
    ids=["1970", "none", "before-1970", "least", "year-10000", "greatest"],
)
def test_raw_timestamps(bootstrap_servers: str, topic_name: str, timestamp: int, usual: bool) -> None:
    """A topic set up for it takes and returns any timestamp; one as usual refuses what is too far off."""
    create_topic(bootstrap_servers, topic_name, config=FAR_TIMESTAMPS)
    assert produce_raw(bootstrap_servers, topic_name, [RawRecord(b"v", timestamp)]) == 0
    assert read_all(bootstrap_servers, topic_name) == {0: [Message(0, None, b"v", (), timestamp, "create")]}
    create_topic(bootstrap_servers, f"{topic_name}-usual")
    if usual:
        assert produce_raw(bootstrap_servers, f"{topic_name}-usual", [RawRecord(b"v", timestamp)]) == 0
    else:
        with pytest.raises(RecordsRefused, match="INVALID_TIMESTAMP"):
            produce_raw(bootstrap_servers, f"{topic_name}-usual", [RawRecord(b"v", timestamp)])


def test_a_timestamp_up_to_an_hour_ahead_is_taken(bootstrap_servers: str, topic_name: str) -> None:
    """A topic as usual takes a message from just under an hour ahead, and refuses one from beyond."""
    create_topic(bootstrap_servers, topic_name)
    now = time.time_ns() // 1_000_000
    assert produce_raw(bootstrap_servers, topic_name, [RawRecord(b"v", now + HOUR_MS - 60_000)]) == 0
    with pytest.raises(RecordsRefused, match="INVALID_TIMESTAMP"):
        produce_raw(bootstrap_servers, topic_name, [RawRecord(b"v", now + HOUR_MS + 60_000)])


def test_append_time_replaces_any_timestamp(bootstrap_servers: str, topic_name: str) -> None:
    """On a topic with LogAppendTime the broker's clock counts, whatever was sent."""
    create_topic(bootstrap_servers, topic_name, config={"message.timestamp.type": "LogAppendTime"})
    before = time.time_ns() // 1_000_000
    produce_raw(bootstrap_servers, topic_name, [RawRecord(b"v", 2**63 - 1), RawRecord(b"w", -1)])
    messages = read_all(bootstrap_servers, topic_name)[0]
    assert [message.timestamp_type for message in messages] == ["append", "append"]
    assert all(before - 1 <= message.timestamp <= before + 60_000 for message in messages)


def test_a_header_key_may_be_any_bytes(bootstrap_servers: str, topic_name: str) -> None:
    """A record whose header key is not UTF-8 reaches the log, and does not stop the reader."""
    create_topic(bootstrap_servers, topic_name)
    records = [
        RawRecord(b"ugly", 1, b"k", ((b"a", b"0"), (b"\xff\xfe", b"1"))),
        RawRecord(b"good", 2, None, ((b"a", None), (b"a", b""))),
    ]
    assert produce_raw(bootstrap_servers, topic_name, records) == 0
    ugly, good = read_all(bootstrap_servers, topic_name)[0]
    assert (ugly.value, ugly.headers) == (b"ugly", UNREADABLE_HEADERS)
    assert (good.value, good.headers) == (b"good", (("a", None), ("a", b"")))


def test_records_deleted_from_the_front_are_gone(bootstrap_servers: str, topic_name: str) -> None:
    """After `delete_records` reading begins at the offset named, in the partition named."""
    create_topic(bootstrap_servers, topic_name, partitions=2)
    produce(bootstrap_servers, topic_name, [Sent(b"v", partition=number % 2) for number in range(20)])
    delete_records(bootstrap_servers, topic_name, {1: 7})
    offsets = {at: [message.offset for message in got] for at, got in read_all(bootstrap_servers, topic_name).items()}
    assert offsets == {0: list(range(10)), 1: [7, 8, 9]}


def test_retention_acts_within_seconds(bootstrap_servers: str, topic_name: str) -> None:
    """Messages past the topic's retention vanish, and without one they stay however old they are."""
    create_topic(bootstrap_servers, topic_name, config={"retention.ms": 1000})
    create_topic(bootstrap_servers, f"{topic_name}-kept")
    for topic in (topic_name, f"{topic_name}-kept"):
        produce(bootstrap_servers, topic, [Sent(b"v", timestamp_ms=1_564_628_400_000)])
    wait_for("retention", lambda: not read_all(bootstrap_servers, topic_name)[0])
    assert len(read_all(bootstrap_servers, f"{topic_name}-kept")[0]) == 1


def test_compaction_acts_within_seconds(bootstrap_servers: str, topic_name: str) -> None:
    """Of messages with one key only the last of a closed segment stays, at its own offset."""
    create_topic(bootstrap_servers, topic_name, config={"cleanup.policy": "compact", "segment.ms": 100})
    produce(bootstrap_servers, topic_name, [Sent(b"%d" % number, b"k") for number in range(10)])

    def first_offset_after_one_more() -> int:
        produce(bootstrap_servers, topic_name, [Sent(b"more", b"other")])
        return read_all(bootstrap_servers, topic_name)[0][0].offset

    wait_for("compaction", lambda: first_offset_after_one_more() == 9)


def test_a_topic_grows_and_is_made_again(bootstrap_servers: str, topic_name: str) -> None:
    """Partitions can be added, and a deleted topic can be made again at once, empty."""
    create_topic(bootstrap_servers, topic_name)
    add_partitions(bootstrap_servers, topic_name, 3)
    produce(bootstrap_servers, topic_name, [Sent(b"v", partition=2)])
    assert {at: len(got) for at, got in read_all(bootstrap_servers, topic_name).items()} == {0: 0, 1: 0, 2: 1}
    delete_topic(bootstrap_servers, topic_name)
    create_topic(bootstrap_servers, topic_name)
    assert read_all(bootstrap_servers, topic_name) == {0: []}


def test_an_open_transaction_hides_what_follows(bootstrap_servers: str, topic_name: str) -> None:
    """The end offset is the last stable one: nothing behind an open transaction is read before it ends."""
    create_topic(bootstrap_servers, topic_name)
    producer = Producer({"bootstrap.servers": bootstrap_servers, "transactional.id": topic_name, "log_level": 0})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic_name, b"open")
    assert producer.flush(30) == 0
    produce(bootstrap_servers, topic_name, [Sent(b"behind")])
    assert read_all(bootstrap_servers, topic_name) == {0: []}
    producer.commit_transaction(30)
    assert [message.value for message in read_all(bootstrap_servers, topic_name)[0]] == [b"open", b"behind"]


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
