"""Dagster's code server: it goes on clearing away runs whatever happens, and its end is also that of its runs."""

from __future__ import annotations

import logging
import time
from functools import wraps

from dagster._grpc.server import DagsterApiServer

log = logging.getLogger(__name__)

FINISH_SECONDS = 2.0
"""So long runs may go on once the code server was asked to end; then they are asked, too."""

_ends_since: dict[int, float] = {}


def keep_clearing() -> None:
    """Let the code server look again, a second later, where it could not record how a run ended; and let it end.

    Its thread for that ends with the first error, such as one of a database that is restarted. From then on a run whose
    process died would stay "started", no ended process would be cleared away, and a stop would wait for ever. A stop
    would also wait for runs that stay for as long as they do.
    """
    clear = DagsterApiServer._check_for_orphaned_runs
    if hasattr(clear, "__wrapped__"):
        return

    @wraps(clear)
    def clear_or_look_again(server: DagsterApiServer) -> None:
        if server._shutdown_once_executions_finish_event.is_set():
            _ask_to_end(server)
        try:
            clear(server)
        except Exception as error:
            log.warning("how a run ended could not be recorded, which is tried again: %s", error)

    DagsterApiServer._check_for_orphaned_runs = clear_or_look_again  # type: ignore[assignment,method-assign]


def _ask_to_end(server: DagsterApiServer) -> None:
    """Ask the runs of a server that is to end, as the UI does to terminate one, once they had time to finish."""
    since = _ends_since.setdefault(id(server), time.monotonic())
    if time.monotonic() - since < FINISH_SECONDS:
        return
    with server._execution_lock:
        for asked in server._termination_events.values():
            asked.set()
