"""Fixtures of the Dagster side: a deployment of one's own, and the definitions loaded into this process."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from archiver_pipeline.defs import resources
from archiver_pipeline_tests.dagster_side.deployment import Deployment
from archiver_pipeline_tests.dagster_side.ticks import MakeTicks, Ticks
from archiver_pipeline_tests.processes import Processes, is_taken

MakeDeployment = Callable[..., Deployment]
Load = Callable[[Deployment], dg.Definitions]


@pytest.fixture
def deploy(tmp_path: Path, processes: Processes, bootstrap_servers: str) -> MakeDeployment:
    """Makes a deployment for some topics of the shared broker."""

    def make(*topics: str, **settings: object) -> Deployment:
        return Deployment(tmp_path / "base", processes, bootstrap_servers, *topics, **settings)

    return make


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Loads the definitions under the settings of a deployment, afresh each time as a new process would."""

    def fresh(deployment: Deployment) -> dg.Definitions:
        for name in filter(is_taken, list(os.environ)):
            monkeypatch.delenv(name)
        monkeypatch.setenv("ARCHIVER_CONFIG", os.devnull)
        for name, value in deployment.settings.items():
            monkeypatch.setenv(name, value)
        _forget()
        definitions: dg.Definitions = runpy.run_module("archiver_pipeline.definitions")["defs"]
        return definitions

    yield fresh
    _forget()


def _forget() -> None:
    # A test of workers imports them in this process, and what is imported already is run with a warning.
    sys.modules.pop("archiver_pipeline.definitions", None)
    resources.settings.cache_clear()
    resources.cluster.cache_clear()


@pytest.fixture
def ticks(load: Load) -> Iterator[MakeTicks]:
    """Asks a sensor of a deployment, with a Dagster database of its own."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield lambda deployment, job="archive": Ticks(load(deployment), instance, job)
