"""The fixture of all crash tests: runs that do not outlive them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from archiver_pipeline_tests.crash.run import Run


@pytest.fixture
def runs() -> Iterator[list[Run]]:
    """The runs of a test, which are killed at its end if they are not over."""
    started: list[Run] = []
    yield started
    for run in started:
        if run.alive():
            run.kill()
