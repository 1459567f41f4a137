"""Rules of how long a run goes on, held against a real broker."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from archiver_pipeline.batch.batch import Archiver, Batch
from archiver_pipeline.batch.follow import drain, stay
from archiver_pipeline.errors import BrokerUnavailable
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.produce import Sent, create_topic, produce

BATCH_MESSAGES = 10


class Topic:
    """A topic of one partition with an archive, and how it is filled."""

    def __init__(self, name: str, folder: Path, bootstrap_servers: str) -> None:
        self._place = bootstrap_servers, name
        self.archived = Archived(folder, bootstrap_servers, name, batch_messages=BATCH_MESSAGES)
        create_topic(bootstrap_servers, name)

    def send(self, count: int) -> None:
        """Send so many messages."""
        produce(*self._place, [Sent(b"{}")] * count)

    def archiver(self) -> Archiver:
        """An archiver of its one lane."""
        return self.archived.archiver()

    def assert_equal(self) -> None:
        """Assert that the archive has what Kafka has."""
        self.archived.run()
        self.archived.assert_equal(self._place[1])


@pytest.fixture
def topic(topic_name: str, tmp_path: Path, bootstrap_servers: str) -> Topic:
    """A topic with an archive of its own."""
    return Topic(topic_name, tmp_path, bootstrap_servers)


def spans(batches: Iterable[Batch]) -> list[tuple[int, int]]:
    """Start and end of each batch."""
    return [(item.start, item.end) for batch in batches for item in batch.ranges]


def test_a_pass_ends_at_the_end_offsets_of_its_start(topic: Topic) -> None:
    """What is produced while a pass goes on is left for the next one, so that it ends however busy the topic is."""
    topic.send(25)

    def producing() -> Iterator[Batch]:
        for batch in drain(topic.archiver()):
            topic.send(10)
            yield batch

    assert spans(producing()) == [(0, 10), (10, 20), (20, 25)]
    assert spans(drain(topic.archiver())) == [(25, 35), (35, 45), (45, 55)]
    topic.assert_equal()


def test_a_pass_without_a_lag_has_no_batch(topic: Topic) -> None:
    """Only where a topic begins is recorded, once."""
    assert [batch.messages for batch in drain(topic.archiver())] == [0]
    assert list(drain(topic.archiver())) == []


def test_a_pass_goes_to_its_targets_and_no_further(topic: Topic) -> None:
    """Targets take the place of the end offsets; one beyond the end stops at the end."""
    topic.send(25)
    name = topic.archived.settings.topics[0]
    assert spans(drain(topic.archiver(), {(name, 0): 15})) == [(0, 10), (10, 15)]
    assert spans(drain(topic.archiver(), {(name, 0): 15})) == []
    assert spans(drain(topic.archiver(), {(name, 0): 1000})) == [(15, 25)]


def test_a_pass_begins_no_batch_after_its_limit(topic: Topic) -> None:
    """Over its time limit a pass ends with the batch under way; another run takes what is left."""
    topic.send(25)
    assert spans(drain(topic.archiver(), limit_seconds=0)) == [(0, 10)]
    assert spans(drain(topic.archiver(), limit_seconds=60)) == [(10, 20), (20, 25)]


def test_a_run_that_stays_archives_what_comes_meanwhile(topic: Topic) -> None:
    """A batch each interval, of whatever has come by then."""
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        topic.send(3)

    topic.send(3)
    batches = stay(topic.archiver(), 600, 60, nap)
    assert spans(itertools.islice(batches, 4)) == [(0, 3), (3, 6), (6, 9), (9, 12)]
    assert len(naps) == 3
    assert 0 < max(naps) <= 60
    topic.assert_equal()


def test_a_run_that_stays_does_not_wait_while_it_is_behind(topic: Topic) -> None:
    """With more left than a batch holds, the next one begins at once."""
    topic.send(45)
    naps: list[int] = []
    batches = stay(topic.archiver(), 60, 60, lambda _: naps.append(1))
    assert spans(itertools.islice(batches, 5)) == [(0, 10), (10, 20), (20, 30), (30, 40), (40, 45)]
    assert naps == []


def test_a_run_that_stays_says_when_nothing_has_come(topic: Topic) -> None:
    """Each time that there is no batch, and not else."""
    told: list[str] = []
    topic.send(3)
    for batch in stay(topic.archiver(), 0.5, 0.1, time.sleep, lambda: told.append("idle")):
        told.append(str(batch.messages))
    assert told[0] == "3"
    assert set(told[1:]) == {"idle"}


def test_a_run_that_stays_ends_in_time(topic: Topic) -> None:
    """With nothing to do it ends when its time is over, having slept no longer than that."""
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        time.sleep(seconds)

    assert [batch.messages for batch in stay(topic.archiver(), 0.5, 60, nap)] == [0]
    assert 0 < sum(naps) <= 0.5


@pytest.mark.slow
def test_a_run_that_stays_fails_when_the_broker_goes(own_kafka: KafkaBroker, tmp_path: Path) -> None:
    """A broker that goes away ends the stay with an error, so that the run is seen to have failed."""
    topic = Topic("orders", tmp_path, own_kafka.bootstrap_servers)
    topic.send(5)
    batches = stay(topic.archiver(), 600, 0.1)
    assert spans([next(batches)]) == [(0, 5)]
    own_kafka.kill()
    with pytest.raises(BrokerUnavailable):
        next(batches)
