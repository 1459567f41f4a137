"""Fixtures of followers: each kit is one follower with all that it needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.followers.aggregate_kit import MinuteKit
from archiver_pipeline_tests.followers.mysql_kit import MySqlKit
from archiver_pipeline_tests.followers.search_kit import SearchKit
from archiver_pipeline_tests.kafka.produce import create_topic
from archiver_pipeline_tests.mysql.server import MariaDbServer
from archiver_pipeline_tests.search.node import SearchNode
from archiver_pipeline_tests.server import running


@pytest.fixture
def archived(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> Archived:
    """An archive of a topic of two partitions, with results topics of its own."""
    create_topic(bootstrap_servers, topic_name, partitions=2)
    return Archived(tmp_path, bootstrap_servers, topic_name, results_topic=f"{topic_name[-40:]}-results")


@pytest.fixture
def minutes_kit() -> MinuteKit:
    """Events and users per minute."""
    return MinuteKit()


@pytest.fixture(scope="package")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDbServer]:
    """The MariaDB that tests share; a test that stops it starts it again."""
    with running(MariaDbServer(tmp_path_factory.mktemp("mariadb")), "mysql") as server:
        yield server


@pytest.fixture
def mysql_kit(mariadb: MariaDbServer) -> Iterator[MySqlKit]:
    """The archive in MariaDB, in an empty database."""
    kit = MySqlKit(mariadb)
    yield kit
    kit.drop()


@pytest.fixture(scope="package")
def search_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchNode]:
    """The OpenSearch that tests share; a test that stops it starts it again."""
    with running(SearchNode(tmp_path_factory.mktemp("opensearch")), "data") as node:
        yield node


@pytest.fixture
def search_kit(search_node: SearchNode) -> Iterator[SearchKit]:
    """Messages in OpenSearch, under a prefix of their own."""
    kit = SearchKit(search_node)
    yield kit
    kit.drop()
