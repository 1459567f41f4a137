"""One OpenSearch node, a cluster of its own, run as a Java process of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from archiver_pipeline_tests.kafka.jars import java
from archiver_pipeline_tests.processes import HOST, free_ports
from archiver_pipeline_tests.search.jars import NodeError, fetch_class_path
from archiver_pipeline_tests.server import Server, is_ok

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


class SearchNode(Server):
    """A node; Java and, for the first fetch, Maven have to be installed.

    It has neither scripts nor ingest processors, and of the analyzers only those that OpenSearch has built in.

    Attributes:
        url: `http://host:port` of its REST API, the same over its whole life.
    """

    error = NodeError

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
        super().__init__(data, "opensearch-", "node.log")
        self._port, transport_port = free_ports(2)
        self.url = f"http://{HOST}:{self._port}"
        self.what = f"OpenSearch on {self.url}"
        self._heap = heap
        self._scratch = self.data / "tmp"
        lines = {**SETTINGS, "http.port": self._port, "transport.port": transport_port, **(settings or {})}
        (self.data / "config").mkdir(parents=True, exist_ok=True)
        (self.data / "config" / "opensearch.yml").write_text(json.dumps(lines, indent=2))  # all JSON is YAML

    def _command(self) -> list[str]:
        shutil.rmtree(self._scratch, ignore_errors=True)  # a killed node leaves its unpacked native libraries
        self._scratch.mkdir()
        command = [java(), "-cp", fetch_class_path(), "-Dlog4j2.level=WARN", f"-Djava.io.tmpdir={self._scratch}"]
        command += [
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:+ExitOnOutOfMemoryError",
            f"-Xmx{self._heap}",
            f"-Xms{self._heap}",
        ]
        return [*command, "SearchNode", str(self.data)]

    def _answers(self) -> bool:
        # Yellow: every index can be written and read, though its replicas have no other node to go to.
        return is_ok(self._port, "/_cluster/health?wait_for_status=yellow&timeout=1s")
