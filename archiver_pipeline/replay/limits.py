"""What keeps messages from a topic, said before the first one goes out. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from archiver_pipeline.amounts import counted
from archiver_pipeline.replay.wanted import Wanted
from archiver_pipeline.stored.survey import Measures

DAY_MS = 86_400_000
_LONG = 2**63 - 1
_BATCH_BYTES = 1_000_000


def obstacles(
    topic: str, partitions: int, config: Mapping[str, str], what: Measures, highest: int, wanted: Wanted, now_ms: int
) -> Iterator[str]:
    """Say what of a topic is in the way of messages, a sentence each with the remedy.

    Args:
        topic: the topic.
        partitions: how many it has.
        config: its configuration as the broker tells it (Kafka, "Topic Configs"); empty where that may not be asked.
        what: the messages.
        highest: the highest partition that they come from.
        wanted: what is asked for.
        now_ms: the clock, in milliseconds since 1970.
    """
    if highest >= partitions and not wanted.by_key:
        yield (
            f"topic {topic} has {counted(partitions, 'partition')}, and there are messages of partition {highest}: "
            "add partitions (kafka-topics.sh --alter), or give --by-key to choose them by key"
        )
    limit = int(config.get("max.message.bytes", _LONG))
    if what.largest is not None and what.largest > limit:
        yield (
            f"topic {topic} takes messages of up to {counted(limit, 'byte')}, and the largest has {what.largest:,}: "
            f"set max.message.bytes={what.largest} on the topic"
        )
    if config.get("message.timestamp.type", "CreateTime") != "CreateTime":
        yield f"topic {topic} gives messages the time of their arrival: set message.timestamp.type=CreateTime on it"
    yield from _times(topic, config, what, now_ms)
    yield from _kept(topic, config, what, wanted, now_ms)
    if what.timeless and not wanted.without_times:
        yield (
            f"{counted(what.timeless, 'message has', 'messages have')} a time that no client can send (exactly "
            "1970-01-01T00:00:00Z, or past the year 294247): choose other times, or give --without-times to send these "
            "without a time"
        )


def _times(topic: str, config: Mapping[str, str], what: Measures, now_ms: int) -> Iterator[str]:
    """Times that the broker refuses (KIP-937)."""
    both = config.get("message.timestamp.difference.max.ms", str(_LONG))
    before = int(config.get("message.timestamp.before.max.ms", both))
    after = int(config.get("message.timestamp.after.max.ms", both))
    if what.first_ms is not None and now_ms - what.first_ms > before:
        age = now_ms - what.first_ms
        yield (
            f"topic {topic} takes messages of the last {_span(before)}, and the oldest is {_span(age)} old: set "
            f"message.timestamp.before.max.ms={_LONG} on the topic"
        )
    if what.last_ms is not None and what.last_ms - now_ms > after:
        yield (
            f"topic {topic} takes messages of up to {_span(after)} from the future, and the newest is "
            f"{_span(what.last_ms - now_ms)} from it: set message.timestamp.after.max.ms={_LONG} on the topic"
        )


def _kept(topic: str, config: Mapping[str, str], what: Measures, wanted: Wanted, now_ms: int) -> Iterator[str]:
    """What the broker would take and then delete."""
    policy = config.get("cleanup.policy", "delete")
    if "compact" in policy and what.keyless:
        yield f"topic {topic} is compacted and takes no message without a key, as {what.keyless:,} are: choose another"
    if "delete" not in policy or wanted.despite_retention:
        return
    milliseconds, size = int(config.get("retention.ms", -1)), int(config.get("retention.bytes", -1))
    if 0 <= milliseconds < now_ms - (now_ms if what.first_ms is None else what.first_ms):
        yield (
            f"topic {topic} keeps messages for {_span(milliseconds)} by their own time, so Kafka would "
            "delete the older ones within minutes: set retention.ms=-1 on the topic, or give --despite-retention"
        )
    if 0 <= size < what.bytes:
        yield (
            f"topic {topic} keeps {counted(size, 'byte')} a partition, and the messages have {what.bytes:,}: set "
            "retention.bytes=-1 on the topic, or give --despite-retention"
        )


def _span(milliseconds: int) -> str:
    """A span of time for people."""
    for unit, size in (("days", DAY_MS), ("hours", 3_600_000), ("minutes", 60_000)):
        if milliseconds >= size:
            return f"{milliseconds / size:,.1f} {unit}"
    return f"{milliseconds / 1000:,.1f} seconds"


def needed(what: Measures) -> dict[str, str]:
    """The configuration of a new topic that takes these messages and keeps them."""
    found = {"message.timestamp.type": "CreateTime", "retention.ms": "-1", "retention.bytes": "-1"}
    found |= {f"message.timestamp.{side}.max.ms": str(_LONG) for side in ("before", "after")}
    if what.largest is not None and what.largest > _BATCH_BYTES:
        found["max.message.bytes"] = str(what.largest)
    return found
