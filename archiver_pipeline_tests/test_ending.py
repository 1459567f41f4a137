"""Rules of the end of a run that is asked to end: by itself if it can, and in time if it cannot."""

from __future__ import annotations

import signal
import subprocess
import sys

import psutil
import pytest

from archiver_pipeline_tests.processes import CHECKOUT
from archiver_pipeline_tests.waiting import wait_for

PROGRAM = """
import hashlib, signal, sys, time
from archiver_pipeline import ending
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
ending.LIMIT_SECONDS = 1.0
ending.end_in_time()
ending.end_in_time(lambda: print("asked", flush=True))
print("ready", flush=True)
if sys.argv[1] == "library":
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2_000_000_000)  # As long as this is at work, Python handles no signal.
time.sleep(60)
"""


@pytest.mark.parametrize(("at", "code"), [("library", 143), ("rest", 7)])
def test_a_process_ends_in_time_whatever_it_is_at(at: str, code: int) -> None:
    """One whose main thread is in a library is ended when its time is up; any other one ends in its own way."""
    command = [sys.executable, "-c", PROGRAM, at]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        if at == "library":
            used = psutil.Process(process.pid).cpu_times
            before = used().user
            wait_for("the library to be at work", lambda: used().user > before + 0.3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(50) == code
        if at == "library":
            assert process.stdout.read() == b"asked\n", "whoever wants to know is told, whatever the main thread is at"


FAMILY = """
import multiprocessing, sys, time
from archiver_pipeline.ending import end_in_time

def run():
    end_in_time()
    print("ready", flush=True)
    time.sleep(120)

if __name__ == "__main__":
    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    print(child.pid, flush=True)
    child.join()
"""


def test_a_run_ends_with_the_process_that_started_it() -> None:
    """Where a code server is killed nobody could ask its runs to end any more, and they would outlive Dagster."""
    command = [sys.executable, "-c", FAMILY]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as parent:
        assert parent.stdout is not None
        said = {parent.stdout.readline().strip() for _ in range(2)}
        (pid,) = said - {b"ready"}
        child = psutil.Process(int(pid))
        parent.kill()
        wait_for("the end of the run", lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 60)
