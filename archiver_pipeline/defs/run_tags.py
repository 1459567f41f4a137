"""What a run archived, as tags: the list of runs shows them, and can be filtered by them."""

from __future__ import annotations

import time
from collections.abc import Iterable

import dagster as dg

from archiver_pipeline.batch.batch import Batch
from archiver_pipeline.defs import summary
from archiver_pipeline.defs.runs import add_tags
from archiver_pipeline.hours import Hour
from archiver_pipeline.plan import OffsetRange, TopicPartition

TOPICS, RANGES, MESSAGES, HOURS = "archiver/topics", "archiver/ranges", "archiver/messages", "archiver/hours"
PAUSE_SECONDS = 60.0
"""A run that stays tells this often at most: each time is a write to Dagster's database."""

_MOST = 200
"""Characters of a tag."""


class RunTags:
    """Topics, offsets and messages of a run, of all its lanes, told as it goes and at its end.

    A run that is executed again begins with the tags of the one before it, and takes them back at once.
    """

    def __init__(self, context: dg.AssetExecutionContext) -> None:
        self._context = context
        self._ranges: dict[TopicPartition, OffsetRange] = {}
        self._messages = 0
        self._told_at = float("-inf")
        self._is_told = True
        if context.run.parent_run_id and context.retry_number == 0:
            add_tags(context, {RANGES: "none", MESSAGES: "0"})

    def add(self, batch: Batch) -> None:
        """Take a batch in."""
        for item in batch.ranges:
            before = self._ranges.get(item.at)
            self._ranges[item.at] = OffsetRange(item.at, before.start if before else item.start, item.end)
        self._messages += batch.messages
        self._is_told = False
        if time.monotonic() - self._told_at >= PAUSE_SECONDS:
            self.tell()

    def tell(self) -> None:
        """Put the tags on the run, unless they are what it has."""
        if self._is_told:
            return
        topics = sorted({at.topic for at in self._ranges})
        add_tags(
            self._context,
            {
                TOPICS: ",".join(topics)[:_MOST],
                RANGES: summary.ranges(self._ranges.values(), 3)[:_MOST],
                MESSAGES: f"{self._messages:,}",
            },
        )
        self._told_at, self._is_told = time.monotonic(), True


def hours_tag(hours: Iterable[Hour]) -> str:
    """Hours in as few words as the list of runs has room for: `2019-08-01T03`, or `3 from 2019-08-01T03`."""
    every = sorted(hours)
    if len(every) < 2:
        return "".join(hour.name for hour in every) or "none"
    return f"{len(every):,} from {every[0]}"
