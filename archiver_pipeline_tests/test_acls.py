"""Rules for what ACLs forbid: errors name the missing ones, and what is allowed goes on, on a real secured broker."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from archiver_pipeline import tail
from archiver_pipeline.errors import AccessDenied, KafkaError
from archiver_pipeline.generator import Generator, generate
from archiver_pipeline.kafka.cluster import Cluster
from archiver_pipeline.replay.replayer import Replayer
from archiver_pipeline.replay.wanted import Wanted
from archiver_pipeline.status import status
from archiver_pipeline.stored.selection import Selection
from archiver_pipeline.stored.verify import verify
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.followers.minutes import follow, sent, versions
from archiver_pipeline_tests.kafka.produce import create_topic, produce, read_all
from archiver_pipeline_tests.kafka.secured import SecuredBroker
from archiver_pipeline_tests.replays import assert_sent
from archiver_pipeline_tests.samples import SMALL_FETCHES, at_step, numbered
from archiver_pipeline_tests.test_topics import produce_in_pieces, warnings

Allowed = Callable[..., Archived]


@pytest.fixture
def user(secured: SecuredBroker) -> str:
    """A user to whom nothing is allowed yet."""
    name = f"user-{uuid.uuid4().hex[:8]}"
    secured.add_user(name, "user-password")
    return name


@pytest.fixture
def make(secured: SecuredBroker, user: str, tmp_path: Path, topic_name: str) -> Allowed:
    """Makes an archive whose user has some ACLs, by default of a topic with ten messages."""
    create_topic(secured.bootstrap_servers, topic_name)
    produce(secured.bootstrap_servers, topic_name, numbered(range(10)))

    def made(*acls: str, topics: tuple[str, ...] = (topic_name,), **more: Any) -> Archived:
        secured.allow(user, *acls)
        properties = {**secured.scram(user, "user-password"), **more.pop("kafka", {})}
        return Archived(tmp_path, secured.bootstrap_servers, *topics, kafka=properties, **more)

    return made


@pytest.fixture
def other(secured: SecuredBroker, topic_name: str) -> str:
    """Another topic with ten messages."""
    name = f"{topic_name}-other"
    create_topic(secured.bootstrap_servers, name)
    produce(secured.bootstrap_servers, name, numbered(range(10)))
    return name


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """Nothing that is forbidden is waited for."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("granted", ["Describe", None])
def test_a_forbidden_topic_does_not_stop_the_others(
    make: Allowed, user: str, secured: SecuredBroker, topic_name: str, other: str, caplog: pytest.LogCaptureFixture,
    granted: str | None,
) -> None:  # fmt: skip
    """A topic that may not be read or not even be described is warned of with its ACL, and taken once it is granted."""
    topics = (topic_name, other)
    acls = [f"Read on Topic {topic_name}", *([f"{granted} on Topic {other}"] if granted else [])]
    archived = make(*acls, topics=topics)
    assert [batch.messages for batch in archived.run()] == [10]
    (warning,) = warnings(caplog)
    missing = "Read" if granted else "Describe"
    assert warning.startswith(f"topic {other} cannot be read: the credentials lack the ACL {missing} on topic {other}")
    assert warning.endswith("; the other topics go on")
    assert status(archived.settings).warnings == (warning.removesuffix("; the other topics go on"),)
    secured.allow(user, f"Read on Topic {other}")
    archived.run()
    archived.assert_equal(*topics)


def test_a_topic_that_is_forbidden_later_is_not_taken_for_one_that_is_gone(
    make: Allowed, user: str, secured: SecuredBroker, topic_name: str, other: str
) -> None:
    """Where Kafka does not tell, nothing is concluded: the comparison leaves the topic out and says so."""
    archived = make(f"Read on Topic {topic_name}", f"Read on Topic {other}", topics=(topic_name, other))
    archived.run()
    secured.forbid(user, f"Read on Topic {other}")
    report = verify(archived.settings, True, lambda *_: None)
    assert report.good
    assert report.kafka is not None
    (note,) = report.kafka.notes
    assert f"Describe on topic {other}" in note
    with pytest.raises(AccessDenied, match=f"lack the ACL Describe on topic {other}"):
        Cluster(archived.settings).topic_ids([other])


@pytest.mark.parametrize("granted", [("Describe",), ()])
def test_nothing_but_forbidden_topics_is_an_error(
    make: Allowed, user: str, topic_name: str, granted: tuple[str, ...]
) -> None:
    """The error of a run, of `status` and of `verify` names each missing ACL, and the command that grants them."""
    archived = make(*(f"{each} on Topic {topic_name}" for each in granted))
    missing = "Read" if granted else "Describe"
    grant = f"kafka-acls.sh --add --allow-principal User:{user} --operation {missing} --topic {topic_name}"
    with pytest.raises(AccessDenied, match=f"lack the ACL {missing} on topic {topic_name}.*{grant}"):
        archived.run()
    assert isinstance(status(archived.settings).broker_error, AccessDenied)


def test_a_regex_finds_what_may_be_described(make: Allowed, topic_name: str, other: str) -> None:
    """A topic that may not be described does not show; where none does, the reason is named."""
    archived = make(f"Read on Topic {other}", topics=(f"^{topic_name}",))
    assert [state.topic for state in Cluster(archived.settings).look().topics] == [other]
    with pytest.raises(KafkaError, match=r"no topic that the ACLs allow to Describe matches \^nothing"):
        make(topics=("^nothing",)).run()


def test_an_acl_that_is_taken_away_in_mid_batch(
    make: Allowed, user: str, secured: SecuredBroker, topic_name: str, other: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The batch fails at once with the ACL's name and commits nothing; the next run goes on with the other topics."""
    acls = [f"Read on Topic {topic_name}", f"Read on Topic {other}"]
    archived = make(*acls, topics=(topic_name, other), kafka=SMALL_FETCHES)
    archived.run()
    version = archived.version()
    produce_in_pieces(secured.bootstrap_servers, topic_name)
    produce(secured.bootstrap_servers, other, numbered(range(10, 20)))
    with pytest.raises(AccessDenied, match=f"(Read|Describe) on topic {topic_name}"):
        archived.run(on_step=at_step("frame", lambda: secured.forbid(user, acls[0])))
    assert archived.version() == version
    assert archived.stray_files() == set()
    assert [batch.messages for batch in archived.run()] == [10]
    assert f"Describe on topic {topic_name}" in warnings(caplog)[-1]
    secured.allow(user, acls[0])
    archived.run()
    archived.assert_equal(topic_name, other)


def test_whether_a_topic_is_compacted_is_asked_for_with_an_acl_of_its_own(make: Allowed, topic_name: str) -> None:
    """Without DescribeConfigs the error names it; with it, the answer is there."""
    cluster = Cluster(make(f"Read on Topic {topic_name}").settings)
    with pytest.raises(AccessDenied, match=f"lack the ACL DescribeConfigs on topic {topic_name}"):
        cluster.compacted([topic_name])
    make(f"DescribeConfigs on Topic {topic_name}")
    assert cluster.compacted([topic_name]) == set()


def test_messages_are_followed_with_read_alone(make: Allowed, topic_name: str) -> None:
    """`archiver tail` has no use for a consumer group."""
    archived = make(f"Read on Topic {topic_name}")
    found = tail.echoes(archived.settings, from_beginning=True)
    with closing(found):  # type: ignore[type-var]
        assert [echo.offset for echo in (next(each for each in found if each) for _ in range(10))] == list(range(10))


def test_results_are_sent_with_what_the_errors_asked_for(
    make: Allowed, user: str, secured: SecuredBroker, topic_name: str
) -> None:
    """Each missing ACL of topics and transaction is named in its turn; with all of them the results are there."""
    results = f"{topic_name}-results"
    positions = f"{results}-positions"
    archived = make(f"Read on Topic {topic_name}", results_topic=results)
    produce(secured.bootstrap_servers, topic_name, [sent(n, n) for n in range(3)])
    archived.run()
    with pytest.raises(AccessDenied, match=f"lack the ACLs Create on topic {results}, Create on topic {positions}"):
        follow(archived)
    secured.allow(user, f"Create on Topic {results}*")
    with pytest.raises(AccessDenied, match=f"Write on topic {results}, .*Read on topic {positions}, Write on"):
        follow(archived)
    secured.allow(user, f"Write on Topic {results}*", f"Read on Topic {positions}")
    with pytest.raises(AccessDenied, match="Write on transactional id archiver-events_per_minute-"):
        follow(archived)
    secured.allow(user, "Write on TransactionalId archiver-events_per_minute-*")
    follow(archived)
    assert len(versions(secured.bootstrap_servers, results)) > 0


def test_a_replay_is_sent_with_what_the_errors_asked_for(
    make: Allowed, user: str, secured: SecuredBroker, topic_name: str
) -> None:
    """Nothing is sent before every ACL is there that it takes, and each that is missing is named."""
    again = f"{topic_name}-again"
    create_topic(secured.bootstrap_servers, again)
    archived = make(f"Read on Topic {topic_name}")
    archived.run()

    def replay() -> None:
        Replayer(archived.settings, Wanted(Selection(), again)).run()

    for missing, granted in (
        (f"Describe on topic {again}", f"Describe on Topic {again}"),
        ("Write on transactional id archiver-replay-", "Write on TransactionalId archiver-replay-*"),
        ("on topic archiver-replays", "Create on Topic archiver-replays"),
        ("Read on topic archiver-replays, Write on topic archiver-replays", "Read on Topic archiver-replays"),
        ("lack the ACL Write on topic archiver-replays", "Write on Topic archiver-replays"),
        (f"lack the ACL Write on topic {again}", f"Write on Topic {again}"),
    ):
        with pytest.raises(AccessDenied, match=missing):
            replay()
        secured.allow(user, granted)
    assert not any(read_all(secured.bootstrap_servers, again).values())
    replay()
    assert_sent(archived, topic_name, again)


def test_test_messages_are_sent_with_what_the_errors_asked_for(
    make: Allowed, user: str, secured: SecuredBroker, topic_name: str
) -> None:
    """`archiver generate` names Create where its topic is missing, and Write where it is there."""
    properties = make().settings.kafka_properties
    with pytest.raises(AccessDenied, match=f"lack the ACL Create on topic {topic_name}-new"):
        generate(Generator(properties, (f"{topic_name}-new",), count=5))
    secured.allow(user, f"Describe on Topic {topic_name}")
    with pytest.raises(AccessDenied, match=f"lack the ACL Write on topic {topic_name}"):
        generate(Generator(properties, (topic_name,), count=5))
    secured.allow(user, f"Write on Topic {topic_name}")
    assert generate(Generator(properties, (topic_name,), count=5)).delivered == 5
