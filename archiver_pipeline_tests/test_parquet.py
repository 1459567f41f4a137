"""Rules of Parquet files as frames of bounded size, and of the offsets that they are known to have."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.stored.parquet import frame_schema, frames_of, offsets_in, table_of, tables_of_all

MiB = 1024**2
OFFSETS = st.integers(0, 50)
MESSAGES = st.lists(st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(["1", "2"]), st.integers(0, 2), OFFSETS))


def frame(messages: list[tuple[str, str, int, int]], value: str = "{}") -> pl.DataFrame:
    """Messages of these topics, topic ids, partitions and offsets, in order."""
    place = pl.DataFrame(sorted(messages), schema=["topic", "topic_id", "partition", "offset"], orient="row")
    rest = {name: None for name in frame_schema() if name not in place.columns} | {"value": value}
    return place.with_columns(pl.lit(what).alias(name) for name, what in rest.items()).cast(frame_schema())  # type: ignore[arg-type]


def write(path: Path, messages: pl.DataFrame, rows: int) -> Path:
    """A file with row groups of so many messages."""
    messages.write_parquet(path, row_group_size=rows)
    return path


@settings(max_examples=60, deadline=None)
@given(messages=MESSAGES.filter(bool), rows=st.integers(1, 20))
def test_offsets_of_each_partition(
    tmp_path_factory: pytest.TempPathFactory, messages: list[tuple[str, str, int, int]], rows: int
) -> None:
    """What a file has of each partition is known exactly, however partitions share its row groups."""
    path = write(tmp_path_factory.mktemp("parquet") / "a", frame(messages), rows)
    found: dict[TopicPartition, list[int]] = {}
    for *place, offset in messages:
        found.setdefault(TopicPartition(*place), []).append(offset)  # type: ignore[arg-type]
    assert offsets_in(path) == {at: (min(each), max(each) + 1) for at, each in found.items()}


@settings(max_examples=60, deadline=None)
@given(messages=MESSAGES.filter(bool), rows=st.integers(1, 20), low=OFFSETS, high=OFFSETS)
def test_no_wanted_offset_is_passed_over(
    tmp_path_factory: pytest.TempPathFactory, messages: list[tuple[str, str, int, int]], rows: int, low: int, high: int
) -> None:
    """Row groups are passed over only if they have none of the offsets that are asked for."""
    path = write(tmp_path_factory.mktemp("parquet") / "a", frame(messages), rows)
    ranges = {TopicPartition("a", "1", 0): (low, high), TopicPartition("b", "2", 1): (high, low)}
    got = [
        (*place, offset)
        for each in frames_of(path, ["topic", "topic_id", "partition", "offset"], ranges)
        for *place, offset in each.rows()
    ]
    wanted = [
        row
        for row in sorted(messages)
        for start, end in [ranges.get(TopicPartition(*row[:3]), (0, 0))]
        if start <= row[3] < end
    ]
    assert [row for row in got if row in wanted] == wanted


def test_large_messages_that_are_all_alike(tmp_path: Path) -> None:
    """Messages of a megabyte come a few at a time, also where the file has each of them only once."""
    path = write(tmp_path / "alike", frame([("a", "1", 0, number) for number in range(100)], "x" * MiB), 1000)
    assert path.stat().st_size < MiB
    sizes = [each.estimated_size() for each in frames_of(path)]
    assert sum(sizes) >= 100 * MiB
    assert max(sizes) <= 16 * MiB


def test_large_keys_that_begin_alike(tmp_path: Path) -> None:
    """Where a file has once what all keys begin with, messages come a few at a time, too."""
    keys = pl.Series([b"k" * MiB + str(number).encode() for number in range(100)], dtype=pl.Binary)
    rows = frame([("a", "1", 0, number) for number in range(100)]).with_columns(key=keys)
    path = tmp_path / "keys.parquet"
    pq.write_table(table_of(rows), path, use_dictionary=["topic"], column_encoding={"key": "DELTA_BYTE_ARRAY"})
    assert path.stat().st_size < MiB
    sizes = [table.nbytes for table in tables_of_all([nullcontext(path), nullcontext(path)])]
    assert sum(sizes) >= 200 * MiB
    assert max(sizes) <= 16 * MiB


def test_large_messages_behind_small_ones(tmp_path: Path) -> None:
    """The messages of one partition may be a million times as large as those of the one before it in the same file."""
    small = frame([("a", "1", 0, number) for number in range(5000)])
    large = frame([("a", "1", 1, number) for number in range(100)], "x" * MiB)
    path = write(tmp_path / "both", pl.concat([small, large]), 5000)
    frames = list(frames_of(path))
    assert sum(each.height for each in frames) == 5100
    assert max(each.estimated_size() for each in frames) <= 16 * MiB
