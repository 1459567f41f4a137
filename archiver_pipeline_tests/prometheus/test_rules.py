"""Rules of alerts, dashboards and documents, held against the catalogue and Prometheus' own tools."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from archiver_pipeline.metrics.catalogue import DEFINITIONS
from archiver_pipeline_tests.debian import installed
from archiver_pipeline_tests.processes import CHECKOUT
from archiver_pipeline_tests.prometheus.conftest import RULES
from archiver_pipeline_tests.prometheus.dashboards import GRAFANA, dashboards, panels
from archiver_pipeline_tests.prometheus.server import PACKAGES

DOCS = CHECKOUT / "docs" / "monitoring.md"


def _promtool(*arguments: str) -> str:
    command = [installed("promtool", *PACKAGES), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, cwd=RULES.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def test_promtool_takes_configuration_and_rules() -> None:
    """Prometheus' own tool finds no fault in either."""
    _promtool("check", "config", "prometheus.yml")
    _promtool("check", "rules", RULES.name)


def test_each_alert_fires_and_is_silent() -> None:
    """Every alert has a test in which it fires and one in which it does not, and all of them hold."""
    path = RULES.with_name("archiver.rules.test.yml")
    tests = yaml.safe_load(path.read_text("utf-8"))["tests"]
    assert Counter(test["name"] for test in tests) == Counter(
        f"{name} {what}" for name in _alerts() for what in ("fires", "is silent")
    )
    for test in tests:
        for asked in test["promql_expr_test"]:
            assert f'alertname="{test["name"].split()[0]}"' in asked["expr"]
            assert bool(asked["exp_samples"]) == test["name"].endswith("fires")
    _promtool("test", "rules", path.name)


def test_each_alert_says_what_to_do() -> None:
    """It has a severity, a summary, a description, and a section of the document that its link leads to."""
    sections = re.findall(r"^### (\w+)$", DOCS.read_text("utf-8"), re.MULTILINE)
    assert sections == list(_alerts())
    for name, rule in _alerts().items():
        assert rule["labels"]["severity"] in ("critical", "warning")
        told = rule["annotations"]
        assert told.keys() == {"summary", "description", "runbook_url"}
        assert told["runbook_url"] == f"docs/monitoring.md#{name.lower()}"


def test_the_document_has_every_metric_and_no_other() -> None:
    """The table of docs/monitoring.md is the catalogue: name, labels and what it says."""
    rows = re.findall(r"^\| `(archiver_\w+)` \| (.*?) \| (.*?) \|$", DOCS.read_text("utf-8"), re.MULTILINE)
    wanted = [(item.exported, ", ".join(f"`{name}`" for name in item.labels), item.text) for item in DEFINITIONS]
    assert rows == wanted


def test_rules_and_dashboards_name_metrics_that_there_are() -> None:
    """A metric that nobody exports would be an alert that never fires."""
    named = {item.exported for item in DEFINITIONS} | {"archiver_batch_seconds_bucket"}
    files: list[Path] = [RULES, RULES.with_name("archiver.rules.test.yml"), *(GRAFANA / "dashboards").glob("*.json")]
    for path in files:
        assert set(re.findall(r"\barchiver_\w+\b(?![.])", path.read_text("utf-8"))) - named == set(), path.name


def test_dashboards_are_laid_out() -> None:
    """No panel lies on another, each has a unit and a description, and goes by the variable of the data source."""
    for name, dashboard in dashboards().items():
        taken: Counter[tuple[int, int]] = Counter()
        for panel in dashboard["panels"]:
            at = panel["gridPos"]
            taken.update((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"]))
        assert max(taken.values()) == 1, name
        assert max(x for x, _ in taken) < 24
        for panel in panels(dashboard):
            assert panel["description"]
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}
        assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
