"""Followers after an erasure: they have nothing of it at once, and their files no trace."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import polars as pl
import pytest

from archiver_pipeline.erasure import Erased
from archiver_pipeline.followers.catch_up import catch_up
from archiver_pipeline.followers.registry import followers
from archiver_pipeline.settings.aggregates import Aggregate
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.table.archive import Archive
from archiver_pipeline_tests.erasing import erase, traces
from archiver_pipeline_tests.followers.aggregate_kit import MinuteKit, user_of
from archiver_pipeline_tests.followers.kit import Kit
from archiver_pipeline_tests.followers.test_conformance import KITS
from archiver_pipeline_tests.followers.workload import Filled

WHO = "user-3"
OF_WHO = f"value LIKE '%{WHO}\"%'"
BY_USER = Aggregate(
    name="by_user",
    window="hour",
    group_by={"uid": "$.uid"},
    measures={"events": "count", "pages": "distinct $.url", "largest": "max $.n"},
)


@pytest.fixture(params=KITS)
def kit(request: pytest.FixtureRequest) -> Kit:
    """Each follower in turn."""
    found = request.getfixturevalue(f"{request.param}_kit")
    assert isinstance(found, Kit)
    return found


@pytest.fixture
def filled(kit: Kit, tmp_path: Path) -> Filled:
    """An archive of nine batches, and the follower has all of it."""
    archive = Filled(tmp_path / "data", kit.settings)
    archive.add(9)
    follow(archive.settings)
    return archive


def follow(settings: Settings) -> None:
    """Let all followers catch up."""
    for make in followers(settings).values():
        with closing(make()) as follower:
            catch_up(follower, settings)


def reached(done: Erased) -> dict[str, tuple[int, bool]]:
    """The hours that each follower has replaced, and whether it has an error."""
    return {each.name: (each.hours, each.error is not None) for each in done.followers}


def test_it_has_nothing_of_it(kit: Kit, filled: Filled) -> None:
    """Without another run the follower holds what the archive holds, and none of the user's."""
    done = erase(filled.settings, OF_WHO)
    assert done.messages
    assert reached(done)[kit.name] == (len(done.hours), False)
    assert kit.content(filled.settings) == kit.expected(filled.messages())
    follow(filled.settings)
    assert kit.content(filled.settings) == kit.expected(filled.messages())


def test_one_that_is_behind_is_left_behind(kit: Kit, filled: Filled) -> None:
    """New batches are left to its own run, which finds the hours as they are now."""
    filled.add(3)
    erase(filled.settings, OF_WHO)
    follow(filled.settings)
    assert kit.content(filled.settings) == kit.expected(filled.messages())


def test_one_that_never_ran(tmp_path: Path, minutes_kit: MinuteKit) -> None:
    """A follower without a position is not started by an erasure."""
    archive = Filled(tmp_path / "data", minutes_kit.settings)
    archive.add(2)
    done = erase(archive.settings, OF_WHO)
    assert (done.followers, done.good) == ((), True)
    assert not archive.settings.aggregates_path.exists()


@pytest.mark.parametrize("name", ["mysql", "search"])
def test_one_that_is_down(name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The archive is erased from all the same; it is named, and its next run takes it."""
    kit: Kit = request.getfixturevalue(f"{name}_kit")
    archive = Filled(tmp_path / "data", kit.settings)
    archive.add(4)
    follow(archive.settings)
    kit.down()
    try:
        done = erase(archive.settings, OF_WHO)
    finally:
        kit.up()
    assert not done.good
    assert reached(done)[kit.name][1]
    assert not reached(done)["events_per_minute"][1]
    assert not archive.messages()["value"].str.contains(WHO + '"').any()
    follow(archive.settings)
    assert kit.content(archive.settings) == kit.expected(archive.messages())


def test_no_trace_in_aggregates(tmp_path: Path, minutes_kit: MinuteKit) -> None:
    """Neither as a member of an exact count nor as the name of a group does the state keep a user, nor its log."""
    archive = Filled(tmp_path / "data", minutes_kit.settings)
    archive.settings = archive.settings.model_copy(update={"aggregates": (BY_USER,)})
    archive.add(9)
    follow(archive.settings)
    kept = [path for path in traces(archive.folder, WHO) if path.startswith("aggregates/")]
    assert {path.split("/")[1] for path in kept} == {"by_user", "events_per_minute", "page_views"}
    stale = archive.folder / "aggregates/by_user/dt=2019-08-01/hr=03/.by_user.parquet.new"
    stale.write_text(WHO)
    done = erase(archive.settings, OF_WHO)
    assert done.good, done.followers
    assert traces(archive.folder, WHO + '"') == []
    assert [path for path in traces(archive.folder, WHO) if path.startswith("aggregates/")] == []
    rows = pl.read_parquet(archive.folder / "aggregates/by_user/dt=*/hr=*/*.parquet")
    left = archive.messages().filter(pl.col("type") != "_erased")
    assert rows["events"].sum() == sum(user_of(value) is not None for value in left["value"])
    assert WHO not in set(rows["uid"])


def test_an_aggregate_that_is_no_longer_wanted(tmp_path: Path, minutes_kit: MinuteKit) -> None:
    """It keeps what it has, so the erasure is not called good until its folder is removed."""
    archive = Filled(tmp_path / "data", minutes_kit.settings)
    archive.add(2)
    follow(archive.settings.model_copy(update={"aggregates": (BY_USER,)}))
    done = erase(archive.settings, OF_WHO)
    assert not done.good
    (error,) = [each.error for each in done.followers if each.name == "by_user"]
    assert error is not None
    assert "remove its folder" in error
    assert Archive(archive.settings.archive_uri).ledger().erasures
