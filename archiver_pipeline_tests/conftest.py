"""Fixtures for all tests: real servers, shared or of one's own, programs, and a fresh topic name for each test."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from archiver_pipeline_tests.kafka.broker import SHORT_LIVED, KafkaBroker
from archiver_pipeline_tests.kafka.jars import ToolMissing
from archiver_pipeline_tests.kafka.secured import SecuredBroker
from archiver_pipeline_tests.postgres.server import PostgresServer
from archiver_pipeline_tests.processes import Processes
from archiver_pipeline_tests.scheduling import pytest_collection_modifyitems as pytest_collection_modifyitems
from archiver_pipeline_tests.scheduling import pytest_xdist_make_scheduler as pytest_xdist_make_scheduler
from archiver_pipeline_tests.server import IN_CI, running

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

# A slow machine is no fault, and CI looks at the same examples each time.
hypothesis.settings.register_profile("archiver", deadline=None)
hypothesis.settings.register_profile("archiver-ci", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("archiver-ci" if IN_CI else "archiver")


@contextmanager
def _running(data: Path) -> Iterator[KafkaBroker]:
    with running(KafkaBroker(data, options=SHORT_LIVED), "logs") as broker:
        yield broker


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """The broker that all tests share: never stop it or freeze it, take `own_kafka` for that."""
    with _running(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[KafkaBroker]:
    """A broker for one test, which may kill, freeze and restart it."""
    with _running(tmp_path / "kafka") as broker:
        yield broker


PLAIN_PASSWORD = 'pl"ain %41@ ü\\ 1'
"""Whatever is quoted, escaped or encoded somewhere."""


def _secured(data: Path) -> SecuredBroker:
    try:
        return SecuredBroker(data, PLAIN_PASSWORD)
    except ToolMissing as missing:
        if IN_CI:
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))


@pytest.fixture(scope="session")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredBroker]:
    """The broker with TLS, logins and ACLs that all tests share, each with users and topics of its own."""
    with running(_secured(tmp_path_factory.mktemp("secured")), "logs") as broker:
        yield broker


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """The PostgreSQL that tests share, each with a database of its own: never stop it."""
    with running(PostgresServer(tmp_path_factory.mktemp("postgres")), "data") as server:
        yield server


@pytest.fixture
def bootstrap_servers(kafka: KafkaBroker) -> str:
    """Address of the shared broker."""
    return kafka.bootstrap_servers


@pytest.fixture
def processes() -> Iterator[Processes]:
    """Starts programs and kills what is left of them."""
    with Processes() as started:
        yield started


@pytest.fixture
def topic_name(request: pytest.FixtureRequest) -> str:
    """A topic name that no other test has; the topic itself is not made."""
    test = re.sub(r"[^A-Za-z0-9]+", "-", request.node.name).strip("-")[:60]
    return f"{test}-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Chrome]:
    """A browser for one test."""
    from archiver_pipeline_tests.browser import browser

    try:
        with browser(tmp_path / "chromium") as driver:
            yield driver
    except ToolMissing as missing:
        if IN_CI:
            pytest.fail(str(missing), pytrace=False)
        pytest.skip(str(missing))
