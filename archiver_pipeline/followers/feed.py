"""The feed: from a follower's position and the archive to steps of bounded size, and the messages of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from archiver_pipeline.archive import Archive
from archiver_pipeline.envelope import partition_values
from archiver_pipeline.errors import ArchiveDamaged, Superseded
from archiver_pipeline.files import RESTORE, Fault, check_file, listed_files
from archiver_pipeline.followers.base import PARTITIONED, FollowerPosition
from archiver_pipeline.followers.commits import BatchCommit, look_back, read_commit
from archiver_pipeline.followers.holdings import Holdings
from archiver_pipeline.followers.stretches import stretches, without_gaps
from archiver_pipeline.hours import Hour, MiB, parse_hour
from archiver_pipeline.ledger import Ledger
from archiver_pipeline.parquet import Ranges, frames_of, offsets_in
from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.runs import PLACE

if TYPE_CHECKING:
    import polars as pl

_FRAME_ROWS, _FRAME_BYTES = 50_000, 32 * MiB
"""Frames of small files are put together until they have so many rows, or bytes."""


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
        table, self.ledger = archive.snapshot()
        self._files = archive.files(table)
        self._listed = {file.path: file for file in listed_files(self._files)}
        self._sound: set[str] = set()
        self._holdings = Holdings(self._offsets_in)

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
        return Step(position, after, hour, ranges, self._of_hours([hour], None))

    def frames(self, step: Step, columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        """Yield the messages of a step, in frames of bounded size.

        Raises:
            Superseded: a rewrite has taken the place of a file; plan again from a new snapshot.
            ArchiveDamaged: a file is missing or changed.
        """
        import polars as pl

        ranges = _frame(step.ranges)
        held: list[pl.DataFrame] = []
        rows, size = 0, 0.0
        stored = [name for name in columns if name not in PARTITIONED]
        wanted = list(dict.fromkeys([*PLACE, "offset", *stored]))
        for path in step.paths:
            for frame in self._read(path, wanted, step.ranges):
                mine = (
                    frame.join(ranges, on=list(PLACE), how="inner")
                    .filter(pl.col("offset") >= pl.col("low"), pl.col("offset") < pl.col("high"))
                    .with_columns(pl.lit(getattr(self._listed[path], name)).alias(name) for name in PARTITIONED)
                    .select(list(columns))
                )
                held.append(mine)
                rows, size = rows + mine.height, size + mine.estimated_size()
                if rows >= _FRAME_ROWS or size >= _FRAME_BYTES:
                    yield pl.concat(held)
                    held, rows, size = [], 0, 0
        if rows:
            yield pl.concat(held)

    def _new(self, known: FollowerPosition) -> Iterator[tuple[Ranges, tuple[str, ...], int]]:
        """The steps over new messages: in stretches of offsets where the log has been cleaned up, then by commits."""
        lacked = {at: (known.offsets[at], what.next) for at, what in self.ledger.committed.items()}
        lacking = look_back(self._archive.path, self.ledger.version, behind_gaps(self.ledger, lacked))
        reached = dict(known.offsets)
        gaps = [recorded.gap for recorded in self.ledger.gaps]
        for ranges in stretches(lacking.older, self.ledger.committed, gaps, self._max_messages):
            yield ranges, self._holding(ranges), 0
            reached.update({at: end for at, (_, end) in ranges.items()})
        held: list[BatchCommit] = []
        for version in lacking.versions:
            try:
                commit = read_commit(self._archive.path, version)
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
        gone = {Hour(*_dt_hr(path)) for path in paths if path not in self._listed}
        there = [path for path in paths if path in self._listed]
        elsewhere = self._of_hours(sorted(gone), ranges) if gone else ()
        return ranges, tuple(dict.fromkeys([*there, *elsewhere])), sum(commit.messages for commit in commits)

    def _of_hours(self, hours: Sequence[Hour], ranges: Ranges | None) -> tuple[str, ...]:
        """The present files of hours, or those of them that may hold one of these offsets."""
        import polars as pl

        names = pl.DataFrame({"dt": [hour.dt for hour in hours], "hr": [hour.hr for hour in hours]})
        return self._paths(self._files.join(names, on=["dt", "hr"], how="semi"), ranges)

    def _holding(self, ranges: Ranges) -> tuple[str, ...]:
        """The present files that may hold one of these offsets."""
        return self._paths(self._files, ranges)

    def _paths(self, files: pl.DataFrame, ranges: Ranges | None) -> tuple[str, ...]:
        import polars as pl

        if ranges is None:
            return tuple(files.sort("added", "path")["path"])
        # The log has one pair of offsets per file, over all of its partitions.
        low = min(start for start, _ in ranges.values())
        high = max(end for _, end in ranges.values())
        files = files.filter(
            pl.col("last").is_null() | (pl.col("last") >= low), pl.col("first").is_null() | (pl.col("first") < high)
        )
        return tuple(self._holdings.of(files.sort("added", "path")["path"].to_list(), ranges))

    def _offsets_in(self, path: str) -> Ranges:
        with self._sound_file(path) as file:
            return offsets_in(file)

    def _read(self, path: str, columns: Sequence[str], ranges: Ranges) -> Iterator[pl.DataFrame]:
        with self._sound_file(path) as file:
            yield from frames_of(file, columns, ranges)

    @contextmanager
    def _sound_file(self, path: str) -> Iterator[Path]:
        """A file to be read, once its content is known to be what its name claims."""
        import pyarrow

        if path not in self._sound:
            found = check_file(self._archive.path, self._listed[path], self.ledger.version)
            if isinstance(found, Fault):
                self._refuse(path, found.what)
            self._sound.add(path)
        try:
            yield self._archive.path / path
        except (OSError, pyarrow.ArrowException) as error:
            self._refuse(path, f"it cannot be read: {error}", error)

    def _refuse(self, path: str, what: str, error: Exception | None = None) -> None:
        """Say whether a file that cannot be read is damaged, or another has taken its place since the snapshot."""
        if path not in set(self._archive.files()["path"]):
            raise Superseded("a file was replaced while it was read", path=path, hint="Run again") from error
        hour = Hour(self._listed[path].dt, self._listed[path].hr)
        raise ArchiveDamaged(
            f"a file of hour {hour} is missing or damaged, and nothing can follow it: {what}",
            path=str(self._archive.path / path),
            hint=RESTORE,
        ) from error


def _dt_hr(path: str) -> tuple[str, str]:
    values = partition_values(path)
    return values["dt"], values["hr"]


def _frame(ranges: Ranges) -> pl.DataFrame:
    import polars as pl

    rows = [(at.topic, at.topic_id, at.partition, low, high) for at, (low, high) in ranges.items()]
    kinds = (pl.String, pl.String, pl.Int32, pl.Int64, pl.Int64)
    return pl.DataFrame(rows, schema=dict(zip((*PLACE, "low", "high"), kinds, strict=True)), orient="row")
