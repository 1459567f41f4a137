"""Dagster's code server: it goes on clearing away runs whatever happens, and its end is also that of its runs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import wraps

import dagster as dg
from dagster import DagsterRunStatus
from dagster._grpc.server import DagsterApiServer

from archiver_pipeline.ending import HARD_CODES

log = logging.getLogger(__name__)

FINISH_SECONDS = 2.0
"""So long runs may go on once the code server was asked to end; then they are asked, too."""

RECORD_SECONDS = 1.0
"""So long it may take to record that runs are asked to end, before they are: Dagster's database may not answer."""

_SENSOR_TAG = "dagster/sensor_name"
_ended_at: dict[int, float] = {}
_signalled: set[int] = set()
_left_alone: set[str] = set()
"""Runs of servers that were loaded anew which go on to their end: to look again costs Dagster's record opened anew."""


def keep_clearing() -> None:
    """Let the code server clear away ended runs for as long as it lives, and end its runs where it is to end itself.

    Its thread for that ends with the first error, such as one of a database that is restarted. From then on a run whose
    process died would stay "started", no ended process would be cleared away, and a stop would wait for ever. A stop
    would also wait for runs that stay for as long as they do.
    """
    if not hasattr(DagsterApiServer._check_for_orphaned_runs, "__wrapped__"):
        _replace("cleanup", _note_signal)
        _replace("_check_for_orphaned_runs", _clear)


def _replace(name: str, by: Callable[[DagsterApiServer, Callable[[DagsterApiServer], None]], None]) -> None:
    """Have a method of the code server done by a function, which is given the server and the method as it was."""
    before = getattr(DagsterApiServer, name)

    @wraps(before)
    def instead(server: DagsterApiServer) -> None:
        by(server, before)

    setattr(DagsterApiServer, name, instead)


def _note_signal(server: DagsterApiServer, clean_up: Callable[[DagsterApiServer], None]) -> None:
    """Note that this very process was asked to end: otherwise clean-up is the last thing after its runs have ended."""
    _signalled.add(id(server))
    clean_up(server)


def _clear(server: DagsterApiServer, clear: Callable[[DagsterApiServer], None]) -> None:
    """Clear away what has ended; what cannot be recorded now is looked at again a moment later."""
    try:
        if server._shutdown_once_executions_finish_event.is_set():
            _ask_to_end(server)
    except Exception as error:
        log.warning("a run could not be asked to end, which is tried again: %s", error)
    try:
        _record_canceled(server)
        clear(server)
    except Exception as error:
        log.warning("how a run ended could not be recorded, which is tried again: %s", error)


def _ask_to_end(server: DagsterApiServer) -> None:
    """Ask the runs of a server that is to end, as the UI does to terminate one, once they had time to finish.

    Where the code location is only loaded anew, runs that no sensor asks for again go on to their end.
    """
    if time.monotonic() - _ended_at.setdefault(id(server), time.monotonic()) < FINISH_SECONDS:
        return
    waiting = {run_id: asked for run_id, asked in list(server._termination_events.items()) if not asked.is_set()}
    refs = {run_id: server._executions[run_id][1] for run_id in waiting}
    if id(server) in _signalled:
        _cancel_in_time(refs)
        for asked in waiting.values():
            asked.set()
        return
    for run_id, asked in waiting.items():
        if run_id in _left_alone:
            continue
        if _cancel(refs[run_id], run_id):
            asked.set()
        else:
            _left_alone.add(run_id)


def _cancel_in_time(refs: Mapping[str, dg.InstanceRef]) -> None:
    """Record that runs are asked to end. Whether that can be done or not, it is not to hold up the end for long."""

    def cancel(run_id: str, ref: dg.InstanceRef) -> None:
        with suppress(Exception):
            _cancel(ref, run_id)

    threads = [threading.Thread(target=cancel, args=each, name="cancel", daemon=True) for each in refs.items()]
    ends = time.monotonic() + RECORD_SECONDS
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, ends - time.monotonic()))


def _cancel(ref: dg.InstanceRef, run_id: str) -> bool:
    """Record that a run is asked to end, if a sensor asks for it again: it is then canceled and has not failed.

    Others stay as they are, for Dagster starts a backfill's run again that failed, and none that was canceled.

    Returns:
        Whether a sensor asks for it again.
    """
    with dg.DagsterInstance.from_ref(ref) as instance:
        run = instance.get_run_by_id(run_id)
        if run is None or _SENSOR_TAG not in run.tags:
            return False
        if run.status is DagsterRunStatus.STARTED:
            instance.report_run_canceling(run, "Dagster ends, and asks this run to end. The sensor asks for it again.")
        return True


def _record_canceled(server: DagsterApiServer) -> None:
    """Record runs as canceled that somebody had asked to end and that had to be ended the hard way: Dagster would call
    that a crash, and start them again."""
    for run_id, ref in list(_ended_the_hard_way(server)):
        with dg.DagsterInstance.from_ref(ref) as instance:
            run = instance.get_run_by_id(run_id)
            if run is not None and run.status is DagsterRunStatus.CANCELING:
                instance.report_run_canceled(run)


def _ended_the_hard_way(server: DagsterApiServer) -> Iterator[tuple[str, dg.InstanceRef]]:
    with server._execution_lock:
        for run_id, (process, ref) in server._executions.items():
            if process.exitcode in HARD_CODES:
                yield run_id, ref
