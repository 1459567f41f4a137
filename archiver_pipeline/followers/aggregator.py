"""The follower of an aggregate: counts go into its state, and final windows into Parquet files by hour."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from archiver_pipeline.followers.base import Follower, FollowerPosition, Times, check_position
from archiver_pipeline.followers.extract import Extractor
from archiver_pipeline.followers.published import publish
from archiver_pipeline.followers.results import ResultsTopic
from archiver_pipeline.followers.store import Store
from archiver_pipeline.hours import Hour
from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.settings.aggregates import EVENTS_PER_MINUTE, Aggregate
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.steps import OnStep
from archiver_pipeline.storage.staging import translated

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger(__name__)

STATE = "_state.sqlite"


class Aggregator(Follower):
    """Keeps one aggregate.

    A window is final when the time of events has passed its end plus the grace in every partition, where one without
    news counts by the clock. What comes later makes a new version of it. Exact counts keep each window's members for
    as long as the aggregate is kept, so that a correction is exact, however late.

    Attributes:
        store: its state.
        published: the hours whose files the last `settle` wrote, also where it came to no end.
    """

    waits = True

    def __init__(self, aggregate: Aggregate, settings: Settings) -> None:
        """Open its state below `$BASE_DIR/aggregates`, made if it is not there."""
        self.name = aggregate.name
        self.aggregate = aggregate
        self.folder = settings.aggregates_path / aggregate.name
        self.store = Store(self.folder / STATE, aggregate)
        self._extractor = Extractor(aggregate)
        self.columns = self._extractor.columns
        self.published: list[Hour] = []
        self._grace_seconds = settings.minute_grace_seconds
        is_sent = aggregate.name == EVENTS_PER_MINUTE and settings.results_topic
        self._topic = ResultsTopic(settings, aggregate, self.store) if is_sent else None

    def position(self) -> FollowerPosition:
        """Read the position from the state."""
        return self.store.position()

    def take(self, messages: Iterator[pl.DataFrame], before: FollowerPosition, after: FollowerPosition) -> None:
        """Count messages."""
        self._count(None, messages, before, after)

    def replace(
        self, hour: Hour, messages: Iterator[pl.DataFrame], before: FollowerPosition, after: FollowerPosition
    ) -> None:
        """Count an hour of the archive anew."""
        self._count(hour, messages, before, after)

    def settle(self, times: Times, on_step: OnStep = lambda _: None) -> None:
        """Make final what is, publish it, and send it on."""
        self.published = []
        with self.store.transaction():
            # What was known once stays known when the next message is on its way.
            self.store.note(times.idle_ms)
            moment = watermark(times, self.store.latest_ms())
        while moment is not None:
            on_step("finish")
            with self.store.transaction():
                looked_at, made = self.store.finish(int(moment / 1000 - self._grace_seconds))
            if made:
                log.info("%s: %d windows and groups are final or corrected", self.name, made)
            if not looked_at:
                break
        on_step("publish")
        for hour in publish(self.store, self.aggregate, self.folder):
            self.published.append(hour)
            on_step("publish")
        if self._topic is None:
            with self.store.transaction():
                self.store.forget(self.store.newest())
        else:
            self._topic.send(on_step)

    def scrub(self) -> None:
        """Forget groups of which nothing is left, and what the state's file still has of what was removed."""
        with self.store.transaction(), translated(self.folder):
            for working in self.folder.glob("dt=*/hr=*/.*.new"):  # A kill has left it.
                working.unlink(missing_ok=True)
            # Whoever reads the results topic goes by revisions, which would begin at 1 again.
            if self._topic is None:
                self.store.forget_empty()
        self.store.scrub()

    def close(self) -> None:
        """Close the state."""
        self._extractor.close()
        self.store.close()

    def _count(
        self, hour: Hour | None, messages: Iterator[pl.DataFrame], before: FollowerPosition, after: FollowerPosition
    ) -> None:
        now_ms = int(time.time() * 1000)
        latest: dict[TopicPartition, int] = {}
        uncounted = 0
        with self.store.transaction():
            check_position(self.name, self.store.position(), before)
            if hour is not None:
                self.store.remove(hour.name)
            for frame in messages:
                for partial in self._extractor.partials(frame, now_ms):
                    self.store.add(partial)
                    uncounted += partial.uncounted
                    for at, stamp in partial.latest_ms.items():
                        latest[at] = max(stamp, latest.get(at, stamp))
            self.store.move(after, latest)
        if uncounted:
            lacking = " or ".join(["no time", *(f"no {name}" for name in self.aggregate.group_by)])
            log.info("%s: %d messages have %s, and so are not counted", self.name, uncounted, lacking)


def watermark(times: Times, latest_ms: dict[TopicPartition, int]) -> int | None:
    """The time (ms since 1970) up to which every live partition has been seen; None while one was never heard of.

    A partition of which all is known counts by the clock. A stamp past the clock tells nothing, and is not in
    `latest_ms`.
    """
    reached = []
    for at in times.live:
        known = [stamp for stamp in (latest_ms.get(at), times.idle_ms.get(at)) if stamp is not None]
        if not known:
            return None
        reached.append(max(known))
    return min(reached, default=times.now_ms)
