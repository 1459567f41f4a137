"""How everything may stand, made up: for rules of the status page that need no broker, and for its pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from archiver_pipeline.dagster_home import SensorHealth
from archiver_pipeline.followers.lag import FollowerLag
from archiver_pipeline.hours import DueHour, HourTotal, hour_at
from archiver_pipeline.page.lag_history import LagHistory
from archiver_pipeline.page.standing import (
    ArchiveState,
    BrokerState,
    FilesState,
    PartitionLag,
    SourceState,
    Standing,
)
from archiver_pipeline.plan import RETENTION, Committed, Gap, TopicPartition
from archiver_pipeline.run_history import Daemon, FailedRun, History
from archiver_pipeline.status import BatchStatus
from archiver_pipeline.table.ledger import Ledger, RecordedGap

NOW = datetime(2026, 11, 20, 2, 14, 9, tzinfo=UTC).timestamp()
"""A night: 2026-11-20 02:14:09 UTC."""

HOUR = 3600
SOURCES = ("archive", "broker", "files", "followers", "dagster")
NAMES = ("orders", "clicks-web", "clicks-app", "payments", "stock", "sessions", "search-terms", "mails", "baskets")


def standing(topics: int = 4, partitions: int = 3, days: int = 14, lag: int = 20) -> Standing:
    """An archive that is well.

    Args:
        topics: how many topics it has.
        partitions: of each.
        days: how many days it has messages of.
        lag: offsets of the first topic's first partition that are not archived.
    """
    names = [NAMES[number] if number < len(NAMES) else f"topic-{number:02}" for number in range(topics)]
    places = [TopicPartition(name, "AAAA", number) for name in names for number in range(partitions)]
    committed = {at: Committed(90_000 + 7_000 * at.partition, 0, 90_000 + 7_000 * at.partition) for at in places}
    hours = tuple(_hours(days))
    lags = [PartitionLag(at.topic, at.partition, *((lag, 2.5) if not n else (0, 0.0))) for n, at in enumerate(places)]
    return Standing(
        now=NOW,
        began=NOW - 40 * HOUR,
        address="s3://company-events/archive",
        sources={name: SourceState(answered=NOW - 4) for name in SOURCES},
        archive=ArchiveState(41_237, 1, Ledger(41_237, committed), tuple(_batches())),
        broker=BrokerState(tuple(lags), history=_history(names)),
        files=FilesState(3_120, 48_200_000_000, 37, hours),
        followers=(FollowerLag("events_per_minute", 0, 0), FollowerLag("mysql_messages", 1_204, 0)),
        history=_dagster(),
        settings={
            "KAFKA_BOOTSTRAP_SERVERS": "broker-1:9093,broker-2:9093",
            "ARCHIVER_TOPICS": ", ".join(names[:3]),
            "ARCHIVER_INTERVAL_SECONDS": "10",
            "ARCHIVER_LANES": "2",
            "ARCHIVER_SEAL_GRACE_MINUTES": "15",
        },
        versions={"archiver": "0.1.0", "Python": "3.12.7"},
    )


def at_night(topics: int = 4, partitions: int = 3, days: int = 14) -> Standing:
    """The same when things go wrong: the broker is away, Kafka has deleted messages, a follower is down, runs fail."""
    well = standing(topics, partitions, days, lag=184_000)
    unsealed = {hour_at(int(NOW // HOUR) - back) for back in (17, 18)}
    assert well.archive is not None
    assert well.broker is not None
    assert well.files is not None
    assert well.history is not None
    first = well.broker.partitions[0]
    late = (
        replace(first, waited=1_640.0),
        *(replace(item, lag=61_000, waited=1_320.0) for item in well.broker.partitions[1:2]),
        *well.broker.partitions[2:],
    )
    gap = Gap(TopicPartition(first.topic, "AAAA", 1), 41_000, 53_500, RETENTION)
    ledger = replace(
        well.archive.ledger,
        gaps=(RecordedGap(gap, datetime.fromtimestamp(NOW - 7 * HOUR, UTC)),),
        lost={"2026-11-17T09": 310},
    )
    gone = "broker-1:9093 does not answer: connection refused. Is the broker up, and is the address right?"
    failed = FailedRun(
        "5f0c11aa", "archive", NOW - 130, "No broker answered within 10 s (broker-1:9093). Is the broker up?", "", ""
    )
    sealing = FailedRun("90ab34cd", "seal", NOW - 9 * HOUR, "a file is missing (type=order.paid/…)",
                        "2026-11-19-08:00", "2026-11-19-09:00")  # fmt: skip
    return replace(
        well,
        sources={**well.sources, "broker": SourceState(gone, answered=NOW - 1_500)},
        archive=replace(well.archive, ledger=ledger, batches=tuple(_batches(until=NOW - 1_510))),
        broker=replace(well.broker, partitions=late, history=_history({item.topic: 0 for item in late}, 245_000)),
        files=replace(
            well.files,
            hours=tuple(replace(item, sealed=item.sealed and item.hour not in unsealed) for item in well.files.hours),
            due=tuple(DueHour(hour, 60, 8_000_000) for hour in sorted(unsealed)),
        ),
        followers=(
            FollowerLag("events_per_minute", 0, 0),
            FollowerLag("mysql_messages", None, None, "MySQL at db:3306 does not answer: connection refused"),
        ),
        history=replace(
            well.history,
            failures=(failed, sealing),
            sensors=(SensorHealth("archive_sensor", stopped=False, tick_age=4.0, error="no broker answered"),),
        ),
    )


def empty() -> Standing:
    """Before the first run."""
    return replace(
        standing(),
        archive=ArchiveState(-1, None, Ledger(-1)),
        broker=BrokerState((PartitionLag("orders", 0, 1_200, None),)),
        files=FilesState(),
        followers=(FollowerLag("events_per_minute", 0, 0),),
        history=History({}, {}, {}, ()),
    )


def _hours(days: int) -> Iterable[HourTotal]:
    present = int(NOW // HOUR)
    for number in range(present - 24 * days + 1, present + 1):
        day = 1.4 - math.cos((number % 24 - 3) / 24 * 2 * math.pi)
        messages = int(31_000 * day * (0.8 if number // 24 % 7 in (2, 3) else 1))
        if number == present:
            messages //= 4
        if number == present - 100:  # Nothing came.
            continue
        sealed = number < present - 1
        yield HourTotal(
            hour_at(number), 3 if sealed else 60, messages, messages * 210, sealed, (number + 1) * HOUR * 1000
        )


def _batches(until: float = NOW - 6) -> Iterable[BatchStatus]:
    for number in range(240, -1, -1):
        moment = until - 15 * number
        messages = int(190 + 70 * math.sin(moment / 400) + 25 * math.sin(moment / 37))
        when = datetime.fromtimestamp(moment, UTC) + timedelta(0)
        yield BatchStatus(41_237 - number, when, messages, messages * 210, 6, 0.6, f"{number * 7919:08x}-run")


def _history(names: Iterable[str], grown: int = 0) -> LagHistory:
    found = LagHistory()
    for number in range(110, -1, -1):
        lags = {
            name: int(60 + 50 * math.sin(number / (6 + place)) + 3 * (number * (place + 5) % 17))
            + (0 if place else grown * max(0, 60 - number) // 60)
            for place, name in enumerate(names)
        }
        found.see(NOW - 32 * number, lags)
    return found


def _dagster() -> History:
    daemons = tuple(Daemon(name, healthy=True, heartbeat=NOW - 12) for name in ("QUEUED_RUN_COORDINATOR", "SENSOR"))
    good = {"archive": NOW - 20.0, "seal": NOW - 3_000.0, "follow": NOW - 25.0}
    return History({}, {"queued": 0, "started": 1}, good, daemons)
