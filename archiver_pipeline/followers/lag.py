"""How far each follower is behind the archive."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

from archiver_pipeline.errors import ArchiverError
from archiver_pipeline.followers.aggregator import STATE
from archiver_pipeline.followers.feed import changed_hours, offset_lag
from archiver_pipeline.followers.peek import read_position
from archiver_pipeline.followers.registry import followers
from archiver_pipeline.ledger import Ledger
from archiver_pipeline.settings import Settings


@dataclass(frozen=True)
class FollowerLag:
    """A follower's lag.

    Attributes:
        name: the follower.
        lag: offsets that the archive has and it lacks; None where it does not tell.
        hours: hours that a rewrite has changed since it took them; None as `lag`.
        error: why it does not tell.
    """

    name: str
    lag: int | None
    hours: int | None
    error: str | None = None


def lags(settings: Settings, ledger: Ledger) -> Iterator[FollowerLag]:
    """Ask each follower where it is; one that does not answer keeps none of the others."""
    aggregates = {item.name for item in settings.every_aggregate}
    for name, make in followers(settings).items():
        try:
            if name in aggregates:
                position = read_position(settings.aggregates_path / name / STATE)  # To open it would make it.
            else:
                with closing(make()) as follower:
                    position = follower.position()
        except ArchiverError as error:
            yield FollowerLag(name, None, None, settings.mask(str(error)))
            continue
        yield FollowerLag(name, offset_lag(ledger, position), len(changed_hours(ledger, position)))
