"""The messages of a selection on their way out: in the order of their offsets, whatever is rewritten meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

from archiver_pipeline.errors import ArchiveError, Superseded
from archiver_pipeline.frames import packed
from archiver_pipeline.hours import Hour
from archiver_pipeline.plan import TopicPartition, life_of
from archiver_pipeline.stored.files import COLUMNS, OnProgress
from archiver_pipeline.stored.parquet import Ranges, frame_schema
from archiver_pipeline.stored.runs import PLACE
from archiver_pipeline.stored.selection import Selection
from archiver_pipeline.stored.stored import Stored
from archiver_pipeline.stored.survey import Survey, measured
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.ledger import Ledger

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger(__name__)

_TRIES = 5


@dataclass(frozen=True, eq=False)
class Stretch:
    """Messages that go out together.

    Attributes:
        ranges: the offsets of each topic partition that they are all selected messages of.
        frame: the archive's columns and `type`, by time, but those of each topic partition in the order of offsets;
            `n` is the place of their topic partition in `Selected.places`, `ms` the time by which they are sorted.
        ledger: that of the version they were read from.
    """

    ranges: Ranges
    frame: pl.DataFrame
    ledger: Ledger


class Selected:
    """The messages of a selection, as far as the archive has them at one moment.

    What is archived later is left out. A file that a rewrite replaces meanwhile is looked for anew.

    Attributes:
        ledger: that of the moment.
        places: the topic partitions of the selected topics, the earlier lives of a topic before the later ones.
        ranges: the offsets `[lowest, next)` of each.
    """

    def __init__(self, archive: Archive, selection: Selection) -> None:
        """Take a snapshot.

        Raises:
            ArchiveError: there is no archive.
        """
        if not archive.exists():
            archive.check_log()
            hint = "Check BASE_DIR and ARCHIVER_URI, or archive something first"
            raise ArchiveError("there is no archive yet", path=archive.uri, hint=hint)
        self._archive = archive
        self._selection = selection
        self._stored = Stored(archive)
        self.ledger = self._stored.ledger
        self._rank = ranks(archive, self.ledger)
        chosen = [at for at in self.ledger.committed if not selection.topics or at.topic in selection.topics]
        self.places = sorted(chosen, key=lambda at: (self._rank(at), at))
        self.ranges = {at: (self.ledger.committed[at].lowest, self.ledger.committed[at].next) for at in self.places}

    @property
    def partitions(self) -> list[tuple[Hour, str, int]]:
        """The hours and types that may have any of it, in order, and how many messages their files have."""
        import polars as pl

        chosen = self._selection.files(self._stored.files)
        sums = chosen.group_by("dt", "hr", "type").agg(pl.col("messages").sum()).sort("dt", "hr", "type")
        return [(Hour(dt, hr), name, int(count)) for dt, hr, name, count in sums.iter_rows()]

    @property
    def version(self) -> int:
        """The version of the table that is read: a later one than at first, where a file had to be looked for anew."""
        return self._stored.ledger.version

    @property
    def types(self) -> set[str]:
        """The types that the archive has files of, whether selected or not."""
        return set(self._stored.files["type"])

    def narrowed(self, selection: Selection) -> Selected:
        """A part of it, of the same moment. Its offsets are the same."""
        part = copy(self)
        part._selection = selection
        return part

    def survey(self, ranges: Ranges, on_progress: OnProgress) -> Survey:
        """Count and measure the messages of these offsets.

        Raises:
            ArchiveDamaged: a file is missing or changed.
        """
        import polars as pl

        for number in range(_TRIES):
            stored = self._stored
            found, done = [measured(_nothing())], 0
            try:
                paths = self._paths(stored, ranges)
                total = _messages(stored, paths)
                for frame in stored.frames(paths, ranges, COLUMNS):
                    found.append(measured(frame.filter(self._selection.rows())))
                    done += frame.height
                    on_progress("survey", done, max(done, total))
                return Survey(pl.concat(found))
            except Superseded:
                if number == _TRIES - 1:
                    raise
                self._look_again()
        raise AssertionError("unreachable")

    def stretches(self, survey: Survey) -> Generator[Stretch]:
        """Yield what was surveyed, stretch by stretch. Raises ArchiveDamaged."""
        for ranges in survey.stretches(self._rank):
            yield self.stretch(ranges)

    def stretch(self, ranges: Ranges) -> Stretch:
        """Read the selected messages of these offsets. Raises ArchiveDamaged."""
        import polars as pl

        for number in range(_TRIES):
            stored = self._stored
            try:
                frames = stored.frames(self._paths(stored, ranges), ranges, (*COLUMNS, "type"))
                chosen = [_kept(frame, self._selection) for frame in frames]
                return Stretch(ranges, self._in_order(pl.concat([_nothing(), *chosen])), stored.ledger)
            except Superseded:
                if number == _TRIES - 1:
                    raise
                self._look_again()
        raise AssertionError("unreachable")

    def is_current(self, stretch: Stretch) -> bool:
        """Whether no message was erased since a stretch was read."""
        now = self._archive.ledger()
        return now.version == stretch.ledger.version or now.erasures == stretch.ledger.erasures

    def again(self, stretch: Stretch) -> Stretch:
        """Read a stretch again, from the newest version."""
        self._look_again()
        return self.stretch(stretch.ranges)

    def _look_again(self) -> None:
        log.info("the archive has changed, looking at it again")
        self._stored = Stored(self._archive)

    def _paths(self, stored: Stored, ranges: Ranges) -> tuple[str, ...]:
        return stored.holding(self._selection.files(stored.files), ranges)

    def _in_order(self, frame: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        rows = [(at.topic, at.topic_id, at.partition, n, self._rank(at)) for n, at in enumerate(self.places)]
        kinds = dict(zip((*PLACE, "n", "rank"), (pl.String, pl.String, pl.Int32, pl.Int64, pl.Int64), strict=True))
        times = pl.col("timestamp").cast(pl.Int64).floordiv(1000).fill_null(strategy="forward")
        return (
            frame.join(pl.DataFrame(rows, schema=kinds, orient="row"), on=PLACE)
            .sort("n", "offset")
            .with_columns(ms=times.fill_null(0).cum_max().over("n"))
            .sort("rank", "ms", "n", "offset")
            .drop("rank")
        )


def ranks(archive: Archive, ledger: Ledger) -> Callable[[TopicPartition], int]:
    """Return what tells the rank of a topic's life: 0 for its first, 1 for the one after that.

    A life is over when the next one begins, so the one that was archived last is the later one.
    """
    transactions = archive.standing()[0].transactions
    last: dict[tuple[str, str], int] = {}
    for at in ledger.committed:
        found = transactions.get(f"{at.topic}/{at.topic_id}/{at.partition}")
        when = (found.updated_ms or 0) if found else 0
        last[at.topic, at.topic_id] = max(when, last.get((at.topic, at.topic_id), 0))
    lives: dict[str, list[tuple[int, tuple[str, int], str]]] = {}
    for (topic, topic_id), when in last.items():
        lives.setdefault(topic, []).append((when, life_of(topic_id), topic_id))
    order = {(topic, life[-1]): number for topic, every in lives.items() for number, life in enumerate(sorted(every))}
    return lambda at: order[at.topic, at.topic_id]


def _kept(frame: pl.DataFrame, selection: Selection) -> pl.DataFrame:
    kept = frame.filter(selection.rows())
    return kept if kept.height == frame.height else packed(kept)


def _messages(stored: Stored, paths: Iterable[str]) -> int:
    import polars as pl

    return int(stored.files.filter(pl.col("path").is_in(list(paths)))["messages"].sum())


def _nothing() -> pl.DataFrame:
    """No messages: the archive's columns and `type`."""
    import polars as pl

    return pl.DataFrame(schema={**frame_schema(), "type": pl.String()})
