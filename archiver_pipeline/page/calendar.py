"""The hours of the archive as a calendar: the last days, hour by hour, and what stands out in them. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from archiver_pipeline.amounts import many
from archiver_pipeline.hours import Hour, HourTotal, hour_at, hour_of, parse_hour
from archiver_pipeline.ledger import Ledger
from archiver_pipeline.page.standing import FilesState
from archiver_pipeline.plan import RETENTION
from archiver_pipeline.run_history import FailedRun

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
    """Hours that are not shown one by one: how many, their messages, and how many of them are not sealed."""

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


def calendar(files: FilesState, ledger: Ledger, failures: Iterable[FailedRun], now: float) -> Calendar:
    """Lay out the hours of the archive.

    The days end with the newest one that has messages, but with today at the latest: stamps from the future are told
    of apart.
    """
    present = hour_of(datetime.fromtimestamp(now, UTC)).number or 0
    numbered = {item.hour.number: item for item in files.hours}
    known = [number for number in numbered if number is not None]
    past = [number for number in known if number <= present]
    last = (max(past) if past else present) // 24
    first = max(min(past, default=present) // 24, last - DAYS + 1)
    shown = range(first * 24, (last + 1) * 24)
    troubles = troubles_of(ledger, failures, files.hours)
    due = {item.hour for item in files.due}
    busiest = max((numbered[number].messages for number in known if number in shown), default=0)
    days = [
        (
            hour_at(day * 24).dt,
            tuple(
                _cell(number, numbered.get(number), due, busiest, present, troubles)
                for number in range(day * 24, day * 24 + 24)
            ),
        )
        for day in range(last, first - 1, -1)
    ]
    inside = {cell.hour for _, cells in days for cell in cells}
    elsewhere = [f"{hour.name}: {what}" for hour, every in troubles.items() if hour not in inside for what in every]
    return Calendar(
        tuple(days) if known else (),
        busiest,
        _span(numbered[number] for number in known if number < shown.start),
        _span(numbered[number] for number in known if number >= shown.stop),
        _span([numbered[None]] if None in numbered else []),
        tuple(elsewhere),
    )


def level_of(messages: int, busiest: int) -> int:
    """The shade of an hour: fifths of the busiest hour, from 1 up; 0 without a message."""
    return 0 if messages <= 0 or busiest <= 0 else min(LEVELS, 1 + (LEVELS * messages - 1) // busiest)


def troubles_of(
    ledger: Ledger, failures: Iterable[FailedRun], totals: Sequence[HourTotal]
) -> dict[Hour, tuple[str, ...]]:
    """What went wrong, by hour: messages given up, gaps that were found then, and runs that failed for an hour and
    after which no file was added to it."""
    found: dict[Hour, list[str]] = {}
    for name, messages in ledger.lost.items():
        if messages:
            found.setdefault(parse_hour(name), []).append(f"{many(messages, 'message')} lost with a file and given up")
    for recorded in ledger.gaps:
        if recorded.time is not None:
            gap = recorded.gap
            what = many(gap.end - gap.start, "offset") + " lost" if gap.reason == RETENTION else gap.reason
            place = f"{gap.at.topic}/{gap.at.partition}"
            found.setdefault(hour_of(recorded.time), []).append(f"a gap in {place} was found then: {what}")
    added = {item.hour: item.added / 1000 for item in totals}
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
    number: int,
    total: HourTotal | None,
    due: set[Hour],
    busiest: int,
    present: int,
    troubles: dict[Hour, tuple[str, ...]],
) -> Cell:
    hour = hour_at(number)
    if total is None:
        return Cell(hour, "ahead" if number > present else "empty", troubles=troubles.get(hour, ()))
    state: State = "sealed" if total.sealed else "due" if hour in due else "open"
    return Cell(hour, state, total, level_of(total.messages, busiest), troubles.get(hour, ()))


def _span(totals: Iterable[HourTotal]) -> Span:
    every = list(totals)
    return Span(len(every), sum(item.messages for item in every), sum(not item.sealed for item in every))
