"""Rules of the results topic, on a real broker: each version once, whoever shares it."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka import Producer
from pydantic import ValidationError

from archiver_pipeline.errors import FollowerError, KafkaError
from archiver_pipeline.followers.aggregator import Aggregator
from archiver_pipeline.followers.feed import Feed
from archiver_pipeline.followers.results import ResultsTopic
from archiver_pipeline.followers.store import Result, Store
from archiver_pipeline.minutes import minutes as finished
from archiver_pipeline.settings.aggregates import Aggregate
from archiver_pipeline.table.archive import Archive
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.followers.minutes import (
    AUGUST,
    NAME,
    assert_each_once,
    at,
    follow,
    minutes,
    sent,
    versions,
)
from archiver_pipeline_tests.kafka.produce import Sent, create_topic, produce
from archiver_pipeline_tests.waiting import LIMIT_SECONDS, wait_for


class KilledError(Exception):
    """What a process that is killed does not come back from."""


class Killed(Store):
    """A state whose process is killed when its results are sent, before it has noted so."""

    meanwhile: Callable[[], None] | None = None
    """Happens once, when the position is read and the results are not yet sent."""

    def results(self, after: int, limit: int) -> list[Result]:
        """What waits."""
        if limit > 1 and self.meanwhile is not None:
            happens, self.meanwhile = self.meanwhile, None
            happens()
        return super().results(after, limit)

    def forget(self, seq: int) -> None:
        """End."""
        raise KilledError


def minute_aggregate(archived: Archived) -> Aggregate:
    """The aggregate that is sent."""
    return next(item for item in archived.settings.every_aggregate if item.name == NAME)


def count(archived: Archived) -> Path:
    """Count what is archived and make it final, but send nothing; the state's file."""
    with closing(Aggregator(minute_aggregate(archived), archived.settings)) as follower:
        feed = Feed(Archive(archived.settings.archive_uri))
        for step in feed.steps(follower.position()):
            follower.take(feed.frames(step, follower.columns), step.before, step.after)
        with follower.store.transaction():
            follower.store.finish(AUGUST // 1000 + 86_400)
        return follower.store.path


def send_and_die(archived: Archived, meanwhile: Callable[[], None] | None = None) -> None:
    """Send what is counted, and be killed right after the commit."""
    aggregate = minute_aggregate(archived)
    with closing(Killed(count(archived), aggregate)) as store:
        store.meanwhile = meanwhile
        with pytest.raises(KilledError):
            ResultsTopic(archived.settings, aggregate, store).send()


class OpenTransaction:
    """A transaction in the topic of positions, of an archive that has stopped in the midst of it."""

    def __init__(self, archived: Archived, topic_name: str) -> None:
        servers = archived.bootstrap_servers
        self._topic = archived.settings.positions_topic
        self._producer = Producer({"bootstrap.servers": servers, "transactional.id": topic_name, "log_level": 0})
        self._producer.init_transactions(LIMIT_SECONDS)

    def begin(self) -> None:
        """Begin it with a record."""
        self._producer.begin_transaction()
        self._producer.produce(self._topic, b"{}", b"another")
        self._producer.flush(LIMIT_SECONDS)

    def end(self) -> None:
        """Take it back, as the broker does some time after its archive was killed."""
        self._producer.abort_transaction(LIMIT_SECONDS)


def test_archives_that_share_a_results_topic_send_each_version_once(
    archived: Archived, topic_name: str, tmp_path: Path
) -> None:
    """Two states of one archive, killed once their results are committed, know each for itself what was sent."""
    produce(archived.bootstrap_servers, topic_name, [sent(n, n) for n in range(3)])
    archived.run()
    other = Archived(
        tmp_path / "other",
        archived.bootstrap_servers,
        topic_name,
        uri=archived.settings.archive_uri,
        results_topic=archived.settings.results_topic,
    )
    for each in (archived, other):
        send_and_die(each)
    for each in (archived, other):
        follow(each)
    records = versions(archived.bootstrap_servers, archived.settings.results_topic)
    assert Counter((record["minute"], record["revision"]) for record in records) == {
        (f"2019-08-01T03:0{n}:00Z", 1): 2 for n in range(3)
    }


def test_a_position_behind_an_open_transaction_is_waited_for(
    archived: Archived, topic_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What a killed run has sent is known only when the transactions before it are over: nothing is sent till then."""
    servers, results = archived.bootstrap_servers, archived.settings.results_topic
    produce(servers, topic_name, [sent(n, n) for n in range(3)])
    archived.run()
    other = OpenTransaction(archived, topic_name)
    send_and_die(archived, other.begin)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(follow, archived)
        wait_for("a run that waits", lambda: "of another producer to end" in caplog.text or run.done())
        assert len(versions(servers, results)) == 3
        other.end()
        run.result()
    assert len(assert_each_once(versions(servers, results))) == 3
    produce(servers, topic_name, [sent(3)])
    archived.run()
    follow(archived)
    assert len(assert_each_once(versions(servers, results))) == 4


def test_a_transaction_that_stays_open_is_named(archived: Archived, topic_name: str) -> None:
    """The run ends with a sentence and has sent nothing; the next one goes on."""
    servers, results = archived.bootstrap_servers, archived.settings.results_topic
    produce(servers, topic_name, [sent(0)])
    archived.run()
    other = OpenTransaction(archived, topic_name)
    send_and_die(archived, other.begin)
    produce(servers, topic_name, [sent(1)])
    archived.run()
    aggregate = minute_aggregate(archived)
    with closing(Store(count(archived), aggregate)) as store:
        topic = ResultsTopic(archived.settings, aggregate, store)
        topic.patience_seconds = 0.5
        with pytest.raises(KafkaError, match="a transaction of another producer was open for 0 s"):
            topic.send()
        assert len(versions(servers, results)) == 1
        other.end()
        assert topic.send() == 1
    assert len(assert_each_once(versions(servers, results))) == 2


def test_a_results_topic_may_have_the_longest_name(archived: Archived, topic_name: str) -> None:
    """The longest name that the setting takes leaves Kafka room for that of the topic of positions."""
    longest = topic_name.ljust(239, "x")
    other = Archived(archived.settings.base_dir, archived.bootstrap_servers, topic_name, results_topic=longest)
    with pytest.raises(ValidationError, match="results_topic"):
        Archived(archived.settings.base_dir, archived.bootstrap_servers, topic_name, results_topic=longest + "x")
    produce(archived.bootstrap_servers, topic_name, [sent(0)])
    archived.run()
    follow(other)
    assert len(versions(archived.bootstrap_servers, longest)) == 1


def test_a_run_does_not_send_what_a_state_begun_again_has_made(archived: Archived, topic_name: str) -> None:
    """Other columns make a state with another id, and a run by the old ones would not be fenced: it stops by itself."""
    produce(archived.bootstrap_servers, topic_name, [sent(0)])
    archived.run()
    aggregate = minute_aggregate(archived)
    with closing(Store(count(archived), aggregate)) as store:
        renamed = aggregate.model_copy(update={"measures": {"events": "count", "visitors": "distinct $.uid"}})
        other = Archived(
            archived.settings.base_dir,
            archived.bootstrap_servers,
            topic_name,
            aggregates=(renamed,),
            results_topic=archived.settings.results_topic,
        )
        count(other)
        with pytest.raises(FollowerError, match="has changed while a run was at work"):
            ResultsTopic(archived.settings, aggregate, store).send()
    follow(other)
    assert len(versions(archived.bootstrap_servers, archived.settings.results_topic)) == 1


@pytest.fixture
def odd(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> Archived:
    """An archive whose minutes are grouped by a field, with the sum of another."""
    create_topic(bootstrap_servers, topic_name, partitions=2)
    aggregate = Aggregate(
        name=NAME,
        window="minute",
        group_by={"topic": "topic", "type": "$.url"},
        measures={"events": "sum $.amount", "users": "count"},
    )
    results = f"{topic_name[-40:]}-results"
    return Archived(tmp_path, bootstrap_servers, topic_name, aggregates=(aggregate,), results_topic=results)


def test_a_sum_past_every_number_is_null(odd: Archived, topic_name: str) -> None:
    """JSON has no infinite number; `archiver tail` goes on with a dash."""
    values = [b'{"url": "a", "amount": 1e308}', b'{"url": "a", "amount": 1e308}', b'{"url": "b", "amount": 1.5}']
    produce(odd.bootstrap_servers, topic_name, [Sent(value, None, (), AUGUST, 0) for value in values])
    odd.run()
    follow(odd)
    records = versions(odd.bootstrap_servers, odd.settings.results_topic)
    assert {record["type"]: (record["events"], record["users"]) for record in records} == {
        "a": (None, 2),
        "b": (1.5, 1),
    }
    assert minutes(odd)[at(0), topic_name, "a"] == (math.inf, 2)
    lines = {found.line() for found in itertools.islice(filter(None, finished(odd.settings, from_beginning=True)), 2)}
    assert lines == {
        f"2019-08-01T03:00:00Z {topic_name} a: - events, 2 users",
        f"2019-08-01T03:00:00Z {topic_name} b: 1.5 events, 1 user",
    }


def test_a_huge_group_stops_nothing(odd: Archived, topic_name: str) -> None:
    """A text of megabytes is cut, the same in the topic and in the files, and two that differ at the end stay two."""
    values = [json.dumps({"url": "/" + "é" * 2_000_000 + end, "amount": 1}).encode() for end in "aab"]
    produce(odd.bootstrap_servers, topic_name, [Sent(value, None, (), AUGUST, 0) for value in values])
    odd.run()
    follow(odd)
    records = versions(odd.bootstrap_servers, odd.settings.results_topic)
    assert sorted(record["users"] for record in records) == [1, 2]
    assert {len(record["type"]) for record in records} == {1000}
    assert {record["type"] for record in records} == {kind for _, _, kind in minutes(odd)}
