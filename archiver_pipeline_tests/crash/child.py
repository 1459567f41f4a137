"""One run of the archiver as a process of its own, which may end or freeze itself at a named step.

Settings come from the environment as always. On standard output each step is named as it begins, with a monotonic time
in seconds: the steps of a batch or rewrite, then `view` and `shown` around the refresh of the DuckDB file, and for
rewrites `remove` and `removed` around the removal of old files. Arguments: `WORK LANE [SIGNAL STEP NUMBER DELAY]`.

WORK is `archive`, `replay:TOPIC`, or `seal` or `backfill` with hours behind it: `seal:2019-08-01T03,2019-08-01T04`;
without hours it is done to all that there are. `erase` has a condition behind it, and finishes what was interrupted
first. The process sends itself the signal (`KILL` or `STOP`) when that step begins for the NUMBER-th time, or DELAY
seconds later. The exit code is 1 where an hour could not be mended.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections import Counter

from archiver_pipeline.batch.batch import Archiver
from archiver_pipeline.batch.follow import drain
from archiver_pipeline.erasure import begun
from archiver_pipeline.hours import Hour, parse_hour
from archiver_pipeline.replay.replayer import Replayer
from archiver_pipeline.replay.wanted import Wanted
from archiver_pipeline.rewrites.backfill import Backfiller
from archiver_pipeline.rewrites.predicate import Predicate
from archiver_pipeline.rewrites.seal import Sealer
from archiver_pipeline.settings.settings import Settings, load
from archiver_pipeline.storage import bucket_staging
from archiver_pipeline.stored.selection import Selection
from archiver_pipeline.view import view


class Steps:
    """Names the steps on standard output, and sends this process a signal at one of them."""

    def __init__(self, number: signal.Signals | None = None, step: str = "", at: int = 1, delay: float = 0) -> None:
        self._signal, self._step, self._at, self._delay = number, step, at, delay
        self._seen: Counter[str] = Counter()

    def __call__(self, name: str) -> None:
        os.write(1, f"{name} {time.monotonic()}\n".encode())
        self._seen[name] += 1
        if self._signal is None or name != self._step or self._seen[name] != self._at:
            return
        if self._delay:
            threading.Thread(target=self._send_later, daemon=True).start()
        else:
            os.kill(os.getpid(), self._signal)

    def _send_later(self) -> None:
        assert self._signal is not None
        time.sleep(self._delay)
        os.kill(os.getpid(), self._signal)


def main(work: str, lane: str, *trap: str) -> None:
    """Do one pass of a lane, or rewrite hours, as a run does it."""
    logging.basicConfig(level=logging.WARNING)
    # A thread that is to kill this process in the midst of a step must not wait long for its turn.
    sys.setswitchinterval(0.0001)
    bucket_staging.RENEW_SECONDS = 0.5  # So that what a killed run left is found within seconds.
    steps = Steps(signal.Signals[f"SIG{trap[0]}"], trap[1], int(trap[2]), float(trap[3])) if trap else Steps()
    settings = load()
    kind, _, names = work.partition(":")
    if kind == "archive":
        archive(settings, int(lane), steps)
    elif kind == "replay":
        replay(settings, names, steps)
    elif kind == "erase":
        erase(settings, names, steps)
    else:
        rewrite(settings, kind, [parse_hour(name) for name in names.split(",") if name], steps)


def archive(settings: Settings, lane: int, steps: Steps) -> None:
    """Do one pass of a lane."""
    archiver = Archiver(settings, lane, f"child-{os.getpid()}", steps)
    done = False
    for batch in drain(archiver):
        steps("view")
        view.refresh(settings.view_path, archiver.archive, batch.look)
        steps("shown")
        done = True
    if not done:
        steps("view")
        view.refresh(settings.view_path, archiver.archive)
        steps("shown")


def replay(settings: Settings, to_topic: str, steps: Steps) -> None:
    """Send all that the archive has to a topic."""
    Replayer(settings, Wanted(Selection(), to_topic), on_step=steps).run()
    steps("sent")


def erase(settings: Settings, where: str, steps: Steps) -> None:
    """Finish erasures that were interrupted, then erase what matches."""
    with begun(settings, f"child-{os.getpid()}", steps) as erasure:
        for plan in erasure.interrupted():
            erasure.do(plan)
        predicate = Predicate(where)
        found = erasure.look(predicate)
        if found.matches.messages:
            erasure.do(erasure.confirm(predicate, found))


def rewrite(settings: Settings, kind: str, hours: list[Hour], steps: Steps) -> None:
    """Seal or backfill hours, and remove what is no longer needed."""
    sealer = Sealer(settings, f"child-{os.getpid()}", steps)
    rows = sealer.archive.files().select("dt", "hr").unique().sort("dt", "hr").iter_rows()
    hours = hours or [Hour(*row) for row in rows]
    faults = []
    if kind == "seal":
        for hour in hours:
            sealer.seal(hour)
    elif hours:
        backfiller = Backfiller(settings, f"child-{os.getpid()}", steps)
        faults = [item.fault for item in backfiller.run(hours) if item.fault]
    steps("view")
    view.refresh(settings.view_path, sealer.archive)
    steps("shown")
    steps("remove")
    sealer.clean()
    steps("removed")
    if faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main(*sys.argv[1:])
