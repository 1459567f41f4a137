"""A follower brought up to the archive, step by step; whatever ends it, the next one goes on from there."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from archiver_pipeline.errors import KafkaError, SettingsError, Superseded
from archiver_pipeline.followers.base import Follower, FollowerPosition, Times
from archiver_pipeline.followers.feed import Feed, Step, changed_hours, offset_lag
from archiver_pipeline.hours import Hour
from archiver_pipeline.kafka.cluster import Cluster
from archiver_pipeline.plan import lane_of, positions_of
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.steps import OnStep
from archiver_pipeline.table.archive import archive_of
from archiver_pipeline.table.ledger import Ledger

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger(__name__)

STEP_MESSAGES = 250_000
"""About so many messages a follower takes in one transaction, if it is more than one batch."""

_TRIES = 5
_WAIT_SECONDS = 0.2


@dataclass(frozen=True)
class CaughtUp:
    """What a follower did: its steps, the messages it took, the hours it replaced, and the offsets that were left."""

    steps: int = 0
    messages: int = 0
    hours: tuple[Hour, ...] = ()
    lag: int = 0
    seconds: float = 0.0


def catch_up(
    follower: Follower,
    settings: Settings,
    on_step: OnStep = lambda _: None,
    limit_seconds: float = float("inf"),
    step_messages: int = STEP_MESSAGES,
) -> CaughtUp:
    """Let a follower take all that the archive has, and settle.

    Args:
        follower: what follows.
        settings: where the archive is.
        on_step: told before each step, with each frame, and before each part of the settling.
        limit_seconds: after this long no further step is begun.
        step_messages: about how many messages a step may have.

    Raises:
        FollowerError: the follower cannot go on.
        ArchiveError: the archive cannot be read.
    """
    archive = archive_of(settings)
    if not archive.exists():
        return CaughtUp()
    began = time.monotonic()
    done = _Done()
    tries = 0
    goal = archive.ledger()
    while True:
        position = follower.position()
        # What comes meanwhile is for the next run: one that never ends would never settle.
        if _has_reached(goal, position) or time.monotonic() - began > limit_seconds:
            break
        try:
            feed, planned = Feed(archive, step_messages), done.steps
            for step in feed.steps(position):
                if time.monotonic() - began > limit_seconds:
                    break
                on_step("take" if step.hour is None else f"replace {step.hour}")
                _do(follower, feed, step, done, on_step)
                tries = 0
            if done.steps == planned:
                break  # It has more than was there at the start, such as an hour that changed again.
        except Superseded as error:
            tries += 1
            if tries == _TRIES:
                raise
            log.info("%s: %s; looking again", follower.name, error)
            time.sleep(_WAIT_SECONDS * tries)
    ledger = archive.ledger()
    on_step("settle")
    if follower.waits:
        follower.settle(times(settings, ledger, position), on_step)
    lag = offset_lag(ledger, position)
    return CaughtUp(done.steps, done.messages, tuple(done.hours), lag, time.monotonic() - began)


def _has_reached(goal: Ledger, position: FollowerPosition) -> bool:
    """Whether a follower has all of a version; a partition that is new has no lag, and is to be noted all the same."""
    is_known = goal.committed.keys() <= position.offsets.keys() and not changed_hours(goal, position)
    return is_known and offset_lag(goal, position) == 0


def replace_hour(follower: Follower, settings: Settings, hour: Hour, on_step: OnStep = lambda _: None) -> int:
    """Let a follower replace an hour by what the archive has of it now, and return the number of messages.

    Raises:
        Superseded: another run of the follower, or a rewrite of the hour, was faster time and again.
        FollowerError, ArchiveError: as `catch_up`.
    """
    archive = archive_of(settings)
    for number in range(_TRIES):
        feed, done = Feed(archive), _Done()
        try:
            _do(follower, feed, feed.again(follower.position(), hour), done, on_step)
            return done.messages
        except Superseded as error:
            if number == _TRIES - 1:
                raise
            log.info("%s: %s; looking again", follower.name, error)
    return 0


def times(settings: Settings, ledger: Ledger, position: FollowerPosition) -> Times:
    """Find out since when nothing older is to be expected of which partitions: from Kafka, or else from the archive."""
    now_ms = int(time.time() * 1000)
    try:
        settings.require_kafka()
        cluster = Cluster(settings)
        look = cluster.look()
        every = [item for state in look.topics for item in positions_of(state, ledger.committed, cluster.start_offset)]
    except (KafkaError, SettingsError) as error:
        log.warning("what is final is decided by what the archive knows, because the broker did not tell: %s", error)
        idle = {
            at: ledger.caught_up[lane]
            for at, what in ledger.committed.items()
            if position.offsets.get(at, -1) >= what.next
            and (lane := lane_of(at.topic, at.partition, settings.lanes)) in ledger.caught_up
        }
        return Times(now_ms, idle, frozenset(ledger.committed))
    idle = {item.at: look.asked_ms for item in every if position.offsets.get(item.at, -1) >= item.end}
    # A partition that cannot be read may have news all the same.
    partial = {state.topic for state in look.topics if not state.complete}
    unread = {at for at in ledger.committed if look.is_unread(at.topic, at.partition) or at.topic in partial}
    return Times(now_ms, idle, frozenset({item.at for item in every} | unread))


class _Done:
    """What was done so far."""

    def __init__(self) -> None:
        self.steps = self.messages = 0
        self.hours: list[Hour] = []


def _do(follower: Follower, feed: Feed, step: Step, done: _Done, on_step: OnStep) -> None:
    """Let the follower do one step."""
    counted = _Counted(feed.frames(step, follower.columns), on_step)
    if step.hour is None:
        follower.take(iter(counted), step.before, step.after)
    else:
        follower.replace(step.hour, iter(counted), step.before, step.after)
        done.hours.append(step.hour)
    done.steps += 1
    done.messages += counted.rows


class _Counted:
    """Counts the rows of frames as they are handed on."""

    def __init__(self, frames: Iterator[pl.DataFrame], on_step: OnStep) -> None:
        self._frames = frames
        self._on_step = on_step
        self.rows = 0

    def __iter__(self) -> Iterator[pl.DataFrame]:
        for frame in self._frames:
            self._on_step("frame")
            self.rows += frame.height
            yield frame
