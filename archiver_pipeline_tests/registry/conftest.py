"""The registry that these tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from archiver_pipeline_tests.registry.apicurio import Apicurio
from archiver_pipeline_tests.server import running


@pytest.fixture(scope="package")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apicurio]:
    """The registry that tests share: a test that stops it starts it again."""
    with running(Apicurio(tmp_path_factory.mktemp("apicurio")), "schemas") as server:
        yield server
