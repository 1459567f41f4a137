"""Rules of a micro-batch, held against a real broker: what it reads, what it leaves, and what it writes down."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from archiver_pipeline.errors import RangeRefused
from archiver_pipeline.plan import OffsetRange, TopicPartition
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.kafka.produce import (
    Message,
    Sent,
    create_topic,
    produce,
)
from archiver_pipeline_tests.samples import FIRST_MS, at_step, numbered, ranges


def asked(topic: str, partition: int, start: int, end: int) -> OffsetRange:
    """An explicit range, as run config gives it."""
    return OffsetRange(TopicPartition(topic, "", partition), start, end)


@pytest.mark.parametrize("step", ["read", "frame", "write", "place", "check", "commit", "done"])
def test_messages_produced_meanwhile_stay_for_the_next_batch(
    bootstrap_servers: str, topic_name: str, tmp_path: Path, step: str
) -> None:
    """A batch reads exactly its planned range, whatever is produced while it runs; the next one begins behind it."""
    create_topic(bootstrap_servers, topic_name)
    produce(bootstrap_servers, topic_name, numbered(range(100)))
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    more = at_step(step, lambda: produce(bootstrap_servers, topic_name, numbered(range(100, 150))))
    first = archived.archiver(on_step=more).batch()
    assert first is not None
    assert (first.messages, ranges([first])) == (100, [[(0, 0, 100)]])
    assert ranges(archived.run()) == [[(0, 100, 150)]]
    archived.assert_equal(topic_name)


def test_several_topics_of_several_types_go_into_one_batch(
    bootstrap_servers: str, topic_name: str, tmp_path: Path
) -> None:
    """One commit holds the messages of every topic; each lies under its type and the hour of its timestamp."""
    topics = [f"{topic_name}-{number}" for number in range(3)]
    for topic in topics:
        create_topic(bootstrap_servers, topic, partitions=2)
        for kind in ("object.one", "object.two", "b/c"):
            produce(bootstrap_servers, topic, numbered(range(0, 7200, 600), 1, kind))
    archived = Archived(tmp_path, bootstrap_servers, *topics)
    (batch,) = archived.run()
    assert (batch.messages, batch.files) == (108, 6)
    assert batch.types == {"object.one": 36, "object.two": 36, "b/c": 36}
    assert {path.rsplit("/", 1)[0] for path in archived.listed_files()} == {
        f"type={kind}/dt=2019-08-01/hr={hour}"
        for kind in ("object.one", "object.two", "b%2Fc")
        for hour in ("03", "04")
    }
    assert archived.sql("SELECT type, hr, messages FROM hours ORDER BY ALL") == [
        (kind, hour, 18) for kind in ("b/c", "object.one", "object.two") for hour in ("03", "04")
    ]
    archived.assert_equal(*topics)


def test_a_huge_partition_does_not_starve_a_small_one(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """The messages of a batch are shared fairly: a small backlog is met whole, the rest goes to the large one."""
    create_topic(bootstrap_servers, topic_name, partitions=3)
    produce(bootstrap_servers, topic_name, [*numbered(range(5000)), *numbered(range(40), 2)])
    archived = Archived(tmp_path, bootstrap_servers, topic_name, batch_messages=1000)
    batches = archived.run()
    assert ranges(batches)[0] == [(0, 0, 960), (2, 0, 40)]
    assert [batch.messages for batch in batches] == [1000, 1000, 1000, 1000, 1000, 40]
    assert [batch.lag for batch in batches] == [4040, 3040, 2040, 1040, 40, 0]
    archived.assert_equal(topic_name)


def test_a_batch_is_bounded_in_bytes(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """A batch stops near its bytes, each partition having had its share, and the next one goes on there."""
    create_topic(bootstrap_servers, topic_name, partitions=2)
    produce(bootstrap_servers, topic_name, [*numbered(range(1000), size=20_000), *numbered(range(20), 1)])
    archived = Archived(tmp_path, bootstrap_servers, topic_name, batch_bytes=5_000_000)
    batches = archived.run()
    assert ranges(batches)[0][1] == (1, 0, 20), "the small partition is met whole in the first batch"
    assert all(4_700_000 < batch.bytes < 6_100_000 for batch in batches[:-1]), [batch.bytes for batch in batches]
    assert len(batches) >= 4
    archived.assert_equal(topic_name)


def test_a_message_larger_than_the_bytes_of_a_batch_gets_through(
    bootstrap_servers: str, topic_name: str, tmp_path: Path
) -> None:
    """However small ARCHIVER_BATCH_BYTES is, every batch gets on by a message at least."""
    create_topic(bootstrap_servers, topic_name)
    produce(bootstrap_servers, topic_name, numbered(range(3), size=100_000))
    archived = Archived(tmp_path, bootstrap_servers, topic_name, batch_bytes=1)
    assert sum(batch.messages for batch in archived.run()) == 3
    archived.assert_equal(topic_name)


def test_a_pass_ends_at_the_offsets_seen_at_its_start(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Draining goes in bounded batches up to the end at its start, and does not run after a producer for ever."""
    create_topic(bootstrap_servers, topic_name)
    produce(bootstrap_servers, topic_name, numbered(range(100)))
    archived = Archived(tmp_path, bootstrap_servers, topic_name, batch_messages=30)
    more = at_step("commit", lambda: produce(bootstrap_servers, topic_name, numbered(range(100, 200))))
    assert ranges(archived.run(on_step=more)) == [[(0, 0, 30)], [(0, 30, 60)], [(0, 60, 90)], [(0, 90, 100)]]
    assert archived.next_offsets(topic_name) == {0: 100}


def test_an_explicit_range_is_archived_exactly(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Of an explicit range what is below the committed offset is skipped, and nothing past its end is read."""
    create_topic(bootstrap_servers, topic_name, partitions=2)
    produce(bootstrap_servers, topic_name, [*numbered(range(100)), *numbered(range(100), 1)])
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    first = archived.archiver().targets_of([asked(topic_name, 0, 0, 40)])
    assert ranges(archived.run(first)) == [[(0, 0, 40)]]
    again = archived.archiver().targets_of([asked(topic_name, 0, 10, 60)])
    assert ranges(archived.run(again)) == [[(0, 40, 60)]]
    below = archived.archiver().targets_of([asked(topic_name, 0, 10, 60)])
    assert archived.run(below) == []
    assert {at: len(found) for at, found in archived.messages(topic_name).items()} == {0: 60}
    archived.run()
    archived.assert_equal(topic_name)


def test_an_explicit_range_past_the_committed_offset_is_refused(
    bootstrap_servers: str, topic_name: str, tmp_path: Path
) -> None:
    """A range that would leave a hole is refused, with the offset at which it may begin; so is an unknown partition."""
    create_topic(bootstrap_servers, topic_name)
    produce(bootstrap_servers, topic_name, numbered(range(100)))
    archived = Archived(tmp_path, bootstrap_servers, topic_name, batch_messages=30)
    archived.archiver().batch()
    with pytest.raises(RangeRefused, match=rf"is 30 \(topic {topic_name}, partition 0, .*Begin the range at 30"):
        archived.archiver().targets_of([asked(topic_name, 0, 31, 60)])
    with pytest.raises(RangeRefused, match=r"no such topic or partition .*partition 7"):
        archived.archiver().targets_of([asked(topic_name, 7, 0, 60)])
    assert archived.version() == 1


def test_a_retry_of_a_committed_batch_does_nothing(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """The same range asked for again is neither read nor committed, and no file is written."""
    create_topic(bootstrap_servers, topic_name)
    produce(bootstrap_servers, topic_name, numbered(range(100)))
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    targets = archived.archiver().targets_of([asked(topic_name, 0, 0, 100)])
    archived.run(targets)
    version, files = archived.version(), archived.listed_files()
    steps: list[str] = []
    assert archived.run(targets, on_step=steps.append) == []
    assert steps == ["plan"]
    assert (archived.version(), archived.listed_files()) == (version, files)
    archived.assert_equal(topic_name)


def test_each_topic_has_its_own_rule_for_the_type(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """The type comes from the payload, from a header or is a constant, as each topic's setting says."""
    by_path, by_header, constant = (f"{topic_name}-{name}" for name in ("path", "header", "constant"))
    for topic in (by_path, by_header, constant):
        create_topic(bootstrap_servers, topic)
    sent = numbered(range(3))
    produce(bootstrap_servers, by_path, sent)
    headers = [(("kind", b"first"), ("kind", b"last")), (("kind", b"\xff"),), ()]
    produce(bootstrap_servers, by_header, [replace(s, headers=h) for s, h in zip(sent, headers, strict=True)])
    produce(bootstrap_servers, by_header, [Sent(b"\xff", headers=(("kind", b"binary"),), timestamp_ms=FIRST_MS)])
    produce(bootstrap_servers, constant, [*sent, Sent(b"no JSON", timestamp_ms=FIRST_MS)])
    rules = {by_header: "header:kind", constant: "constant:measurement"}
    archived = Archived(tmp_path, bootstrap_servers, by_path, by_header, constant, types=rules)
    archived.run()
    found = archived.sql('SELECT topic, "offset", type FROM messages ORDER BY topic, "offset"')
    assert [kind for topic, _, kind in found if topic == by_path] == ["object.one"] * 3
    assert [kind for topic, _, kind in found if topic == by_header] == ["last", "_untyped", "_untyped", "binary"]
    assert [kind for topic, _, kind in found if topic == constant] == ["measurement"] * 4
    archived.assert_equal(by_path, by_header, constant)


def test_the_view_catches_up_with_nothing_to_archive(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """A run that finds the view behind the table brings it up to date, though it archives nothing."""
    create_topic(bootstrap_servers, topic_name)
    produce(bootstrap_servers, topic_name, numbered(range(100)))
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    archived.archiver().batch()
    assert not archived.settings.view_path.exists()
    assert archived.run() == []
    assert archived.sql("SELECT count(*) FROM messages") == [(100,)]
    assert archived.sql("SELECT messages FROM batches") == [(100,)]


def test_the_longest_topic_name(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """A name of 249 characters, dots and underscores, which is all that Kafka allows, is archived like any other."""
    topic = f"{topic_name}._-".ljust(249, "a")
    create_topic(bootstrap_servers, topic)
    produce(bootstrap_servers, topic, numbered(range(10)))
    archived = Archived(tmp_path, bootstrap_servers, topic)
    archived.run()
    archived.assert_equal(topic)


def test_append_time_is_kept(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Where the broker stamps messages, its time and the fact that it was the broker's are archived."""
    create_topic(bootstrap_servers, topic_name, config={"message.timestamp.type": "LogAppendTime"})
    produce(bootstrap_servers, topic_name, numbered(range(10)))
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    archived.run()
    archived.assert_equal(topic_name)
    found: list[Message] = archived.messages(topic_name)[0]
    assert {message.timestamp_type for message in found} == {"append"}
