"""Replays of a test's archive, and what has to come out of them."""

from __future__ import annotations

from typing import Any

from archiver_pipeline.replay.check import Checked, check
from archiver_pipeline.replay.replayer import Replayer, Summary
from archiver_pipeline.replay.wanted import Wanted
from archiver_pipeline.stored.selection import Selection
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.kafka.produce import Message, read_all

Plain = tuple[bytes | None, bytes | None, tuple[tuple[str, bytes | None], ...], int]
"""Key, payload, headers and time of a message: what a replay brings back."""


def replay(archived: Archived, to_topic: str = "", selection: Selection | None = None, **options: Any) -> Summary:
    """Send what is selected, by default all."""
    return Replayer(archived.settings, Wanted(selection or Selection(), to_topic, **options)).run()


def checked(archived: Archived, to_topic: str = "", **options: Any) -> list[Checked]:
    """Send what was not sent yet, then compare both sides."""
    replayer = Replayer(archived.settings, Wanted(Selection(), to_topic, **options))
    return check(replayer, replayer.run().position, lambda *_: None)


def plain(messages: dict[int, list[Message]]) -> dict[int, list[Plain]]:
    """What of messages a replay brings back, by partition and in order; partitions without any are left out."""
    return {
        number: [(each.key, each.value, each.headers, each.timestamp) for each in every]
        for number, every in messages.items()
        if every
    }


def assert_sent(archived: Archived, topic: str, to_topic: str) -> None:
    """Assert that a topic has what the archive has of another one: all, once, in order, in the same partitions."""
    assert plain(read_all(archived.bootstrap_servers, to_topic)) == plain(archived.messages(topic))


def assert_not_archived_again(archived: Archived, *topics: str) -> None:
    """Assert that what Kafka has of topics is archived to its end, and that no message was archived by that."""
    before = archived.sql("SELECT count(*) FROM messages")
    archived.run()
    assert archived.sql("SELECT count(*) FROM messages") == before
    for topic in topics:
        assert archived.sql(f"SELECT sum(lag) FROM offsets WHERE topic = '{topic}'") == [(0,)]
