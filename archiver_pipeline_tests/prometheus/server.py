"""One Prometheus server, run as a process of its own."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from archiver_pipeline_tests.debian import installed
from archiver_pipeline_tests.processes import HOST, free_ports
from archiver_pipeline_tests.server import Server, is_ok

PACKAGES = ("prometheus",)


class PrometheusError(RuntimeError):
    """The server could not be installed, started or stopped; the text has the last lines of its log."""


class PrometheusServer(Server):
    """A server that scrapes and evaluates its rules twice a second; it is installed where that can be done.

    Attributes:
        port: its port on this machine.
        url: its address.
    """

    error = PrometheusError

    def __init__(self, data: Path, target: str, rules: Mapping[str, Any], *, job: str = "archiver") -> None:
        """Choose a port; nothing runs until `start`.

        Args:
            data: where its data goes and stays.
            target: the exporter, as `host:port`.
            rules: what its file of rules holds.
            job: the name under which it scrapes.
        """
        super().__init__(data, "prometheus-", "server.log")
        (self.port,) = free_ports(1)
        self.url = f"http://{HOST}:{self.port}"
        self.what = f"Prometheus on port {self.port}"
        self._job, self._target, self._rules = job, target, rules

    def query(self, expression: str) -> list[dict[str, Any]]:
        """What a PromQL expression comes to now: metric and value of each series."""
        found: list[dict[str, Any]] = self._get("query", query=expression)["result"]
        return found

    def value(self, expression: str) -> float:
        """The value of an expression that has one series."""
        (found,) = self.query(expression)
        return float(found["value"][1])

    def firing(self) -> set[str]:
        """The names of the alerts that fire."""
        alerts: Sequence[Mapping[str, Any]] = self._get("alerts")["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}

    def _get(self, what: str, **parameters: str) -> Any:
        address = f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=60) as answer:
            return json.load(answer)["data"]

    def _command(self) -> Sequence[str]:
        # JSON is YAML.
        (self.data / "rules.yml").write_text(json.dumps(self._rules))
        every = {"scrape_interval": "500ms", "scrape_timeout": "500ms", "evaluation_interval": "500ms"}
        scrape = {"job_name": self._job, "static_configs": [{"targets": [self._target]}]}
        configuration = {"global": every, "rule_files": ["rules.yml"], "scrape_configs": [scrape]}
        (self.data / "prometheus.yml").write_text(json.dumps(configuration))
        return [
            installed("prometheus", *PACKAGES),
            f"--config.file={self.data / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.data / 'data'}",
            f"--web.listen-address={HOST}:{self.port}",
        ]

    def _answers(self) -> bool:
        return is_ok(self.port, "/-/ready")
