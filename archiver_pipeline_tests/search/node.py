"""One OpenSearch node, a cluster of its own, run as a Java process of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from archiver_pipeline_tests.kafka.jars import java, last_lines
from archiver_pipeline_tests.processes import DIE_WITH_PARENT, HOST, free_ports
from archiver_pipeline_tests.search.jars import NodeError, fetch_class_path

START_LIMIT_SECONDS = 60.0
STOP_LIMIT_SECONDS = 20.0

SETTINGS: Mapping[str, str | int | float | bool] = {
    "cluster.name": "tests",
    "discovery.type": "single-node",
    "network.host": HOST,
    # A node takes no new index once the disk is 85% full, and makes all of them read-only at 95%.
    "cluster.routing.allocation.disk.threshold_enabled": False,
    # As OpenSearch ships, garbage that Java has yet to collect counts too: in a small heap requests get a 429 for it.
    "indices.breaker.total.use_real_memory": False,
}
"""Settings of a node for tests: it listens to this machine only, and neither disk nor garbage makes it refuse."""


class SearchNode:
    """A node with its own ports and data, which dies with the process (on Linux: the thread) that started it.

    It has neither scripts nor ingest processors, and of the analyzers only those that OpenSearch has built in.

    Attributes:
        url: `http://host:port` of its REST API, the same over its whole life.
        data: the folder with its settings, its log file `node.log` and its data.
        process: the Java process, or None while it does not run.
    """

    def __init__(
        self,
        data: Path | None = None,
        *,
        settings: Mapping[str, str | int | float | bool] | None = None,
        heap: str = "512m",
    ) -> None:
        """Choose ports and a data folder; nothing runs until `start`.

        Args:
            data: where its data goes and stays; without it a temporary folder that `close` removes.
            settings: settings of the node over `SETTINGS`.
            heap: size of the Java heap, as `-Xmx` takes it.
        """
        self._own_data = data is None
        self.data = (data or Path(tempfile.mkdtemp(prefix="opensearch-"))).absolute()
        self._port, transport_port = free_ports(2)
        self.url = f"http://{HOST}:{self._port}"
        self.process: subprocess.Popen[bytes] | None = None
        self._heap = heap
        self._log = self.data / "node.log"
        self._scratch = self.data / "tmp"
        lines = {**SETTINGS, "http.port": self._port, "transport.port": transport_port, **(settings or {})}
        (self.data / "config").mkdir(parents=True, exist_ok=True)
        (self.data / "config" / "opensearch.yml").write_text(json.dumps(lines, indent=2))  # all JSON is YAML

    def start(self) -> None:
        """Start the node and wait until it answers, with every index it has ready for use.

        Raises:
            ToolMissing: Java, or Maven for the first fetch, is not installed.
            NodeError: it ended or did not answer in `START_LIMIT_SECONDS`.
        """
        if self.process is not None:
            raise NodeError(f"the node on {self.url} runs already")
        shutil.rmtree(self._scratch, ignore_errors=True)  # a killed node leaves its unpacked native libraries
        self._scratch.mkdir()
        command = [java(), "-cp", fetch_class_path(), "-Dlog4j2.level=WARN", f"-Djava.io.tmpdir={self._scratch}"]
        command += ["-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError", f"-Xmx{self._heap}", f"-Xms{self._heap}"]
        command += ["SearchNode", str(self.data)]
        launcher = [sys.executable, "-I", "-S", "-c", DIE_WITH_PARENT, str(os.getpid()), *command]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                launcher, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End the node in order (SIGTERM), by SIGKILL where that takes over `STOP_LIMIT_SECONDS`."""
        if self.process is None:
            return
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_LIMIT_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End the node at once (SIGKILL to its process group), as a power cut would."""
        if self.process is None:
            return
        self._signal(signal.SIGKILL)
        self.process.wait()
        self.process = None

    def restart(self) -> None:
        """End the node in order if it runs, and start it on the same ports and data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze the node (SIGSTOP): from now on connections stay open, and nobody answers."""
        self._signal(signal.SIGSTOP)
        if sys.platform == "linux" and self.process is not None and self.process.returncode is None:
            # Its threads stop one by one: until the last has, the node may still answer.
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let a frozen node go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill the node and remove its data if the folder was temporary."""
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
            raise NodeError(f"OpenSearch on {self.url} {what}; the end of {self._log}:\n{log}")

    def _answers(self) -> bool:
        # Straight to the port: urllib would ask a proxy that the environment names.
        connection = http.client.HTTPConnection(HOST, self._port, timeout=10)
        try:
            # Yellow: every index can be written and read, though its replicas have no other node to go to.
            connection.request("GET", "/_cluster/health?wait_for_status=yellow&timeout=1s")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _signal(self, number: signal.Signals) -> None:
        if self.process is None:
            raise NodeError(f"the node on {self.url} does not run")
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)
