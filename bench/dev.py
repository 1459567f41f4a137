"""`dagster dev` as `make dev` runs it, with the CPU seconds of its whole tree of processes."""

from __future__ import annotations

import json
import signal
import subprocess
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from archiver_pipeline.dev import command
from archiver_pipeline_tests.processes import CHECKOUT, HOST, environment, free_port
from archiver_pipeline_tests.server import is_ok

START_SECONDS = 120.0
LOCATION = "archiver_pipeline.definitions"

_LAUNCH = """mutation($params: ExecutionParams!) { launchRun(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""


def prepare(base: Path, servers: str, topic: str, **settings: object) -> dict[str, str]:
    """Make the folders of an archiver, and return the environment of its processes: no setting but these counts."""
    home = base / "dagster_home"
    home.mkdir(parents=True, exist_ok=True)
    (home / "dagster.yaml").write_bytes((CHECKOUT / "deploy" / "dagster.yaml").read_bytes())
    own = {"BASE_DIR": str(base), "DAGSTER_HOME": str(home), "ARCHIVER_TOPICS": topic}
    return environment(
        {**own, "KAFKA_BOOTSTRAP_SERVERS": servers, **{name: str(each) for name, each in settings.items()}}
    )


class Dev:
    """A running `dagster dev`; leaving it ends every process of it."""

    def __init__(self, variables: Mapping[str, str], log: Path, *modules: str) -> None:
        """Start it.

        Args:
            variables: the environment, as `prepare` makes it.
            log: the file for what it says.
            modules: definitions beside ours.
        """
        self._port = free_port()
        self._log = log
        more = [word for module in modules for word in ("-m", module)]
        with log.open("wb") as output:
            self._process = psutil.Popen(
                [*command(HOST, self._port), *more],
                env=dict(variables), cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip

    def __enter__(self) -> Self:
        deadline = time.monotonic() + START_SECONDS
        while not is_ok(self._port, "/server_info"):
            if time.monotonic() > deadline or self._process.poll() is not None:
                self._end()
                raise RuntimeError(f"dagster dev does not come up:\n{self._log.read_text()[-3000:]}")
            time.sleep(0.2)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def cpu_seconds(self) -> dict[str, float]:
        """User and system time so far by kind of process; children that have ended count with the one they had."""
        found: dict[str, float] = {}
        for process in (self._process, *self._process.children(recursive=True)):
            try:
                times, line = process.cpu_times(), " ".join(process.cmdline())
            except psutil.Error:
                continue
            own = times.user + times.system
            kind = _kind(line)
            found[kind] = found.get(kind, 0.0) + own
            # What a code server's children took is what runs took, for it starts nothing else.
            ended = times.children_user + times.children_system
            found["runs"] = found.get("runs", 0.0) + ended
        return found

    def launch(self, job: str, location: str = LOCATION) -> str:
        """Launch a run as the UI does, and return its id."""
        selector = {"repositoryLocationName": location, "repositoryName": "__repository__", "pipelineName": job}
        answer = self.graphql(_LAUNCH, {"params": {"selector": selector, "mode": "default"}})["launchRun"]
        if answer["__typename"] != "LaunchRunSuccess":
            raise RuntimeError(f"{job} was not launched: {answer}")
        return str(answer["run"]["runId"])

    def graphql(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        """Ask the webserver."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"http://{HOST}:{self._port}/graphql", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            content = json.load(answer)
        if "errors" in content:
            raise RuntimeError(f"the webserver answers {content['errors']}")
        found: dict[str, Any] = content["data"]
        return found

    def _end(self) -> None:
        """Ask it to end, and its runs with it, then kill what is left."""
        family = [self._process, *self._process.children(recursive=True)] if self._process.is_running() else []
        if family:
            self._process.send_signal(signal.SIGINT)
        _, left = psutil.wait_procs(family, 25)
        for process in left:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(left, 5)


def _kind(line: str) -> str:
    """What a process of the tree is for, by its command line."""
    kinds = {"dagster_webserver": "webserver", "_daemon": "daemon", "api grpc": "definitions", "spawn_main": "runs"}
    return next((kind for words, kind in kinds.items() if words in line), "other")
