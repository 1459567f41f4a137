"""Runs: which are under way, when each last said something, and how one that may wait steps aside."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from typing import Any

import dagster as dg
from dagster import DagsterRunStatus, RunRecord, RunsFilter

from archiver_pipeline.ending import end_in_time
from archiver_pipeline.steps import OnStep

SILENT_SECONDS = 300.0
"""A run under way that has said nothing for this long is taken for dead. Should it live, its commit is refused."""

DEAD_SECONDS = 900.0
"""After so long a silent rewrite counts as failed, and those that wait for it go on."""

KIND_TAG = "archiver/kind"
REWRITE = "rewrite"
BACKFILL_TAG = "dagster/backfill"
"""Runs with one of these tags wait for each other, and keep none that archives waiting: see deploy/dagster.yaml."""

MAX_RETRIES_TAG = "dagster/max_retries"
NOT_AGAIN = "-1"
"""Its value on a run that was asked to end. It is not the 0 of runs that are never tried again, so that a run which has
it from the one that it repeats can tell."""

ARCHIVE, FOLLOW = "archive", "follow"
"""The jobs that archive and that followers catch up by."""

IN_FLIGHT = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]
_HEARTBEAT_SECONDS = 30.0
_tagging = threading.Lock()
_records: list[tuple[Any, dg.DagsterInstance]] = []
_NICE = 10


def record_of(context: dg.SensorEvaluationContext) -> dg.DagsterInstance:
    """Dagster's own record, opened once per process; `context.instance` opens it anew for each tick.

    That looks through the versions of its schema, and takes longer than the rest of a tick.
    """
    ref = context.instance_ref
    if ref is None:
        return context.instance
    if not _records or _records[-1][0] != ref:
        _records.append((ref, dg.DagsterInstance.from_ref(ref)))
    return _records[-1][1]


def under_way(instance: dg.DagsterInstance, **wanted: Any) -> list[RunRecord]:
    """The runs under way that are not taken for dead; a queue may be long, so waiting in it is no sign of death.

    Args:
        instance: Dagster's own record.
        wanted: what else `RunsFilter` takes, such as `job_name`.
    """
    now = time.time()
    return [
        record
        for record in instance.get_run_records(RunsFilter(statuses=IN_FLIGHT, **wanted))
        if record.dagster_run.status is DagsterRunStatus.QUEUED or now - last_sign(instance, record) <= SILENT_SECONDS
    ]


def bury(instance: dg.DagsterInstance) -> list[str]:
    """Fail the runs that died with the machine or their code server. Return their ids.

    Nobody else does so for long. A backfill is then tried again by Dagster. Should such a run live, it goes on, and
    nothing that it does is wrong.
    """
    started = [status for status in IN_FLIGHT if status is not DagsterRunStatus.QUEUED]
    buried = []
    for record in instance.get_run_records(RunsFilter(statuses=started)):
        run, silent = record.dagster_run, time.time() - last_sign(instance, record)
        if silent > DEAD_SECONDS and _is_ours(run):
            told = f"This run has said nothing for {silent / 60:.0f} minutes and is taken for dead."
            instance.report_run_failed(run, told)
            buried.append(run.run_id)
    return buried


def _is_ours(run: dg.DagsterRun) -> bool:
    """Whether a run says something now and then as long as it lives."""
    return run.job_name in (ARCHIVE, FOLLOW) or run.tags.get(KIND_TAG) == REWRITE or BACKFILL_TAG in run.tags


def last_sign(instance: dg.DagsterInstance, record: RunRecord) -> float:
    """When a run last logged anything, in seconds since 1970."""
    records = instance.get_records_for_run(record.dagster_run.run_id, limit=1, ascending=False).records
    return records[0].event_log_entry.timestamp if records else record.create_timestamp.timestamp()


def heartbeat(context: dg.OpExecutionContext | dg.AssetExecutionContext, what: str) -> OnStep:
    """Log a line now and then during long steps: the sensors take a run that says nothing for dead. From here on the
    process ends in time when it is asked to."""
    _begin_anew(context)
    end_in_time(lambda: _not_again(context))
    last = time.monotonic()

    def on_step(name: str) -> None:
        nonlocal last
        if time.monotonic() - last > _HEARTBEAT_SECONDS:
            last = time.monotonic()
            context.log.info(f"{what}: at work ({name})")

    return on_step


def _not_again(context: dg.OpExecutionContext | dg.AssetExecutionContext) -> None:
    """Have Dagster start a run that was asked to end no second time: it takes one that ends by a signal for a crash.

    A backfill's run is left to it, unless somebody has canceled that very run: nobody else asks for its hour again.
    """
    # Any other run is not looked up first: the sooner it has the tag, the surer Dagster sees it when the run ends.
    if context.run.tags.get(MAX_RETRIES_TAG) == "0":
        return
    if BACKFILL_TAG not in context.run.tags or _is_canceled(context):
        add_tags(context, {MAX_RETRIES_TAG: NOT_AGAIN})


def _is_canceled(context: dg.OpExecutionContext | dg.AssetExecutionContext) -> bool:
    run = context.instance.get_run_by_id(context.run.run_id)
    return run is not None and run.status is DagsterRunStatus.CANCELING


def _begin_anew(context: dg.OpExecutionContext | dg.AssetExecutionContext) -> None:
    """Give a run that is executed again the retries which the one before it lost by being asked to end."""
    if context.run.parent_run_id and context.run.tags.get(MAX_RETRIES_TAG) == NOT_AGAIN:
        add_tags(context, {MAX_RETRIES_TAG: str(context.instance.run_retries_max_retries)})


def add_tags(context: dg.OpExecutionContext | dg.AssetExecutionContext, tags: Mapping[str, str]) -> None:
    """Put tags on a run. Dagster reads all of them, and writes them anew: of two threads one would undo the other's."""
    with _tagging:
        context.instance.add_run_tags(context.run.run_id, tags)


def step_aside() -> None:
    """Give way to runs that archive: new messages wait for the processor before old hours do."""
    # Before Polars and DuckDB start their threads, which take over the priority of the one that starts them.
    os.nice(max(0, _NICE - os.nice(0)))
