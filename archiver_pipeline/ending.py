"""The end of a run that was asked to end: at the next moment that Python has its turn, or at the latest in seconds.

Python handles a signal when the main thread comes back from whatever library it called, and a store that does not
answer is waited for in one call of half a minute. Whoever asks (Kubernetes, systemd) may kill before that.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache

LIMIT_SECONDS = 8.0
"""So long after SIGTERM or SIGINT the process is ended as by SIGKILL, which a run stands at any moment."""

_ENDS = (signal.SIGTERM, signal.SIGINT)
HARD_CODES = tuple(128 + number for number in _ENDS)
"""The exit codes of a process that was ended like that."""


_asked: list[Callable[[], None]] = []
_orphaned = threading.Event()


def end_in_time(asked: Callable[[], None] | None = None) -> None:
    """Have this process end in time once it is asked to, whatever its main thread is at. In any other thread than the
    main one it does nothing: such a run is not asked by signals.

    Args:
        asked: called by another thread as soon as it is asked, but not where it ends with the process that started it.
            The newest one counts, and what it raises is passed over.
    """
    if asked is not None:
        _asked[:] = [asked]
    _begin()


@cache
def _begin() -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # So it is in what a shell script starts in the background, and a request to end would be passed over.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    here, there = socket.socketpair()
    here.setblocking(False)
    before = signal.set_wakeup_fd(here.fileno(), warn_on_full_buffer=False)
    if before >= 0:
        signal.set_wakeup_fd(before)  # Somebody else's, such as an event loop's: it is for that to end.
        here.close()
        there.close()
        return
    if (parent := multiprocessing.parent_process()) is not None:
        threading.Thread(target=_follow, args=(parent.sentinel,), name="parent", daemon=True).start()
    threading.Thread(target=_watch, args=(here, there), name="ending", daemon=True).start()


def _follow(parent: int) -> None:
    """End with the code server that started this run, which nobody could ask to end any more once that is killed."""
    multiprocessing.connection.wait([parent])
    _orphaned.set()
    os.kill(os.getpid(), signal.SIGTERM)


def _quietly(tell: Callable[[], None]) -> None:
    # The process ends, and nothing that is done now can keep it from that.
    with suppress(Exception):
        tell()


def _watch(here: socket.socket, there: socket.socket) -> None:
    """Wait for a signal, then end the process unless it ends by itself. `here` is held, so that it stays open."""
    while (number := there.recv(1)[0]) not in _ENDS:
        continue
    ends = time.monotonic() + LIMIT_SECONDS
    if not _orphaned.is_set():
        for tell in _asked:
            threading.Thread(target=_quietly, args=(tell,), name="asked", daemon=True).start()
    time.sleep(max(0.0, ends - time.monotonic()))
    os.write(2, f"this process was asked to end {LIMIT_SECONDS:.0f} s ago and is ended now: nothing is lost\n".encode())
    del here
    os._exit(128 + number)
