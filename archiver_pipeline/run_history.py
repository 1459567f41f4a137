"""Dagster's own history: how runs ended, which are under way, and when its daemons last said that they live.

It reads, and decides nothing.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from archiver_pipeline.dagster_home import LATE_SECONDS, SensorHealth, opened, reading, sensors_of

if TYPE_CHECKING:
    from dagster import DagsterInstance, DagsterRun, RunRecord

JOBS = ("archive", "seal", "backfill", "follow")
OUTCOMES = ("success", "failure", "canceled")

_AT_ONCE = 500
"""So many runs are read in one question; the next look goes on behind them."""
_OVERLAP = timedelta(seconds=60)
"""What was written by another process may be seen late: this far back is read again."""
_REMEMBERED = 20_000
_FAILURES = 10
"""So many failed runs are told of, the newest."""
_RANGE = "dagster/asset_partition_range_"
_ERROR_CHARACTERS = 600


@dataclass(frozen=True)
class Daemon:
    """A daemon of Dagster that has ever run: whether it says so often enough, and when it did last (since 1970)."""

    name: str
    healthy: bool
    heartbeat: float


@dataclass(frozen=True)
class FailedRun:
    """A run that failed.

    Attributes:
        run_id, job: which one.
        ended: when, in seconds since 1970.
        error: what it failed with, as it told Dagster; empty where it told nothing.
        first, last: the partition keys (`2019-08-01-03:00`) of the first and the last hour that it was for, empty
            where it was for none.
    """

    run_id: str
    job: str
    ended: float
    error: str
    first: str
    last: str


@dataclass(frozen=True)
class History:
    """What Dagster has on record.

    Attributes:
        ended: runs by job and outcome, counted since the history was begun.
        active: runs that are queued, and that are under way.
        successes: when a run of a job ended well last, in seconds since 1970.
        daemons: those that have ever run.
        failures: the newest runs that failed, the newest first, whenever that was.
        sensors: those that have ticked, or that somebody has switched.
    """

    ended: Mapping[tuple[str, str], int]
    active: Mapping[str, int]
    successes: Mapping[str, float]
    daemons: tuple[Daemon, ...]
    failures: tuple[FailedRun, ...] = ()
    sensors: tuple[SensorHealth, ...] = ()


class RunHistory:
    """The history of one Dagster, read on from where the last look was: what it costs does not grow with its runs."""

    def __init__(self, home: str, since: float, at_once: int = _AT_ONCE, *, mask: Callable[[str], str] = str) -> None:
        """Begin to count.

        Args:
            home: `DAGSTER_HOME`.
            since: runs that ended before are not counted, in seconds since 1970.
            at_once: how many runs are read in one question.
            mask: takes secrets out of the text of errors, before they are cut: of half a secret nobody would know.
        """
        self._home, self._since, self._at_once, self._mask = home, since, at_once, mask
        self._cursor = datetime.fromtimestamp(since, UTC)
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._ended: Counter[tuple[str, str]] = Counter({(job, how): 0 for job in JOBS for how in OUTCOMES})
        self._successes: dict[str, float] = {}
        self._failures: dict[str, FailedRun] = {}
        self._instance: DagsterInstance | None = None
        self._begun = False

    def read_on(self) -> History:
        """Take in the runs that ended since the last time.

        Raises:
            DagsterFault: the folder is no home of Dagster, or its storage does not answer.
        """
        if self._instance is None:
            self._instance = opened(Path(self._home), self._mask)
        with reading(Path(self._home), self._mask):
            return self._read_on(self._instance)

    def _read_on(self, instance: DagsterInstance) -> History:
        from dagster import DagsterRunStatus, RunsFilter

        if not self._begun:
            self._begin(instance)
        self._take(instance)
        under_way = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
        waiting = [DagsterRunStatus.QUEUED, DagsterRunStatus.NOT_STARTED]
        active = {
            "queued": instance.get_runs_count(RunsFilter(statuses=waiting)),
            "started": instance.get_runs_count(RunsFilter(statuses=under_way)),
        }
        daemons = tuple(
            Daemon(name, time.time() - status.last_heartbeat.timestamp <= LATE_SECONDS, status.last_heartbeat.timestamp)
            for name, status in sorted(instance.get_daemon_statuses().items())
            if status.last_heartbeat is not None
        )
        sensors = tuple(sensors_of(instance, time.time(), self._mask))
        return History(dict(self._ended), active, dict(self._successes), daemons, self._newest_failures(), sensors)

    def _begin(self, instance: DagsterInstance) -> None:
        """Take in when a run of each job succeeded last."""
        from dagster import DagsterRunStatus, RunsFilter

        for job in JOBS:
            good = RunsFilter(job_name=job, statuses=[DagsterRunStatus.SUCCESS])
            for record in instance.get_run_records(good, limit=1):
                self._successes[job] = _ended(record)
        failed = RunsFilter(statuses=[DagsterRunStatus.FAILURE])
        for record in reversed(instance.get_run_records(failed, limit=_FAILURES)):
            self._note_failure(instance, record)
        self._begun = True

    def _newest_failures(self) -> tuple[FailedRun, ...]:
        return tuple(sorted(self._failures.values(), key=lambda run: run.ended, reverse=True))

    def _is_among_newest(self, ended: float) -> bool:
        """Whether a run that failed then is told of: of thousands, only the newest are asked for their errors."""
        return len(self._failures) < _FAILURES or ended > min(run.ended for run in self._failures.values())

    def _note_failure(self, instance: DagsterInstance, record: RunRecord) -> None:
        run = record.dagster_run
        if run.run_id in self._failures:
            return
        self._failures[run.run_id] = FailedRun(
            run.run_id,
            run.job_name,
            _ended(record),
            _brief(self._mask(_error_of(instance, run.run_id))),
            *_partitions_of(run),
        )
        for gone in self._newest_failures()[_FAILURES:]:
            del self._failures[gone.run_id]

    def _take(self, instance: DagsterInstance) -> None:
        """Count the runs that were touched since the last time and have ended, a bounded number at once."""
        from dagster import DagsterRunStatus, RunsFilter

        outcomes = {
            DagsterRunStatus.SUCCESS: "success",
            DagsterRunStatus.FAILURE: "failure",
            DagsterRunStatus.CANCELED: "canceled",
        }
        while True:
            wanted = RunsFilter(statuses=list(outcomes), updated_after=self._cursor - _OVERLAP)
            records = instance.get_run_records(wanted, limit=self._at_once, order_by="update_timestamp", ascending=True)
            fresh = [record for record in records if record.dagster_run.run_id not in self._seen]
            for record in fresh:
                run = record.dagster_run
                self._seen[run.run_id] = None
                ended = _ended(record)
                if run.status is DagsterRunStatus.FAILURE and self._is_among_newest(ended):
                    self._note_failure(instance, record)
                if ended > self._since:
                    self._ended[run.job_name, outcomes[run.status]] += 1
                    if run.status is DagsterRunStatus.SUCCESS:
                        self._successes[run.job_name] = max(ended, self._successes.get(run.job_name, 0.0))
            while len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)
            newest = records[-1].update_timestamp if records else self._cursor
            # A full answer without news would be given for ever: then what is read again becomes less.
            step = newest if fresh else newest + _OVERLAP
            if len(records) < self._at_once:
                self._cursor = max(self._cursor, newest)
                return
            self._cursor = max(self._cursor, step)


def _ended(record: RunRecord) -> float:
    return record.end_time or record.update_timestamp.timestamp()


def _partitions_of(run: DagsterRun) -> tuple[str, str]:
    one = run.tags.get("dagster/partition", "")
    return run.tags.get(f"{_RANGE}start", one), run.tags.get(f"{_RANGE}end", one)


def _error_of(instance: DagsterInstance, run_id: str) -> str:
    """What a run failed with: the sentence of its step, else what Dagster says of the run."""
    from dagster import DagsterEventType

    kinds = {DagsterEventType.STEP_FAILURE, DagsterEventType.RUN_FAILURE}
    told = ""
    for record in instance.get_records_for_run(run_id, of_type=kinds, limit=4).records:
        event = record.event_log_entry.dagster_event
        if event is None:
            continue
        if event.is_step_failure:
            data = event.step_failure_data
            own = data.user_failure_data.description if data.user_failure_data else None
            cause = data.error.cause or data.error if data.error else None
            return own or (cause.message if cause else "") or ""
        told = told or event.message or ""
    return told


def _brief(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _ERROR_CHARACTERS else line[: _ERROR_CHARACTERS - 1] + "…"
