"""The sensor of the job `seal`: a few closed hours at a time, and never while archiving is far behind."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import dagster as dg

from archiver_pipeline.amounts import counted
from archiver_pipeline.defs.partitions import hour_partitions
from archiver_pipeline.defs.resources import archive, cluster, settings
from archiver_pipeline.defs.run_tags import HOURS, hours_tag
from archiver_pipeline.defs.runs import bury, record_of, under_way
from archiver_pipeline.defs.seal import SEAL_OP
from archiver_pipeline.defs.sensors import LaneState, lane_states, or_reason, positions
from archiver_pipeline.hours import DueHour, MiB

MOST_HOURS = 24
MOST_BYTES = 1024 * MiB
LIMIT_SECONDS = 300.0
"""What one run is asked to seal, and how long it may go on to begin another hour."""

ASK_AGAIN_SECONDS = 3600.0
"""An hour that was asked for and is still due is left alone for so long, unless its files have changed."""

_MIN_INTERVAL_SECONDS = 60.0
_RUN_LIMIT_SECONDS = 1800


@dataclass(frozen=True)
class Asked:
    """When a run was last asked to seal an hour, in seconds since 1970, and how many unsealed files it had."""

    at: float
    files: int


@dataclass(frozen=True)
class Memory:
    """What the sensor remembers from tick to tick; without it, it asks once too often.

    Attributes:
        asked: by the name of an hour that is still due.
        at: when a run was last asked for, or when the sensor began.
        versions: the table's versions the last two times.
    """

    asked: Mapping[str, Asked] = field(default_factory=dict)
    at: float = 0.0
    versions: tuple[int, int] = (-1, -1)


def choose(due: Iterable[DueHour], asked: Mapping[str, Asked], now: float) -> list[DueHour]:
    """Choose the hours for a run, the oldest first: not too many, nor too much, and none that was just asked for."""
    chosen: list[DueHour] = []
    size = 0
    for item in due:
        last = asked.get(item.hour.name)
        if last is not None and last.files == item.files and now - last.at < ASK_AGAIN_SECONDS:
            continue
        size += item.bytes
        if chosen and (len(chosen) == MOST_HOURS or size > MOST_BYTES):
            break
        chosen.append(item)
    return chosen


def is_to_clean(memory: Memory, version: int, now: float, keep_hours: float) -> bool:
    """Tell whether a run is worth it that only removes what nothing needs any more.

    The run that replaced files leaves them, for readers keep them open, and so may the one after it. After the second
    one nothing is left, if nothing else has changed the table.
    """
    return version != memory.versions[0] and now - memory.at >= max(1.0, keep_hours) * 3600


def far_behind(states: Iterable[LaneState], batch_messages: int) -> str:
    """Name the lanes that are more than a batch behind."""
    return "; ".join(
        f"lane {state.lane} is {counted(state.lag, 'message')} behind, more than a batch of {batch_messages:,}"
        for state in states
        if state.lag > batch_messages
    )


def seal_sensor(job: dg.JobDefinition, partitions: dg.HourlyPartitionsDefinition) -> dg.SensorDefinition:
    """The sensor of the job `seal`; `partitions` are those that the UI shows as long as this process lives."""

    @dg.sensor(
        name="seal_sensor",
        job=job,
        minimum_interval_seconds=round(max(_MIN_INTERVAL_SECONDS, settings().interval_seconds)),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Seals hours once they are closed, a few at a time, while archiving keeps up.",
    )
    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return or_reason(context, lambda tick: _tick(tick, partitions.start))

    return evaluate


def _tick(context: dg.SensorEvaluationContext, shown_from: datetime) -> dg.SensorResult:
    current = settings()
    instance = record_of(context)
    bury(instance)
    busy = under_way(instance, job_name="seal")
    if busy:
        return _skip(f"run {busy[0].dagster_run.run_id[:8]} is at work", context.cursor)
    look = cluster().look()
    found = positions(archive().ledger(), look)
    behind = far_behind(lane_states(found, current.lanes), current.batch_messages)
    if behind:
        return _skip(f"{behind}: sealing waits", context.cursor)
    from archiver_pipeline.rewrites.seal import Sealer

    sealer = Sealer(current)
    sealer.archive = archive()  # It has read the log already.
    if not sealer.archive.exists():
        return _skip("there is no archive yet", context.cursor)
    due = sealer.due(look=look)
    version = sealer.archive.ledger().version
    now = time.time()
    memory = recall(context.cursor, now)
    asked = {item.hour.name: memory.asked[item.hour.name] for item in due if item.hour.name in memory.asked}
    chosen = choose(due, asked, now)
    files = sum(item.files for item in due)
    if not chosen and not is_to_clean(memory, version, now, current.keep_replaced_hours):
        left_alone = f", {len(asked)} of them asked for within the hour before" if asked else ""
        remembered = Memory(asked, memory.at, memory.versions)
        told = f"{counted(len(due), 'closed hour')} with {counted(files, 'file')} to be sealed"
        reason = f"{told}{left_alone}{_unseen(shown_from)}"
        return _skip(reason, _cursor(remembered))
    asked |= {item.hour.name: Asked(now, item.files) for item in chosen}
    return dg.SensorResult(
        run_requests=[_request(chosen)], cursor=_cursor(Memory(asked, now, (memory.versions[1], version)))
    )


def _unseen(shown_from: datetime) -> str:
    """Say what keeps the UI from showing old hours that came into the archive after the definitions were loaded."""
    earlier = hour_partitions().start < shown_from
    return f"; reload the code location in the UI to see hours before {shown_from:%Y-%m-%dT%H}" if earlier else ""


def recall(cursor: str | None, now: float) -> Memory:
    """Read a cursor; one that somebody edited counts as none, and a time in the future as the present."""
    if not cursor:
        return Memory(at=now)
    try:
        stored = json.loads(cursor)
        asked = {
            str(name): Asked(min(now, float(item["at"])), int(item["files"])) for name, item in stored["asked"].items()
        }
        older, newer = stored["versions"]
        return Memory(asked, min(now, float(stored["at"])), (int(older), int(newer)))
    except (ValueError, TypeError, AttributeError, KeyError):
        return Memory(at=now)


def _cursor(memory: Memory) -> str:
    return json.dumps(asdict(memory))


def _skip(reason: str, cursor: str | None) -> dg.SensorResult:
    return dg.SensorResult(skip_reason=reason, cursor=cursor)


def _request(chosen: Sequence[DueHour]) -> dg.RunRequest:
    # No run key: one is spent even if its run fails.
    return dg.RunRequest(
        run_config=run_config(chosen),
        tags={
            HOURS: hours_tag(item.hour for item in chosen),
            "archiver/files": str(sum(item.files for item in chosen)),
            "dagster/max_runtime": str(round(LIMIT_SECONDS + _RUN_LIMIT_SECONDS)),
            # The next tick asks anew for what a killed run left; Dagster's own retry would do the same beside it.
            "dagster/max_retries": "0",
        },
    )


def run_config(chosen: Sequence[DueHour]) -> dict[str, Any]:
    """The run config of a sensor's run; without hours it only cleans, but for what has become due meanwhile."""
    config = {
        "hours": [item.hour.name for item in chosen],
        "limit": MOST_HOURS,
        "limit_seconds": LIMIT_SECONDS,
        "patient": True,
    }
    return {"ops": {SEAL_OP: {"config": config}}}
