"""Rules of the partitions: from the archive's first hour to the present one, whatever else its folders are called."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from archiver_pipeline.defs.partitions import UNTIL_KNOWN, first_hour, hour_of_key, key_of
from archiver_pipeline.hours import Hour, hour_of, parse_hour
from archiver_pipeline.storage.folder import Folder
from archiver_pipeline.storage.storages import storage_at
from archiver_pipeline_tests.dagster_side.conftest import Load
from archiver_pipeline_tests.dagster_side.deployment import Deployment
from archiver_pipeline_tests.processes import Processes

OLDEST = datetime(2015, 6, 1, 12, tzinfo=UTC)
NEWEST = datetime(2026, 11, 1, 12, tzinfo=UTC)


def first_of(folder: Path, *hours: str) -> Hour | None:
    """The first hour of an archive with these folders, each `dt/hr` or `type/dt/hr`."""
    for hour in hours:
        *kind, dt, hr = hour.split("/")
        (folder / f"type={kind[0] if kind else 'a'}" / f"dt={dt}" / f"hr={hr}").mkdir(parents=True)
    return first_hour(Folder(folder), OLDEST, NEWEST)


@pytest.mark.parametrize(
    ("hours", "first"),
    [
        ((), None),
        (("2019-08-01/03", "2019-08-01/02", "2019-08-02/00"), "2019-08-01T02"),
        (("b/2019-08-01/03", "a/2019-08-01/07", "a/2019-08-02/00"), "2019-08-01T03"),
        (("1970-01-01/00", "2019-08-01/03"), "2019-08-01T03"),
        (("9999-12-31/23", "_unknown/_unknown"), None),
        (("2015-06-01/13", "2015-06-02/00"), "2015-06-02T00"),
        (("2026-11-01/23",), "2026-11-01T12"),
    ],
    ids=["empty", "one type", "several types", "1970", "no such time", "too long ago", "ahead of the clock"],
)
def test_partitions_begin_with_the_first_hour(tmp_path: Path, hours: tuple[str, ...], first: str | None) -> None:
    """The first hour of any type counts, but for those that no partitions should reach to."""
    found = first_of(tmp_path, *hours)
    assert (None if found is None else found.name) == first


@pytest.mark.parametrize("archive", ["nowhere", "s3://bucket/archive", "file"])
def test_an_archive_that_cannot_be_looked_at_has_no_first_hour(tmp_path: Path, archive: str) -> None:
    """Definitions load all the same."""
    (tmp_path / "file").write_text("")
    assert (
        first_hour(storage_at(archive if "://" in archive else str(tmp_path / archive), tmp_path), OLDEST, NEWEST)
        is None
    )


def test_keys_are_dagsters() -> None:
    """A key is the hour as Dagster writes it, and no other hour has one."""
    partitions = dg.HourlyPartitionsDefinition(datetime(2019, 8, 1, 3, tzinfo=UTC), fmt="%Y-%m-%d-%H:%M", end_offset=1)
    assert key_of(parse_hour("2019-08-01T03"), partitions) == "2019-08-01-03:00"
    assert key_of(hour_of(datetime.now(UTC)), partitions) is not None
    for hour in ("2019-08-01T02", "1970-01-01T00", "9999-12-31T23", "_unknown"):
        assert key_of(parse_hour(hour), partitions) is None
    assert hour_of_key("2019-08-01-03:00") == parse_hour("2019-08-01T03")
    assert key_of(hour_of(datetime.now(UTC) + timedelta(hours=1)), partitions) is None


def test_without_an_archive_the_partitions_are_those_of_a_week(
    tmp_path: Path, processes: Processes, load: Load
) -> None:
    """As far back as Kafka keeps messages by default, and the present hour can be chosen, too."""
    definitions = load(Deployment(tmp_path / "base", processes, "127.0.0.1:1", "orders"))
    before = datetime.now(UTC)
    keys = definitions.resolve_job_def("backfill").partitions_def.get_partition_keys()  # type: ignore[union-attr]
    assert len(keys) in (169, 170)
    assert keys[0] == (before - UNTIL_KNOWN).strftime("%Y-%m-%d-%H:00")
    assert keys[-1] in {f"{moment:%Y-%m-%d-%H:00}" for moment in (before, datetime.now(UTC))}
