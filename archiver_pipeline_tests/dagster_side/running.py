"""`dagster dev` as `make dev` runs it: webserver, daemon and code server, each to be found and killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from archiver_pipeline_tests.dagster_side.deployment import Deployment
from archiver_pipeline_tests.processes import Processes, free_port
from archiver_pipeline_tests.server import is_ok
from archiver_pipeline_tests.waiting import wait_for

START_LIMIT_SECONDS = 180.0

DAEMON = "dagster._daemon"
CODE_SERVER = "dagster code-server"
USER_CODE = "dagster api grpc"
RUN = "spawn_main"
"""Words of a process's command line: the daemon, the code server, its part that holds our code, and a run."""


class RunningDagster:
    """`dagster dev` of a deployment, which may be killed in parts or whole, and started again on the same folders.

    Attributes:
        deployment: what it runs.
        url: the address of its UI, once it is started.
    """

    def __init__(self, deployment: Deployment, processes: Processes) -> None:
        self.deployment = deployment
        self._processes = processes
        self._log = deployment.base / "dagster.log"
        self._main: subprocess.Popen[bytes] | None = None
        self.url = ""

    def start(self) -> None:
        """Start it and wait for its UI. Raises TimeoutError."""
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        arguments = ["-m", "archiver_pipeline.dev", "--port", str(port)]
        self._main = self._processes.start(arguments, self.deployment.variables, self._log)
        wait_for(f"the UI; see {self._log}", lambda: is_ok(port, "/server_info"), START_LIMIT_SECONDS)

    def kill(self) -> None:
        """Kill everything at once, runs included, as a power cut would."""
        self._processes.kill()
        if self._main is not None:
            self._main.wait()

    def find(self, words: str) -> list[psutil.Process]:
        """The processes with these words in their command lines."""
        return [process for process in self._processes.living() if words in " ".join(_command_line(process))]

    def kill_in_mid_batch(self, *what: str) -> None:
        """Kill processes, or everything if none is named, at a moment when a run is writing a batch."""
        found: list[psutil.Process] = []
        staging = self.deployment.archived.path / "_staging"

        def at_work() -> bool:
            # To look for the run is work, so the cheaper sign goes first.
            if not any(path.is_dir() for path in _entries(staging)):
                return False
            if not found or not found[0].is_running():
                found[:] = self.find(RUN)
            return bool(found) and any(path.is_dir() for path in _entries(staging))

        wait_for("a run that writes a batch", at_work)
        if what == (RUN,):
            os.kill(found[0].pid, signal.SIGKILL)
        elif what:
            for words in what:
                for process in self.find(words):
                    os.kill(process.pid, signal.SIGKILL)
        else:
            self.kill()

    def ask_to_end(self) -> None:
        """Ask the main process to end, as Ctrl-C does."""
        assert self._main is not None
        self._main.send_signal(signal.SIGINT)

    def wait_until_it_ends(self) -> int:
        """Wait for the main process to end by itself, and return its exit code."""
        assert self._main is not None
        return self._main.wait(120)

    def graphql(self, query: str, variables: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Ask the webserver."""
        body = json.dumps({"query": query, "variables": variables or {}}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            content = json.load(answer)
        assert "errors" not in content, content
        found: dict[str, Any] = content["data"]
        return found

    def wait_until_archived(self, topic: str, count: int, seconds: float = 240) -> None:
        """Wait until the DuckDB file shows so many messages of a topic. Raises TimeoutError."""
        wait_for(f"{count} messages of {topic}; see {self._log}", lambda: self._shown(topic) >= count, seconds)

    def _shown(self, topic: str) -> int:
        archived = self.deployment.archived
        if not archived.settings.view_path.exists():
            return 0
        return int(archived.sql(f"SELECT count(*) FROM messages WHERE topic = '{topic}'")[0][0])


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:
        return []


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        return []
