"""The feed: from a follower's position and the archive to steps of bounded size, and the messages of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from archiver_pipeline.envelope import partition_values
from archiver_pipeline.errors import Superseded
from archiver_pipeline.followers.base import FollowerPosition
from archiver_pipeline.followers.commits import BatchCommit, look_back, read_commit
from archiver_pipeline.followers.stretches import stretches, without_gaps
from archiver_pipeline.hours import Hour, MiB, parse_hour
from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.stored.parquet import Ranges
from archiver_pipeline.stored.stored import Stored
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.ledger import Ledger

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Step:
    """What a follower does in one transaction.

    Attributes:
        before, after: its position before and after it.
        hour: the hour to be replaced; None where new messages are to be taken.
        ranges: the offsets of the messages that belong to it.
        paths: the files that hold them, below the archive.
        messages: about how many messages these are; 0 where that is not known.
    """

    before: FollowerPosition
    after: FollowerPosition
    hour: Hour | None
    ranges: Ranges
    paths: tuple[str, ...]
    messages: int = 0


def known_position(ledger: Ledger, position: FollowerPosition) -> FollowerPosition:
    """The position with the partitions that the follower has not met yet, at their start."""
    start = {at: what.first for at, what in ledger.committed.items()}
    return replace(position, offsets={**start, **position.offsets})


def behind_gaps(ledger: Ledger, ranges: Ranges) -> Ranges:
    """The ranges without the recorded gaps that they begin with: no commit has those offsets."""
    gaps = [recorded.gap for recorded in ledger.gaps]
    left = {at: without_gaps(at, item, gaps) for at, item in ranges.items()}
    return {at: (parts[0][0], ranges[at][1]) for at, parts in left.items() if parts}


def changed_hours(ledger: Ledger, position: FollowerPosition) -> list[Hour]:
    """The hours that a rewrite has changed since the follower took them, in order."""
    return sorted(parse_hour(name) for name, count in ledger.changed.items() if position.changed.get(name, 0) != count)


def offset_lag(ledger: Ledger, position: FollowerPosition) -> int:
    """How many offsets the archive has beyond a position."""
    reached = known_position(ledger, position).offsets
    return sum(max(0, what.next - reached[at]) for at, what in ledger.committed.items())


class Feed:
    """What one version of the archive has for followers."""

    def __init__(self, archive: Archive, max_messages: int = 250_000, max_bytes: int = 64 * MiB) -> None:
        """Take a snapshot of the archive.

        Args:
            archive: the archive; it has to be there.
            max_messages: about how many messages a step may have, if it is more than one batch.
            max_bytes: the same for bytes of payload.
        """
        self._archive = archive
        self._max_messages, self._max_bytes = max_messages, max_bytes
        self._stored = Stored(archive)
        self.ledger = self._stored.ledger

    def steps(self, position: FollowerPosition) -> Iterator[Step]:
        """Plan the steps from a position to all that this version has: first the hours that a rewrite has changed."""
        known = known_position(self.ledger, position)
        before = position
        for hour in changed_hours(self.ledger, position):
            step = replace(self.again(known, hour), before=before)
            yield step
            before = known = step.after
        for ranges, paths, messages in self._new(known):
            after = known = replace(known, offsets={**known.offsets, **{at: end for at, (_, end) in ranges.items()}})
            yield Step(before, after, None, ranges, paths, messages)
            before = after
        # Offsets without any message, such as a gap, or a partition that is new: they are passed over, too.
        reached = {at: max(known.offsets[at], what.next) for at, what in self.ledger.committed.items()}
        final = replace(known, offsets={**known.offsets, **reached})
        if final != before:
            yield Step(before, final, None, {}, ())

    def again(self, position: FollowerPosition, hour: Hour) -> Step:
        """Plan to replace one hour by what this version has of it, as far as the follower is."""
        known = known_position(self.ledger, position)
        changed = self.ledger.changed.get(hour.name)
        after = known if changed is None else replace(known, changed={**known.changed, hour.name: changed})
        ranges = {at: (0, end) for at, end in known.offsets.items()}
        return Step(position, after, hour, ranges, self._stored.of_hours([hour], None))

    def frames(self, step: Step, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Yield the messages of a step, in frames of bounded size.

        Raises:
            Superseded: a rewrite has taken the place of a file; plan again from a new snapshot.
            ArchiveDamaged: a file is missing or changed.
        """
        return self._stored.frames(step.paths, step.ranges, columns)

    def _new(self, known: FollowerPosition) -> Iterator[tuple[Ranges, tuple[str, ...], int]]:
        """The steps over new messages: in stretches of offsets where the log has been cleaned up, then by commits."""
        lacked = {at: (known.offsets[at], what.next) for at, what in self.ledger.committed.items()}
        lacking = look_back(self._archive.storage, self.ledger.version, behind_gaps(self.ledger, lacked))
        reached = dict(known.offsets)
        gaps = [recorded.gap for recorded in self.ledger.gaps]
        for ranges in stretches(lacking.older, self.ledger.committed, gaps, self._max_messages):
            yield ranges, self._stored.holding(self._stored.files, ranges), 0
            reached.update({at: end for at, (_, end) in ranges.items()})
        held: list[BatchCommit] = []
        for version in lacking.versions:
            try:
                commit = read_commit(self._archive.storage, version)
            except FileNotFoundError as error:
                raise Superseded("the table's log was cleaned up while it was read", hint="Run again") from error
            assert commit is not None
            full = sum(each.messages for each in held) + commit.messages > self._max_messages
            if held and (full or sum(each.bytes for each in held) + commit.bytes > self._max_bytes):
                yield self._together(held, reached)
                held = []
            held.append(commit)
        if held:
            yield self._together(held, reached)

    def _together(
        self, commits: Sequence[BatchCommit], reached: dict[TopicPartition, int]
    ) -> tuple[Ranges, tuple[str, ...], int]:
        """One step of several commits, from what is reached on; `reached` moves with it."""
        ranges: dict[TopicPartition, tuple[int, int]] = {}
        for commit in commits:
            for at, (_, end) in commit.ranges.items():
                if end > reached[at]:
                    ranges[at] = (reached[at], max(end, ranges.get(at, (0, 0))[1]))
        reached.update({at: end for at, (_, end) in ranges.items()})
        paths = [path for commit in commits for path in commit.paths]
        gone = {Hour(*_dt_hr(path)) for path in paths if not self._stored.has(path)}
        there = [path for path in paths if self._stored.has(path)]
        elsewhere = self._stored.of_hours(sorted(gone), ranges) if gone else ()
        return ranges, tuple(dict.fromkeys([*there, *elsewhere])), sum(commit.messages for commit in commits)


def _dt_hr(path: str) -> tuple[str, str]:
    values = partition_values(path)
    return values["dt"], values["hr"]
