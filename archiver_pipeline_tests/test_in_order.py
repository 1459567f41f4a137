"""Rules of order: messages that come nearly in order are handed on block by block, and never one behind a later one."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver_pipeline.stored.in_order import OutOfOrder, in_blocks, sorted_before
from archiver_pipeline.stored.parquet import table_of
from archiver_pipeline.stored.runs import ORDER, PLACE
from archiver_pipeline_tests.test_sealed_files import frame_of

Row = tuple[str, str, int, int]
places = st.sampled_from(["b", "a", "a.1"]), st.sampled_from("AB"), st.sampled_from([0, 1, 10])
rows = st.tuples(*places, st.integers(0, 9))
batches = st.lists(st.lists(rows, min_size=1, max_size=12), max_size=6)


def tables_of(every: list[list[Row]]) -> list[pa.Table]:
    """Tables of messages, each with its number as its value."""
    found = []
    for number, some in enumerate(every):
        columns: dict[str, Any] = dict(zip(ORDER, map(list, zip(*some, strict=True)), strict=True))
        found.append(table_of(frame_of(len(some), value=[f"{number} {n}" for n in range(len(some))], **columns)))
    return found


def frame(tables: list[pa.Table]) -> pl.DataFrame:
    """Topic, topic id, partition, offset and value of messages, in the order in which they come."""
    found = [pl.DataFrame(table.select([*ORDER, "value"]).to_pydict()) for table in tables]
    return pl.concat(found).cast({"topic": pl.String}) if found else pl.DataFrame()


@given(batches, st.sampled_from([1, 2_000, 10**9]))
def test_blocks_are_in_order_or_refused(every: list[list[Row]], size: int) -> None:
    """All messages come, partition by partition and each in order; where that cannot be, it is said."""
    tables = tables_of(every)
    late = any(
        row[:3] == earlier[:3] and row[3] < earlier[3]
        for number, some in enumerate(every)
        for row in some
        for before in every[:number]
        for earlier in before
    )
    try:
        found = list(in_blocks(tables, size))
    except OutOfOrder:
        assert late
        assert size < 10**9, "within a block any order will do"
        return
    assert not (late and size == 1)
    assert all(table.select(PLACE).group_by(PLACE).aggregate([]).num_rows == 1 for table in found)
    come = frame(found)
    assert come.is_empty() == (not every)
    if every:
        assert come.sort(*ORDER, "value").equals(frame(tables).sort(*ORDER, "value"))
        for _, each in come.group_by(PLACE):
            assert each["offset"].is_sorted()
        if size == 10**9:
            assert come.select(ORDER).equals(come.select(ORDER).sort(ORDER))


@given(batches)
def test_any_order_can_be_sorted_before(every: list[list[Row]]) -> None:
    """What comes in any order is handed on in order, all of it."""
    tables = tables_of(every)
    with TemporaryDirectory() as folder:
        found = list(sorted_before(tables, Path(folder) / "runs"))
        assert not list(Path(folder).iterdir())
    if every:
        come = frame(found)
        assert come.select(ORDER).equals(come.select(ORDER).sort(ORDER))
        assert come.sort(*ORDER, "value").equals(frame(tables).sort(*ORDER, "value"))


def test_a_late_message_says_where_it_is() -> None:
    """The refusal names topic, partition and offsets, for the log."""
    with pytest.raises(OutOfOrder, match=r"offset 3 of .*orders.* comes after 9"):
        list(in_blocks(map(table_of, (frame_of(10), frame_of(1, 3))), 1))
