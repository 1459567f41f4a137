"""Every query of the dashboards with its answer: from a real Prometheus that scrapes the exporter of a live archive."""

from __future__ import annotations

import tempfile
import uuid
from pathlib import Path

import yaml

from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.prometheus.conftest import RULES, is_complete
from archiver_pipeline_tests.prometheus.dashboards import queries
from archiver_pipeline_tests.prometheus.exporting import Exporter
from archiver_pipeline_tests.prometheus.server import PrometheusServer
from archiver_pipeline_tests.prometheus.world import World
from archiver_pipeline_tests.waiting import wait_for

_SECONDS = 20
_OF_ALL = ("instance", "job", "__name__")
"""Labels that say nothing here."""


def main() -> None:
    """Let everything happen that the dashboards show, and print what they would."""
    with tempfile.TemporaryDirectory() as folder, KafkaBroker(Path(folder) / "kafka") as kafka:
        world = World(Path(folder), kafka.bootstrap_servers, f"orders-{uuid.uuid4().hex[:4]}")
        world.begin()
        rules = yaml.safe_load(RULES.read_text("utf-8"))
        with Exporter(Path(folder) / "exporter", world.variables()) as exporter:
            wait_for("a look at every source", lambda: is_complete(exporter))
            with PrometheusServer(Path(folder) / "prometheus", exporter.target, rules) as prometheus:
                wait_for("a scrape", lambda: prometheus.query('archiver_collector_up{source="dagster"} == 1') != [])
                world.happen()
                wait_for("what happened", lambda: prometheus.query("sum(archiver_lag_messages) == 4") != [])
                wait_for("an answer to every query", lambda: _print(prometheus, quiet=True) == 0, _SECONDS)
                _print(prometheus)


def _print(prometheus: PrometheusServer, *, quiet: bool = False) -> int:
    """Print each query with its answer; return how many had none."""
    empty, shown = 0, ""
    for query in queries():
        found = prometheus.query(query.expression)
        empty += not found or all(item["value"][1] == "NaN" for item in found)
        shown += f"\n{query.dashboard} / {query.panel}\n  {query.expression}\n"
        for item in found:
            labels = {name: value for name, value in item["metric"].items() if name not in _OF_ALL}
            text = ", ".join(f"{name}={value}" for name, value in labels.items())
            shown += f"    {text or '(no labels)'}: {float(item['value'][1]):.6g}\n"
    if not quiet:
        print(f"{sum(1 for _ in queries())} queries, {empty} without an answer\n{shown}")
    return empty


if __name__ == "__main__":
    main()
