"""Rules of the generator, held against a real broker."""

from __future__ import annotations

import itertools
import json
import logging
import statistics
import time
from collections import Counter
from typing import Any

import pytest
from confluent_kafka import Producer
from hypothesis import given
from hypothesis import strategies as st

from archiver_pipeline.errors import BrokerUnavailable, SettingsError, WrongUsage
from archiver_pipeline.events import ODD_TYPES, make_events
from archiver_pipeline.generator import PARTITIONS, Generator, due_at, generate, is_over
from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.produce import Message, create_topic, read_all

HOUR_MS = 3_600_000


def _all_of(bootstrap_servers: str, topic: str) -> list[Message]:
    return [message for messages in read_all(bootstrap_servers, topic).values() for message in messages]


def _kind(value: bytes | None) -> str:
    """What a payload is: tombstone, not text, not JSON, untyped, or its type."""
    if value is None:
        return "tombstone"
    try:
        found: Any = json.loads(value.decode()).get("type")
    except UnicodeDecodeError:
        return "not text"
    except ValueError:
        return "not JSON"
    return "untyped" if found in (None, "") or isinstance(found, list | dict) else str(found)


def test_the_count_is_exact_and_every_message_another(bootstrap_servers: str, topic_name: str) -> None:
    """Exactly `count` messages arrive, spread over topics, types, partitions and users, none of them twice."""
    topics = (f"{topic_name}-a", f"{topic_name}-b")
    settings = Generator({"bootstrap.servers": bootstrap_servers}, topics, ("x", "y"), rate=0, count=20_000, seed=1)
    summary = generate(settings)
    found = {topic: _all_of(bootstrap_servers, topic) for topic in topics}
    assert {topic: len(messages) for topic, messages in found.items()} == summary.topics
    assert (summary.sent, summary.delivered, summary.failed, summary.error) == (20_000, 20_000, 0, None)
    messages = [message for of_topic in found.values() for message in of_topic]
    events = [json.loads(message.value or b"") for message in messages]
    assert sorted(event["seq"] for event in events) == list(range(20_000))
    assert {event["type"] for event in events} == {"x", "y"}
    assert all(message.key == event["uid"].encode() for message, event in zip(messages, events, strict=True))
    assert summary.bytes == sum(len(message.value or b"") + len(message.key or b"") for message in messages)
    assert min(summary.topics.values()) > 9_000
    assert len({event["uid"] for event in events}) == 1000
    for topic in topics:
        assert sorted(at for at, got in read_all(bootstrap_servers, topic).items() if got) == list(range(PARTITIONS))


def test_the_rate_is_kept(bootstrap_servers: str, topic_name: str) -> None:
    """Over three seconds the messages number rate × seconds, never more than that, and the summary tells the rate."""
    told: list[tuple[int, float]] = []
    settings = Generator({"bootstrap.servers": bootstrap_servers}, (topic_name,), rate=2000, seconds=3)
    summary = generate(settings, on_progress=lambda sent, seconds: told.append((sent, seconds)))
    assert summary.delivered == 6000 == len(_all_of(bootstrap_servers, topic_name))
    assert 2.9 < summary.seconds < 15
    assert summary.rate == pytest.approx(6000 / summary.seconds)
    assert len(told) >= 3
    # What a busy machine kept it from sending it makes up for.
    shares = [sent / (2000 * seconds) for sent, seconds in told]
    assert max(shares) < 1.1
    assert statistics.median(shares) > 0.8


def test_messages_come_evenly(bootstrap_servers: str, topic_name: str) -> None:
    """At ten a second no message comes before its tenth of a second, and the last one at its time."""
    generate(Generator({"bootstrap.servers": bootstrap_servers}, (topic_name,), rate=10, count=10))
    times = sorted(message.timestamp for message in _all_of(bootstrap_servers, topic_name))
    assert all(at - times[0] >= 100 * number - 20 for number, at in enumerate(times))
    assert times[-1] - times[0] < 5000


def test_unbounded_is_fast(bootstrap_servers: str, topic_name: str) -> None:
    """Without a rate, a limit in seconds ends it, and tens of thousands of messages are sent in each."""
    create_topic(bootstrap_servers, topic_name, PARTITIONS)
    settings = Generator({"bootstrap.servers": bootstrap_servers}, (topic_name,), rate=0, seconds=1.5)
    summary = generate(settings)
    assert summary.delivered == summary.sent
    assert summary.rate > 10_000
    assert summary.seconds < 30


def test_stop_ends_it_with_everything_delivered(bootstrap_servers: str, topic_name: str) -> None:
    """A generator without limits ends when it is told to, within a moment, and loses nothing on the way."""
    begun = time.monotonic()
    settings = Generator({"bootstrap.servers": bootstrap_servers}, (topic_name,), rate=500)
    summary = generate(settings, stop=lambda: time.monotonic() - begun > 1)
    assert time.monotonic() - begun < 30
    assert 0 < summary.sent == summary.delivered == len(_all_of(bootstrap_servers, topic_name))


def test_late_and_ugly_messages_are_among_them(bootstrap_servers: str, topic_name: str) -> None:
    """The shares of late and ugly messages are kept, and every sort of ugliness is there."""
    before = time.time_ns() // 1_000_000
    settings = Generator(
        {"bootstrap.servers": bootstrap_servers},
        (topic_name,),
        ("plain",),
        rate=0,
        count=10_000,
        late_share=0.2,
        ugly_share=0.3,
        headers=True,
        seed=3,
    )
    generate(settings)
    messages = _all_of(bootstrap_servers, topic_name)
    late = [message for message in messages if message.timestamp < before - 1000]
    assert len(late) == pytest.approx(2000, rel=0.1)
    assert before - 3 * HOUR_MS <= min(message.timestamp for message in messages) < before - 2 * HOUR_MS
    kinds = Counter(_kind(message.value) for message in messages)
    assert kinds["plain"] == pytest.approx(7000, rel=0.05)
    assert {str(name) for name in ODD_TYPES} < set(kinds)
    for kind in ("tombstone", "not text", "not JSON", "untyped"):
        assert kinds[kind] == pytest.approx(1000 if kind == "untyped" else 500, rel=0.3), kind
    assert {len(message.headers) for message in messages} == {2, 4}


def test_events_are_stamped_with_their_time() -> None:
    """The field `ts` is the message's timestamp, in UTC and to the millisecond."""
    before = time.time_ns() // 1_000_000
    event = next(make_events(("t",), ("x",), late_share=0, seed=1))
    assert before <= event.timestamp <= time.time_ns() // 1_000_000
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(event.timestamp // 1000))
    assert json.loads(event.value or b"")["ts"] == f"{seconds}.{event.timestamp % 1000:03d}Z"


def test_a_seed_repeats_the_messages() -> None:
    """The same seed makes the same messages but for their times, another seed makes others."""

    def some(seed: int) -> list[tuple[str, bytes | None, Any]]:
        made = itertools.islice(make_events(("a", "b"), ("x",), headers=True, ugly_share=0.5, seed=seed), 200)
        return [(event.topic, event.key, event.headers) for event in made]

    assert some(1) == some(1) != some(2)


@given(
    rate=st.floats(0.01, 1e6),
    seconds=st.none() | st.floats(0, 1e5),
    count=st.none() | st.integers(0, 10**9),
    elapsed=st.floats(0, 1e5),
)
def test_what_is_due_follows_the_clock(rate: float, seconds: float | None, count: int | None, elapsed: float) -> None:
    """What is due is the rate times the time, never beyond a limit; once all of a limit is sent it is over."""
    settings = Generator({}, ("t",), rate=rate, seconds=seconds, count=count)
    due = due_at(settings, elapsed)
    assert due <= elapsed * rate + 1
    assert count is None or due <= count
    assert seconds is None or due <= seconds * rate + 1
    if seconds is not None and elapsed >= seconds:
        assert is_over(settings, int(due), elapsed)
    elif count is None or due < count:
        assert due >= elapsed * rate - 1
        assert not is_over(settings, int(due), elapsed)


def test_nobody_answers(caplog: pytest.LogCaptureFixture) -> None:
    """Where no broker answers in time, the error names the address and the reason."""
    caplog.set_level(logging.CRITICAL)
    with pytest.raises(
        BrokerUnavailable, match=r"127\.0\.0\.1:9 did not answer when the broker was asked for its topics: .*refused"
    ):
        generate(Generator({"bootstrap.servers": "127.0.0.1:9"}, ("t",), timeout=1))


def test_a_broker_that_freezes(own_kafka: KafkaBroker, topic_name: str) -> None:
    """After a short freeze what was missed is made up for; a long one is an error that says how far it came."""
    config = {"bootstrap.servers": own_kafka.bootstrap_servers}

    def freeze_for_a_second(sent: int, seconds: float) -> None:
        if 1 <= seconds < 2:
            own_kafka.pause()
        else:
            own_kafka.resume()

    summary = generate(Generator(config, (topic_name,), rate=1000, seconds=3), on_progress=freeze_for_a_second)
    assert (summary.delivered, summary.failed) == (3000, 0)
    with pytest.raises(BrokerUnavailable, match=r"took no message for \d+ s; \d+ of \d+ were delivered before"):
        generate(
            Generator({**config, "message.timeout.ms": 3000}, (topic_name,), rate=1000, timeout=2),
            on_progress=lambda sent, seconds: own_kafka.pause(),
        )


def test_a_mock_cluster_needs_no_topics() -> None:
    """On librdkafka's mock cluster, which cannot be asked to make a topic, the messages arrive all the same."""
    host = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0})
    brokers = host.list_topics(timeout=10).brokers.values()
    address = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
    summary = generate(Generator({"bootstrap.servers": address}, ("a", "b"), rate=0, count=1000))
    assert (summary.delivered, summary.failed) == (1000, 0)
    host.flush()


@pytest.mark.parametrize(
    "wrong",
    [{"topics": ()}, {"types": ()}, {"rate": -1}, {"count": -1}, {"users": 0}, {"late_share": 1.1}, {"ugly_share": -1}],
    ids=lambda wrong: next(iter(wrong)),
)
def test_a_senseless_setting_is_named(wrong: dict[str, Any]) -> None:
    """A setting that makes no sense is refused by its name."""
    with pytest.raises(WrongUsage, match=f"^--{next(iter(wrong)).removesuffix('_share')} is "):
        Generator(**{"kafka": {}, "topics": ("t",), **wrong})


def test_a_refused_property_is_named_and_a_password_is_not() -> None:
    """What librdkafka refuses is a settings error, which does not show a secret."""
    config = {"bootstrap.servers": "127.0.0.1:9", "sasl.password": "hunter2", "no.such.property": "hunter2"}
    with pytest.raises(SettingsError, match=r"no\.such\.property") as raised:
        generate(Generator(config, ("t",)))
    assert "hunter2" not in str(raised.value)
