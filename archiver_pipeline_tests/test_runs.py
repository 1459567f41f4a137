"""Rules of runs: what goes in in any order comes out in order, all of it, in bounded memory."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver_pipeline.stored.runs import BUFFER_BYTES, ORDER, Runs, merged

Row = tuple[str, str, int, int, bytes]
"""Topic, its life, partition, offset, and what tells a message from its doubles."""

SCHEMA = {"topic": pl.String, "topic_id": pl.String, "partition": pl.Int32, "offset": pl.Int64, "what": pl.Binary}
HEADERS = pl.List(pl.Struct({"key": pl.String, "value": pl.Binary}))

places = st.tuples(
    st.sampled_from(["orders", "clicks", "orders.2", "Orders"]),
    st.sampled_from(["A", "A#2", "-", "b_-9"]),
    st.sampled_from([0, 1, 10, 2**31 - 1]),
    st.one_of(st.integers(0, 12), st.sampled_from([2**40, 2**63 - 1])),
)
frames = st.lists(st.lists(places, max_size=12), max_size=6)


def frame_of(rows: list[Row]) -> pl.DataFrame:
    """Messages as a frame."""
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def runs_of(folder: Path, batches: list[list[Row]], buffer_bytes: int = BUFFER_BYTES) -> Runs:
    """Runs of some frames, closed."""
    runs = Runs(folder, buffer_bytes)
    for rows in batches:
        runs.add(frame_of(rows))
    runs.close()
    return runs


def sent(lists: list[list[tuple[str, str, int, int]]], name: str) -> list[list[Row]]:
    """Give each message something that tells it from its doubles."""
    return [
        [(*row, f"{name}{index}.{number}".encode()) for number, row in enumerate(rows)]
        for index, rows in enumerate(lists)
    ]


def assert_in_order(found: list[pl.DataFrame], *every: list[list[Row]]) -> None:
    """Assert that the frames have all messages once, by identity and then by runs, and share no identity."""
    assert all(frame.height for frame in found)
    rows = [row for frame in found for row in frame.iter_rows()]
    ranked = sorted((row[:4], rank, row[4]) for rank, batches in enumerate(every) for batch in batches for row in batch)
    ranks = {row: rank for rank, batches in enumerate(every) for batch in batches for row in batch}
    assert [(row[:4], ranks[row]) for row in rows] == [(identity, rank) for identity, rank, _ in ranked]
    assert sorted(rows) == sorted((*identity, what) for identity, _, what in ranked)
    identities = [set(frame.select(ORDER).iter_rows()) for frame in found]
    assert sum(map(len, identities)) == len(set().union(*identities)) if identities else not ranked


@given(st.lists(frames, min_size=1, max_size=3), st.sampled_from([1, 200, 2000, BUFFER_BYTES]))
def test_all_come_out_in_order(every: list[list[list[tuple[str, str, int, int]]]], buffer_bytes: int) -> None:
    """Many topics, lives, partitions and doubles, in memory or on disk: as sorted, the doubles of earlier runs first.

    No two frames share an identity, so that doubles are always seen side by side.
    """
    batches = [sent(lists, f"{rank}-") for rank, lists in enumerate(every)]
    with tempfile.TemporaryDirectory() as folder:
        runs = [runs_of(Path(folder) / str(rank), each, buffer_bytes) for rank, each in enumerate(batches)]
        assert [item.rows for item in runs] == [sum(map(len, each)) for each in batches]
        first, second = list(merged(*runs)), list(merged(*runs))
    assert_in_order(first, *batches)
    assert [frame.rows() for frame in first] == [frame.rows() for frame in second], "a second look shows the same"


def test_some_runs_in_memory_and_some_on_disk(tmp_path: Path) -> None:
    """Runs that were written and runs that were not go together, and so do empty ones."""
    rows = [("orders", "A", 0, number) for number in range(100)]
    one, two = sent([rows[::2], rows[::3]], "a"), sent([rows], "b")
    found = list(
        merged(
            runs_of(tmp_path / "1", one, 1), runs_of(tmp_path / "2", []), runs_of(tmp_path / "3", two), Runs(tmp_path)
        )
    )
    assert_in_order(found, one, [], two)


def test_nothing_gives_nothing(tmp_path: Path) -> None:
    """Without runs, with empty runs, and with empty frames there is no frame, and no folder is made."""
    empty = runs_of(tmp_path / "none", [[], []], 1)
    assert (empty.rows, empty.bytes, empty.pieces) == (0, 0, [])
    assert list(merged()) == list(merged(empty)) == list(merged(empty, empty)) == []
    assert list(tmp_path.iterdir()) == []


def large(first: int, count: int, partition: int = 0, step: int = 1, size: int = 1000) -> pl.DataFrame:
    """Messages with a payload of chance, which nothing makes smaller."""
    chance = random.Random(first)
    return pl.DataFrame(
        {
            "topic": ["orders"] * count,
            "topic_id": ["A"] * count,
            "partition": pl.Series([partition] * count, dtype=pl.Int32),
            "offset": pl.Series(range(first, first + count * step, step), dtype=pl.Int64),
            "value": pl.Series([chance.randbytes(size) for _ in range(count)], dtype=pl.Binary),
            "headers": pl.Series([[{"key": "h", "value": None}]] * count, dtype=HEADERS),
        }
    )


@pytest.mark.parametrize("step", [1, 20])
def test_what_does_not_fit_is_written(tmp_path: Path, step: int) -> None:
    """Twenty megabytes and a buffer of two: files hold all of it, pieces are small, and frames stay of a few megabytes.

    With a step of 1 the frames follow each other, with a larger one each of them spans all offsets.
    """
    runs = Runs(tmp_path / "runs", buffer_bytes=2 * 1024**2)
    parts = [large(number * 1000 if step == 1 else number, 1000, step=step) for number in range(20)]
    for part in parts[::-1]:
        runs.add(part)
    runs.close()
    files = sorted((tmp_path / "runs").iterdir())
    assert len(files) == 7
    assert sum(path.stat().st_size for path in files) > 19_000_000
    assert runs.rows == 20_000
    assert max(piece.load().estimated_size() for piece in runs.pieces) < 6 * 1024**2
    found = list(merged(runs))
    assert max(int(frame.estimated_size()) for frame in found) < 24 * 1024**2
    assert pl.concat(found).equals(pl.concat(parts).sort("offset"))
    for path in files:
        path.unlink()
    with pytest.raises(FileNotFoundError):
        list(merged(runs))


def test_what_fits_is_never_written(tmp_path: Path) -> None:
    """Runs that stay below their buffer touch no disk."""
    runs = Runs(tmp_path / "runs")
    for number in range(10):
        runs.add(large(number * 1000, 1000))
    runs.close()
    assert pl.concat(merged(runs))["offset"].to_list() == list(range(10_000))
    assert not (tmp_path / "runs").exists()


def test_a_large_buffer_is_cut_into_pieces_of_one_partition(tmp_path: Path) -> None:
    """With the sizes as they are, ten megabytes of two partitions are several pieces, each with its offsets."""
    runs = Runs(tmp_path / "runs", buffer_bytes=10 * 1024**2)
    for number in range(12):
        runs.add(large(number * 500, 1000, partition=number % 2))
    runs.close()
    assert (tmp_path / "runs").exists()
    assert len(runs.pieces) > 4
    for piece in runs.pieces:
        frame = piece.load()
        assert set(frame["partition"]) == {piece.at.partition}
        assert (frame["offset"].min(), frame["offset"].max()) == (piece.low, piece.high)
        assert frame["offset"].is_sorted()
    found = pl.concat(merged(runs))
    assert found.select("partition", "offset").rows() == sorted(
        (number % 2, offset) for number in range(12) for offset in range(number * 500, number * 500 + 1000)
    )


def test_a_message_larger_than_a_piece(tmp_path: Path) -> None:
    """Messages of six megabytes each, and small ones between them, come out as they went in."""
    runs = Runs(tmp_path / "runs", buffer_bytes=8 * 1024**2)
    parts = [large(number, 1, size=6_000_000 if number % 3 == 0 else 10) for number in range(10)]
    for part in parts[::-1]:
        runs.add(part)
    runs.close()
    assert pl.concat(merged(runs)).equals(pl.concat(parts))


def test_doubles_are_in_one_frame(tmp_path: Path) -> None:
    """Where frames have to be cut, they are not cut between messages with one identity, on disk or in memory."""
    runs = []
    for rank in range(3):
        runs.append(Runs(tmp_path / str(rank), buffer_bytes=1 if rank == 1 else BUFFER_BYTES))
        runs[-1].add(large(0, 15, size=1_000_000).with_columns(rank=pl.lit(rank)))
        runs[-1].close()
    found = list(merged(*runs))
    assert len(found) > 1
    assert pl.concat(found).select("offset", "rank").rows() == [(n, rank) for n in range(15) for rank in range(3)]
    assert sum(frame["offset"].n_unique() for frame in found) == 15


def test_nulls_and_nested_columns_survive_the_disk(tmp_path: Path) -> None:
    """Every column that the archive has comes back from the disk with the type and the nulls that it had."""
    frame = pl.DataFrame(
        {
            "topic": ["orders"] * 4,
            "topic_id": ["A"] * 4,
            "partition": pl.Series([0] * 4, dtype=pl.Int32),
            "offset": [3, 1, 2, 0],
            "timestamp": pl.Series([None, 2**62, -(2**62), 0], dtype=pl.Datetime("us", "UTC")),
            "key": pl.Series([None, b"", b"\xff\x00", b"k"], dtype=pl.Binary),
            "value": pl.Series(["", None, "日本\0🎉", "x" * 100_000]),
            "headers": pl.Series(
                [None, [], [{"key": "", "value": None}], [{"key": "h", "value": b"\xff"}] * 2], dtype=HEADERS
            ),
            "was": pl.Series([None] * 4, dtype=pl.String),
        }
    )
    runs = Runs(tmp_path / "runs", buffer_bytes=1)
    runs.add(frame)
    runs.close()
    (found,) = merged(runs)
    assert found.schema == frame.schema
    assert found.equals(frame.sort("offset"))


def test_pieces_that_overlap_everywhere(tmp_path: Path) -> None:
    """Fifty frames that all span the same offsets, doubles among them, cost time and no message."""
    chance = random.Random(3)
    rows = [[("orders", "A", 0, chance.randrange(2000)) for _ in range(100)] for _ in range(50)]
    batches = sent(rows, "a")
    assert_in_order(list(merged(runs_of(tmp_path / "r", batches, 1))), batches)
