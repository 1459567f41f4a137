"""Fixtures of fleets."""

from __future__ import annotations

from archiver_pipeline_tests.dagster_side.conftest import deploy as deploy
from archiver_pipeline_tests.dagster_side.conftest import load as load
from archiver_pipeline_tests.objects.conftest import gateway as gateway
from archiver_pipeline_tests.objects.conftest import shared_gateway as shared_gateway
