"""Rules of hours: their names, when one is closed, when it is sealed, and what sealing puts together."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver_pipeline import envelope
from archiver_pipeline.hours import (
    TARGET_BYTES,
    DueHour,
    Hour,
    HourFile,
    MiB,
    due,
    hour_at,
    hour_of,
    hours_between,
    is_closed,
    parse_hour,
    to_put_together,
)

HOUR_MS = envelope.HOUR_MS
GRACE_MS = 15 * 60_000
FIRST = envelope.FIRST_MS // HOUR_MS
LAST = envelope.LAST_MS // HOUR_MS
THREE = parse_hour("2019-08-01T03")
UNKNOWN = hour_at(None)
END_MS = (THREE.number or 0) * HOUR_MS + HOUR_MS
"""When `THREE` ends, in milliseconds since 1970."""

numbers = st.integers(FIRST, LAST)


@given(numbers)
def test_every_hour_has_a_name_and_a_number(number: int) -> None:
    """From year 1 to 9999 an hour is found again by its number and by its name, and sorts by time."""
    hour = hour_at(number)
    assert hour.number == number
    assert parse_hour(hour.name) == hour
    assert str(hour) == hour.name == f"{hour.dt}T{hour.hr}"
    assert (len(hour.dt), len(hour.hr)) == (10, 2)
    assert number == FIRST or hour_at(number - 1) < hour


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (FIRST, "0001-01-01T00"),
        (-1, "1969-12-31T23"),
        (0, "1970-01-01T00"),
        (LAST, "9999-12-31T23"),
        (None, "_unknown"),
    ],
)
def test_the_first_and_the_last_hour(number: int | None, name: str) -> None:
    """The ends of the calendar, the hours around 1970, and the hour of messages without a time."""
    assert hour_at(number).name == name
    assert parse_hour(name) == hour_at(number)
    assert parse_hour(name).number == number


@pytest.mark.parametrize("name", ["", "2019-08-01", "2019-08-01T24", "2019-02-29T00", "2019-08-01T03:00", "unknown"])
def test_what_is_no_name_of_an_hour(name: str) -> None:
    """A text that names no hour is refused."""
    with pytest.raises(ValueError, match=r"does not match|unconverted|day"):
        parse_hour(name)


@given(st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)), st.integers(-23 * 60, 23 * 60))  # noqa: DTZ001
def test_a_moment_lies_in_one_hour(moment: datetime, minutes: int) -> None:
    """Whatever zone a moment is written in, its hour is that of UTC."""
    zoned = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    number = hour_of(zoned).number
    assert number is not None
    start = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(hours=number)
    assert start <= zoned < start + timedelta(hours=1)
    assert hour_of(zoned) == hour_of(zoned.astimezone(UTC))


@given(st.integers(FIRST, LAST - 60), st.integers(1, 50), st.sampled_from([0, 1, -1, 5, -9, 14]))
def test_the_hours_of_a_range(first: int, count: int, offset: int) -> None:
    """A range has each of its hours once and in order, the last one not included, in whatever zone it is given."""
    zone = timezone(timedelta(hours=offset))
    begin = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(hours=max(first, FIRST + 24))
    found = hours_between(begin.astimezone(zone), (begin + timedelta(hours=count)).astimezone(zone))
    assert [hour.number for hour in found] == list(range(max(first, FIRST + 24), max(first, FIRST + 24) + count))


@pytest.mark.parametrize(("day", "hours"), [((2019, 3, 31), 23), ((2019, 10, 27), 25), ((2019, 8, 1), 24)])
def test_a_day_with_a_change_of_the_clock(day: tuple[int, int, int], hours: int) -> None:
    """A day on which the clock is put forward has 23 hours, one on which it is put back 25."""
    zone = ZoneInfo("Europe/Berlin")
    start = datetime(*day, tzinfo=zone)
    found = hours_between(start, start + timedelta(days=1))
    assert len(found) == len(set(found)) == hours
    assert found[0] == hour_of(start)


def test_a_zone_of_half_an_hour() -> None:
    """What counts is the hour of UTC: a whole hour in India is none, and half past there is one."""
    india = timezone(timedelta(hours=5, minutes=30))
    with pytest.raises(ValueError, match="whole hours"):
        hours_between(datetime(2019, 8, 1, 3, tzinfo=india), datetime(2019, 8, 1, 4, tzinfo=india))
    found = hours_between(datetime(2019, 8, 1, 8, 30, tzinfo=india), datetime(2019, 8, 1, 9, 30, tzinfo=india))
    assert found == [THREE]


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        ("2019-08-01T03:30", "2019-08-01T05:00", "whole hours"),
        ("2019-08-01T03:00", "2019-08-01T05:00:01", "whole hours"),
        ("2019-08-01T03:00:00.000001", "2019-08-01T05:00", "whole hours"),
        ("2019-08-01T03:00", "2019-08-01T03:00", "after the start"),
        ("2019-08-01T05:00", "2019-08-01T03:00", "after the start"),
    ],
)
def test_what_is_no_range_of_hours(start: str, end: str, said: str) -> None:
    """Parts of an hour, an empty range and a reversed one are refused."""
    begin, stop = (datetime.fromisoformat(text).replace(tzinfo=UTC) for text in (start, end))
    with pytest.raises(ValueError, match=said):
        hours_between(begin, stop)


def test_an_hour_closes_when_its_grace_is_over() -> None:
    """Its end and the grace have to have passed when all that Kafka had was archived, to the millisecond."""
    assert not is_closed(THREE, END_MS - 1, 0)
    assert is_closed(THREE, END_MS, 0)
    assert not is_closed(THREE, END_MS + GRACE_MS - 1, GRACE_MS)
    assert is_closed(THREE, END_MS + GRACE_MS, GRACE_MS)
    assert not is_closed(THREE, 0, 0), "nobody knows of a moment at which all was archived"
    assert is_closed(UNKNOWN, 0, GRACE_MS)


def listed(*rows: tuple[Hour, str, str, int, int]) -> pl.DataFrame:
    """The frame of `Archive.files` of files given by hour, type, name, bytes, and when they were added."""
    return pl.DataFrame(
        [
            (f"type={name}/dt={hour.dt}/hr={hour.hr}/{file}", name, hour.dt, hour.hr, 1, size, added, 1)
            for hour, name, file, size, added in rows
        ],
        schema=["path", "type", "dt", "hr", "messages", "bytes", "added", "last"],
        orient="row",
    )


def due_at(files: pl.DataFrame, now_ms: int, patient: bool = True, caught_up_ms: int | None = None) -> list[DueHour]:
    """What is due at some time, with all that Kafka has archived."""
    return due(files, now_ms if caught_up_ms is None else caught_up_ms, now_ms, GRACE_MS, patient=patient)


def test_closed_hours_with_unsealed_files_are_due() -> None:
    """In order, each with the number and size of its unsealed files; open ones and sealed ones are left out."""
    two, four = (hour_at((THREE.number or 0) + step) for step in (-1, 1))
    files = listed(
        (four, "x", "lane0-a.parquet", 1, 0),
        (THREE, "x", "lane0-a.parquet", 10, END_MS),
        (THREE, "y", "lane1-a.parquet", 20, END_MS),
        (THREE, "y", "mend-2019-08-01T03-a.parquet", 40, END_MS),
        (two, "x", "seal-2019-08-01T02-a.parquet", 5, 0),
    )
    now_ms = END_MS + GRACE_MS
    assert due_at(files, now_ms) == [DueHour(THREE, 3, 70)]
    assert due_at(files, now_ms + HOUR_MS) == [DueHour(THREE, 3, 70), DueHour(four, 1, 1)]
    assert due_at(files, now_ms + HOUR_MS, caught_up_ms=now_ms - 1) == []
    assert due_at(files.clear(), now_ms) == []


def test_a_stamp_from_the_future_closes_nothing() -> None:
    """Messages of next year are an hour of their own, which is open; all others are as they would be without them."""
    future = hour_at((THREE.number or 0) + 366 * 24)
    files = listed((THREE, "x", "lane0-a.parquet", 1, END_MS - HOUR_MS), (future, "x", "lane0-b.parquet", 1, END_MS))
    assert due_at(files, END_MS - 1) == []
    assert due_at(files, END_MS + GRACE_MS) == [DueHour(THREE, 1, 1)]


def test_late_messages_wait_for_quiet() -> None:
    """Late messages of a sealed hour are sealed when none has come for the grace period; not patient: at once."""
    late_ms = END_MS + 10 * HOUR_MS
    sealed = (THREE, "x", "seal-2019-08-01T03-a.parquet", 100, END_MS)
    files = listed(sealed, (THREE, "x", "lane0-b.parquet", 1, late_ms), (THREE, "x", "lane0-c.parquet", 2, late_ms + 5))
    assert due_at(files, late_ms + 5) == []
    assert due_at(files, late_ms + 5, patient=False) == [DueHour(THREE, 2, 3)]
    assert due_at(files, late_ms + GRACE_MS + 4) == []
    assert due_at(files, late_ms + GRACE_MS + 5) == [DueHour(THREE, 2, 3)]


def test_late_messages_wait_no_longer_than_patience() -> None:
    """Where late messages never stop coming, they are sealed four grace periods after the first one."""
    late_ms = END_MS + 10 * HOUR_MS
    rows = [
        (THREE, "x", f"lane0-{number}.parquet", 1, late_ms + number * 60_000)
        for number in range(4 * GRACE_MS // 60_000)
    ]
    files = listed((THREE, "x", "seal-2019-08-01T03-a.parquet", 100, END_MS), *rows)
    assert due_at(files, late_ms + 4 * GRACE_MS - 1) == []
    assert due_at(files, late_ms + 4 * GRACE_MS) == [DueHour(THREE, 60, 60)]


def test_a_type_that_was_never_sealed_waits_for_nothing() -> None:
    """Of a sealed hour, a type that is new in it counts at once, and another's late messages wait on."""
    late_ms = END_MS + 10 * HOUR_MS
    files = listed(
        (THREE, "x", "seal-2019-08-01T03-a.parquet", 100, END_MS),
        (THREE, "x", "lane0-b.parquet", 1, late_ms),
        (THREE, "y", "lane0-c.parquet", 7, late_ms),
    )
    assert due_at(files, late_ms) == [DueHour(THREE, 1, 7)]


def test_messages_without_a_time_are_sealed_as_late_ones() -> None:
    """Their hour never ends: it is due when none has come for the grace period, whatever Kafka still has."""
    files = listed((UNKNOWN, "x", "lane0-a.parquet", 1, END_MS))
    assert due_at(files, END_MS + GRACE_MS - 1) == []
    assert due_at(files, END_MS + GRACE_MS, caught_up_ms=0) == [DueHour(UNKNOWN, 1, 1)]
    assert due_at(files, END_MS, patient=False) == [DueHour(UNKNOWN, 1, 1)]


def unsealed(size: int, number: int = 0) -> HourFile:
    """A file that a batch wrote."""
    return HourFile(f"type=x/dt=2019-08-01/hr=03/lane0-{number}.parquet", 1, size, 0)


def sealed_file(size: int, number: int = 0) -> HourFile:
    """A file that sealing wrote."""
    return HourFile(f"type=x/dt=2019-08-01/hr=03/seal-2019-08-01T03-{number}.parquet", 1, size, 0)


def put_together(chosen: list[HourFile], number: int, footer: int = 0) -> list[HourFile]:
    """What sealing makes of some files: as few of a good size as there have to be, each with a footer."""
    size = sum(file.bytes for file in chosen)
    count = max(1, round(size / TARGET_BYTES))
    return [sealed_file(size // count + footer, 1000 * number + part) for part in range(count)]


@given(st.lists(st.integers(1, TARGET_BYTES), max_size=20))
def test_all_unsealed_files_are_put_together(sizes: list[int]) -> None:
    """However large they are, all of them; without any there is nothing to do, however many sealed ones there are."""
    files = [unsealed(size, number) for number, size in enumerate(sizes)]
    assert to_put_together(files) == files
    assert to_put_together([sealed_file(size, number) for number, size in enumerate(sizes)]) == []


def test_small_sealed_files_are_taken_along() -> None:
    """A sealed file is written again with a quarter of its size in newer messages; what it brings counts for others."""
    late, small, middle, large = unsealed(3 * MiB), sealed_file(12 * MiB, 1), sealed_file(60 * MiB, 2), 100 * MiB
    assert to_put_together([large_file := sealed_file(large, 3), small, late]) == [late, small]
    assert to_put_together([large_file, middle, small, late]) == [late, small, middle, large_file]
    assert to_put_together([large_file, sealed_file(12 * MiB + 1, 4), late]) == [late]


def test_large_sealed_files_are_left_alone() -> None:
    """An hour that was cut into many large files is not written again for the sake of some late messages."""
    large = [sealed_file(TARGET_BYTES, number) for number in range(40)]
    late = unsealed(TARGET_BYTES // 4)
    assert to_put_together([*large, late]) == [late]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("footer", [0, 200_000])
def test_a_trickle_costs_in_proportion_to_itself(seed: int, footer: int) -> None:
    """A thousand small late arrivals in a large hour, each sealed: little is written, and the files stay few.

    So it is, too, where the report in a file's footer is larger than the messages that came.
    """
    chance = random.Random(seed)
    files = [sealed_file(TARGET_BYTES)]
    late = written = most = 0
    for number in range(1000):
        new = unsealed(int(10 ** chance.uniform(3, 6)), number)
        chosen = to_put_together([*files, new])
        made = put_together(chosen, number, footer)
        files = [file for file in files if file not in chosen] + made
        late += new.bytes
        written += sum(file.bytes for file in made)
        most = max(most, len(files))
    assert written < 15 * late + 1000 * (2 * MiB + footer)
    assert most <= 8
    assert sum(file.bytes for file in files) >= late + TARGET_BYTES


@given(st.lists(st.integers(1, 2 * TARGET_BYTES), min_size=1, max_size=30), st.lists(st.integers(1, MiB), max_size=5))
def test_whole_puts_all_together_and_then_rests(old: list[int], new: list[int]) -> None:
    """All files become as few as there have to be, and then nothing is left to do."""
    files = [
        *(sealed_file(size, number) for number, size in enumerate(old)),
        *(unsealed(size, number) for number, size in enumerate(new)),
    ]
    chosen = to_put_together(files, whole=True)
    assert chosen in ([], files)
    if new:
        assert chosen == files
    after = put_together(chosen, 99) if chosen else files
    assert to_put_together(after, whole=True) == []
    assert to_put_together(after) == []
    assert len(after) <= sum(file.bytes for file in files) // (TARGET_BYTES // 2) + 1
