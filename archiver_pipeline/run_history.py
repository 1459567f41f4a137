"""Dagster's own history: how runs ended, which are under way, and when its daemons last said that they live.

It reads, and decides nothing.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from archiver_pipeline.dagster_home import LATE_SECONDS, opened, reading

if TYPE_CHECKING:
    from dagster import DagsterInstance

JOBS = ("archive", "seal", "backfill", "follow")
OUTCOMES = ("success", "failure", "canceled")

_AT_ONCE = 500
"""So many runs are read in one question; the next look goes on behind them."""
_OVERLAP = timedelta(seconds=60)
"""What was written by another process may be seen late: this far back is read again."""
_REMEMBERED = 20_000


@dataclass(frozen=True)
class Daemon:
    """A daemon of Dagster that has ever run: whether it says so often enough, and when it did last (since 1970)."""

    name: str
    healthy: bool
    heartbeat: float


@dataclass(frozen=True)
class History:
    """What Dagster has on record.

    Attributes:
        ended: runs by job and outcome, counted since the history was begun.
        active: runs that are queued, and that are under way.
        successes: when a run of a job ended well last, in seconds since 1970.
        daemons: those that have ever run.
    """

    ended: Mapping[tuple[str, str], int]
    active: Mapping[str, int]
    successes: Mapping[str, float]
    daemons: tuple[Daemon, ...]


class RunHistory:
    """The history of one Dagster, read on from where the last look was: what it costs does not grow with its runs."""

    def __init__(self, home: str, since: float, at_once: int = _AT_ONCE) -> None:
        """Begin to count.

        Args:
            home: `DAGSTER_HOME`.
            since: runs that ended before are not counted, in seconds since 1970.
            at_once: how many runs are read in one question.
        """
        self._home, self._since, self._at_once = home, since, at_once
        self._cursor = datetime.fromtimestamp(since, UTC)
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._ended: Counter[tuple[str, str]] = Counter({(job, how): 0 for job in JOBS for how in OUTCOMES})
        self._successes: dict[str, float] = {}
        self._instance: DagsterInstance | None = None
        self._begun = False

    def read_on(self) -> History:
        """Take in the runs that ended since the last time.

        Raises:
            DagsterFault: the folder is no home of Dagster, or its storage does not answer.
        """
        if self._instance is None:
            self._instance = opened(Path(self._home))
        with reading(Path(self._home)):
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
        return History(dict(self._ended), active, dict(self._successes), daemons)

    def _begin(self, instance: DagsterInstance) -> None:
        """Take in when a run of each job succeeded last."""
        from dagster import DagsterRunStatus, RunsFilter

        for job in JOBS:
            good = RunsFilter(job_name=job, statuses=[DagsterRunStatus.SUCCESS])
            for record in instance.get_run_records(good, limit=1):
                self._successes[job] = record.end_time or record.update_timestamp.timestamp()
        self._begun = True

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
                ended = record.end_time or record.update_timestamp.timestamp()
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
