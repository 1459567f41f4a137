"""The hours of the archive as Dagster's partitions."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import dagster as dg

from archiver_pipeline.defs.resources import archive
from archiver_pipeline.hours import Hour, hour_of
from archiver_pipeline.storage.base import Storage
from archiver_pipeline.storage.bucket_errors import Unreachable

MOST_HOURS = timedelta(hours=100_000)
"""So far back there are partitions. Stamps of 1970 are in archives: from there on they would be half a million."""

UNTIL_KNOWN = timedelta(days=7)
"""So far back they begin while the archive has no hour yet: as far as Kafka keeps messages unless it is told to."""

_AT_ONCE = 16
"""Folders of types that are looked into side by side: a bucket takes its time for each."""

_KEY = "%Y-%m-%d-%H:%M"


def hour_partitions(now: datetime | None = None) -> dg.HourlyPartitionsDefinition:
    """The hours from the archive's first one to the present one, in UTC, as they are when this process loads them.

    Args:
        now: the time, by default that of the clock.
    """
    moment = now or datetime.now(UTC)
    # A stamp of the year 9999 is in some archive, too; folders of such hours are no beginning.
    first = first_hour(archive().storage, moment - MOST_HOURS, moment)
    start = moment - UNTIL_KNOWN if first is None else datetime.fromisoformat(f"{first.dt}T{first.hr}:00:00+00:00")
    # One hour past Dagster's own end: the present hour is still open, and can be read from Kafka again all the same.
    return dg.HourlyPartitionsDefinition(
        start.replace(minute=0, second=0, microsecond=0), timezone="UTC", fmt=_KEY, end_offset=1
    )


def first_hour(storage: Storage, oldest: datetime, newest: datetime) -> Hour | None:
    """The first hour of the archive between two moments, or None.

    It goes by the names of folders: every run loads the definitions, and opening the table takes a second or two. An
    hour of the day of `oldest` does not count. What cannot be read counts as not there: without definitions no run
    could say what is wrong with it.
    """
    after, until = hour_of(oldest).dt, hour_of(newest).dt
    days: dict[str, list[str]] = {}
    try:
        for name in _folders_of(storage, _folders(storage, "", "type="), "dt="):
            day = name.rpartition("=")[2]
            # Text compares as time does, and `_unknown` comes after every digit.
            if after < day <= until:
                days.setdefault(day, []).append(name)
        if not days:
            return None
        day = min(days)
        hours = (name.rpartition("=")[2] for name in _folders_of(storage, days[day], "hr="))
        return min(Hour(day, min(hours, default="00")), hour_of(newest))
    except Unreachable:
        return None


def key_of(hour: Hour, partitions: dg.HourlyPartitionsDefinition) -> str | None:
    """The partition key of an hour, such as `2019-08-01-03:00`, or None where it is no partition."""
    key = key_text(hour)
    return key if hour.number is not None and partitions.has_partition_key(key) else None


def key_text(hour: Hour) -> str:
    """What the partition key of an hour is, whether it is a partition or not."""
    return f"{hour.dt}-{hour.hr}:00"


def hour_of_key(key: str) -> Hour:
    """The hour of a partition key. Raises ValueError."""
    return hour_of(datetime.strptime(key, _KEY).replace(tzinfo=UTC))


def _folders_of(storage: Storage, parents: list[str], prefix: str) -> Iterator[str]:
    """The folders below several; at the first that the store does not tell of, the others are not asked for."""
    pool = ThreadPoolExecutor(_AT_ONCE, "hours")
    try:
        for names in pool.map(lambda parent: _folders(storage, parent, prefix), parents):
            yield from names
    finally:
        pool.shutdown(cancel_futures=True)


def _folders(storage: Storage, parent: str, prefix: str) -> list[str]:
    """The folders whose names begin so, as paths below the archive; none where the parent cannot be read.

    Raises:
        Unreachable: the object store does not answer.
    """
    try:
        names = storage.names(parent)
    except Unreachable:
        raise
    except OSError:
        return []
    return [f"{parent}/{name}".lstrip("/") for name in names if name.startswith(prefix)]
