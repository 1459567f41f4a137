"""Rules of replays: what was archived goes back to Kafka as it was, in order, once, and is not archived again."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import Producer
from pydantic import SecretStr

from archiver_pipeline.errors import KafkaError, RangeRefused
from archiver_pipeline.replay.replayer import Replayer
from archiver_pipeline.replay.wanted import Wanted
from archiver_pipeline.stored.selection import Selection
from archiver_pipeline.stored.verify import verify
from archiver_pipeline.table.archive import Archive
from archiver_pipeline_tests.archived import Archived, wait_until_stable
from archiver_pipeline_tests.erasing import erase
from archiver_pipeline_tests.kafka.broker import SHORT_LIVED, KafkaBroker
from archiver_pipeline_tests.kafka.produce import (
    FAR_TIMESTAMPS,
    Sent,
    create_topic,
    delete_topic,
    produce,
    produce_transactions,
    read_all,
)
from archiver_pipeline_tests.kafka.raw import RawRecord, produce_raw
from archiver_pipeline_tests.replays import assert_not_archived_again, assert_sent, checked, plain, replay
from archiver_pipeline_tests.samples import FIRST_MS, at_step
from archiver_pipeline_tests.server import running
from archiver_pipeline_tests.ugly_messages import PAYLOADS, TIMES
from archiver_pipeline_tests.waiting import LIMIT_SECONDS, wait_for

PARTITIONS = 3


def filled(
    bootstrap_servers: str, topic: str, folder: Path, count: int = 600, config: Mapping[str, int] | None = None
) -> Archived:
    """An archive of a topic of transactions, a third of which are aborted."""
    create_topic(bootstrap_servers, topic, PARTITIONS, config)
    produce_transactions(bootstrap_servers, [topic], count, abort_share=0.3)
    wait_until_stable(bootstrap_servers, topic)
    archived = Archived(folder, bootstrap_servers, topic)
    archived.run()
    return archived


def test_a_topic_comes_back_as_it_was(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Key, payload, headers, time, partition and order of every message are those of the archive."""
    archived = filled(bootstrap_servers, topic_name, tmp_path)
    create_topic(bootstrap_servers, f"{topic_name}-2", PARTITIONS)
    done = replay(archived, f"{topic_name}-2")
    assert_sent(archived, topic_name, f"{topic_name}-2")
    assert (done.sent, done.before, done.recorded) == (done.messages, 0, ())
    assert all(item.equal for item in checked(archived, f"{topic_name}-2"))


def test_a_lost_topic_is_brought_back(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """After Kafka has lost a topic it is made again and filled; nothing of it is archived a second time, and what comes
    behind it is archived as ever."""
    archived = filled(bootstrap_servers, topic_name, tmp_path)
    wanted = plain(archived.messages(topic_name))
    delete_topic(bootstrap_servers, topic_name)
    done = replay(archived, create_topics=True)
    assert done.recorded == (topic_name,)
    assert plain(read_all(bootstrap_servers, topic_name)) == wanted
    assert_not_archived_again(archived, topic_name)
    assert all(item.equal for item in checked(archived))
    produce(bootstrap_servers, topic_name, [Sent(b'{"type": "new"}', partition=n % PARTITIONS) for n in range(9)])
    archived.run()
    assert archived.sql("SELECT count(*) FROM messages WHERE type = 'new'") == [(9,)]
    assert len(archived.sql("SELECT * FROM replays")) == PARTITIONS
    report = verify(archived.settings, against_kafka=True)
    assert report.good, report
    assert report.kafka is not None
    assert all(item.equal for item in report.kafka.partitions)


def test_a_replay_into_its_own_topic(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Messages that go behind those they are copies of are not archived again, whoever else writes beside them."""
    archived = filled(bootstrap_servers, topic_name, tmp_path)
    first = plain(read_all(bootstrap_servers, topic_name))
    replay(archived)
    produce(bootstrap_servers, topic_name, [Sent(b'{"type": "new"}', partition=0)])
    archived.run()
    found = plain(read_all(bootstrap_servers, topic_name))
    assert [found[n] for n in (1, 2)] == [first[n] * 2 for n in (1, 2)]
    assert archived.sql("SELECT count(*) FROM messages") == [(sum(map(len, first.values())) + 1,)]
    assert verify(archived.settings, against_kafka=True).good


def test_it_is_sent_once(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """The same replay again sends nothing, unless it is asked to."""
    archived = filled(bootstrap_servers, topic_name, tmp_path, 90)
    create_topic(bootstrap_servers, f"{topic_name}-2", PARTITIONS)
    first = replay(archived, f"{topic_name}-2")
    second = replay(archived, f"{topic_name}-2")
    assert (second.sent, second.before) == (0, first.sent)
    assert_sent(archived, topic_name, f"{topic_name}-2")
    third = replay(archived, f"{topic_name}-2", again=True)
    assert third.sent == first.sent
    found = plain(read_all(bootstrap_servers, f"{topic_name}-2"))
    assert found == {n: every * 2 for n, every in plain(archived.messages(topic_name)).items()}


def test_a_topic_that_is_lost_again(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """What was sent to a topic that was then deleted is sent once more, and what other topics have is not."""
    archived = filled(bootstrap_servers, topic_name, tmp_path, 60)
    other = f"{topic_name}-other"
    create_topic(bootstrap_servers, other)
    produce(bootstrap_servers, other, [Sent(b"{}", timestamp_ms=FIRST_MS)])
    archived.settings = archived.settings.model_copy(update={"topics": (topic_name, other)})
    archived.run()
    wanted = plain(archived.messages(topic_name))
    replay(archived)
    delete_topic(bootstrap_servers, topic_name)
    done = replay(archived, create_topics=True)
    assert done.sent == sum(map(len, wanted.values()))
    assert plain(read_all(bootstrap_servers, topic_name)) == wanted
    assert len(read_all(bootstrap_servers, other)[0]) == 2
    assert replay(archived).sent == 0
    assert all(item.equal for item in checked(archived))
    assert_not_archived_again(archived, topic_name, other)


def test_the_second_disaster(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """A topic that is lost after it was brought back has all again: what it had at first, and what came since."""
    archived = filled(bootstrap_servers, topic_name, tmp_path, 60)
    first = plain(archived.messages(topic_name))
    delete_topic(bootstrap_servers, topic_name)
    replay(archived, create_topics=True)
    produce(bootstrap_servers, topic_name, [Sent(b"new", timestamp_ms=FIRST_MS, partition=0)] * 3)
    archived.run()
    delete_topic(bootstrap_servers, topic_name)
    done = replay(archived, create_topics=True)
    assert done.sent == sum(map(len, first.values())) + 3
    found = plain(read_all(bootstrap_servers, topic_name))
    assert found == {**first, 0: [*first[0], *[(None, b"new", (), FIRST_MS)] * 3]}
    assert_not_archived_again(archived, topic_name)
    assert verify(archived.settings, against_kafka=True).good


@pytest.mark.parametrize("step", ["flush", "record", "commit"])
def test_a_topic_made_again_meanwhile(bootstrap_servers: str, topic_name: str, tmp_path: Path, step: str) -> None:
    """A replay whose topic is deleted and made again on the way says so, and the next one sends all to the new one."""
    archived = filled(bootstrap_servers, topic_name, tmp_path, 120)
    wanted = plain(archived.messages(topic_name))
    delete_topic(bootstrap_servers, topic_name)
    create_topic(bootstrap_servers, topic_name, PARTITIONS)
    seen = []

    def meddle(name: str) -> None:
        seen.append(name)
        if name == step and seen.count(step) == 2:
            delete_topic(bootstrap_servers, topic_name)
            create_topic(bootstrap_servers, topic_name, PARTITIONS)

    with pytest.raises(KafkaError):
        Replayer(archived.settings, Wanted(Selection(), rate=60), on_step=meddle).run()
    replay(archived)
    assert plain(read_all(bootstrap_servers, topic_name)) == wanted
    assert_not_archived_again(archived, topic_name)


@pytest.mark.parametrize("step", ["flush", "record", "commit"])
def test_what_is_erased_meanwhile_is_not_sent(
    bootstrap_servers: str, topic_name: str, tmp_path: Path, step: str
) -> None:
    """Messages that are erased while a replay has them in its hands are not sent."""
    archived = filled(bootstrap_servers, topic_name, tmp_path, 60)
    archived.settings = archived.settings.model_copy(update={"results_topic": ""})
    create_topic(bootstrap_servers, f"{topic_name}-2", PARTITIONS)
    replayer = Replayer(
        archived.settings,
        Wanted(Selection(), f"{topic_name}-2"),
        on_step=at_step(step, lambda: erase(archived.settings, "type = 'object.one'")),
    )
    replayer.run()
    found = [message for every in read_all(bootstrap_servers, f"{topic_name}-2").values() for message in every]
    assert found
    assert not any(b"object.one" in (message.value or b"") for message in found)


def test_another_cluster_without_topic_ids(
    own_kafka: KafkaBroker, bootstrap_servers: str, topic_name: str, tmp_path: Path
) -> None:
    """Where topics have no ids, what is sent to another cluster hides nothing of the one that is archived."""
    for servers in (bootstrap_servers, own_kafka.bootstrap_servers):
        create_topic(servers, topic_name)
    produce(bootstrap_servers, topic_name, [Sent(b"old", timestamp_ms=FIRST_MS)] * 5)
    archived = Archived(tmp_path / "data", bootstrap_servers, topic_name, topic_ids="none")
    archived.run()
    produce(own_kafka.bootstrap_servers, topic_name, [Sent(b"other", timestamp_ms=FIRST_MS)] * 5)
    wanted = Wanted(Selection())
    done = Replayer(archived.settings, wanted, own_kafka.bootstrap_servers).run()
    assert (done.sent, done.recorded) == (5, ())
    assert [len(every) for every in read_all(own_kafka.bootstrap_servers, topic_name).values()] == [10]
    produce(bootstrap_servers, topic_name, [Sent(b"new", timestamp_ms=FIRST_MS)] * 9)
    archived.run()
    assert archived.sql("SELECT count(*) FROM messages") == [(14,)]


def test_every_payload_comes_back(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Each kind of payload, key and header goes through archive and replay byte for byte."""
    create_topic(bootstrap_servers, topic_name)
    headers = (("a", b"1"), ("a", None), ("", b""), ("ключ", b"\xff"))
    sent = [
        Sent(payload, key, headers[: n % 5], FIRST_MS + n)
        for n, (payload, _) in enumerate(PAYLOADS.values())
        for key in (None, b"", b"\xff\0", name_of(n))
    ]
    produce(bootstrap_servers, topic_name, sent)
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    archived.run()
    create_topic(bootstrap_servers, f"{topic_name}-2")
    replay(archived, f"{topic_name}-2")
    (found,) = plain(read_all(bootstrap_servers, f"{topic_name}-2")).values()
    assert found == [(each.key, each.value, each.headers, each.timestamp_ms) for each in sent]
    assert_sent(archived, topic_name, f"{topic_name}-2")


def name_of(number: int) -> bytes:
    """A key of its own."""
    return b"k%d" % number


def test_every_time_comes_back(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """So does every time that librdkafka can send; of the others it is said before the first message goes out."""
    for name in (topic_name, f"{topic_name}-2"):
        create_topic(bootstrap_servers, name, config=FAR_TIMESTAMPS)
    for stamp in TIMES:
        produce_raw(bootstrap_servers, topic_name, [RawRecord(b"%d" % stamp, stamp)])
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    archived.run()
    with pytest.raises(RangeRefused, match="4 messages have a time that no client can send"):
        replay(archived, f"{topic_name}-2")
    assert plain(read_all(bootstrap_servers, f"{topic_name}-2")) == {}
    replay(archived, f"{topic_name}-2", without_times=True)
    (found,) = plain(read_all(bootstrap_servers, f"{topic_name}-2")).values()
    kept = {stamp for stamp in TIMES if stamp != 0 and abs(stamp) < 9_223_372_036_854_776}
    wanted = sorted((b"%d" % stamp, stamp if stamp in kept else -1) for stamp in TIMES)
    assert sorted((payload or b"", stamp) for _, payload, _, stamp in found) == wanted


def test_what_is_selected_is_sent(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Times and types choose messages; a later replay of another choice is a replay of its own."""
    archived = filled(bootstrap_servers, topic_name, tmp_path)
    create_topic(bootstrap_servers, f"{topic_name}-2", PARTITIONS)
    start, end = (datetime.fromtimestamp(FIRST_MS / 1000 + seconds, UTC) for seconds in (100, 300))
    replay(archived, f"{topic_name}-2", Selection(start, end, (topic_name,), ("object.one",)))
    query = (
        f"SELECT count(*) FROM messages WHERE type = 'object.one' AND timestamp >= '{start}' AND timestamp < '{end}'"
    )
    ((count,),) = archived.sql(query)
    assert count > 20
    assert sum(map(len, read_all(bootstrap_servers, f"{topic_name}-2").values())) == count
    assert replay(archived, f"{topic_name}-2", Selection(start, end, (topic_name,), ("object.two",))).sent > 0
    with pytest.raises(RangeRefused, match="no topic nowhere"):
        replay(archived, f"{topic_name}-2", Selection(topics=("nowhere",)))


def test_by_key_a_smaller_topic_takes_all(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """A topic with fewer partitions is refused, with its number of partitions, or takes the messages by key."""
    archived = filled(bootstrap_servers, topic_name, tmp_path)
    create_topic(bootstrap_servers, f"{topic_name}-2", 2)
    with pytest.raises(RangeRefused, match="has 2 partitions, and there are messages of partition 2"):
        replay(archived, f"{topic_name}-2")
    assert all(item.equal for item in checked(archived, f"{topic_name}-2", by_key=True))
    found = read_all(bootstrap_servers, f"{topic_name}-2")
    every = sorted(each for some in plain(found).values() for each in some if each[0])
    assert every == sorted(each for some in plain(archived.messages(topic_name)).values() for each in some if each[0])
    keys = [{message.key for message in some if message.key is not None} for some in found.values()]
    assert not keys[0] & keys[1]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"max.message.bytes": 300}, "takes messages of up to 300 bytes, and the largest has 1,076"),
        ({"message.timestamp.before.max.ms": 86_400_000}, "takes messages of the last 1.0 days"),
        ({"message.timestamp.type": "LogAppendTime"}, "gives messages the time of their arrival"),
        ({"retention.ms": 604_800_000}, "keeps messages for 7.0 days"),
        ({"retention.bytes": 100}, "keeps 100 bytes a partition"),
        ({"cleanup.policy": "compact"}, "takes no message without a key, as 3 are"),
    ],
)
def test_what_a_topic_would_not_take_is_said_before(
    bootstrap_servers: str, topic_name: str, tmp_path: Path, config: dict[str, str | int], says: str
) -> None:
    """A limit of the topic that a message breaks is named with its remedy, and nothing is sent."""
    create_topic(bootstrap_servers, topic_name)
    produce(bootstrap_servers, topic_name, [Sent(b"x" * 1000, timestamp_ms=FIRST_MS) for _ in range(3)])
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    archived.run()
    create_topic(bootstrap_servers, f"{topic_name}-2", config=config)
    with pytest.raises(RangeRefused, match=says):
        replay(archived, f"{topic_name}-2")
    assert plain(read_all(bootstrap_servers, f"{topic_name}-2")) == {}


def test_a_topic_that_is_missing(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """A missing topic is named, and made only where that is asked for."""
    archived = filled(bootstrap_servers, topic_name, tmp_path, 30)
    with pytest.raises(RangeRefused, match=f"no topic {topic_name}-2"):
        replay(archived, f"{topic_name}-2")
    replay(archived, f"{topic_name}-2", create_topics=True)
    assert_sent(archived, topic_name, f"{topic_name}-2")


def test_others_write_between_its_messages(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Messages of other producers among those of a replay are archived, each of them, and those of the replay not."""
    # Small batches, of which others can come in between.
    archived = filled(bootstrap_servers, topic_name, tmp_path, 5_000, {"max.message.bytes": 1000})
    written, over = 0, threading.Event()
    other = Producer({"bootstrap.servers": bootstrap_servers, "linger.ms": 0, "log_level": 0})

    def meddle() -> None:
        nonlocal written
        while not over.is_set():
            for partition in range(PARTITIONS):
                other.produce(topic_name, b'{"type": "new"}', partition=partition)
            assert other.flush(LIMIT_SECONDS) == 0
            written += PARTITIONS

    meddler = threading.Thread(target=meddle)
    meddler.start()
    wait_for("others to write", lambda: written > 0)
    done = replay(archived)
    over.set()
    meddler.join()
    assert done.sent == done.messages
    assert len(Archive(archived.settings.archive_uri).ledger().replayed) > PARTITIONS, "others wrote in between"
    wait_until_stable(bootstrap_servers, topic_name)
    archived.run()
    assert archived.sql("SELECT count(*) FROM messages WHERE type = 'new'") == [(written,)]
    assert archived.sql("SELECT count(*) FROM messages") == [(done.messages + written,)]
    assert verify(archived.settings, against_kafka=True).good


def test_a_replay_goes_on_after_all_that_expires(topic_name: str, tmp_path: Path) -> None:
    """How far a replay is outlives what brokers forget after seven idle days: the offsets of consumer groups, and the
    transactional id with its producer."""
    short = {
        "offsets.retention.minutes": 1,
        "transactional.id.expiration.ms": 5000,
        "transaction.remove.expired.transaction.cleanup.interval.ms": 200,
        "producer.id.expiration.ms": 5000,
        "producer.id.expiration.check.interval.ms": 200,
        "log.retention.ms": 1000,
    }
    with running(KafkaBroker(tmp_path / "kafka", properties=short, options=SHORT_LIVED), "logs") as broker:
        create_topic(broker.bootstrap_servers, topic_name, PARTITIONS, {"retention.ms": -1})
        produce_transactions(broker.bootstrap_servers, [topic_name], 300)
        wait_until_stable(broker.bootstrap_servers, topic_name)
        archived = Archived(tmp_path / "archive", broker.bootstrap_servers, topic_name)
        archived.run()
        create_topic(broker.bootstrap_servers, f"{topic_name}-2", PARTITIONS, {"retention.ms": -1})
        sent = []

        def stop(step: str) -> None:
            sent.append(step)
            if sent.count("send") == 2:
                raise KeyboardInterrupt

        wanted = Wanted(Selection(), f"{topic_name}-2", rate=100)
        stopped = Replayer(archived.settings, wanted, on_step=stop)
        with pytest.raises(KeyboardInterrupt):
            stopped.run()
        forgotten = partial(is_forgotten, broker.bootstrap_servers, f"archiver-replay-{stopped.id}")
        wait_for("the broker to forget the replay", forgotten)
        done = replay(archived, f"{topic_name}-2")
        assert 0 < done.before < done.messages
        assert_sent(archived, topic_name, f"{topic_name}-2")


def is_forgotten(bootstrap_servers: str, transactional_id: str) -> bool:
    """Whether the broker has dropped what it knew of a transactional id."""
    records = [each for every in read_all(bootstrap_servers, "__transaction_state").values() for each in every]
    own = [each.value for each in records if transactional_id.encode() in (each.key or b"")]
    return bool(own) and own[-1] is None


def test_a_broker_that_goes_and_comes_back(own_kafka: KafkaBroker, topic_name: str, tmp_path: Path) -> None:
    """A replay whose broker is killed half-way fails with a sentence, and the same command goes on behind it."""
    archived = filled(own_kafka.bootstrap_servers, topic_name, tmp_path, 300)
    create_topic(own_kafka.bootstrap_servers, f"{topic_name}-2", PARTITIONS)
    steps = []

    def kill(step: str) -> None:
        steps.append(step)
        if step == "send" and steps.count("send") == 2:
            own_kafka.kill()

    settings = archived.settings.model_copy(
        update={"kafka": {**archived.settings.kafka, "message.timeout.ms": SecretStr("3000")}}
    )
    with pytest.raises(KafkaError, match="Run the same command again"):
        Replayer(settings, Wanted(Selection(), f"{topic_name}-2", rate=100), on_step=kill).run()
    own_kafka.start()
    done = replay(archived, f"{topic_name}-2")
    assert 0 < done.before < done.messages
    assert_sent(archived, topic_name, f"{topic_name}-2")


@pytest.mark.parametrize("original", [False, True])
def test_a_pace_is_kept(bootstrap_servers: str, topic_name: str, tmp_path: Path, original: bool) -> None:
    """A replay at a rate, or in the distances of time that messages had, takes as long as that takes."""
    create_topic(bootstrap_servers, topic_name, 2)
    sent = [Sent(b"%d" % n, timestamp_ms=FIRST_MS + n * 50, partition=n % 2) for n in range(61)]
    produce(bootstrap_servers, topic_name, sent)
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    archived.run()
    create_topic(bootstrap_servers, f"{topic_name}-2", 2)
    done = replay(archived, f"{topic_name}-2", original_pace=original, rate=0 if original else 20)
    assert 2.9 < done.seconds < 30
    assert_sent(archived, topic_name, f"{topic_name}-2")
