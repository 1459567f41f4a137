"""In which order several processes take the tests, and which tests stay together: what `make test` ends sooner by."""

from __future__ import annotations

import pytest
from xdist.scheduler import LoadFileScheduling

TOGETHER = ("archiver_pipeline_tests/followers", "archiver_pipeline_tests/registry")
"""Folders whose files share servers that take long to start, and so go to one process; others go file by file."""


def unit_of(test: str) -> str:
    """What goes to one process as a whole: the test's file, or its folder if that is one of `TOGETHER`."""
    file = test.split("::", 1)[0]
    folder = file.rpartition("/")[0]
    return folder if folder in TOGETHER else file


class Scheduling(LoadFileScheduling):  # type: ignore[misc]
    """Hands out files, and some folders as a whole, in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        return unit_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> Scheduling | None:
    """Take ours where files are handed out."""
    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In one of several processes put what has slow tests first, or the last of it would run alone at the end."""
    if hasattr(config, "workerinput"):
        slow = {unit_of(item.nodeid) for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: unit_of(item.nodeid) not in slow)
