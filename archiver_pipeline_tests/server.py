"""A real server of the tests as a process of its own: started, frozen, killed, and gone with whoever started it."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import pytest

from archiver_pipeline_tests.kafka.jars import ToolMissing, last_lines
from archiver_pipeline_tests.processes import DIE_WITH_PARENT, HOST

START_LIMIT_SECONDS = 180.0
STOP_LIMIT_SECONDS = 20.0
IN_CI = os.environ.get("CI", "").lower() == "true"
"""There a missing tool is a failure, elsewhere the tests that need it are left out."""


class Server(ABC):
    """A server with its own ports and data, which dies with the process (on Linux: the thread) that started it.

    Attributes:
        what: what it is and where, for errors.
        error: what it raises when it cannot be started, or does not run.
        data: the folder with its log file and its data.
        process: the server, or None while it does not run.
    """

    what: str
    error: type[RuntimeError]

    def __init__(self, data: Path | None, prefix: str, log: str) -> None:
        """Choose the folder.

        Args:
            data: where its data goes and stays; without it a temporary folder that `close` removes.
            prefix: how the name of a temporary folder begins.
            log: the name of its log file.
        """
        self._own_data = data is None
        self.data = (data or Path(tempfile.mkdtemp(prefix=prefix))).absolute()
        self.data.mkdir(parents=True, exist_ok=True)
        self.process: subprocess.Popen[bytes] | None = None
        self._log = self.data / log

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            ToolMissing: what it needs is not installed.
            RuntimeError: as `error`; it ended or did not answer in `START_LIMIT_SECONDS`.
        """
        if self.process is not None:
            raise self.error(f"{self.what} runs already")
        launcher = [sys.executable, "-I", "-S", "-c", DIE_WITH_PARENT, str(os.getpid()), *self._command()]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                launcher, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self._wait_until_it_answers()
            self._started()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End it in order (SIGTERM), by SIGKILL where that takes over `STOP_LIMIT_SECONDS`."""
        if self.process is None:
            return
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_LIMIT_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End it at once (SIGKILL to its process group), as a power cut would."""
        if self.process is None:
            return
        self._signal(signal.SIGKILL)
        self.process.wait()
        self.process = None

    def restart(self) -> None:
        """End it in order if it runs, and start it on the same ports and data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it (SIGSTOP): from now on connections stay open, and nobody answers."""
        self._signal(signal.SIGSTOP)
        if sys.platform == "linux" and self.process is not None and self.process.returncode is None:
            # Its threads stop one by one: until the last has, it may still answer.
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let a frozen one go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill it and remove its data if the folder was temporary."""
        self.kill()
        if self._own_data:
            shutil.rmtree(self.data, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """Prepare its data and return the command that runs it."""

    @abstractmethod
    def _answers(self) -> bool:
        """Ask it whether it is ready."""

    def _started(self) -> None:  # noqa: B027, most have nothing to do
        """Do what has to be done once it answers."""

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_LIMIT_SECONDS
        assert self.process is not None
        while not self._answers():
            code = self.process.poll()
            if code is None and time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            what = f"did not answer in {START_LIMIT_SECONDS:.0f} s" if code is None else f"ended with code {code}"
            log = last_lines(self._log.read_text(errors="replace"))
            raise self.error(f"{self.what} {what}; the end of {self._log}:\n{log}")

    def _signal(self, number: signal.Signals) -> None:
        if self.process is None:
            raise self.error(f"{self.what} does not run")
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)


def is_ok(port: int, path: str) -> bool:
    """Whether a server on this machine answers a GET with 200."""
    # Straight to the port: urllib would ask a proxy that the environment names.
    connection = http.client.HTTPConnection(HOST, port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


Kind = TypeVar("Kind", bound=Server)


@contextlib.contextmanager
def running(server: Kind, contents: str) -> Iterator[Kind]:
    """A server for a fixture; `contents` is the folder in its data that goes with it, so that the log file stays."""
    try:
        try:
            server.start()
        except ToolMissing as missing:
            if IN_CI:
                pytest.fail(str(missing), pytrace=False)
            pytest.skip(str(missing))
        yield server
    finally:
        server.close()
        # pytest keeps the folders of three runs: of a server, its log file is enough.
        shutil.rmtree(server.data / contents, ignore_errors=True)
