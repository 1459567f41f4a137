"""A run of the archiver seen from outside: started, watched step by step, killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from archiver_pipeline_tests.waiting import LIMIT_SECONDS, wait_for

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Trap:
    """The moment at which a run sends itself a signal.

    Attributes:
        signal: KILL or STOP.
        step: the step.
        number: which of its steps of that name.
        delay: how long after the step has begun, in seconds.
    """

    signal: str
    step: str
    number: int = 1
    delay: float = 0.0

    def arguments(self) -> list[str]:
        """The trap as the child's arguments."""
        return [self.signal, self.step, str(self.number), str(self.delay)]


class Run:
    """A child process that does one pass, or rewrites hours.

    Attributes:
        work: what it does, as `child` takes it.
        lane: its lane.
        started: when it was started, in seconds of the monotonic clock.
        steps: the steps that it has named, in order, as far as they were read.
        times: when each began, in seconds of the monotonic clock.
        errors: what it wrote to standard error, known once `wait` or `kill` is over.
    """

    def __init__(
        self, environment: Mapping[str, str], lane: int = 0, trap: Trap | None = None, work: str = "archive"
    ) -> None:
        """Start it with the settings in `environment`."""
        self.work = work
        self.lane = lane
        self.started = time.monotonic()
        self.steps: list[str] = []
        self.times: list[float] = []
        self.errors = ""
        self._rest = b""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115, it outlasts this function
        arguments = [work, str(lane), *(trap.arguments() if trap else ())]
        command = [sys.executable, "-m", f"{__package__}.child", *arguments]
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("ARCHIVER_", "KAFKA_"))}
        self._process = subprocess.Popen(
            command, env={**clean, **environment}, cwd=_ROOT, stdout=subprocess.PIPE, stderr=self._errors
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)

    @property
    def step(self) -> str:
        """The step that it is in, or was at its end; `start` before its first one."""
        return self.steps[-1] if self.steps else "start"

    def alive(self) -> bool:
        """Whether it runs, or is frozen."""
        return self._process.poll() is None

    def wait_for_step(self, name: str) -> None:
        """Wait until it has begun a step, asking a thousand times a second; returns at its end, too."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while self.alive() and name not in self.steps:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the run did not come to {name} in {LIMIT_SECONDS:.0f} s, but {self.steps}")
            time.sleep(0.001)
            self._read()

    def wait_until_stopped(self) -> None:
        """Wait until it has frozen itself."""
        process = psutil.Process(self._process.pid)
        wait_for("the run to freeze", lambda: process.status() == psutil.STATUS_STOPPED)

    def resume(self) -> None:
        """Let it go on after it has frozen itself (SIGCONT)."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> int:
        """End it by SIGKILL and return its exit code, which is another one if it was over before."""
        self._process.send_signal(signal.SIGKILL)
        return self.wait()

    def wait(self, seconds: float = LIMIT_SECONDS) -> int:
        """Wait for its end and return the exit code, that of a signal negated."""
        rest, _ = self._process.communicate(timeout=seconds)
        self._take(rest)
        if not self._errors.closed:
            self._errors.seek(0)
            self.errors = self._errors.read().decode(errors="replace")
            self._errors.close()
        return self._process.returncode

    def _read(self) -> None:
        assert self._process.stdout is not None
        try:
            self._take(os.read(self._process.stdout.fileno(), 65536))
        except BlockingIOError:
            return

    def _take(self, text: bytes) -> None:
        *lines, self._rest = (self._rest + text).split(b"\n")
        for line in lines:
            name, moment = line.decode().split()
            self.steps.append(name)
            self.times.append(float(moment))
