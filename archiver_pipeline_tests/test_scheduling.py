"""Rules of how several processes share the tests."""

from __future__ import annotations

from archiver_pipeline_tests.processes import CHECKOUT
from archiver_pipeline_tests.scheduling import TOGETHER, unit_of


def test_a_file_goes_to_one_process_and_a_folder_that_shares_servers_as_a_whole() -> None:
    """Servers that take long to start are started once, and their folders are where they are said to be."""
    assert unit_of("archiver_pipeline_tests/crash/test_crash.py::test_one[a::b]") == (
        "archiver_pipeline_tests/crash/test_crash.py"
    )
    for folder in TOGETHER:
        files = sorted((CHECKOUT / folder).glob("test_*.py"))
        assert len(files) > 1
        assert {unit_of(f"{path.relative_to(CHECKOUT)}::test_one") for path in files} == {folder}
