"""One pass of a follower as a process of its own, which may kill itself. Settings come from the environment.

Arguments: `NAME STEP_MESSAGES [STEP NUMBER DELAY]`. The process sends itself SIGKILL when that step begins for the
NUMBER-th time, or DELAY seconds later. Exit code 0 is a pass that came to its end.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from archiver_pipeline.followers.catch_up import catch_up
from archiver_pipeline.followers.registry import followers
from archiver_pipeline.settings.settings import load


def main(name: str, step_messages: str, wanted: str = "", number: str = "1", delay: str = "0") -> None:
    """Do one pass."""
    # A thread that is to kill this process in the midst of a step must not wait long for its turn.
    sys.setswitchinterval(0.0001)
    left = int(number)

    def kill() -> None:
        time.sleep(float(delay))
        os.kill(os.getpid(), signal.SIGKILL)

    def on_step(step: str) -> None:
        nonlocal left
        left -= step == wanted
        if left == 0 and step == wanted:
            threading.Thread(target=kill, daemon=True).start() if float(delay) else kill()

    settings = load()
    follower = followers(settings)[name]()
    try:
        catch_up(follower, settings, on_step, step_messages=int(step_messages))
    finally:
        follower.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
