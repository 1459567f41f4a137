"""`archiver metrics` as a process of its own."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from archiver_pipeline_tests.processes import CHECKOUT, HOST, environment, free_ports
from archiver_pipeline_tests.server import Server, is_ok

INTERVAL_SECONDS = 0.3


class ExporterError(RuntimeError):
    """The exporter could not be started, or ended; the text has the last lines of what it said."""


class Exporter(Server):
    """The exporter of an archive.

    Attributes:
        port: its port on this machine.
        target: its address as Prometheus takes it.
    """

    error = ExporterError

    def __init__(self, data: Path, variables: Mapping[str, str], *options: str) -> None:
        """Choose a port.

        Args:
            data: where what it says goes.
            variables: the settings of the archiver.
            options: more options of the command.
        """
        super().__init__(data, "exporter-", "exporter.log")
        (self.port,) = free_ports(1)
        self.target = f"{HOST}:{self.port}"
        self.what = f"the exporter on port {self.port}"
        self._variables, self._options = variables, options

    def get(self, path: str, **headers: str) -> tuple[int, str, bytes]:
        """Ask for a path: the status, the type of what came, and that."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Type", ""), answer.read()
        finally:
            connection.close()

    def samples(self) -> dict[tuple[Any, ...], float]:
        """Every sample by its name and the values of its labels, in the order of the labels' names."""
        return samples_of(self.get("/metrics")[2].decode())

    def said(self) -> str:
        """What it said so far."""
        return self._log.read_text()

    def _command(self) -> Sequence[str]:
        # The variables are those of this one process: the launcher is run with the environment of the tests.
        given = [f"{name}={value}" for name, value in environment(self._variables).items()]
        program = [sys.executable, "-m", "archiver_pipeline.cli", "metrics", "--port", str(self.port)]
        more = ["--interval", str(INTERVAL_SECONDS), *self._options]
        return ["/usr/bin/env", "-i", f"--chdir={CHECKOUT}", *given, *program, *more]

    def _answers(self) -> bool:
        return is_ok(self.port, "/healthz")


def samples_of(text: str) -> dict[tuple[Any, ...], float]:
    """The samples of a text in Prometheus' format, as `Exporter.samples` has them."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
