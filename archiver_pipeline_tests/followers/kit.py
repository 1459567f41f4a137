"""What the conformance suite has to know of a follower."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import polars as pl

from archiver_pipeline.followers.base import Follower
from archiver_pipeline.followers.registry import followers
from archiver_pipeline.settings.settings import Settings


class Kit(ABC):
    """A follower as the conformance suite sees it. Nothing that reads here is the archiver's.

    Attributes:
        name: the follower's name.
        settings: what switches it on: fields of `Settings`, as text that the environment could hold.
    """

    name: str
    settings: Mapping[str, str]

    def open(self, settings: Settings) -> Follower:
        """The follower as a run makes it."""
        return followers(settings)[self.name]()

    @abstractmethod
    def content(self, settings: Settings) -> Any:
        """What its user finds in it, to be compared with `expected`."""

    @abstractmethod
    def expected(self, messages: pl.DataFrame) -> Any:
        """What it should hold for these messages, which are all columns of all rows of the table."""

    def down(self) -> bool:
        """Make its server unreachable; False where it has none."""
        return False

    def up(self) -> None:  # noqa: B027, most have no server
        """Make its server reachable again."""
