"""Rules of an aggregate's files and of the view over them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from archiver_pipeline import view
from archiver_pipeline_tests.followers.test_aggregates import Counted


class Shown(Counted):
    """An archive without a broker, an aggregate `a` of it, and the DuckDB file."""

    def refresh(self) -> None:
        """Bring the DuckDB file up to date."""
        view.refresh(self.settings.view_path, self.target)

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the DuckDB file."""
        with duckdb.connect(str(self.settings.view_path), read_only=True) as connection:
            return connection.execute(query).fetchall()


@pytest.fixture
def shown(tmp_path: Path) -> Shown:
    """An empty archive."""
    return Shown(tmp_path)


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
