"""Fixtures: one archive in which everything has happened, its exporter, and a Prometheus that scrapes it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.processes import CHECKOUT
from archiver_pipeline_tests.prometheus.exporting import Exporter
from archiver_pipeline_tests.prometheus.server import PrometheusServer
from archiver_pipeline_tests.prometheus.world import World
from archiver_pipeline_tests.server import running
from archiver_pipeline_tests.waiting import wait_for

RULES = CHECKOUT / "deploy" / "prometheus" / "archiver.rules.yml"
_HASTY = {"for": "500ms", "> 900": "> 2", "[15m]": "[4s]", "> 120": "> 1"}
"""What makes the alert of lag fire within seconds."""


def hasty(rules: dict[str, Any]) -> dict[str, Any]:
    """The rules with short times in place of long ones, and a lag that is too old after two seconds."""
    for group in rules["groups"]:
        for rule in group["rules"]:
            if rule.get("alert", "").startswith("ArchiverLag"):
                rule["for"] = _HASTY["for"]
                for long, short in _HASTY.items():
                    rule["expr"] = rule["expr"].replace(long, short)
    return rules


@pytest.fixture(scope="module")
def world(kafka: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> World:
    """An archive of which the first batch is there."""
    world = World(tmp_path_factory.mktemp("world"), kafka.bootstrap_servers, f"watched-{uuid.uuid4().hex[:8]}")
    world.begin()
    return world


@pytest.fixture(scope="module")
def exporter(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    """Its exporter."""
    with running(Exporter(tmp_path_factory.mktemp("exporter"), world.variables()), "none") as server:
        wait_for("a look at every source", lambda: is_complete(server))
        yield server


@pytest.fixture(scope="module")
def prometheus(
    world: World, exporter: Exporter, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrometheusServer]:
    """A Prometheus that has scraped the exporter before and after everything happened."""
    rules = hasty(yaml.safe_load(RULES.read_text("utf-8")))
    with running(PrometheusServer(tmp_path_factory.mktemp("prometheus"), exporter.target, rules), "data") as server:
        wait_for("a scrape", lambda: server.query('archiver_collector_up{source="dagster"} == 1') != [])
        world.happen()
        wait_for("what happened", lambda: server.query('archiver_runs_total{outcome="failure"} > 0') != [])
        wait_for("a daemon", lambda: server.query("archiver_daemon_up == 1") != [])
        wait_for("the newest lag", lambda: server.query("sum(archiver_lag_messages) == 4") != [])
        yield server


def is_complete(exporter: Exporter) -> bool:
    """Whether every source of an exporter has answered."""
    found = {key[1]: value for key, value in exporter.samples().items() if key[0] == "archiver_collector_up"}
    return set(found.values()) == {1} and set(found) == {"archive", "broker", "files", "followers", "dagster"}
