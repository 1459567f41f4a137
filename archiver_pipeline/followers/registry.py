"""Which followers there are, by the settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from archiver_pipeline.followers.base import Follower
from archiver_pipeline.settings import Settings

MakeFollower = Callable[[], Follower]


def followers(settings: Settings) -> Mapping[str, MakeFollower]:
    """The followers that are switched on, by name; each is made, and so connects, only when it is needed."""
    found: dict[str, MakeFollower] = {}
    return found
