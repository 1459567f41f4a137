"""Rules of the status, held against a real broker."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from archiver_pipeline.errors import SettingsError
from archiver_pipeline.formats.waits import Waits
from archiver_pipeline.plan import MADE_AGAIN, RETENTION, TopicPartition
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.status import RATE_MINUTES, status
from archiver_pipeline_tests.archived import Archived, topic_id_of
from archiver_pipeline_tests.kafka.produce import Sent, create_topic, delete_records, delete_topic, produce
from archiver_pipeline_tests.kafka.topics import end_offsets
from archiver_pipeline_tests.waiting import wait_for


def _send(archived: Archived, topic: str, count: int) -> None:
    produce(
        archived.bootstrap_servers, topic, [Sent(b'{"type": "a"}', partition=number % 2) for number in range(count)]
    )


@pytest.fixture
def archived(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> Archived:
    """An archive that is not made yet, of a topic with two partitions and ten messages."""
    create_topic(bootstrap_servers, topic_name, 2)
    archive = Archived(tmp_path, bootstrap_servers, topic_name)
    _send(archive, topic_name, 10)
    return archive


def test_before_the_first_batch(archived: Archived) -> None:
    """Without an archive all of Kafka is lag, and nothing is made by looking."""
    found = status(archived.settings)
    assert (found.version, found.files, found.messages, found.last_batch, found.age_seconds) == (None, 0, 0, None, None)
    assert [(item.partition, item.first, item.next, item.end, item.lag) for item in found.partitions] == [
        (0, None, 0, 5, 5),
        (1, None, 0, 5, 5),
    ]
    assert found.lag == 10
    assert not archived.path.exists()


def test_what_is_archived_and_what_is_left(archived: Archived, topic_name: str) -> None:
    """Offsets, lag and messages of each partition, the newest batch and the rates are as the batches made them."""
    archived.run()
    first_version = archived.version()
    _send(archived, topic_name, 6)
    archived.run()
    _send(archived, topic_name, 3)
    found = status(archived.settings)
    topic_id = topic_id_of(archived.bootstrap_servers, topic_name)
    assert [tuple(vars(item).values()) for item in found.partitions] == [
        (topic_name, topic_id, 0, 0, 8, 10, 2, 8),
        (topic_name, topic_id, 1, 0, 8, 9, 1, 8),
    ]
    assert (found.lag, found.messages, found.types) == (3, 16, 1)
    assert found.files == len(archived.listed_files())
    assert found.bytes == sum((archived.path / name).stat().st_size for name in archived.listed_files())
    assert found.version == archived.version()
    batch = found.last_batch
    assert batch is not None
    assert (batch.version, batch.messages, batch.bytes, batch.files, batch.run_id) == (
        first_version + 1,
        *(6, 6 * len('{"type": "a"}')),
        1,
        "test",
    )
    assert batch.rate == pytest.approx(6 / batch.seconds)
    assert found.age_seconds is not None
    assert 0 <= found.age_seconds < 600
    assert (datetime.now(UTC) - batch.time).total_seconds() < 600
    assert [rate.minutes for rate in found.rates] == list(RATE_MINUTES)
    assert [rate.batches for rate in found.rates] == [2, 2, 2]
    assert found.rates[0].messages_per_second == pytest.approx(16 / 60, abs=0.001)


def test_gaps_and_former_lives_of_a_topic(archived: Archived, topic_name: str) -> None:
    """Gaps are listed, and a life of a topic that is over is shown without end and lag."""
    archived.run()
    _send(archived, topic_name, 4)
    delete_records(archived.bootstrap_servers, topic_name, {0: -1})
    archived.run()
    gaps = [
        (found.gap.at.partition, found.gap.start, found.gap.end, found.gap.reason)
        for found in status(archived.settings).gaps
    ]
    assert gaps == [(0, 5, 7, RETENTION)]
    delete_topic(archived.bootstrap_servers, topic_name)
    create_topic(archived.bootstrap_servers, topic_name, 1)
    wait_for("the new topic", lambda: len(end_offsets(archived.bootstrap_servers, topic_name)) == 1)
    archived.run()
    found = status(archived.settings)
    present = topic_id_of(archived.bootstrap_servers, topic_name)
    assert {item.topic_id == present: (item.end, item.lag) for item in found.partitions} == {
        True: (0, 0),
        False: (None, None),
    }
    assert found.lag == 0
    assert {recorded.gap.reason for recorded in found.gaps} == {RETENTION, MADE_AGAIN}
    assert json.loads(json.dumps(found.to_json()))["gaps"][0].keys() == {
        *("time", "topic", "topic_id", "partition", "start", "end", "reason")
    }


def test_a_topic_that_is_not_there_is_a_warning(archived: Archived) -> None:
    """A wanted topic that does not exist is said, and the others are shown."""
    wanted = (*archived.settings.topics, "no-such-topic")
    found = status(archived.settings.model_copy(update={"topics": wanted}))
    assert found.warnings == ("topic no-such-topic does not exist",)
    assert (len(found.partitions), found.blind, found.lag) == (2, False, 10)
    found = status(archived.settings.model_copy(update={"topics": ("no-such-topic",)}))
    assert (found.warnings, found.blind, found.lag) == (("topic no-such-topic does not exist",), True, None)


def test_without_topics_it_shows_what_the_archive_has(archived: Archived) -> None:
    """The broker is not asked then, which a warning says, and no lag is made up; topics without a broker are wrong."""
    archived.run()
    known = status(archived.settings)
    folder = archived.settings.base_dir
    found = status(Settings(BASE_DIR=folder))
    assert (found.messages, found.files, found.gaps) == (known.messages, known.files, known.gaps)
    assert [(at.topic, at.partition, at.next) for at in found.partitions] == [
        (at.topic, at.partition, at.next) for at in known.partitions
    ]
    assert {at.end for at in found.partitions} == {None}
    assert (found.lag, found.broker_error) == (None, None)
    assert found.warnings[0].startswith("ARCHIVER_TOPICS is not set")
    with pytest.raises(SettingsError, match="KAFKA_BOOTSTRAP_SERVERS is not set"):
        status(Settings(BASE_DIR=folder, topics=("t",)))


def test_waits_of_another_archive_are_not_shown(archived: Archived, tmp_path: Path) -> None:
    """Archives that share a base folder each show what waits for their own."""
    other = Settings(BASE_DIR=archived.settings.base_dir, uri=str(tmp_path / "other"))
    at = TopicPartition("t", "id", 0)
    Waits(other).note(at, 3, "4711", "http://registry:8081", "it does not answer")
    assert status(archived.settings).waits == ()
    assert [wait.schema for wait in Waits(other).present({})] == ["4711"]
    Waits(other).forget(at)


@pytest.mark.parametrize("wrong", [{"since": "yesterday"}, {"since": 5}, {"offset": "3"}, {"topic": None}, {"why": 1}])
def test_a_bad_note_of_a_wait_is_none(tmp_path: Path, wrong: dict[str, object]) -> None:
    """A note that somebody has spoilt keeps nobody from all else that is to be told."""
    waits = Waits(Settings(BASE_DIR=tmp_path))
    for topic in ("bad", "good"):
        waits.note(TopicPartition(topic, "id", 0), 3, "4711", "http://registry:8081", "it does not answer")
    (bad,) = tmp_path.rglob("bad-0.json")
    bad.write_text(json.dumps({**json.loads(bad.read_text()), **wrong}))
    assert [wait.topic for wait in waits.present({})] == ["good"]
