"""Rules of the end of a run that is asked to end: by itself if it can, and in time if it cannot."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from archiver_pipeline_tests.processes import CHECKOUT

PROGRAM = """
import hashlib, signal, sys, time
from archiver_pipeline import ending
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
ending.LIMIT_SECONDS = 1.0
ending.end_in_time()
ending.end_in_time()
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
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == code
        assert time.monotonic() - began < 15
