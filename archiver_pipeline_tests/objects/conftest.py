"""Fixtures of archives in buckets."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from archiver_pipeline.storage import bucket_staging
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.crash.conftest import runs as runs
from archiver_pipeline_tests.kafka.produce import create_topic
from archiver_pipeline_tests.objects.gateway import Gateway
from archiver_pipeline_tests.objects.proxy import PASS, Judge, proxy
from archiver_pipeline_tests.server import running


@pytest.fixture(scope="session")
def shared_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The S3 server that tests share: never stop it or freeze it, take `own_gateway` for that."""
    with running(Gateway(tmp_path_factory.mktemp("gateway")), "buckets") as server:
        yield server


@pytest.fixture
def gateway(shared_gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    """The shared server, and an environment by which clients find it."""
    return found(shared_gateway, monkeypatch)


@pytest.fixture
def own_gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    """A server for one test, which may kill, freeze and restart it."""
    with running(Gateway(tmp_path / "gateway"), "buckets") as server:
        yield found(server, monkeypatch)


def found(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    """A server that the environment tells of; leases of killed runs are over soon."""
    for name, value in gateway.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(bucket_staging, "RENEW_SECONDS", 0.5)
    return gateway


Through = Callable[[Judge], None]
"""Puts a proxy before a server, or gives the one that is there another judge; the environment leads to it."""


@contextmanager
def through_proxy(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> Iterator[Through]:
    """A proxy before a server, for a fixture."""
    judge: list[Judge] = [lambda *_: PASS]
    with proxy(gateway.endpoint, lambda method, path: judge[0](method, path)) as endpoint:

        def put(by: Judge) -> None:
            judge[0] = by
            monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)

        yield put


@pytest.fixture
def archived(bootstrap_servers: str, topic_name: str, tmp_path: Path, gateway: Gateway) -> Archived:
    """An archive of a topic of two partitions, in a bucket of its own."""
    create_topic(bootstrap_servers, topic_name, partitions=2)
    return in_bucket(tmp_path, bootstrap_servers, topic_name, gateway)


def in_bucket(
    folder: Path, bootstrap_servers: str, topics: str | Sequence[str], gateway: Gateway, **more: Any
) -> Archived:
    """An archive of topics in a bucket of its own."""
    names = [topics] if isinstance(topics, str) else topics
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    uri = f"{gateway.make_bucket(name)}/some/archive"
    archived = Archived(folder, bootstrap_servers, *names, uri=uri, **more)
    archived.path = gateway.buckets / name / "some" / "archive"
    return archived
