"""The sensor: asks how far Kafka has run ahead, and starts at most one run per lane. It never reads a message."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg

from archiver_pipeline.amounts import counted
from archiver_pipeline.collector import uncollected
from archiver_pipeline.defs.assets import OP, PASS_SECONDS
from archiver_pipeline.defs.metadata import view_is_current
from archiver_pipeline.defs.resources import archive, cluster, settings
from archiver_pipeline.defs.runs import record_of, under_way
from archiver_pipeline.errors import ArchiverError
from archiver_pipeline.formats.waits import Waits
from archiver_pipeline.kafka.look import Look
from archiver_pipeline.plan import Position, lane_of, positions_of
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.table.ledger import Ledger
from archiver_pipeline.view import view

LANE_TAG = "archiver/lane"
_RUN_LIMIT_SECONDS = 1800
_DAEMON_SECONDS = 5
"""How often Dagster's daemon looks whose turn it is (`MIN_INTERVAL_LOOP_TIME` of its sensors)."""
_TOLD = "told"
"""Where the cursor has, beside the lanes, when the DuckDB file was last said to be up to date."""
_TELL_SECONDS = 1800.0
"""That is said so often with nothing to archive: a row each time, that nothing removes."""
_VIEW = "view"
"""Where it has which version of the table the DuckDB file was last to be brought up to, and when that was asked for."""
_VIEW_AGAIN_SECONDS = 300.0
"""So long after a run was asked for that, another one is, if the file still lacks that version: it may have died."""
_VIEW_SECONDS = 30
"""A view that lacks a commit for so long is not about to be brought up to date: the run that made it was killed."""


@dataclass(frozen=True)
class LaneState:
    """What is waiting in a lane.

    Attributes:
        lag: offsets to read.
        records: whether a start position or a gap has to be recorded, messages or not.
        topics: the topics with a lag.
    """

    lane: int
    lag: int
    records: bool
    topics: tuple[str, ...]


def lane_states(positions: Iterable[Position], lanes: int) -> list[LaneState]:
    """Sum up what is waiting in each lane."""
    by_lane: dict[int, list[Position]] = {lane: [] for lane in range(lanes)}
    for position in positions:
        by_lane[lane_of(position.at.topic, position.at.partition, lanes)].append(position)
    return [
        LaneState(
            lane,
            sum(item.lag for item in mine),
            any(item.gaps or not item.committed for item in mine),
            tuple(sorted({item.at.topic for item in mine if item.lag})),
        )
        for lane, mine in by_lane.items()
    ]


def is_due(state: LaneState, waiting_seconds: float, current: Settings) -> bool:
    """Decide whether a lane's work is worth a run: enough messages, or some that have waited long enough."""
    if state.records or state.lag >= current.min_messages:
        return True
    return state.lag > 0 and waiting_seconds >= current.max_delay_seconds


def run_config(lane: int, current: Settings) -> dict[str, Any]:
    """The run config of a sensor's run: no setting is repeated in it, least of all a secret."""
    config = {"lane": lane, "stay_seconds": current.run_seconds, "limit_seconds": PASS_SECONDS}
    return {"ops": {OP: {"config": config}}}


def tick_seconds(interval_seconds: float) -> int:
    """The sensor's minimum interval: the one that is set, or a second less where Dagster would often miss it.

    The daemon looks every five seconds, some milliseconds sooner or later: a sensor that may tick again after exactly
    five seconds, or ten, has then often to wait for the next look.
    """
    whole = max(1, round(interval_seconds))
    return whole if whole % _DAEMON_SECONDS else whole - 1


def archive_sensor(job: dg.UnresolvedAssetJobDefinition) -> dg.SensorDefinition:
    """The sensor of the job `archive`."""

    @dg.sensor(
        name="archive_sensor",
        job=job,
        minimum_interval_seconds=tick_seconds(settings().interval_seconds),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Starts a micro-batch when Kafka has run ahead of the archive; one run per lane at a time.",
    )
    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return or_reason(context, _tick)

    return evaluate


def or_reason(
    context: dg.SensorEvaluationContext, tick: Callable[[dg.SensorEvaluationContext], dg.SensorResult]
) -> dg.SensorResult:
    """Do a tick; where it fails, it skips with the error as its reason and remembers what it knew."""
    try:
        with uncollected():
            return tick(context)
    except ArchiverError as error:
        return dg.SensorResult(skip_reason=settings().mask(str(error)), cursor=context.cursor)


def _tick(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    current = settings()
    look = cluster().look()
    log, ledger = archive().standing()
    found = positions(ledger, look)
    busy = _busy_lanes(record_of(context), current.lanes)
    now = time.time()
    since = _waiting_since(context.cursor)
    requests, reasons, waiting = [], [*look.warnings, *map(str, Waits(current).present(ledger.committed))], {}
    states = lane_states(found, current.lanes)
    for state in states:
        if state.lag and not state.records:
            waiting[state.lane] = since.get(state.lane, now)
        waited = now - waiting.get(state.lane, now)
        if state.lane in busy:
            reasons.append(f"lane {state.lane}: run {busy[state.lane][:8]} is at work, lag {state.lag:,}")
        elif is_due(state, waited, current):
            waiting.pop(state.lane, None)
            requests.append(_request(state, current))
        elif state.lag:
            reasons.append(
                f"lane {state.lane}: {state.lag:,} of at least {counted(current.min_messages, 'message')}, for "
                f"{waited:.0f} of "
                f"at most {current.max_delay_seconds:.0f} s"
            )
        else:
            reasons.append(f"lane {state.lane}: lag 0")
    idle = not requests and not busy
    path = current.kept_view
    asked = _view_asked(context.cursor, now)
    if idle and path is not None and view.behind(path, archive(), log, _VIEW_SECONDS):
        version, at = asked
        if version != ledger.version or now - at >= _VIEW_AGAIN_SECONDS:
            asked = (ledger.version, now)
            requests.append(_request(states[0], current, current.tags_of("view")))
        else:
            reasons.append(
                f"the DuckDB file lacks version {version}; a run was asked for {now - at:.0f} s ago, "
                f"and another one is after {_VIEW_AGAIN_SECONDS:.0f} s"
            )
    told = _told_at(context.cursor, now)
    lag = sum(state.lag for state in states)
    shown = []
    # Its messages are there; that nothing is to be done is worth a word now and then, or it would look stale.
    if lag == 0 and not requests and path is not None and path.exists() and now - told >= _TELL_SECONDS:
        told, shown = now, [view_is_current(lag)]
    seen = f"{counted(len(found), 'partition')} of {counted(len(look.topics), 'topic')}"
    return dg.SensorResult(
        run_requests=requests,
        skip_reason=None if requests else f"{seen}; {'; '.join(reasons)}",
        asset_events=shown,
        cursor=json.dumps({**waiting, **({_TOLD: told} if told else {}), **({_VIEW: asked} if asked[1] else {})}),
    )


def positions(ledger: Ledger, look: Look) -> list[Position]:
    """Where archiving stands in every partition that the broker showed."""
    start = cluster().start_offset
    return [item for state in look.topics for item in positions_of(state, ledger.committed, start)]


def _waiting_since(cursor: str | None) -> dict[int, float]:
    """Since when each lane has waited, in seconds since 1970; a cursor that somebody edited counts as none."""
    try:
        now = time.time()
        given = json.loads(cursor or "{}").items()
        stored = {int(lane): float(moment) for lane, moment in given if lane not in (_TOLD, _VIEW)}
        # A moment in the future is that of a clock which was set back; NaN is none at all.
        return {lane: moment if moment <= now else now for lane, moment in stored.items()}
    except (ValueError, TypeError, AttributeError):
        return {}


def _told_at(cursor: str | None, now: float) -> float:
    """When the DuckDB file was last said to be up to date, in seconds since 1970; never, where no cursor says so."""
    try:
        return min(now, float(json.loads(cursor or "{}").get(_TOLD, 0.0)))
    except (ValueError, TypeError, AttributeError):
        return 0.0


def _view_asked(cursor: str | None, now: float) -> tuple[int, float]:
    """For which version of the table the DuckDB file was last to be brought up to date, and when; (-1, 0) for none."""
    try:
        version, at = json.loads(cursor or "{}").get(_VIEW, (-1, 0.0))
        return int(version), min(now, float(at))
    except (ValueError, TypeError, AttributeError, OverflowError):
        return -1, 0.0


def _request(state: LaneState, current: Settings, more: Mapping[str, str] | None = None) -> dg.RunRequest:
    # No run key: one is spent even if its run fails.
    return dg.RunRequest(
        run_config=run_config(state.lane, current),
        tags={
            LANE_TAG: str(state.lane),
            "archiver/topics": ",".join(state.topics)[:200],
            "archiver/lag": str(state.lag),
            "dagster/max_runtime": str(round(current.run_seconds + PASS_SECONDS + _RUN_LIMIT_SECONDS)),
            # The next tick asks anew for what a killed run left; Dagster's own retry would do the same beside it.
            "dagster/max_retries": "0",
            **(more or {}),
        },
    )


def _busy_lanes(instance: dg.DagsterInstance, lanes: int) -> Mapping[int, str]:
    """The lanes that have a run under way, and its id; a run started by hand without a lane holds them all."""
    busy: dict[int, str] = {}
    for record in under_way(instance, job_name="archive"):
        run = record.dagster_run
        lane = run.tags.get(LANE_TAG)
        for number in range(lanes) if lane is None else (int(lane),):
            busy.setdefault(number, run.run_id)
    return busy
