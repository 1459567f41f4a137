"""The sensor that lets Dagster forget runs after a time: nothing else removes them, and each is a file or many rows."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import dagster as dg
from dagster import DagsterRunStatus, RunRecord, RunsFilter

from archiver_pipeline.amounts import counted
from archiver_pipeline.defs import checks, hour_checks
from archiver_pipeline.defs.resources import settings
from archiver_pipeline.defs.runs import IN_FLIGHT, record_of
from archiver_pipeline.defs.sensors import or_reason

DAY_SECONDS = 86_400.0
TICK_SECONDS = 1.5
"""A tick works no longer: Dagster's daemon asks one sensor after the other, and new messages are not to wait for it."""

INTERVAL_SECONDS = 60
KEPT_NEWEST = 20
"""So many of the newest finished runs of each job stay, however old they are: the UI has something to show of each."""

AROUND_SECONDS = DAY_SECONDS
"""So often the runs that had to stay are looked at again: an hour may have been sealed anew since."""

CHECKS = (*checks.SPECS, *hour_checks.SPECS)

_FINISHED = [DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]
_PAGE = 100


@dataclass(frozen=True)
class Place:
    """How far the runs have been looked at, as the cursor has it.

    Attributes:
        after: runs made up to then (seconds since 1970) are gone, or have to stay.
        began: when the first of them was looked at.
    """

    after: float = 0.0
    began: float = 0.0


@dataclass
class Kept:
    """The runs that stay; what is known of a job is asked for once.

    Attributes:
        instance: Dagster's own record.
        until: runs that ended since then stay, in seconds since 1970.
        is_over: whether there is no time left to find out; a run is then looked at the next time around.
    """

    instance: dg.DagsterInstance
    until: float
    is_over: Callable[[], bool]
    _newest: dict[str, frozenset[str]] = field(default_factory=dict)

    def stays(self, record: RunRecord) -> bool:
        """Whether a run has to stay: it ended lately, is executed again at present, is one of the newest of its job, or
        the UI shows by it how an asset, or an hour of it, stands."""
        run = record.dagster_run
        if run.run_id in self._roots:
            return True
        if (record.end_time or record.update_timestamp.timestamp()) > self.until:
            return True
        return run.run_id in self._newest_of(run.job_name) or any(
            self.is_over() or self._is_latest(run.run_id, event) for event in self._materializations(run.run_id)
        )

    @cached_property
    def _roots(self) -> frozenset[str]:
        """The runs that others under way are executed again for: Dagster looks them up while these run."""
        found = self.instance.get_runs(RunsFilter(statuses=IN_FLIGHT))
        return frozenset(each for run in found for each in (run.root_run_id, run.parent_run_id) if each)

    def _newest_of(self, job: str) -> frozenset[str]:
        if job not in self._newest:
            found = self.instance.get_run_records(RunsFilter(job_name=job, statuses=_FINISHED), limit=KEPT_NEWEST)
            self._newest[job] = frozenset(record.dagster_run.run_id for record in found)
        return self._newest[job]

    def _materializations(self, run_id: str) -> list[dg.AssetMaterialization]:
        """What a run has materialized, each asset and partition once."""
        found: dict[tuple[dg.AssetKey, str | None], dg.AssetMaterialization] = {}
        cursor: str | None = None
        while True:
            page = self.instance.get_records_for_run(
                run_id, cursor=cursor, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION, limit=_PAGE
            )
            for record in page.records:
                if (event := record.asset_materialization) is not None:
                    found[event.asset_key, event.partition] = event
            if not page.has_more:
                return list(found.values())
            cursor = page.cursor

    def _is_latest(self, run_id: str, event: dg.AssetMaterialization) -> bool:
        """Whether the newest materialization of an asset, or of one of its partitions, is that of a run."""
        wanted = [event.partition] if event.partition is not None else None
        newest = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=event.asset_key, asset_partitions=wanted), limit=1
        ).records
        return bool(newest) and newest[0].run_id == run_id


def forget(instance: dg.DagsterInstance, run_id: str) -> None:
    """Remove a finished run with all of its events, the file that SQLite has for them, and what its steps left."""
    # What a run left goes before the run itself: should this process be killed, the run comes up again.
    shutil.rmtree(Path(instance.storage_directory()) / run_id, ignore_errors=True)
    instance.event_log_storage.delete_events(run_id)
    _forget_checks(instance, run_id)
    shard = getattr(instance.event_log_storage, "path_for_shard", None)
    if shard is not None:
        for suffix in ("", "-wal", "-shm", "-journal"):
            with suppress(FileNotFoundError):
                Path(shard(run_id) + suffix).unlink()
    instance.run_storage.delete_run(run_id)


def _forget_checks(instance: dg.DagsterInstance, run_id: str) -> None:
    """Remove what the checks of a run came to, which Dagster leaves, but for the newest of each check."""
    import sqlalchemy as db
    from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable as Table
    from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage

    storage = instance.event_log_storage
    if not isinstance(storage, SqlEventLogStorage):
        return
    with storage.index_connection() as connection:
        for spec in CHECKS:
            its = db.and_(Table.c.asset_key == spec.asset_key.to_string(), Table.c.check_name == spec.name)
            # By the order of ids and not by their maximum, which would look at each row of the check.
            newest = db.select(Table.c.id).where(its).order_by(Table.c.id.desc()).limit(1).scalar_subquery()
            connection.execute(db.delete(Table).where(its, Table.c.run_id == run_id, Table.c.id < newest))


def purge(
    instance: dg.DagsterInstance,
    keep_days: float,
    place: Place,
    now: float,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[int, Place]:
    """Forget runs that ended more than `keep_days` ago, the oldest first, for `TICK_SECONDS`.

    Args:
        instance: Dagster's own record.
        keep_days: how long runs are kept.
        place: where the last tick stopped.
        now: seconds since 1970.
        clock: by which the tick is timed.

    Returns:
        How many are forgotten, and the place for the next tick.
    """
    ends, gone = clock() + TICK_SECONDS, 0
    until = now - keep_days * DAY_SECONDS
    kept = Kept(instance, until, lambda: clock() > ends)
    if not 0 <= now - place.began < AROUND_SECONDS:
        place = Place(0.0, now)
    while True:
        wanted = RunsFilter(statuses=_FINISHED, created_after=_moment(place.after), created_before=_moment(until))
        page = instance.get_run_records(wanted, limit=_PAGE, order_by="create_timestamp", ascending=True)
        for record in page:
            if not kept.stays(record):
                forget(instance, record.dagster_run.run_id)
                gone += 1
            # Runs of the very same moment may be left for the next time around.
            place = Place(record.create_timestamp.timestamp(), place.began)
            if kept.is_over():
                return gone, place
        if len(page) < _PAGE:
            return gone, place


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(max(0.0, seconds), UTC)


def retention_sensor() -> dg.SensorDefinition:
    """The sensor; it starts no run."""

    @dg.sensor(
        name="retention_sensor",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Forgets runs that ended ARCHIVER_KEEP_RUNS_DAYS ago, a few at a time.",
    )
    def evaluate(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return or_reason(context, _tick)

    return evaluate


def _tick(context: dg.SensorEvaluationContext) -> dg.SensorResult:
    days = settings().keep_runs_days
    if days == 0:
        return dg.SensorResult(skip_reason="ARCHIVER_KEEP_RUNS_DAYS is 0: runs are kept for ever", cursor=None)
    gone, place = purge(record_of(context), days, _recall(context.cursor), time.time())
    counted_days = f"{days:g} day{'s' * (days != 1)}"
    told = (
        f"{counted(gone, 'run')} gone, older than {counted_days}"
        if gone
        else f"no run older than {counted_days} is left to go"
    )
    return dg.SensorResult(skip_reason=told, cursor=json.dumps(asdict(place)))


def _recall(cursor: str | None) -> Place:
    """Read a cursor; one that somebody edited counts as none."""
    try:
        stored = json.loads(cursor or "{}")
        return Place(max(0.0, float(stored["after"])), float(stored["began"]))
    except (ValueError, TypeError, AttributeError, KeyError):
        return Place()
