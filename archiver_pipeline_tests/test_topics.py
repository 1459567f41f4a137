"""Rules for topics that are missing, deleted, made again or given more partitions, held against a real broker."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from archiver_pipeline.errors import KafkaError
from archiver_pipeline_tests.archived import Archived, topic_id_of
from archiver_pipeline_tests.kafka.produce import (
    add_partitions,
    create_topic,
    delete_records,
    delete_topic,
    produce,
    read_all,
)
from archiver_pipeline_tests.samples import SMALL_FETCHES, at_step, numbered, ranges

MADE_AGAIN = "topic made again"


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The archiver's warnings."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def make_again(bootstrap_servers: str, topic: str, first: int, last: int, partitions: int = 1) -> None:
    """Delete a topic and make it again with other messages."""
    delete_topic(bootstrap_servers, topic)
    create_topic(bootstrap_servers, topic, partitions=partitions)
    produce(bootstrap_servers, topic, numbered(range(first, last), kind="again"))


def produce_in_pieces(bootstrap_servers: str, topic: str) -> None:
    """Fill a topic so that a consumer with `SMALL_FETCHES` needs many fetches for it."""
    for first in range(0, 1000, 50):
        produce(bootstrap_servers, topic, numbered(range(first, first + 50), size=500))


def test_a_missing_topic_does_not_stop_the_others(
    bootstrap_servers: str, topic_name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A named topic that does not exist is warned of once a run; the rest goes on, and it is taken when it is there."""
    create_topic(bootstrap_servers, topic_name)
    produce(bootstrap_servers, topic_name, numbered(range(10)))
    late = f"{topic_name}-late"
    archived = Archived(tmp_path, bootstrap_servers, topic_name, late)
    archived.run()
    assert warnings(caplog) == [f"topic {late} does not exist; the other topics go on"]
    archived.assert_equal(topic_name)
    caplog.clear()
    create_topic(bootstrap_servers, late)
    produce(bootstrap_servers, late, numbered(range(10)))
    archived.run()
    assert warnings(caplog) == []
    archived.assert_equal(topic_name, late)


def test_no_topic_at_all(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Where not one topic is there, a run fails and names each: a mistyped name must not look like success."""
    archived = Archived(tmp_path, bootstrap_servers, f"{topic_name}-none", f"^{topic_name}-nothing.*")
    with pytest.raises(KafkaError, match=rf"no topic matches \^{topic_name}-nothing.*{topic_name}-none does not exist"):
        archived.run()


def test_a_deleted_topic_stays_archived(
    bootstrap_servers: str, topic_name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What was archived of a topic that is gone stays as it is, and the other topics go on."""
    gone = f"{topic_name}-gone"
    for topic in (topic_name, gone):
        create_topic(bootstrap_servers, topic)
        produce(bootstrap_servers, topic, numbered(range(10)))
    archived = Archived(tmp_path, bootstrap_servers, topic_name, gone)
    archived.run()
    before = archived.messages(gone)
    delete_topic(bootstrap_servers, gone)
    produce(bootstrap_servers, topic_name, numbered(range(10, 20)))
    (batch,) = archived.run()
    assert batch.messages == 10
    assert warnings(caplog) == [f"topic {gone} does not exist; the other topics go on"]
    assert archived.messages(gone) == before
    assert archived.gaps() == []
    archived.assert_equal(topic_name)


@pytest.mark.parametrize("step", ["read", "frame", "check", "commit"])
def test_a_topic_deleted_in_mid_batch(
    bootstrap_servers: str, topic_name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, step: str
) -> None:
    """A topic that vanishes while it is read does not take the others along: they are archived by the same run. Of its
    own messages a beginning is archived, or none."""
    gone = f"{topic_name}-gone"
    for topic in (topic_name, gone):
        create_topic(bootstrap_servers, topic)
        produce_in_pieces(bootstrap_servers, topic)
    there = read_all(bootstrap_servers, gone)[0]
    archived = Archived(tmp_path, bootstrap_servers, topic_name, gone, kafka=SMALL_FETCHES)
    archived.run(on_step=at_step(step, lambda: delete_topic(bootstrap_servers, gone)))
    archived.assert_equal(topic_name)
    found = archived.messages(gone).get(0, [])
    assert found == there[: len(found)]
    assert archived.gaps() == []
    assert archived.run() == []
    assert f"topic {gone} does not exist; the other topics go on" in warnings(caplog)


@pytest.mark.parametrize("length", [0, 3, 10, 25], ids=["empty", "shorter", "as long", "longer"])
def test_a_topic_made_again(bootstrap_servers: str, topic_name: str, tmp_path: Path, length: int) -> None:
    """A topic made again is a new life: read from 0 under its own id, however long its log is already, and named."""
    create_topic(bootstrap_servers, topic_name)
    produce(bootstrap_servers, topic_name, numbered(range(10)))
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    archived.run()
    first_id, first = topic_id_of(bootstrap_servers, topic_name), read_all(bootstrap_servers, topic_name)
    make_again(bootstrap_servers, topic_name, 100, 100 + length)
    archived.run()
    assert archived.gaps() == [(topic_name, 0, 0, 0, MADE_AGAIN)]
    assert archived.messages(topic_name, first_id) == first
    assert len(archived.values(topic_name)) == 10 + length
    assert archived.run() == []
    archived.assert_equal(topic_name)


def test_a_topic_made_again_twice(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Each life keeps its messages, and each new one is named, once per partition."""
    create_topic(bootstrap_servers, topic_name, partitions=2)
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    lives = {}
    for life in range(3):
        produce(bootstrap_servers, topic_name, numbered(range(life * 100, life * 100 + 10), 1))
        archived.run()
        lives[topic_id_of(bootstrap_servers, topic_name)] = read_all(bootstrap_servers, topic_name)[1]
        delete_topic(bootstrap_servers, topic_name)
        create_topic(bootstrap_servers, topic_name, partitions=2)
    archived.run()
    assert {life: archived.messages(topic_name, life)[1] for life in lives} == lives
    named = archived.sql("SELECT topic_id, partition, reason FROM gaps ORDER BY ALL")
    newer = [life for life in (*lives, topic_id_of(bootstrap_servers, topic_name)) if life != next(iter(lives))]
    assert named == sorted((life, partition, MADE_AGAIN) for life in newer for partition in range(2))


def test_a_topic_made_again_with_fewer_partitions(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """A new life with fewer partitions is archived; what the old one had of the others stays."""
    create_topic(bootstrap_servers, topic_name, partitions=3)
    produce(bootstrap_servers, topic_name, [*numbered(range(10)), *numbered(range(10), 2)])
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    archived.run()
    make_again(bootstrap_servers, topic_name, 100, 120)
    archived.run()
    assert archived.gaps() == [(topic_name, 0, 0, 0, MADE_AGAIN)]
    assert {at: len(found) for at, found in archived.messages(topic_name).items()} == {0: 30, 2: 10}
    archived.assert_equal(topic_name)


def test_a_topic_made_again_whose_head_is_gone(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Where the new life has lost its head already, that is a gap of its own beside the one that names the new life."""
    create_topic(bootstrap_servers, topic_name)
    produce(bootstrap_servers, topic_name, numbered(range(10)))
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    archived.run()
    make_again(bootstrap_servers, topic_name, 100, 120)
    delete_records(bootstrap_servers, topic_name, {0: 5})
    archived.run()
    assert archived.gaps() == [(topic_name, 0, 0, 0, MADE_AGAIN), (topic_name, 0, 0, 5, "retention")]
    archived.assert_equal(topic_name)


@pytest.mark.parametrize(
    ("step", "length"), [("read", 500), ("read", 3000), ("frame", 0), ("frame", 3000), ("check", 3000)]
)
def test_a_topic_made_again_in_mid_batch(
    bootstrap_servers: str, topic_name: str, tmp_path: Path, step: str, length: int
) -> None:
    """Messages of one life never get under the name of another, whenever it changes: either the old life was read as
    far as the commit, or nothing of it."""
    create_topic(bootstrap_servers, topic_name)
    other = f"{topic_name}-other"
    create_topic(bootstrap_servers, other)
    for topic in (topic_name, other):
        produce_in_pieces(bootstrap_servers, topic)
    archived = Archived(tmp_path, bootstrap_servers, topic_name, other, kafka=SMALL_FETCHES)
    first_id, first = topic_id_of(bootstrap_servers, topic_name), read_all(bootstrap_servers, topic_name)[0]
    archived.run(on_step=at_step(step, lambda: make_again(bootstrap_servers, topic_name, 5000, 5000 + length)))
    archived.run()
    old = archived.messages(topic_name, first_id).get(0, [])
    assert old in ([], first)
    assert archived.gaps() == ([(topic_name, 0, 0, 0, MADE_AGAIN)] if old else [])
    archived.assert_equal(topic_name, other)


def test_a_topic_made_again_after_the_check(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Between the look at the topic's id and the commit nothing can go wrong any more: all was read before."""
    create_topic(bootstrap_servers, topic_name)
    produce(bootstrap_servers, topic_name, numbered(range(100)))
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    first_id, first = topic_id_of(bootstrap_servers, topic_name), read_all(bootstrap_servers, topic_name)
    archived.archiver(on_step=at_step("commit", lambda: make_again(bootstrap_servers, topic_name, 500, 700))).batch()
    archived.run()
    assert archived.messages(topic_name, first_id) == first
    assert archived.gaps() == [(topic_name, 0, 0, 0, MADE_AGAIN)]
    archived.assert_equal(topic_name)


@pytest.mark.parametrize("change", [add_partitions, None], ids=["more", "as many"])
def test_partitions_that_come_in_mid_batch(
    bootstrap_servers: str, topic_name: str, tmp_path: Path, change: Callable[[str, str, int], None] | None
) -> None:
    """A partition that is added while a batch runs belongs to the next one, which begins at its 0."""
    create_topic(bootstrap_servers, topic_name)
    produce(bootstrap_servers, topic_name, numbered(range(10)))
    archived = Archived(tmp_path, bootstrap_servers, topic_name)

    def grow() -> None:
        if change is not None:
            change(bootstrap_servers, topic_name, 4)
            produce(bootstrap_servers, topic_name, numbered(range(5), 3))

    assert ranges(archived.run(on_step=at_step("read", grow))) == [[(0, 0, 10)]]
    assert ranges(archived.run()) == ([[(3, 0, 5)]] if change else [])
    assert archived.gaps() == []
    archived.assert_equal(topic_name)
