"""What goes on while messages wait for a schema."""

from __future__ import annotations

from pathlib import Path

import pytest

from archiver_pipeline.errors import RegistryError, RegistryUnavailable, SchemaUnknown
from archiver_pipeline.formats.held import Held
from archiver_pipeline.formats.waits import Waits
from archiver_pipeline.plan import Position, TopicPartition
from archiver_pipeline.settings.settings import Settings

POSITIONS = [
    Position(TopicPartition(topic, "A", number), 5, 100) for topic in ("a", "b", "json") for number in range(9)
]


def ends(held: Held) -> dict[tuple[str, int], int]:
    """How far each partition may go that a batch may have."""
    return {(item.at.topic, item.at.partition): item.end for item in held.within(POSITIONS)}


def test_only_what_lies_behind_the_message_waits() -> None:
    """Its partition goes up to it, the first of two counts, and all others go to their end."""
    held = Held(lambda topic: topic != "json")
    assert set(ends(held).values()) == {100}
    for offset in (50, 20):
        held.add(SchemaUnknown("x", topic="a", partition=3, start=offset))
    found = ends(held)
    assert found.pop(("a", 3)) == 20
    assert set(found.values()) == {100}
    assert len(found) == len(POSITIONS) - 1
    with pytest.raises(SchemaUnknown):
        held.raise_first()


def test_a_topic_with_many_such_messages_waits_as_a_whole() -> None:
    """Each costs a batch that is read in vain, so there is an end to that."""
    held = Held(lambda _: True)
    for number in range(8):
        held.add(SchemaUnknown("x", topic="a", partition=number, start=7))
    assert {topic for topic, _ in ends(held)} == {"b", "json"}


def test_without_a_registry_no_topic_goes_on_that_needs_it() -> None:
    """One is found out, and the others are not tried one by one."""
    held = Held(lambda topic: topic != "json")
    held.add(RegistryUnavailable("x", topic="a", partition=0, start=7))
    assert {topic for topic, _ in ends(held)} == {"json"}


def test_what_would_go_on_for_ever_is_raised() -> None:
    """An error without a place, or of a message that was left out before."""
    held = Held(lambda _: True)
    error = SchemaUnknown("x", topic="a", partition=3, start=7)
    held.add(error)
    for again in (error, SchemaUnknown("x", topic="a"), SchemaUnknown("x")):
        with pytest.raises(RegistryError):
            held.add(again)


def test_what_a_topic_waited_for_goes_with_the_topic(tmp_path: Path) -> None:
    """Once Kafka has another topic of that name, nobody ever reads the message that waited; all other notes stay."""
    notes = Waits(Settings(BASE_DIR=tmp_path))
    for topic, topic_id in (("orders", "old"), ("clicks", "same#2"), ("gone", "any")):
        notes.note(TopicPartition(topic, topic_id, 0), 5, "7", "http://registry", "it is down")
    notes.forget_others({"orders": "new", "clicks": "same"})
    assert [wait.topic for wait in notes.present({})] == ["clicks", "gone"]
