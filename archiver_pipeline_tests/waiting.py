"""Waiting for a condition, with a limit: what tests do in place of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable

LIMIT_SECONDS = 120.0
"""Far more than anything takes on a machine that is slow and busy: it ends what will never be."""


def wait_for(what: str, condition: Callable[[], bool], seconds: float = LIMIT_SECONDS, pause: float = 0.05) -> None:
    """Wait until the condition holds; raises TimeoutError, which names `what`, after that many seconds.

    Args:
        what: what is waited for.
        condition: asked again and again.
        seconds: for how long.
        pause: between two questions, in seconds; longer where to ask costs much.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(pause)
