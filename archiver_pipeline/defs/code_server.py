"""Dagster's code server, kept clearing away runs that ended while Dagster's storage did not answer."""

from __future__ import annotations

import logging
from functools import wraps

from dagster._grpc.server import DagsterApiServer

log = logging.getLogger(__name__)


def keep_clearing() -> None:
    """Let the code server look again, a second later, where it could not record how a run ended.

    Its thread for that ends with the first error, such as one of a database that is restarted. From then on a run whose
    process died would stay "started", no ended process would be cleared away, and a stop would wait for ever.
    """
    clear = DagsterApiServer._check_for_orphaned_runs
    if hasattr(clear, "__wrapped__"):
        return

    @wraps(clear)
    def clear_or_look_again(server: DagsterApiServer) -> None:
        try:
            clear(server)
        except Exception as error:
            log.warning("how a run ended could not be recorded, which is tried again: %s", error)

    DagsterApiServer._check_for_orphaned_runs = clear_or_look_again  # type: ignore[assignment,method-assign]
