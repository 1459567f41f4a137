"""The queries of the dashboards, as Grafana would send them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archiver_pipeline_tests.processes import CHECKOUT

GRAFANA = CHECKOUT / "deploy" / "grafana"
_VALUES = {"$__rate_interval": "10m", "$job": "archiver", "$topic": ".*"}
"""What Grafana puts in for variables; ten minutes hold all that happens in a test, however slow the machine is."""


@dataclass(frozen=True)
class Query:
    """A query: its dashboard, its panel, and PromQL."""

    dashboard: str
    panel: str
    expression: str


def dashboards() -> dict[str, dict[str, Any]]:
    """Every dashboard by the name of its file."""
    files: list[Path] = sorted((GRAFANA / "dashboards").glob("*.json"))
    return {path.stem: json.loads(path.read_text("utf-8")) for path in files}


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """The panels that show something: all but rows."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries() -> Iterator[Query]:
    """Yield every query of every dashboard, and those by which variables get their values, as metrics."""
    for name, dashboard in dashboards().items():
        for panel in panels(dashboard):
            for target in panel["targets"]:
                yield Query(name, panel["title"], _filled(target["expr"]))
        for variable in dashboard["templating"]["list"]:
            found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable.get("definition", ""))
            if found:
                yield Query(name, f"variable {variable['name']}", _filled(f"group by ({found[2]}) ({found[1]})"))


def _filled(expression: str) -> str:
    for variable, value in _VALUES.items():
        expression = expression.replace(variable, value)
    return expression
