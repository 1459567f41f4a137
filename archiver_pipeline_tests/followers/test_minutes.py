"""Rules of events per minute, on a real broker: counted right, final when they are, corrected, and sent once each."""

from __future__ import annotations

import itertools
import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
from pydantic import ValidationError

from archiver_pipeline.aggregates import Aggregate
from archiver_pipeline.archive import Archive
from archiver_pipeline.errors import FollowerError, KafkaError
from archiver_pipeline.followers.aggregator import Aggregator
from archiver_pipeline.followers.catch_up import CaughtUp, catch_up
from archiver_pipeline.followers.feed import Feed
from archiver_pipeline.followers.registry import followers
from archiver_pipeline.followers.results import ResultsTopic
from archiver_pipeline.followers.store import Result, Store
from archiver_pipeline.minutes import minutes as finished
from archiver_pipeline.status import status
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.followers.aggregate_kit import Counted, minutes_in, user_of
from archiver_pipeline_tests.kafka.produce import Sent, create_topic, produce
from archiver_pipeline_tests.kafka.topics import LIMIT_SECONDS, wait_for
from archiver_pipeline_tests.processes import Processes, environment

MINUTE_MS = 60_000
AUGUST = 1_564_628_400_000
NAME = "events_per_minute"


def follow(archived: Archived, name: str = NAME, **more: Any) -> CaughtUp:
    """One pass of a follower."""
    with closing(followers(archived.settings)[name]()) as follower:
        return catch_up(follower, archived.settings, **more)


def minutes(archived: Archived, name: str = NAME) -> Counted:
    """What the Parquet files have."""
    return minutes_in(archived.settings.base_dir / "aggregates" / name)


def at(minute: int) -> datetime:
    """A minute, counted from three o'clock on the first of August 2019."""
    return datetime.fromtimestamp((AUGUST + minute * MINUTE_MS) / 1000, UTC)


def sent(minute: int, user: object = "u", kind: str = "one", partition: int = 0, second: int = 0) -> Sent:
    """An event of a user at a minute."""
    value = json.dumps({"type": kind, "uid": user}).encode()
    return Sent(value, None, (), AUGUST + minute * MINUTE_MS + second * 1000, partition)


def versions(bootstrap_servers: str, topic: str) -> list[dict[str, Any]]:
    """Every committed record of the results topic, by partition and in order, its key checked."""
    properties = {
        "bootstrap.servers": bootstrap_servers,
        "group.id": "test",
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
    }
    found = []
    with closing(Consumer(properties)) as consumer:
        left = set(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in left])
        while left:
            message = consumer.poll(10)
            assert message is not None
            if message.error() is not None:
                left.discard(message.partition())
                continue
            value = json.loads(message.value() or b"", parse_constant=refuse)
            assert (message.key() or b"").decode() == f"{value['minute']}/{value['topic']}/{value['type']}"
            found.append(value)
    return found


def refuse(number: str) -> NoReturn:
    """Refuse what only some readers of JSON take for a number."""
    raise AssertionError(f"{number} is no JSON")


def assert_each_once(records: list[dict[str, Any]]) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Assert that each version of a minute is there once, revisions in order and without a hole; the newest ones."""
    newest: dict[tuple[str, str, str], dict[str, Any]] = {}
    for record in records:
        key = record["minute"], record["topic"], record["type"]
        assert record["revision"] == newest.get(key, {"revision": 0})["revision"] + 1, record
        newest[key] = record
    return newest


@pytest.fixture
def archived(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> Archived:
    """An archive of a topic of two partitions, with results topics of its own."""
    create_topic(bootstrap_servers, topic_name, partitions=2)
    return Archived(tmp_path, bootstrap_servers, topic_name, results_topic=f"{topic_name[-40:]}-results")


def test_minutes_are_final_once_every_partition_is_past_them(archived: Archived, topic_name: str) -> None:
    """While messages are left to read, a minute waits for the slowest partition; then the clock counts."""
    servers = archived.bootstrap_servers
    produce(servers, topic_name, [sent(n, f"u{n % 3}", partition=0) for n in range(10)])
    produce(servers, topic_name, [sent(n, "v", partition=1) for n in range(4)])
    archived.run({(topic_name, 0): 10, (topic_name, 1): 2})
    follow(archived)
    # Partition 1 has come to minute 1, less two minutes of grace.
    assert minutes(archived) == {}
    archived.run({(topic_name, 0): 10, (topic_name, 1): 4})
    follow(archived)
    assert sorted(minutes(archived)) == [(at(n), topic_name, "one") for n in range(10)]
    assert minutes(archived)[at(1), topic_name, "one"] == (2, 2)


def test_a_late_event_makes_a_new_version(archived: Archived, topic_name: str) -> None:
    """A minute that was final is corrected, here and in the topic; one whose counts stay has no new version."""
    servers, results = archived.bootstrap_servers, archived.settings.results_topic
    produce(servers, topic_name, [sent(n, n) for n in range(5)])
    archived.run()
    follow(archived)
    assert {record["revision"] for record in versions(servers, results)} == {1}
    produce(servers, topic_name, [sent(2, "late", partition=1), sent(2, "late", second=5)])
    archived.run()
    follow(archived)
    follow(archived)
    assert minutes(archived)[at(2), topic_name, "one"] == (3, 2)
    newest = assert_each_once(versions(servers, results))
    assert newest["2019-08-01T03:02:00Z", topic_name, "one"] == {
        "minute": "2019-08-01T03:02:00Z",
        "topic": topic_name,
        "type": "one",
        "events": 3,
        "users": 2,
        "revision": 2,
    }
    assert sum(record["revision"] for record in newest.values()) == 6


@pytest.mark.slow
def test_every_version_is_sent_once_whatever_is_killed(
    archived: Archived, topic_name: str, bootstrap_servers: str
) -> None:
    """SIGKILL of followers again and again while events come, some late: minutes are right, and sent once each."""
    chance = random.Random(3)
    variables = environment({**archived.environment(), "ARCHIVER_RESULTS_TOPIC": archived.settings.results_topic})
    child = ["-m", "archiver_pipeline_tests.followers.child", NAME, "500"]
    every: list[Sent] = []
    with Processes() as processes:
        for number in range(8):
            new = [
                sent(max(0, number * 10 + n // 40 - 30 * (n % 50 == 0)), n % 70, f"t{n % 3}", n % 2) for n in range(400)
            ]
            every += new
            produce(bootstrap_servers, topic_name, new)
            archived.run()
            step, delay = chance.choice(("take", "frame", "settle", "settle")), chance.random() * 0.6
            processes.run([*child, step, "1", str(delay)], variables)
        ended = processes.run(child, variables)
    assert ended.code == 0, ended.said
    events: Counter[tuple[datetime, str, str]] = Counter()
    users: defaultdict[tuple[datetime, str, str], set[str | None]] = defaultdict(set)
    for each in every:
        assert each.value is not None
        assert each.timestamp_ms is not None
        key = at((each.timestamp_ms - AUGUST) // MINUTE_MS), topic_name, json.loads(each.value)["type"]
        events[key] += 1
        users[key].add(user_of(each.value.decode()))
    expected = {key: (count, len(users[key])) for key, count in events.items()}
    assert minutes(archived) == expected
    newest = assert_each_once(versions(bootstrap_servers, archived.settings.results_topic))
    sums = {
        (datetime.fromisoformat(minute), *rest): (record["events"], record["users"])
        for (minute, *rest), record in newest.items()
    }
    assert sums == expected


def test_the_view_has_the_minutes(archived: Archived, topic_name: str) -> None:
    """The DuckDB file has an empty view from the start, and the minutes as soon as there are any."""
    produce(archived.bootstrap_servers, topic_name, [sent(n, n) for n in range(3)])
    archived.run()
    assert archived.sql(f"SELECT * FROM {NAME}") == []
    follow(archived)
    archived.run()
    query = f"SELECT epoch(minute), topic, type, events, users, revision FROM {NAME} ORDER BY minute"
    assert archived.sql(query) == [(at(n).timestamp(), topic_name, "one", 1, 1, 1) for n in range(3)]


def test_tail_follows_minutes(archived: Archived, topic_name: str) -> None:
    """`archiver tail` prints each version of a minute as a line, and says which ones are corrections."""
    produce(archived.bootstrap_servers, topic_name, [sent(0, n) for n in range(3)])
    archived.run()
    follow(archived)
    produce(archived.bootstrap_servers, topic_name, [sent(0, "late")])
    archived.run()
    follow(archived)
    variables = environment({**archived.environment(), "ARCHIVER_RESULTS_TOPIC": archived.settings.results_topic})
    with Processes() as processes:
        tail = ["-m", "archiver_pipeline.cli", "tail", "--from-beginning", "--count", "2"]
        lines, documents = processes.run(tail, variables), processes.run([*tail, "--json"], variables)
    assert lines.out.splitlines() == [
        f"2019-08-01T03:00:00Z {topic_name} one: 3 events, 3 users",
        f"2019-08-01T03:00:00Z {topic_name} one: 4 events, 4 users  (revision 2)",
    ], lines.said
    assert [json.loads(line)["revision"] for line in documents.out.splitlines()] == [1, 2]


def test_status_has_the_lag_of_followers(archived: Archived, topic_name: str) -> None:
    """A follower that has not come along is behind by as many offsets as the archive has; asking makes nothing."""
    produce(archived.bootstrap_servers, topic_name, [sent(n) for n in range(4)])
    archived.run()
    assert {item.name: item.lag for item in status(archived.settings).followers} == {NAME: 4, "page_views": 4}
    assert not archived.settings.aggregates_path.exists()
    follow(archived)
    assert {item.name: item.lag for item in status(archived.settings).followers} == {NAME: 0, "page_views": 4}


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
        f"2019-08-01T03:00:00Z {topic_name} b: 1.5 events, 1 users",
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
