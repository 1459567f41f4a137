"""Rules for brokers that are unknown, down, killed or frozen: a clear error in time, and the next run makes it good.

Every test that hurts a broker has one of its own.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from archiver_pipeline.errors import BrokerUnavailable
from archiver_pipeline.kafka.cluster import Cluster
from archiver_pipeline.kafka.reader import RangeReader
from archiver_pipeline.plan import OffsetRange, TopicPartition
from archiver_pipeline_tests.archived import Archived, topic_id_of, wait_until_stable
from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.produce import create_topic, produce, produce_transactions
from archiver_pipeline_tests.samples import SMALL_FETCHES, at_step, numbered
from archiver_pipeline_tests.test_topics import produce_in_pieces

FROZEN_SECONDS = 20.0


@pytest.mark.parametrize(
    ("address", "why"),
    [("127.0.0.1:1", "Connection refused"), ("no-such-host.invalid:9092", "Failed to resolve")],
    ids=["nobody-listens", "no-such-host"],
)
def test_an_unknown_address(tmp_path: Path, caplog: pytest.LogCaptureFixture, address: str, why: str) -> None:
    """The error names the address, the reason and the setting, once each, and the log is not flooded meanwhile."""
    with pytest.raises(BrokerUnavailable) as raised:
        Cluster(Archived(tmp_path, address, "t").settings, timeout=2).look()
    text = str(raised.value)
    assert text.startswith(f"{address} did not answer when the broker was asked for its topics: ")
    assert text.count(why) == 1
    assert "Check KAFKA_BOOTSTRAP_SERVERS and that the broker is up" in text
    assert len(caplog.records) < 5


@pytest.mark.slow
def test_a_broker_that_goes_down_in_mid_batch(own_kafka: KafkaBroker, topic_name: str, tmp_path: Path) -> None:
    """A run whose broker is killed fails in time, commits nothing and leaves no file; so does a run that finds it down.
    Once it is back, the next run archives everything."""
    create_topic(own_kafka.bootstrap_servers, topic_name)
    produce(own_kafka.bootstrap_servers, topic_name, numbered(range(100)))
    archived = Archived(tmp_path, own_kafka.bootstrap_servers, topic_name)
    archived.run()
    produce(own_kafka.bootstrap_servers, topic_name, numbered(range(100, 200)))
    version, files = archived.version(), archived.listed_files()
    archived.answer_seconds = 4
    for step in ("check", "plan"):
        began = time.monotonic()
        with pytest.raises(BrokerUnavailable, match=f"{own_kafka.bootstrap_servers} did not answer when .* was asked"):
            archived.run(on_step=at_step(step, own_kafka.kill))
        assert time.monotonic() - began < 40
        assert (archived.version(), archived.listed_files()) == (version, files)
        assert archived.stray_files() == set()
    own_kafka.start()
    assert [batch.messages for batch in archived.run()] == [100]
    archived.assert_equal(topic_name)


@pytest.mark.slow
def test_a_broker_that_is_killed_and_comes_back_in_mid_batch(
    own_kafka: KafkaBroker, topic_name: str, tmp_path: Path
) -> None:
    """A batch outlasts a restart of the broker: it reads on, and nothing is taken for a new life of the topic."""
    address = own_kafka.bootstrap_servers
    create_topic(address, topic_name, partitions=2)
    produce_transactions(address, [topic_name], 200, abort_share=0.3)
    wait_until_stable(address, topic_name)
    archived = Archived(tmp_path, address, topic_name)
    archived.run()
    produce_in_pieces(address, topic_name)

    def kill_and_start() -> None:
        own_kafka.kill()
        own_kafka.start()

    slow = Archived(tmp_path, address, topic_name, kafka=SMALL_FETCHES)
    # The broker dies with the thread that started it, and the one that reads is gone by the end of a batch.
    with ThreadPoolExecutor(1) as starter:
        for step in ("frame", "plan"):
            slow.run(on_step=at_step(step, lambda: starter.submit(kill_and_start).result()))
            slow.assert_equal(topic_name)
            assert slow.gaps() == []
            produce(address, topic_name, numbered(range(50), 1))


@pytest.mark.slow
def test_a_broker_that_freezes_in_mid_batch(
    own_kafka: KafkaBroker, topic_name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A batch waits for a broker that says nothing for a while, with a warning, and goes on where it stood."""
    create_topic(own_kafka.bootstrap_servers, topic_name)
    produce_in_pieces(own_kafka.bootstrap_servers, topic_name)
    archived = Archived(tmp_path, own_kafka.bootstrap_servers, topic_name, kafka=SMALL_FETCHES)
    archived.answer_seconds = 60  # Just thawed, it may take its time.
    thaw = threading.Timer(FROZEN_SECONDS, own_kafka.resume)

    def freeze() -> None:
        own_kafka.pause()
        thaw.start()

    with caplog.at_level(logging.WARNING, "archiver_pipeline"):
        (batch,) = archived.run(on_step=at_step("frame", freeze))
    thaw.join()
    assert batch.messages == 1000
    assert batch.seconds > FROZEN_SECONDS
    assert any(f"{topic_name}, partition 0: nothing came for" in record.getMessage() for record in caplog.records)
    archived.assert_equal(topic_name)


def test_a_broker_that_stays_silent(own_kafka: KafkaBroker, topic_name: str, tmp_path: Path) -> None:
    """A read that gets nothing for its set time fails, and says from which offset on it is still to be done."""
    create_topic(own_kafka.bootstrap_servers, topic_name)
    produce(own_kafka.bootstrap_servers, topic_name, numbered(range(10)))
    settings = Archived(tmp_path, own_kafka.bootstrap_servers, topic_name).settings
    at = TopicPartition(topic_name, topic_id_of(own_kafka.bootstrap_servers, topic_name), 0)
    own_kafka.pause()
    reader = RangeReader(Cluster(settings, timeout=1), [OffsetRange(at, 3, 10)], 1_000_000, stall_seconds=4)
    began = time.monotonic()
    with pytest.raises(
        BrokerUnavailable,
        match=rf"nothing came for \d+ s.* \(topic {topic_name}, partition 0, offsets \[3, 10\)\)\. Check that",
    ):
        list(reader.frames())
    assert time.monotonic() - began < 60
