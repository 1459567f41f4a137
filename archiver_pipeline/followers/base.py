"""The contract of a follower: what it is given, and what it has to do in one transaction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from archiver_pipeline.envelope import PARTITION_COLUMNS
from archiver_pipeline.errors import Superseded
from archiver_pipeline.hours import Hour
from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.steps import OnStep
from archiver_pipeline.stored.files import COLUMNS

if TYPE_CHECKING:
    import polars as pl

EVERY_COLUMN = (*COLUMNS, *PARTITION_COLUMNS)
"""What a follower may be given of a message: every column of the archive."""


@dataclass(frozen=True)
class FollowerPosition:
    """How far a follower is. Offsets, never a version of the table: a rewrite gives old messages a new file.

    Attributes:
        offsets: per topic partition, in each of its lives, the next offset that the follower lacks.
        changed: per hour by its name, the number of changes by rewrites (`changed/<hour>` of the ledger) it has seen.
    """

    offsets: Mapping[TopicPartition, int] = field(default_factory=dict)
    changed: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Times:
    """What is known of the time at which nothing older is to be expected.

    Attributes:
        now_ms: the clock, in milliseconds since 1970.
        idle_ms: per topic partition that the archive and the follower have all of, when that was so.
        live: the topic partitions that more messages may come from.
    """

    now_ms: int
    idle_ms: Mapping[TopicPartition, int]
    live: frozenset[TopicPartition]


class Follower(ABC):
    """Something that is kept in step with the archive.

    What `take` and `replace` are given they do in **one transaction** together with the new position, and that lies
    where the results are: whatever is killed, and when, results and position never part. Both first look whether the
    position still is `before`, under a lock or fence that lasts until the commit, and raise Superseded if it is not:
    then another run was faster, and nothing was done. Frames come as an iterator and may be more than fits into memory;
    an error that the iterator raises undoes the transaction. A frame has `columns`, typed as in the archive, and
    `type`, `dt` and `hr` as String.

    A message may come again only after its hour was taken out: `replace` removes whatever the follower has of an hour
    of the archive (by message time), and takes the given messages for it. So it is told of messages that a backfill
    put in, changed, gave another type or gave up, and of those that were erased, which have the type `_erased`.

    Attributes:
        name: one word, by which settings, runs and reports name it.
        columns: the columns that it wants to be given, of `EVERY_COLUMN`.
        waits: whether it has something to do once time has passed, and so a `settle`.
    """

    name: str
    columns: tuple[str, ...] = EVERY_COLUMN
    waits: bool = False

    @abstractmethod
    def position(self) -> FollowerPosition:
        """Read the position; an empty one before the first message.

        Raises:
            FollowerError: where it is kept cannot be reached.
        """

    @abstractmethod
    def take(self, messages: Iterator[pl.DataFrame], before: FollowerPosition, after: FollowerPosition) -> None:
        """Take messages that it never had.

        Raises:
            Superseded: the position is not `before`.
            FollowerError: they were not taken; nothing has changed.
        """

    @abstractmethod
    def replace(
        self, hour: Hour, messages: Iterator[pl.DataFrame], before: FollowerPosition, after: FollowerPosition
    ) -> None:
        """Replace all that it has of an hour by these messages; raises as `take` does."""

    def settle(self, times: Times, on_step: OnStep = lambda _: None) -> None:  # noqa: B027, most have nothing to do
        """Do what waits for time to pass. Called after each pass, and when there was nothing to take.

        Args:
            times: what is known of the time.
            on_step: told before each part of a long work: a run that says nothing for minutes is taken for dead.
        """

    def scrub(self) -> None:  # noqa: B027, most have nothing to do
        """Leave no trace of what was taken out; called after an erasure, behind `replace` and `settle`.

        Raises:
            FollowerError: it cannot be done now.
        """

    def close(self) -> None:  # noqa: B027, most have nothing to do
        """Let go of connections."""


def check_position(follower: str, found: FollowerPosition, before: FollowerPosition) -> None:
    """Raise Superseded unless the position found under the lock is the one that a step was planned from."""
    if found != before:
        raise Superseded(
            f"another run of {follower} went on first",
            hint="Nothing is lost or doubled: the next run goes on from where it is now",
        )
