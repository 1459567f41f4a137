"""A selection: which messages of the archive are to go out, by time, topic and type. Pure: no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from archiver_pipeline import envelope

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Selection:
    """Messages by their time, topic and type; those that were erased are never among them.

    Attributes:
        start, end: `[start, end)` in message time; None is open. With both open the messages without a usable time are
            among them.
        topics, types: names; empty for all.
    """

    start: datetime | None = None
    end: datetime | None = None
    topics: tuple[str, ...] = ()
    types: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The selection as one text, the same for the same messages."""
        times = ["" if moment is None else moment.astimezone(UTC).isoformat() for moment in (self.start, self.end)]
        return "|".join([*times, ",".join(sorted(set(self.topics))), ",".join(sorted(set(self.types)))])

    def files(self, files: pl.DataFrame) -> pl.DataFrame:
        """The files (rows of `Archive.files`) that may have one of these messages."""
        import polars as pl

        hour = pl.concat_str("dt", "hr", separator="T")
        chosen = files.filter(pl.col("type") != envelope.ERASED)
        if self.types:
            chosen = chosen.filter(pl.col("type").is_in(self.types))
        if self.start is not None:
            chosen = chosen.filter(hour >= _hour(self.start))
        if self.end is not None:
            chosen = chosen.filter(hour <= _hour(self.end - timedelta(microseconds=1)))
        if self.start is not None or self.end is not None:
            chosen = chosen.filter(pl.col("dt") != envelope.UNKNOWN_TIME)
        return chosen

    def rows(self) -> pl.Expr:
        """Tell of each message of these files (columns `topic` and `timestamp`) whether it is meant."""
        import polars as pl

        conditions = [pl.lit(True)]
        if self.topics:
            conditions.append(pl.col("topic").is_in(self.topics))
        if self.start is not None:
            conditions.append(pl.col("timestamp") >= self.start.astimezone(UTC))
        if self.end is not None:
            conditions.append(pl.col("timestamp") < self.end.astimezone(UTC))
        return pl.all_horizontal(conditions)


def _hour(moment: datetime) -> str:
    utc = moment.astimezone(UTC)
    return f"{utc.year:04}-{utc.month:02}-{utc.day:02}T{utc.hour:02}"
