"""Which followers there are, by the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from archiver_pipeline.followers.base import Follower
from archiver_pipeline.settings.aggregates import Aggregate
from archiver_pipeline.settings.settings import Settings

MakeFollower = Callable[[], Follower]


def followers(settings: Settings) -> Mapping[str, MakeFollower]:
    """The followers that are switched on, by name; each is made, and so connects, only when it is needed.

    Their modules are loaded then, too: every run asks for their names, and few have need of them.
    """
    found: dict[str, MakeFollower] = {
        item.name: partial(_aggregator, item, settings) for item in settings.every_aggregate
    }
    if settings.mysql_url.get_secret_value():
        from archiver_pipeline.followers.mysql import MySqlFollower

        found[MySqlFollower.name] = partial(MySqlFollower, settings)
    if settings.search_url.get_secret_value():
        from archiver_pipeline.followers.search import SearchFollower

        found[SearchFollower.name] = partial(SearchFollower, settings)
    return found


def _aggregator(aggregate: Aggregate, settings: Settings) -> Follower:
    from archiver_pipeline.followers.aggregator import Aggregator

    return Aggregator(aggregate, settings)
