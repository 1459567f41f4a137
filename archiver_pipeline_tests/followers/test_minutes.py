"""Rules of events per minute, on a real broker: counted right, final when they are, corrected, and sent once each."""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from datetime import datetime
from pathlib import Path

import pytest

from archiver_pipeline.followers.aggregator import STATE
from archiver_pipeline.status import status
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.followers.aggregate_kit import user_of
from archiver_pipeline_tests.followers.minutes import (
    AUGUST,
    MINUTE_MS,
    NAME,
    assert_each_once,
    at,
    follow,
    minutes,
    sent,
    versions,
)
from archiver_pipeline_tests.kafka.produce import Sent, produce
from archiver_pipeline_tests.processes import Processes, environment


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


def test_a_state_put_back_from_a_copy(archived: Archived, topic_name: str) -> None:
    """Versions may come a second time, those that were sent after the copy was made; but none is left out."""

    def follow_up_to(minute: int) -> None:
        produce(archived.bootstrap_servers, topic_name, [sent(n, n) for n in range(minute - 5, minute)])
        archived.run()
        follow(archived)

    state = archived.settings.aggregates_path / NAME / STATE
    follow_up_to(5)
    copy = state.read_bytes()
    follow_up_to(10)
    state.write_bytes(copy)
    follow_up_to(15)
    for _ in range(2):
        records = versions(archived.bootstrap_servers, archived.settings.results_topic)
        assert {record["minute"] for record in records} == {f"{at(n):%Y-%m-%dT%H:%M:%SZ}" for n in range(15)}
        assert len(records) == 20
        follow(archived)


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


def test_status_has_the_lag_of_followers(archived: Archived, topic_name: str, tmp_path: Path) -> None:
    """A follower that has not come along is behind by as many offsets as the archive has; asking makes nothing."""
    produce(archived.bootstrap_servers, topic_name, [sent(n) for n in range(4)])
    archived.run()
    assert {item.name: item.lag for item in status(archived.settings).followers} == {NAME: 4, "page_views": 4}
    assert not archived.settings.aggregates_path.exists()
    follow(archived)
    assert {item.name: item.lag for item in status(archived.settings).followers} == {NAME: 0, "page_views": 4}
    changed = Archived(tmp_path, archived.bootstrap_servers, topic_name, user_path="$.user")
    # One that is to count by another rule begins again.
    assert {item.name: item.lag for item in status(changed.settings).followers} == {NAME: 4, "page_views": 4}
