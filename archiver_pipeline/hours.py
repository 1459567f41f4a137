"""Hours of the archive: how they are named, when one is closed, and which files its sealing puts together. No I/O."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from archiver_pipeline import envelope

if TYPE_CHECKING:
    import polars as pl

MiB = 1024**2
TARGET_BYTES = 256 * MiB
"""About so large a sealed file may get; an hour of a type that has more is cut into several."""

_ENOUGH_BYTES = TARGET_BYTES // 2
"""A sealed file of this size is never taken for a small one."""

_SMALL_BYTES = 1 * MiB
"""A sealed file up to this size is written again with anything: a report in its footer may be larger than its messages,
and then the rule of growth alone would let the files of an hour become many."""

_GROWTH = 4
"""A sealed file is written again only together with at least a quarter of its size in newer messages. So what a trickle
of late messages costs is in proportion to the messages, not to the hour, and the files of an hour stay few."""

_PATIENCE = 4
"""Late messages wait until none has come for the grace period, but for no longer than so many of these periods."""


@dataclass(frozen=True, order=True)
class Hour:
    """An hour of the archive as its folders name it, in UTC; `_unknown` twice for messages without a usable time."""

    dt: str
    hr: str

    @property
    def name(self) -> str:
        """The hour in one word: `2019-08-01T03`, or `_unknown`."""
        return self.dt if self.number is None else f"{self.dt}T{self.hr}"

    @property
    def number(self) -> int | None:
        """Hours since 1970-01-01 UTC, None for `_unknown`."""
        if self.dt == envelope.UNKNOWN_TIME:
            return None
        moment = datetime.fromisoformat(f"{self.dt}T{self.hr}:00:00+00:00")
        return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(hours=1)

    def __str__(self) -> str:
        return self.name


def hour_at(number: int | None) -> Hour:
    """The hour of a number of hours since 1970-01-01 UTC; None is `_unknown`."""
    return Hour(*envelope.hour_name(number))


def parse_hour(name: str) -> Hour:
    """Read an hour's name; the opposite of `Hour.name`. Raises ValueError."""
    if name == envelope.UNKNOWN_TIME:
        return hour_at(None)
    return hour_of(datetime.strptime(name, "%Y-%m-%dT%H").replace(tzinfo=UTC))


def hour_of(moment: datetime) -> Hour:
    """The hour that a moment lies in."""
    utc = moment.astimezone(UTC)
    return Hour(f"{utc.year:04}-{utc.month:02}-{utc.day:02}", f"{utc.hour:02}")


def hours_between(start: datetime, end: datetime) -> list[Hour]:
    """The hours of `[start, end)`. Raises ValueError unless both are whole hours, in order."""
    begin, stop = start.astimezone(UTC), end.astimezone(UTC)
    if any((moment.minute, moment.second, moment.microsecond) != (0, 0, 0) for moment in (begin, stop)):
        raise ValueError("both have to be whole hours")
    if stop <= begin:
        raise ValueError("the end has to be after the start")
    first = hour_of(begin).number or 0
    return [hour_at(first + n) for n in range(int((stop - begin) / timedelta(hours=1)))]


def is_closed(hour: Hour, caught_up_ms: int, grace_ms: float) -> bool:
    """Tell whether an hour is closed: its end and the grace have passed, and what Kafka had then is archived.

    Args:
        hour: the hour; `_unknown` ends never and counts as closed, for it is sealed as late messages are.
        caught_up_ms: when the archive last had all that Kafka had, in milliseconds since 1970. It is a reading of the
            clock, so a stamp from the future closes nothing, and a topic without news keeps nothing open.
        grace_ms: how long after its end an hour stays open.
    """
    return hour.number is None or (hour.number + 1) * envelope.HOUR_MS + grace_ms <= caught_up_ms


@dataclass(frozen=True)
class HourTotal:
    """An hour that the archive has files of.

    Attributes:
        hour: which one.
        files, messages, bytes: what it has.
        sealed: whether every file of it is sealed.
        added: when its newest file was added, in milliseconds since 1970.
    """

    hour: Hour
    files: int
    messages: int
    bytes: int
    sealed: bool
    added: int


def hour_totals(files: pl.DataFrame) -> list[HourTotal]:
    """What each hour has that the files of a table are of (the frame of `Archive.files`), in order."""
    import polars as pl

    sealed = pl.col("path").str.split("/").list.last().str.starts_with(envelope.SEAL + "-")
    every = files.group_by("dt", "hr").agg(
        pl.len(), pl.col("messages", "bytes").sum(), sealed.all().alias("sealed"), pl.col("added").max()
    )
    return [HourTotal(Hour(dt, hr), *rest) for dt, hr, *rest in every.sort("dt", "hr").iter_rows()]


def count_hours(files: pl.DataFrame) -> tuple[int, int]:
    """Count the hours that the files of a table are of (the frame of `Archive.files`), and those that are sealed."""
    every = hour_totals(files)
    return len(every), sum(item.sealed for item in every)


@dataclass(frozen=True)
class DueHour:
    """An hour that is to be sealed, with how many files, and bytes of them, are not sealed yet."""

    hour: Hour
    files: int
    bytes: int


def due(files: pl.DataFrame, caught_up_ms: int, now_ms: int, grace_ms: float, *, patient: bool = True) -> list[DueHour]:
    """The closed hours that have files to be sealed, in order.

    Args:
        files: the frame of `Archive.files`.
        caught_up_ms: as in `is_closed`.
        now_ms: the time, in milliseconds since 1970.
        grace_ms: how long after its end an hour stays open.
        patient: let late messages of a sealed hour gather, instead of sealing them at once.
    """
    import polars as pl

    name = pl.col("path").str.split("/").list.last()
    waiting = (
        files.lazy()
        .with_columns(sealed=name.str.starts_with(envelope.SEAL + "-"))
        .group_by("dt", "hr", "type")
        .agg(
            again=pl.col("sealed").any(),
            count=(~pl.col("sealed")).sum(),
            size=pl.col("bytes").filter(~pl.col("sealed")).sum(),
            oldest=pl.col("added").filter(~pl.col("sealed")).min(),
            newest=pl.col("added").filter(~pl.col("sealed")).max(),
        )
        .filter(pl.col("count") > 0)
        .filter(
            ~(pl.col("again") | (pl.col("dt") == envelope.UNKNOWN_TIME))
            | (pl.col("newest") + grace_ms <= now_ms)
            | (pl.col("oldest") + _PATIENCE * grace_ms <= now_ms)
            | (not patient)
        )
        .group_by("dt", "hr")
        .agg(pl.col("count").sum(), pl.col("size").sum())
        .sort("dt", "hr")
        .collect()
    )
    found = (DueHour(Hour(dt, hr), count, size) for dt, hr, count, size in waiting.iter_rows())
    return [item for item in found if is_closed(item.hour, caught_up_ms, grace_ms)]


@dataclass(frozen=True)
class HourFile:
    """A file of one type in an hour: its path below the archive, messages, bytes, and when it was added (ms)."""

    path: str
    messages: int
    bytes: int
    added: int


def to_put_together(files: Iterable[HourFile], *, whole: bool = False) -> list[HourFile]:
    """Choose the files of one type and hour that sealing makes one of; none where that would be work for nothing.

    Size-tiered: all unsealed files, and of the sealed ones those that are small beside what comes to them.

    Args:
        files: all files of the type and hour.
        whole: put all together, whatever it costs, unless they are few and large enough.
    """
    every = list(files)
    sealed = sorted((file for file in every if envelope.is_sealed(file.path)), key=lambda file: file.bytes)
    chosen = [file for file in every if not envelope.is_sealed(file.path)]
    if whole:
        few = sum(file.bytes for file in sealed) // _ENOUGH_BYTES + 1
        return every if chosen or len(sealed) > few else []
    size = sum(file.bytes for file in chosen)
    for file in sealed:
        if not chosen or file.bytes >= _ENOUGH_BYTES or file.bytes > max(_GROWTH * size, _SMALL_BYTES):
            break
        chosen.append(file)
        size += file.bytes
    return chosen
