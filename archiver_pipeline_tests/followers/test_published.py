"""Rules of an aggregate's files and of the view over them."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from archiver_pipeline.followers.aggregator import Aggregator
from archiver_pipeline.followers.catch_up import catch_up
from archiver_pipeline.settings.aggregates import Aggregate
from archiver_pipeline.view import view
from archiver_pipeline_tests.batches import AUGUST_FIRST_AT_THREE, HOUR_MS
from archiver_pipeline_tests.followers.test_aggregates import AUGUST, Counted, moment
from archiver_pipeline_tests.processes import Processes, environment

THREE, FOUR = moment("2019-08-01T03:00"), moment("2019-08-01T04:00")
BEFORE: dict[str, Any] = {"measures": {"n": "count"}, "window": "hour"}
AFTER: dict[str, Any] = {"measures": {"people": "distinct $.who"}, "window": "minute", "time": "$.ts"}
NOBODYS = pl.DataFrame({"other": [1]})


class Shown(Counted):
    """An archive without a broker, an aggregate `a` of it, and the DuckDB file."""

    def refresh(self) -> None:
        """Bring the DuckDB file up to date."""
        view.refresh(self.settings.view_path, self.target)

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the DuckDB file."""
        with duckdb.connect(str(self.settings.view_path), read_only=True) as connection:
            return connection.execute(query).fetchall()

    def columns(self) -> set[tuple[str, ...]]:
        """The columns of the aggregate's files, the one without rows among them."""
        files = (self.settings.aggregates_path / "a").rglob("*.parquet")
        return {tuple(pl.read_parquet_schema(path)) for path in files}

    def listed(self) -> list[str]:
        """The columns of the aggregate's view, as the catalog has them."""
        query = "SELECT column_name FROM information_schema.columns WHERE table_name = 'a' ORDER BY ordinal_position"
        return [name for (name,) in self.sql(query)]


@pytest.fixture
def shown(tmp_path: Path) -> Shown:
    """An empty archive."""
    return Shown(tmp_path / "base")


@pytest.fixture
def counted_before(shown: Shown) -> Shown:
    """Two hours, counted by the definition of before; by that of after there is one of them, and an earlier one."""
    stamps = [AUGUST_FIRST_AT_THREE + HOUR_MS * number for number in (0, 1, 1)]
    shown.add({"ts": AUGUST, "who": 1}, {"ts": AUGUST - 3600, "who": 1}, {}, milliseconds=stamps)
    assert shown.rows(**BEFORE) == [(THREE, 1, 1), (FOUR, 2, 1)]
    shown.refresh()
    return shown


COUNTED_AFTER = [(moment("2019-08-01T02:00"), 1, 1), (THREE, 1, 1)]


def test_other_columns_leave_no_hour_of_the_old_ones(counted_before: Shown) -> None:
    """Neither a file nor a row of the old definition is there any more, also in the view."""
    assert counted_before.rows(**AFTER) == COUNTED_AFTER
    assert counted_before.columns() == {("minute", "people", "revision")}
    counted_before.refresh()
    assert counted_before.sql("FROM a ORDER BY minute") == COUNTED_AFTER
    assert counted_before.listed() == ["minute", "people", "revision"]
    assert counted_before.rows(**AFTER) == COUNTED_AFTER


def test_the_view_has_other_columns_before_there_is_a_row(counted_before: Shown) -> None:
    """Where the new definition has no window yet, and the archive nothing new."""
    assert counted_before.listed() == ["hour", "n", "revision"]
    assert counted_before.rows({"m": "sum $.n"}, time="$.nothing") == []
    counted_before.refresh()
    assert counted_before.sql("FROM a") == []
    assert counted_before.listed() == ["minute", "m", "revision"]


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_bytes(b""), lambda path: NOBODYS.write_parquet(path)]
)
def test_files_of_no_known_state_are_made_again(counted_before: Shown, damage: Callable[[Path], object]) -> None:
    """Where the file that says whose they are is gone, damaged or old, every hour of the state is written once more."""
    folder = counted_before.settings.aggregates_path / "a"
    damage(folder / "_schema.parquet")
    stray = folder / "dt=2019-08-01" / "hr=07" / "a.parquet"
    stray.parent.mkdir()
    NOBODYS.write_parquet(stray)
    assert counted_before.rows(**BEFORE) == [(THREE, 1, 1), (FOUR, 2, 1)]
    assert counted_before.columns() == {("hour", "n", "revision")}


_KILLED = """
import os, signal, sys
from pathlib import Path
from archiver_pipeline_tests.followers.test_published import AFTER, Shown

def die(event, arguments, left=[int(sys.argv[2])]):
    if event in ("shutil.rmtree", "os.remove", "os.rmdir", "os.rename", "os.mkdir"):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

counted = Shown(Path(sys.argv[1]))
sys.addaudithook(die)
counted.rows(**AFTER)
"""


@pytest.mark.slow
def test_a_kill_while_old_files_go_leaves_none_behind(counted_before: Shown, tmp_path: Path) -> None:
    """Whichever change of a file it strikes: columns are never mixed, and the next run has the new ones alone."""
    killed = 0
    with Processes() as processes:
        while True:
            base = tmp_path / str(killed)
            shutil.copytree(counted_before.settings.base_dir, base)
            ended = processes.run(["-c", _KILLED, str(base), str(killed)], environment({}))
            counted = Shown(base)
            assert len(counted.columns()) == 1
            assert counted.rows(**AFTER) == COUNTED_AFTER
            assert counted.columns() == {("minute", "people", "revision")}
            if ended.code == 0:
                break
            assert ended.code == -9, ended.said
            killed += 1
    assert killed > 5


def test_no_view_is_claimed_by_a_type_and_an_aggregate(shown: Shown) -> None:
    """Types that came first keep their views, whatever they are called, and each aggregate has one of its own."""
    shown.add({"type": "a"}, {"type": "a"}, {"type": "a_aggregate"})
    shown.refresh()
    for name in ("a", "a_aggregate", "a_aggregate_aggregate"):
        shown.rows({f"n_{name}": "count"}, name=name)
    for _ in range(2):
        shown.refresh()
        assert [shown.sql(f'SELECT count("offset") FROM {name}') for name in ("a", "a_aggregate")] == [[(2,)], [(1,)]]
        views = {"a": "a" + 3 * "_aggregate", "a_aggregate": "a" + 4 * "_aggregate"}
        for name, view_name in {**views, "a_aggregate_aggregate": "a_aggregate_aggregate"}.items():
            assert shown.sql(f"SELECT n_{name} FROM {view_name}") == [(3,)]
        shown.add({"type": "b"})


def test_a_long_history_gives_signs_of_life(shown: Shown) -> None:
    """A run that makes very many windows final says so for each bunch of them, and for each hour that it writes."""
    count, hours = 60_000, 7
    stamps = [AUGUST_FIRST_AT_THREE + HOUR_MS * (number % hours) for number in range(count)]
    shown.add(*({"who": number} for number in range(count)), milliseconds=stamps)
    aggregate = Aggregate(name="a", window="hour", group_by={"who": "$.who"}, measures={"n": "count"})
    told: list[str] = []
    with closing(Aggregator(aggregate, shown.settings)) as follower:
        catch_up(follower, shown.settings, told.append)
        assert len(follower.published) == hours
    settling = Counter(told[told.index("settle") :])
    assert settling["finish"] > count // 50_000
    assert settling["publish"] > hours
