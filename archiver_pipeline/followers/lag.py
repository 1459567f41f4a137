"""How far each follower is behind the archive."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

from archiver_pipeline.errors import ArchiverError
from archiver_pipeline.followers.aggregator import STATE
from archiver_pipeline.followers.feed import changed_hours, offset_lag
from archiver_pipeline.followers.peek import read_position
from archiver_pipeline.followers.registry import MakeFollower, followers
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.table.ledger import Ledger


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


def lags(settings: Settings, ledger: Ledger) -> list[FollowerLag]:
    """Ask all followers at once where they are; one that does not answer keeps none of the others."""
    aggregates = {item.name: item for item in settings.every_aggregate}

    def ask(name: str, make: MakeFollower) -> FollowerLag:
        try:
            if name in aggregates:
                # To open it would make it.
                state = settings.aggregates_path / name / STATE
                position = read_position(state, aggregates[name].model_dump_json())
            else:
                with closing(make()) as follower:
                    position = follower.position()
        except ArchiverError as error:
            return FollowerLag(name, None, None, settings.mask(str(error)))
        return FollowerLag(name, offset_lag(ledger, position), len(changed_hours(ledger, position)))

    found = followers(settings)
    with ThreadPoolExecutor(len(found), "lag") as pool:
        return list(pool.map(ask, found.keys(), found.values()))
