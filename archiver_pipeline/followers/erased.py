"""Followers after an erasure: the hours that it changed replaced at once, and no trace left of what they had."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass

from archiver_pipeline.errors import ArchiverError
from archiver_pipeline.followers.aggregator import STATE
from archiver_pipeline.followers.base import Follower
from archiver_pipeline.followers.catch_up import replace_hour, times
from archiver_pipeline.followers.feed import changed_hours
from archiver_pipeline.followers.registry import followers
from archiver_pipeline.hours import Hour
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.steps import OnStep
from archiver_pipeline.table.archive import Archive, archive_of


@dataclass(frozen=True)
class Reached:
    """A follower after an erasure: its name, the hours that it replaced, and why it has not done all of it."""

    name: str
    hours: int = 0
    error: str | None = None


def reach(settings: Settings, hours: Collection[Hour], on_step: OnStep) -> Iterator[Reached]:
    """Let each follower that has taken anything replace these hours now; one that is down keeps none of the others.

    What one of them lacks beyond that is left to its own runs.
    """
    archive = archive_of(settings)
    aggregates = {item.name for item in settings.every_aggregate}
    for name, make in followers(settings).items():
        if name in aggregates and not (settings.aggregates_path / name / STATE).exists():
            continue  # To open it would make it.
        replaced = 0
        try:
            with closing(make()) as follower:
                try:
                    for _ in _replaced(follower, settings, archive, hours, on_step):
                        replaced += 1
                finally:
                    follower.scrub()
        except ArchiverError as error:
            yield Reached(name, replaced, settings.mask(str(error)))
        else:
            yield Reached(name, replaced)
    yield from _forgotten(settings, aggregates)


def _replaced(
    follower: Follower, settings: Settings, archive: Archive, hours: Collection[Hour], on_step: OnStep
) -> Iterator[Hour]:
    """Replace the hours that have changed, and settle what comes of it."""
    position = follower.position()
    if not position.offsets:
        return
    for hour in sorted(set(changed_hours(archive.ledger(), position)) & set(hours)):
        on_step(f"replace {hour}")
        replace_hour(follower, settings, hour, on_step)
        yield hour
    on_step("settle")
    if follower.waits:
        follower.settle(times(settings, archive.ledger(), follower.position()), on_step)


def _forgotten(settings: Settings, aggregates: Collection[str]) -> Iterator[Reached]:
    """Aggregates that are no longer in the settings: nothing reaches them, and they keep what they have."""
    for state in sorted(settings.aggregates_path.glob(f"*/{STATE}")):
        if state.parent.name not in aggregates:
            why = f"it is no longer in the settings and keeps what it has: remove its folder ({state.parent})"
            yield Reached(state.parent.name, error=why)
