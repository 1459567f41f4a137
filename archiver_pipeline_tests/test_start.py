"""Rules for where archiving begins: in a topic, in a partition, in one that appears later."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.kafka.produce import (
    add_partitions,
    create_topic,
    delete_records,
    produce,
    produce_transactions,
)
from archiver_pipeline_tests.samples import numbered, ranges


def test_a_regex_takes_topics_as_they_appear(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """A topic whose name matches is archived from the batch after it was made; others never are."""
    create_topic(bootstrap_servers, f"{topic_name}.a")
    create_topic(bootstrap_servers, f"not-{topic_name}.a")
    for topic in (f"{topic_name}.a", f"not-{topic_name}.a"):
        produce(bootstrap_servers, topic, numbered(range(10)))
    archived = Archived(tmp_path, bootstrap_servers, rf"^{topic_name}\..*")
    archived.run()
    assert archived.sql("SELECT DISTINCT topic FROM messages") == [(f"{topic_name}.a",)]
    create_topic(bootstrap_servers, f"{topic_name}.b")
    produce(bootstrap_servers, f"{topic_name}.b", numbered(range(10)))
    archived.run()
    archived.assert_equal(f"{topic_name}.a", f"{topic_name}.b")
    assert archived.sql("SELECT count(DISTINCT topic) FROM messages") == [(2,)]


def test_a_regex_never_matches_an_internal_topic(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """`^.*` takes every topic but those that Kafka keeps for itself."""
    create_topic(bootstrap_servers, topic_name)
    produce_transactions(bootstrap_servers, [topic_name], 10)
    topics = {state.topic for state in Archived(tmp_path, bootstrap_servers, "^.*").archiver().look().topics}
    assert topic_name in topics
    assert not any(topic.startswith("__") for topic in topics)


def test_partitions_added_later_begin_at_0(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """A partition added to a known topic is archived whole, also where the topic itself began at `latest`."""
    create_topic(bootstrap_servers, topic_name)
    produce(bootstrap_servers, topic_name, numbered(range(10)))
    archived = Archived(tmp_path, bootstrap_servers, topic_name, start="latest")
    archived.run()
    add_partitions(bootstrap_servers, topic_name, 3)
    produce(bootstrap_servers, topic_name, [*numbered(range(5), 1), *numbered(range(5), 2)])
    (batch,) = archived.run()
    assert ranges([batch]) == [[(1, 0, 5), (2, 0, 5)]]
    assert archived.next_offsets(topic_name) == {0: 10, 1: 5, 2: 5}
    assert archived.gaps() == []


@pytest.mark.parametrize("lanes", [1, 2])
def test_latest_is_decided_once(bootstrap_servers: str, topic_name: str, tmp_path: Path, lanes: int) -> None:
    """With `latest` and nothing new, the first run writes down where it began: what comes next is archived, all of it,
    in whichever lane it lies."""
    create_topic(bootstrap_servers, topic_name, partitions=4)
    produce(bootstrap_servers, topic_name, [item for at in range(4) for item in numbered(range(10), at)])
    archived = Archived(tmp_path, bootstrap_servers, topic_name, start="latest", lanes=lanes)
    (batch,) = archived.run(lane=0)
    assert batch.messages == 0
    assert archived.next_offsets(topic_name) == dict.fromkeys(range(4), 10)
    produce(bootstrap_servers, topic_name, [item for at in range(4) for item in numbered(range(10, 15), at)])
    batches = [batch for lane in range(lanes) for batch in archived.run(lane=lane)]
    assert sorted(item for batch in ranges(batches) for item in batch) == [(at, 10, 15) for at in range(4)]
    assert archived.gaps() == []
    assert Counter(archived.values(topic_name)) == Counter(
        sent.value for at in range(4) for sent in numbered(range(10, 15), at)
    )


def test_a_start_time_is_decided_once(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """With an ISO time each partition begins at its first message from then on, one without any at its end."""
    create_topic(bootstrap_servers, topic_name, partitions=3)
    produce(bootstrap_servers, topic_name, [*numbered(range(0, 100, 10), 0), *numbered(range(10), 1)])
    archived = Archived(tmp_path, bootstrap_servers, topic_name, start="2019-08-01T03:00:45Z")
    (batch,) = archived.run()
    assert ranges([batch]) == [[(0, 5, 10)]]
    assert archived.next_offsets(topic_name) == {0: 10, 1: 10, 2: 0}
    # What comes late is older than the start, and archived all the same: the decision was about offsets.
    produce(bootstrap_servers, topic_name, [*numbered(range(3), 1), *numbered(range(3), 2)])
    assert ranges(archived.run()) == [[(1, 10, 13), (2, 0, 3)]]


def test_earliest_begins_where_kafka_does(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """What was deleted before the archive first saw the topic is not a gap: nothing of it was ever promised."""
    create_topic(bootstrap_servers, topic_name)
    produce(bootstrap_servers, topic_name, numbered(range(10)))
    delete_records(bootstrap_servers, topic_name, {0: 4})
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    assert ranges(archived.run()) == [[(0, 4, 10)]]
    assert archived.gaps() == []
    archived.assert_equal(topic_name)
