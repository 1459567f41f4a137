"""Fixtures of fleets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from archiver_pipeline_tests.dagster_side.conftest import deploy as deploy
from archiver_pipeline_tests.dagster_side.conftest import load as load
from archiver_pipeline_tests.dagster_side.conftest import processes as processes
from archiver_pipeline_tests.objects.conftest import gateway as gateway
from archiver_pipeline_tests.objects.conftest import shared_gateway as shared_gateway
from archiver_pipeline_tests.postgres.server import PostgresServer
from archiver_pipeline_tests.server import running


@pytest.fixture(scope="package")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """The PostgreSQL of these tests, each with a database of its own: never stop it."""
    with running(PostgresServer(tmp_path_factory.mktemp("postgres")), "data") as server:
        yield server
