"""The hours of the archive as a calendar: the last days, hour by hour, and what stands out in them. No I/O."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Literal

from archiver_pipeline.amounts import counted
from archiver_pipeline.hours import Hour, HourTotal, hour_at, hour_of, parse_hour
from archiver_pipeline.page.standing import FilesState
from archiver_pipeline.plan import RETENTION
from archiver_pipeline.run_history import FailedRun
from archiver_pipeline.table.ledger import Ledger

DAYS = 14
"""So many days are shown hour by hour."""

LEVELS = 5
"""So many shades there are."""

State = Literal["sealed", "open", "due", "empty", "ahead"]


@dataclass(frozen=True)
class Cell:
    """An hour of the calendar.

    Attributes:
        hour: which one.
        state: `sealed`; `open`, it is not closed yet, or late messages gather; `due`, it waits for sealing; `empty`,
            without a message; `ahead`, it has not begun.
        total: what it has, None where it has no message.
        level: its shade, from 1 to `LEVELS`; 0 without a message.
        troubles: a sentence for each thing that went wrong in it.
    """

    hour: Hour
    state: State
    total: HourTotal | None = None
    level: int = 0
    troubles: tuple[str, ...] = ()


@dataclass(frozen=True)
class Span:
    """Hours that are not shown one by one: how many they are, their messages, and how many of them are not sealed."""

    hours: int = 0
    messages: int = 0
    unsealed: int = 0


@dataclass(frozen=True)
class Calendar:
    """The last days of the archive.

    Attributes:
        days: 24 cells each, by the day's name, the newest day first.
        busiest: how many messages the busiest hour of them has.
        older, future, unknown: hours from before these days and from after them, and messages without a usable time.
        troubles: a sentence for each thing that went wrong in an hour that is not shown.
    """

    days: tuple[tuple[str, tuple[Cell, ...]], ...]
    busiest: int
    older: Span
    future: Span
    unknown: Span
    troubles: tuple[str, ...] = ()


def calendar(files: FilesState, ledger: Ledger, failures: Collection[FailedRun], now: float) -> Calendar:
    """Lay out the hours of the archive.

    The days end with the newest one that has messages, but with today at the latest: stamps from the future are told
    of apart.
    """
    present = hour_of(datetime.fromtimestamp(now, UTC))
    # By their names, which are in the order of time, `_unknown` last: there may be hours of decades.
    ended = bisect_right(files.hours, present, key=lambda item: item.hour)
    timed = bisect_left(files.hours, hour_at(None), key=lambda item: item.hour)
    if not timed:
        return Calendar((), 0, Span(), Span(), _span(files.hours[timed:]))
    last = _day(files.hours[ended - 1].hour if ended else present)
    first = max(_day(files.hours[0].hour if ended else present), last - DAYS + 1)
    begun = bisect_left(files.hours, hour_at(first * 24), key=lambda item: item.hour)
    totals = {item.hour: item for item in files.hours[begun:ended]}
    troubles = troubles_of(ledger, failures, files.hours)
    draw = partial(
        _cell,
        totals=totals,
        due={item.hour for item in files.due},
        busiest=max((item.messages for item in totals.values()), default=0),
        present=present,
        troubles=troubles,
    )
    days = [
        (hour_at(day * 24).dt, tuple(draw(hour_at(day * 24 + number)) for number in range(24)))
        for day in range(last, first - 1, -1)
    ]
    inside = {cell.hour for _, cells in days for cell in cells}
    elsewhere = [f"{hour.name}: {what}" for hour, every in troubles.items() if hour not in inside for what in every]
    return Calendar(
        tuple(days),
        draw.keywords["busiest"],
        _span(files.hours[:begun]),
        _span(files.hours[ended:timed]),
        _span(files.hours[timed:]),
        tuple(elsewhere),
    )


def _day(hour: Hour) -> int:
    return (hour.number or 0) // 24


def level_of(messages: int, busiest: int) -> int:
    """The shade of an hour: fifths of the busiest hour, from 1 up; 0 without a message."""
    return 0 if messages <= 0 or busiest <= 0 else min(LEVELS, 1 + (LEVELS * messages - 1) // busiest)


MANY_TROUBLES = 10
"""So many sentences an hour has; of more gaps only their number is told."""


def troubles_of(
    ledger: Ledger, failures: Collection[FailedRun], totals: Sequence[HourTotal]
) -> dict[Hour, tuple[str, ...]]:
    """What went wrong, by hour: messages given up, gaps that were found then, and runs that failed for an hour and
    after which no file was added to it."""
    found: dict[Hour, list[str]] = {}
    more: Counter[Hour] = Counter()
    for name, messages in ledger.lost.items():
        if messages:
            found.setdefault(parse_hour(name), []).append(
                f"{counted(messages, 'message')} lost with a file and given up"
            )
    for recorded in ledger.gaps:
        if recorded.time is not None:
            gap, hour = recorded.gap, hour_of(recorded.time)
            if len(found.get(hour, ())) >= MANY_TROUBLES:
                more[hour] += 1
                continue
            what = counted(gap.end - gap.start, "offset") + " lost" if gap.reason == RETENTION else gap.reason
            place = f"{gap.at.topic}/{gap.at.partition}"
            found.setdefault(hour, []).append(f"a gap in {place} was found then: {what}")
    for hour, gaps in more.items():
        found[hour].append(f"{counted(gaps, 'more gap')}, too")
    added = {item.hour: item.added / 1000 for item in totals} if any(run.first for run in failures) else {}
    for run in failures:
        for hour in _hours_of(run):
            if added.get(hour, 0.0) < run.ended:
                found.setdefault(hour, []).append(f"the run {run.run_id[:8]} of {run.job} failed for it")
    return {hour: tuple(every) for hour, every in found.items()}


def _hours_of(run: FailedRun) -> list[Hour]:
    try:
        first, last = (
            hour_of(datetime.strptime(key, "%Y-%m-%d-%H:%M").replace(tzinfo=UTC)).number or 0
            for key in (run.first, run.last)
        )
    except ValueError:  # It was for no hour.
        return []
    return [hour_at(number) for number in range(first, min(last, first + DAYS * 24) + 1)]


def _cell(
    hour: Hour,
    *,
    totals: Mapping[Hour, HourTotal],
    due: Collection[Hour],
    busiest: int,
    present: Hour,
    troubles: Mapping[Hour, tuple[str, ...]],
) -> Cell:
    total = totals.get(hour)
    if total is None:
        return Cell(hour, "ahead" if hour > present else "empty", troubles=troubles.get(hour, ()))
    state: State = "sealed" if total.sealed else "due" if hour in due else "open"
    return Cell(hour, state, total, level_of(total.messages, busiest), troubles.get(hour, ()))


def _span(totals: Sequence[HourTotal]) -> Span:
    return Span(len(totals), sum(item.messages for item in totals), sum(not item.sealed for item in totals))
