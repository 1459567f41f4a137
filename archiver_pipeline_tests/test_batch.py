"""Rules of a micro-batch, held against a real broker: what it reads, what it leaves, and what it writes down."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import Producer

from archiver_pipeline.batch import Batch
from archiver_pipeline.errors import RangeRefused
from archiver_pipeline.plan import OffsetRange, TopicPartition
from archiver_pipeline_tests.archived import Archived, wait_until_stable
from archiver_pipeline_tests.kafka.produce import (
    Message,
    Sent,
    add_partitions,
    create_topic,
    delete_records,
    end_offsets,
    produce,
    produce_transactions,
    read_all,
    start_offsets,
)
from archiver_pipeline_tests.kafka.topics import wait_for

FIRST_MS = 1_564_628_400_000  # 2019-08-01T03:00:00Z
SMALL_FETCHES = {
    "queued.min.messages": "1",
    "fetch.max.bytes": "20000",
    "fetch.message.max.bytes": "20000",
    "message.max.bytes": "20000",
}
"""librdkafka properties under which a consumer is only a few messages ahead of what was taken from it."""


def numbered(numbers: Iterable[int], partition: int = 0, kind: str = "object.one", size: int = 0) -> list[Sent]:
    """Messages with a number each, a second apart."""
    return [
        Sent(
            json.dumps({"type": kind, "seq": n, "fill": "x" * size}).encode(),
            b"k%d" % n,
            timestamp_ms=FIRST_MS + n * 1000,
            partition=partition,
        )
        for n in numbers
    ]


def at_step(wanted: str, action: Callable[[], object]) -> Callable[[str], None]:
    """A callback that does something once, when the step begins for the first time."""
    done: list[str] = []

    def on_step(name: str) -> None:
        if name == wanted and not done:
            done.append(name)
            action()

    return on_step


def ranges(batches: Iterable[Batch]) -> list[list[tuple[int, int, int]]]:
    """Partition, start and end of what each batch archived."""
    return [[(item.at.partition, item.start, item.end) for item in batch.ranges] for batch in batches]


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


def test_only_committed_transactions_are_archived(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Of transactions of which 30 % are aborted, exactly the committed messages are archived, in any number of batches;
    the offsets of markers and aborted messages are no gap."""
    topics = [f"{topic_name}-{number}" for number in range(2)]
    for topic in topics:
        create_topic(bootstrap_servers, topic, partitions=2)
    archived = Archived(tmp_path, bootstrap_servers, *topics, batch_messages=150)
    for seed in range(2):
        produce_transactions(bootstrap_servers, topics, 300, abort_share=0.3, seed=seed)
        wait_until_stable(bootstrap_servers, *topics)
        assert len(archived.run()) >= 3
    archived.assert_equal(*topics)
    assert archived.gaps() == []
    for topic in topics:
        assert archived.next_offsets(topic) == end_offsets(bootstrap_servers, topic)


def test_nothing_but_aborted_messages(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """A range of which every message was aborted ends like any other, with no file and the offsets moved on."""
    create_topic(bootstrap_servers, topic_name)
    produce_transactions(bootstrap_servers, [topic_name], 50, abort_share=1.0)
    wait_until_stable(bootstrap_servers, topic_name)
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    (batch,) = archived.run()
    assert (batch.messages, batch.files) == (0, 0)
    assert archived.next_offsets(topic_name) == end_offsets(bootstrap_servers, topic_name)
    assert archived.gaps() == []
    archived.assert_equal(topic_name)


def test_an_open_transaction_does_not_hang_the_batch(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """A batch ends at the last stable offset; what lies behind an open transaction comes when that has ended."""
    create_topic(bootstrap_servers, topic_name)
    produce(bootstrap_servers, topic_name, numbered(range(10)))
    producer = Producer({"bootstrap.servers": bootstrap_servers, "transactional.id": topic_name, "log_level": 0})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(topic_name, b'{"type": "open"}', timestamp=FIRST_MS)
    assert producer.flush(30) == 0
    produce(bootstrap_servers, topic_name, numbered(range(10, 20)))
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    (batch,) = archived.run()
    assert (ranges([batch]), batch.lag) == ([[(0, 0, 10)]], 0)
    assert archived.run() == []
    producer.commit_transaction(30)
    wait_until_stable(bootstrap_servers, topic_name)
    (batch,) = archived.run()
    assert batch.messages == 11
    archived.assert_equal(topic_name)


def test_the_holes_of_a_compacted_topic_are_no_gap(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Of a compacted topic what is left is archived; offsets that compaction took are not named as lost."""
    create_topic(bootstrap_servers, topic_name, config={"cleanup.policy": "compact", "segment.ms": 100})
    produce(bootstrap_servers, topic_name, [Sent(b"%d" % number, b"k") for number in range(50)])

    def left() -> int:
        produce(bootstrap_servers, topic_name, [Sent(b"more", b"other")])
        return len(read_all(bootstrap_servers, topic_name)[0])

    wait_for("compaction", lambda: left() < 10, 30)
    archived = Archived(tmp_path, bootstrap_servers, topic_name, batch_messages=20)
    assert len(archived.run()) >= 3
    assert archived.gaps() == []
    assert archived.next_offsets(topic_name) == end_offsets(bootstrap_servers, topic_name)
    kept = {message.offset for message in archived.messages(topic_name)[0]}
    assert kept >= {message.offset for message in read_all(bootstrap_servers, topic_name)[0]}
    assert len(kept) < 20


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


def test_a_head_deleted_before_the_batch_is_a_named_gap(
    bootstrap_servers: str, topic_name: str, tmp_path: Path
) -> None:
    """What retention took before it was archived is named with its offsets, and the archive goes on behind it."""
    create_topic(bootstrap_servers, topic_name, partitions=2)
    produce(bootstrap_servers, topic_name, [*numbered(range(10)), *numbered(range(10), 1)])
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    archived.run()
    produce(bootstrap_servers, topic_name, [*numbered(range(10, 30)), *numbered(range(10, 30), 1)])
    delete_records(bootstrap_servers, topic_name, {0: 17, 1: 5})
    (batch,) = archived.run()
    assert ranges([batch]) == [[(0, 17, 30), (1, 10, 30)]]
    assert archived.gaps() == [(topic_name, 0, 10, 17, "retention")]
    assert archived.run() == [], "a gap is recorded once"
    offsets = {at: [message.offset for message in found] for at, found in archived.messages(topic_name).items()}
    assert offsets == {0: [*range(10), *range(17, 30)], 1: [*range(30)]}


def test_all_that_was_left_deleted_is_a_gap(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Where retention took everything up to the end, the gap is recorded although there is nothing to read."""
    create_topic(bootstrap_servers, topic_name)
    produce(bootstrap_servers, topic_name, numbered(range(10)))
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    archived.run()
    produce(bootstrap_servers, topic_name, numbered(range(10, 20)))
    delete_records(bootstrap_servers, topic_name, {0: -1})
    (batch,) = archived.run()
    assert batch.messages == 0
    assert archived.gaps() == [(topic_name, 0, 10, 20, "retention")]
    assert archived.next_offsets(topic_name) == {0: 20}
    assert archived.run() == []


def test_a_head_deleted_between_plan_and_read_is_a_named_gap(
    bootstrap_servers: str, topic_name: str, tmp_path: Path
) -> None:
    """Retention that is faster than the read costs only what it deleted: the batch goes on behind it."""
    create_topic(bootstrap_servers, topic_name, partitions=2)
    produce(bootstrap_servers, topic_name, [*numbered(range(100)), *numbered(range(100), 1)])
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    faster = at_step("read", lambda: delete_records(bootstrap_servers, topic_name, {0: 60}))
    (batch,) = archived.run(on_step=faster)
    assert (ranges([batch]), batch.messages) == ([[(0, 0, 100), (1, 0, 100)]], 140)
    assert archived.gaps() == [(topic_name, 0, 0, 60, "retention")]
    archived.assert_equal(topic_name)


def test_a_head_deleted_while_it_is_read_is_a_named_gap(
    bootstrap_servers: str, topic_name: str, tmp_path: Path
) -> None:
    """Retention that overtakes the reader in the middle of the range: every offset is archived or in the gap."""
    create_topic(bootstrap_servers, topic_name)
    for first in range(0, 500, 5):
        produce(bootstrap_servers, topic_name, numbered(range(first, first + 5), size=4_000))
    archived = Archived(tmp_path, bootstrap_servers, topic_name, kafka=SMALL_FETCHES)
    overtake = at_step("frame", lambda: delete_records(bootstrap_servers, topic_name, {0: 480}))
    (batch,) = archived.run(on_step=overtake)
    ((_, _, start, end, reason),) = archived.gaps()
    assert (end, reason) == (480, "retention")
    assert 0 < start < 480
    assert [message.offset for message in archived.messages(topic_name)[0]] == [*range(start), *range(480, 500)]
    assert batch.messages == start + 20
    assert archived.next_offsets(topic_name) == {0: 500}
    assert start_offsets(bootstrap_servers, topic_name) == {0: 480}


def test_everything_deleted_while_it_is_read_is_a_named_gap(
    bootstrap_servers: str, topic_name: str, tmp_path: Path
) -> None:
    """Retention that takes the whole range, and messages past it, leaves a gap that ends with the range."""
    create_topic(bootstrap_servers, topic_name)
    produce(bootstrap_servers, topic_name, numbered(range(100)))
    archived = Archived(tmp_path, bootstrap_servers, topic_name)

    def overtake() -> None:
        produce(bootstrap_servers, topic_name, numbered(range(100, 120)))
        delete_records(bootstrap_servers, topic_name, {0: 110})

    batches = archived.run(on_step=at_step("read", overtake))
    assert ranges(batches)[0] == [(0, 0, 100)]
    assert sum(batch.messages for batch in batches) == 0
    assert ranges(archived.run()) == [[(0, 110, 120)]]
    assert archived.gaps() == [(topic_name, 0, 0, 100, "retention"), (topic_name, 0, 100, 110, "retention")]
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
