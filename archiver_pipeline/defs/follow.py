"""The job `follow`, and the sensor that starts it when there are new commits, or when time has made minutes final."""

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any
from zlib import crc32

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter

from archiver_pipeline.amounts import counted
from archiver_pipeline.defs.followers import follow
from archiver_pipeline.defs.resources import archive, settings
from archiver_pipeline.defs.runs import FOLLOW, heartbeat, record_of, under_way
from archiver_pipeline.defs.sensors import or_reason
from archiver_pipeline.errors import ArchiverError
from archiver_pipeline.followers.peek import has_waiting
from archiver_pipeline.followers.registry import followers
from archiver_pipeline.settings.settings import Settings

FOLLOW_OP = "catch_up"
FOLLOWERS_TAG = "archiver/followers"
AGGREGATES = "aggregates"
"""The aggregates share a run; every other follower has one of its own, so that none holds up another."""

LONGEST_PAUSE_SECONDS = 600.0
"""A follower whose runs fail is tried again after ever longer pauses, up to this one."""

MOST_IDLE_SECONDS = 60.0
"""A run that has to catch up less often than that does not stay for it: it would be taken for dead."""

_LOOK_BACK = 6


class FollowConfig(dg.Config):
    """Which followers catch up.

    Attributes:
        followers: their names; none for all.
        stay_seconds: how long to stay and catch up again, every `ARCHIVER_FOLLOW_SECONDS`; 0 for once.
    """

    followers: list[str] = []  # noqa: RUF012, pydantic copies it
    stay_seconds: float = 0


def follow_job() -> dg.JobDefinition:
    """Every follower catches up with the archive, or those that the run config names."""

    @dg.op(name=FOLLOW_OP, description="Brings followers up to the archive, one after the other.")
    def catch_up_all(context: dg.OpExecutionContext, config: FollowConfig) -> None:
        there = followers(settings())
        if unknown := [name for name in config.followers if name not in there]:
            known = ", ".join(there)
            raise dg.Failure(f"there is no follower {unknown[0]!r}: there are {known}", allow_retries=False)
        began = time.monotonic()
        while True:
            _catch_up(context, config.followers or list(there))
            left = began + config.stay_seconds - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, max(1.0, settings().follow_seconds)))

    @dg.job(
        name=FOLLOW,
        executor_def=dg.in_process_executor,
        description="Brings every follower up to the archive: aggregates and their topic, and other stores.",
        # To catch up with a large archive for the first time takes as long as it takes.
        tags={
            "dagster/priority": "-1",
            "dagster/max_runtime": "0",
            "dagster/max_retries": "0",
            **settings().tags_of("follow"),
        },
    )
    def follow_all() -> None:
        catch_up_all()

    return follow_all


def _catch_up(context: dg.OpExecutionContext, names: Sequence[str]) -> None:
    """Let followers catch up, one after the other; one that fails keeps none of the others."""
    there = followers(settings())
    failed: dict[str, str] = {}
    for name in names:
        try:
            with closing(there[name]()) as follower:
                follow(context, follower, heartbeat(context, name))
        except ArchiverError as error:
            failed[name] = settings().mask(str(error))
            context.log.error(f"{name}: {failed[name]}")
    if failed:
        raise dg.Failure("; ".join(f"{name}: {why}" for name, why in failed.items()), allow_retries=False)


def groups(current: Settings) -> Mapping[str, Sequence[str]]:
    """The followers that share a run, by the name of their group."""
    aggregates = [item.name for item in current.every_aggregate]
    others = [name for name in followers(current) if name not in aggregates]
    return {AGGREGATES: aggregates, **{name: [name] for name in others}}


def pause_seconds(failures: int, follow_seconds: float) -> float:
    """How long to wait after a run until the next one, when so many have failed in a row."""
    return max(follow_seconds, min(LONGEST_PAUSE_SECONDS, follow_seconds * 2.0**failures))


def stay_seconds(current: Settings) -> float:
    """How long a sensor's run stays: as long as those that archive, unless it would say nothing for long in between."""
    return current.run_seconds if current.follow_seconds <= MOST_IDLE_SECONDS else 0.0


def follow_sensor(job: dg.JobDefinition) -> dg.SensorDefinition:
    """The sensor of the job `follow`."""

    @dg.sensor(
        name="follow_sensor",
        job=job,
        minimum_interval_seconds=max(1, round(settings().interval_seconds)),
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Lets followers catch up when the archive has grown; one run each at a time.",
    )
    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return or_reason(context, _tick)

    return evaluate


def _tick(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    current = settings()
    if current.follow_seconds == 0:
        return dg.SensorResult(skip_reason="ARCHIVER_FOLLOW_SECONDS is 0: followers are started by hand")
    version = archive().ledger().version
    if version < 0:
        return dg.SensorResult(skip_reason="there is no archive yet")
    asked = _recall(context.cursor)
    now = time.time()
    requests, reasons = [], []
    instance = record_of(context)
    for group, names in groups(current).items():
        last = asked.get(group, {"version": -1, "definition": 0, "at": 0.0})
        standing = {"version": version, "definition": _definition(current, group)}
        busy = under_way(instance, job_name=FOLLOW, tags={FOLLOWERS_TAG: group})
        failures, undone = _failures(instance, group)
        pause = pause_seconds(failures, current.follow_seconds)
        is_known = all(last[name] == value for name, value in standing.items())
        is_new = not is_known or undone or (group == AGGREGATES and _is_waiting(current, now))
        if busy:
            reasons.append(f"{group}: run {busy[0].dagster_run.run_id[:8]} is at work")
        elif not is_new:
            reasons.append(f"{group}: nothing is new since table version {version}")
        elif now - last["at"] < pause:
            failed = f", {counted(failures, 'run has', 'runs in a row have')} failed" if failures else ""
            reasons.append(f"{group}: the next run is due in {pause - (now - last['at']):.0f} s{failed}")
        else:
            asked[group] = {**standing, "at": now}
            requests.append(_request(group, names, stay_seconds(current)))
    return dg.SensorResult(
        run_requests=requests, skip_reason=None if requests else "; ".join(reasons), cursor=json.dumps(asked)
    )


def _definition(current: Settings, group: str) -> int:
    """A number that changes with what the followers of a group are to count, or with where they keep it."""
    if group == AGGREGATES:
        said = "\n".join(item.model_dump_json() for item in current.every_aggregate)
    else:
        said = "\n".join(url.get_secret_value() for url in (current.mysql_url, current.search_url))
    return crc32(current.mask(said).encode())


def _is_waiting(current: Settings, now: float) -> bool:
    """Whether windows of an aggregate have ended long enough ago to be final."""
    from archiver_pipeline.followers.aggregator import STATE

    return any(
        has_waiting(current.aggregates_path / item.name / STATE, now - item.seconds - current.minute_grace_seconds)
        for item in current.every_aggregate
    )


def _failures(instance: dg.DagsterInstance, group: str) -> tuple[int, bool]:
    """How many of the newest runs of a group have failed in a row, and whether the newest one did not come through."""
    count = 0
    runs = instance.get_runs(RunsFilter(job_name=FOLLOW, tags={FOLLOWERS_TAG: group}), limit=_LOOK_BACK)
    for run in runs:
        if run.status is not DagsterRunStatus.FAILURE:
            break
        count += 1
    return count, bool(runs) and runs[0].status is not DagsterRunStatus.SUCCESS


def _recall(cursor: str | None) -> dict[str, dict[str, float]]:
    """Read a cursor; one that somebody edited counts as none, and a time in the future as the present."""
    try:
        now = time.time()
        stored = json.loads(cursor or "{}")
        return {
            str(group): {
                "version": int(item["version"]),
                "definition": int(item["definition"]),
                "at": min(now, float(item["at"])),
            }
            for group, item in stored.items()
        }
    except (ValueError, TypeError, AttributeError, KeyError):
        return {}


def _request(group: str, names: Sequence[str], stay: float) -> dg.RunRequest:
    # No run key: one is spent even if its run fails.
    config: dict[str, Any] = {"followers": list(names), "stay_seconds": stay}
    return dg.RunRequest(run_config={"ops": {FOLLOW_OP: {"config": config}}}, tags={FOLLOWERS_TAG: group})
