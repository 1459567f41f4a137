"""Fixtures of followers: each kit is one follower with all that it needs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import closing

import pytest

from archiver_pipeline_tests.followers.aggregate_kit import MinuteKit
from archiver_pipeline_tests.followers.mysql_kit import MySqlKit
from archiver_pipeline_tests.followers.search_kit import SearchKit
from archiver_pipeline_tests.kafka.jars import ToolMissing
from archiver_pipeline_tests.mysql.server import MariaDbServer
from archiver_pipeline_tests.search.node import SearchNode


@pytest.fixture
def minutes_kit() -> MinuteKit:
    """Events and users per minute."""
    return MinuteKit()


@pytest.fixture(scope="package")
def mariadb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MariaDbServer]:
    """The MariaDB that tests share; a test that stops it starts it again."""
    with closing(MariaDbServer(tmp_path_factory.mktemp("mariadb"))) as server:
        try:
            server.start()
        except ToolMissing as missing:
            if os.environ.get("CI", "").lower() == "true":
                pytest.fail(str(missing), pytrace=False)
            pytest.skip(str(missing))
        yield server
        # pytest keeps the folders of three runs: of a server, its log file is enough.
        server.kill()
        shutil.rmtree(server.data / "mysql", ignore_errors=True)


@pytest.fixture
def mysql_kit(mariadb: MariaDbServer) -> Iterator[MySqlKit]:
    """The archive in MariaDB, in an empty database."""
    kit = MySqlKit(mariadb)
    yield kit
    kit.drop()


@pytest.fixture(scope="package")
def search_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchNode]:
    """The OpenSearch that tests share; a test that stops it starts it again."""
    with closing(SearchNode(tmp_path_factory.mktemp("opensearch"))) as node:
        try:
            node.start()
        except ToolMissing as missing:
            if os.environ.get("CI", "").lower() == "true":
                pytest.fail(str(missing), pytrace=False)
            pytest.skip(str(missing))
        yield node
        # pytest keeps the folders of three runs: of a node, its log file is enough.
        node.kill()
        shutil.rmtree(node.data / "data", ignore_errors=True)


@pytest.fixture
def search_kit(search_node: SearchNode) -> Iterator[SearchKit]:
    """Messages in OpenSearch, under a prefix of their own."""
    kit = SearchKit(search_node)
    yield kit
    kit.drop()
