"""Sealed files: sorted, the same in every reader, with full statistics, and of a good size."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow.parquet as pq
import pytest

from archiver_pipeline import envelope
from archiver_pipeline.hours import TARGET_BYTES, hour_at, parse_hour
from archiver_pipeline.rewrites.sealed_files import Expected, SealedWriter
from archiver_pipeline.rewrites.sorted_file import SortedFile
from archiver_pipeline.stored.files import COLUMNS
from archiver_pipeline.stored.in_order import in_blocks
from archiver_pipeline.stored.parquet import frame_schema, frames_of, size_of, table_of
from archiver_pipeline.stored.runs import ORDER
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.attempt import Attempt, rewrite_of
from archiver_pipeline.view import hour_fields
from archiver_pipeline_tests.disk import mounted

HOUR = parse_hour("2019-08-01T03")
START_US = 1_564_628_400_000_000
FAR_US = (253_402_300_800_000_000, -62_135_596_800_001_000, 2**63 - 808, -(2**63) + 808)
"""Beyond year 9999, before year 1, and as far away as a 64-bit count of microseconds goes in whole milliseconds."""


def frame_of(count: int, first: int = 0, **columns: Any) -> pl.DataFrame:
    """Messages with offsets from `first` on, a second apart; `columns` gives one value for all, or a list."""
    start = {
        "topic": "orders",
        "topic_id": "A",
        "partition": 0,
        "offset": list(range(first, first + count)),
        "timestamp": [START_US + n * 1_000_000 for n in range(count)],
        "timestamp_type": "create",
        "key": b"key",
        "value": [json.dumps({"type": "x", "seq": first + n}) for n in range(count)],
        "value_bytes": None,
        "headers": [None] * count,
    }
    cells = {**start, **columns}
    every = {name: cell if isinstance(cell, list) else [cell] * count for name, cell in cells.items()}
    schema = frame_schema()
    stamps = pl.Series(every.pop("timestamp"), dtype=pl.Int64).cast(schema["timestamp"]).alias("timestamp")
    rest = {name: pl.Series(cell, dtype=schema[name]) for name, cell in every.items()}
    return pl.DataFrame({**rest, "timestamp": stamps}).select(COLUMNS)


@contextmanager
def written(
    folder: Path, frames: Mapping[str, list[pl.DataFrame]], size: int = 1, hour: str = HOUR.name
) -> Iterator[Attempt]:
    """Sealed files of some types, committed; each type is expected to have `size` bytes."""
    attempt = rewrite_of(Archive(str(folder)), envelope.SEAL, hour)
    expected = {name: Expected(sum(frame.height for frame in each), size, 5) for name, each in frames.items()}
    writer = SealedWriter(attempt, parse_hour(hour), expected)
    for name, each in frames.items():
        for frame in each:
            writer.add(name, table_of(frame))
    writer.close()
    attempt.staging.sync()
    attempt.staging.place()
    attempt.commit([], {})
    assert writer.files == len(attempt.files)
    assert writer.bytes == sum(file.size for file in attempt.files)
    assert writer.messages == sum(item.messages for item in expected.values())
    yield attempt
    attempt.clean()


def ugly_frame() -> pl.DataFrame:
    """Messages with everything that a message can have."""
    stamps = [START_US, START_US + 3_599_999_000, *FAR_US, None, 0]
    count = len(stamps)
    return frame_of(
        count,
        timestamp=stamps,
        timestamp_type=["append", "create", "create", "create", "create", "create", "none", "create"],
        key=[None, b"", b"\x00", b"\xff\xfe", "🎉".encode(), b"'\"\\\n", b"k" * 5000, b"\xc3\x28"],
        value=[None, "", "\0", "🎉 日本\n", "{", "null", "x" * 100_000, None],
        value_bytes=[b"", None, None, None, None, None, None, b"\xff\x00" * 10_000],
        headers=[
            None,
            [{"key": "", "value": None}],
            [{"key": "h", "value": b""}, {"key": "h", "value": b"\xff"}, {"key": "h", "value": None}],
            [{"key": "ключ", "value": b"\x00" * 1000}],
            None,
            [{"key": "k" * 300, "value": b"v"}] * 20,
            None,
            None,
        ],
    )


def test_every_reader_gives_back_what_went_in(tmp_path: Path) -> None:
    """Nulls, headers, bytes, ugly keys and times that no calendar holds are the same in Polars, pyarrow and DuckDB."""
    frame = ugly_frame()
    with written(tmp_path, {"x": [frame[:3], frame[3:]]}) as attempt:
        path = tmp_path / attempt.files[0].path
    assert pl.concat(frames_of(path)).equals(frame)
    by_polars = pl.read_parquet(path, hive_partitioning=False)
    assert by_polars.schema == frame.schema
    assert by_polars.equals(frame)
    with pq.ParquetFile(path) as parquet:
        table = parquet.read()
        assert parquet.schema_arrow.names == list(COLUMNS)
        assert [str(kind) for kind in parquet.schema_arrow.types] == [
            *("string", "string", "int32", "int64", "timestamp[us, tz=UTC]", "string", "binary", "string", "binary"),
            "list<element: struct<key: string, value: binary>>",
        ]
    assert pl.DataFrame(table).cast(frame_schema()).equals(frame)  # type: ignore[arg-type]
    with duckdb.connect() as connection:
        rows = connection.execute(
            'SELECT "offset", epoch_us("timestamp"), timestamp_type, key, value, value_bytes, headers '
            f"FROM read_parquet('{path}', hive_partitioning = false)"
        ).fetchall()
    by_duckdb = frame.select(
        *("offset", pl.col("timestamp").cast(pl.Int64), "timestamp_type", "key", "value", "value_bytes", "headers")
    )
    assert rows == by_duckdb.rows()


def test_a_table_of_them_is_read_as_any_other(tmp_path: Path) -> None:
    """Polars and DuckDB read the Delta table with its partition columns, and skip files by their statistics."""
    frames = {"x": [frame_of(10)], "y": [frame_of(10, 100)]}
    with written(tmp_path, frames):
        table = pl.scan_delta(str(tmp_path))
        rows = table.sort("offset").collect()
        assert rows.select(COLUMNS).equals(pl.concat([*frames["x"], *frames["y"]]))
        assert rows.select("type", "dt", "hr").unique().sort("type").rows() == [
            ("x", HOUR.dt, HOUR.hr),
            ("y", HOUR.dt, HOUR.hr),
        ]
        late = datetime.fromtimestamp(START_US / 1e6, UTC) + timedelta(seconds=8)
        assert table.filter(pl.col("timestamp") > late).select(pl.len()).collect().item() == 2
        assert table.filter(pl.col("offset") >= 105).select(pl.len()).collect().item() == 5
        assert table.filter(pl.col("topic") == "orders", pl.col("partition") == 0).collect().height == 20


def test_the_footer_says_that_it_is_sorted(tmp_path: Path) -> None:
    """The columns by which a file is sorted are named in its row groups: topic, topic_id, partition, offset."""
    with written(tmp_path, {"x": [frame_of(10)]}) as attempt, pq.ParquetFile(tmp_path / attempt.files[0].path) as file:
        names = [file.schema_arrow.names[item.column_index] for item in file.metadata.row_group(0).sorting_columns]
        assert names == ["topic", "topic_id", "partition", "offset"]
        assert not any(item.descending for item in file.metadata.row_group(0).sorting_columns)
        assert {file.metadata.row_group(0).column(index).compression for index in range(5)} == {"ZSTD"}


def test_offsets_and_times_that_rise_take_little_room(tmp_path: Path) -> None:
    """Only the differences of sorted offsets and times are written: far less than a byte a message for both."""
    count = 20_000
    stamps = [START_US + n * 7_000 + n % 5 * 1_000 for n in range(count)]
    with written(tmp_path, {"x": [frame_of(count, timestamp=stamps)]}) as attempt:
        group = pq.ParquetFile(tmp_path / attempt.files[0].path).metadata.row_group(0)
    chunks = {group.column(index).path_in_schema: group.column(index) for index in range(group.num_columns)}
    assert group.num_rows == count
    assert chunks["offset"].total_compressed_size + chunks["timestamp"].total_compressed_size < count / 4


def test_every_row_group_has_its_bounds(tmp_path: Path) -> None:
    """Topic, partition, offset and timestamp have minimum, maximum and nulls in the footer, in each row group."""
    frames = [frame_of(70_000, first, partition=partition) for partition in (0, 1) for first in (0, 70_000)]
    with written(tmp_path, {"x": frames}) as attempt, pq.ParquetFile(tmp_path / attempt.files[0].path) as file:
        groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    assert len(groups) > 1
    assert sum(group.num_rows for group in groups) == 280_000
    for group in groups:
        columns = {group.column(index).path_in_schema: group.column(index) for index in range(group.num_columns)}
        for name in ("topic", "topic_id", "partition", "offset", "timestamp", "timestamp_type", "key", "value"):
            found = columns[name].statistics
            assert found is not None
            assert found.has_min_max, name
            assert found.null_count == 0
            assert columns[name].has_column_index, "pages can be skipped, too"
        assert columns["value_bytes"].statistics.null_count == group.num_rows
    every = [(group.column(2).statistics.min, group.column(3).statistics.max) for group in groups]
    assert every[0][0] == 0
    assert every[-1][1] == 139_999


def test_delta_statistics(tmp_path: Path) -> None:
    """The log has count, bounds and nulls of a file; Delta's reader sees them as they are."""
    frame = frame_of(4, partition=3, key=[None, b"k", None, b"k"])
    with written(tmp_path, {"x": [frame]}) as attempt:
        (file,) = attempt.files
        assert file.added == 5
        assert file.stats == {
            "numRecords": 4,
            "minValues": {
                "topic": "orders",
                "topic_id": "A",
                "partition": 3,
                "offset": 0,
                "timestamp": "2019-08-01T03:00:00.000Z",
            },
            "maxValues": {
                "topic": "orders",
                "topic_id": "A",
                "partition": 3,
                "offset": 3,
                "timestamp": "2019-08-01T03:00:03.000Z",
            },
            "nullCount": {"key": 2, "value": 0, "value_bytes": 4},
        }
        listed = Archive(str(tmp_path)).files()
        assert listed.select("messages", "bytes", "added", "last").rows() == [(4, file.size, 5, 3)]


@pytest.mark.parametrize(
    "stamps",
    [[None, None], [None, START_US], [START_US, FAR_US[0]], [FAR_US[1], START_US], [*FAR_US], [None, FAR_US[2]]],
)
def test_times_that_no_statistics_can_hold(tmp_path: Path, stamps: list[int | None]) -> None:
    """Where a time is not known or no calendar holds it, the log has no bounds of the time, and readers find it all."""
    frame = frame_of(len(stamps), timestamp=stamps)
    with written(tmp_path, {"x": [frame]}, hour="_unknown") as attempt:
        assert "timestamp" not in attempt.files[0].stats["minValues"]
        assert "timestamp" not in attempt.files[0].stats["maxValues"]
    rows = pl.read_delta(str(tmp_path))
    assert rows.sort("offset")["timestamp"].equals(frame["timestamp"])
    known = sum(stamp is not None for stamp in stamps)
    assert pl.scan_delta(str(tmp_path)).filter(pl.col("timestamp").is_not_null()).collect().height == known


def test_a_time_in_one_row_group_is_not_all(tmp_path: Path) -> None:
    """A file of which one part has times and another has none gives no bounds of the time."""
    frames = [frame_of(130_000), frame_of(5, 130_000, timestamp=None, timestamp_type="none")]
    with written(tmp_path, {"x": frames}, hour="_unknown") as attempt:
        assert "timestamp" not in attempt.files[0].stats["minValues"]


def test_a_name_ends_in_the_hash_of_the_content(tmp_path: Path) -> None:
    """The name is that of the attempt, a number, and the beginning of the content's SHA-256; the size is the file's."""
    with written(tmp_path, {"a/b": [frame_of(3)], "y": [frame_of(3)]}) as attempt:
        for number, file in enumerate(attempt.files):
            path = tmp_path / file.path
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()[:16]
            assert path.name == f"{attempt.staging.attempt}-{number:05}-{digest}.parquet"
            assert path.name.startswith("seal-2019-08-01T03-")
            assert (len(content), envelope.is_sealed(file.path)) == (file.size, True)
        assert [file.path.partition("/")[0] for file in attempt.files] == ["type=a%2Fb", "type=y"]


def reports(folder: Path, attempt: Attempt) -> list[hour_fields.HourFields | None]:
    """The report in the footer of each file, in the order in which they were written."""
    found = []
    for file in attempt.files:
        with pq.ParquetFile(folder / file.path) as parquet:
            text = (parquet.metadata.metadata or {}).get(hour_fields.KEY.encode())
        found.append(None if text is None else hour_fields.parse(text.decode()))
    return found


def test_a_large_type_is_cut_into_several_files(tmp_path: Path) -> None:
    """An hour of three times the target is three files, each one sorted behind the other; the last has the report."""
    frames = [frame_of(100, 0), frame_of(50, 100), frame_of(151, 150)]
    with written(tmp_path, {"x": frames}, size=3 * TARGET_BYTES) as attempt:
        assert [file.stats["numRecords"] for file in attempt.files] == [101, 101, 99]
        bounds = [(file.stats["minValues"]["offset"], file.stats["maxValues"]["offset"]) for file in attempt.files]
        assert bounds == [(0, 100), (101, 201), (202, 300)]
        *first, last = reports(tmp_path, attempt)
    assert first == [None, None]
    assert last is not None
    assert (last.messages, last.looked_at) == (301, 301)
    assert {item.field: item.present for item in last.fields} == {"type": 301, "seq": 301}


@pytest.mark.parametrize("count", [1, 2, 7])
def test_fewer_messages_than_files(tmp_path: Path, count: int) -> None:
    """A few very large messages are never an empty file, and the last file has the report."""
    with written(tmp_path, {"x": [frame_of(1, n) for n in range(count)]}, size=5 * TARGET_BYTES) as attempt:
        assert sum(file.stats["numRecords"] for file in attempt.files) == count
        assert all(file.stats["numRecords"] for file in attempt.files)
        found = reports(tmp_path, attempt)
    assert [report is not None for report in found] == [False] * (len(found) - 1) + [True]


def test_a_report_for_each_type_that_has_fields(tmp_path: Path) -> None:
    """What is JSON is reported on; what is malformed, a tombstone or erased is not."""
    names = ["x", "_untyped", "_other", "_malformed", "_tombstone", "_erased"]
    with written(tmp_path, {name: [frame_of(2)] for name in names}) as attempt:
        found = dict(zip([str(file.values["type"]) for file in attempt.files], reports(tmp_path, attempt), strict=True))
    assert {name: report is not None for name, report in found.items()} == {
        name: not name.startswith(("_malformed", "_tombstone", "_erased")) for name in names
    }


def test_of_very_many_messages_a_sample_is_reported(tmp_path: Path) -> None:
    """The report says how many messages there are, however few of them were looked at; shares stay right."""
    value = json.dumps({"type": "x", "fill": "y" * 50})
    rare = json.dumps({"type": "x", "rare": 1})
    values = [rare if number % 10 == 0 else value for number in range(50_000)]
    frames = [frame_of(50_000, first, value=values) for first in range(0, 500_000, 50_000)]
    with written(tmp_path, {"x": frames}) as attempt:
        (report,) = reports(tmp_path, attempt)
    assert report is not None
    assert report.messages == 500_000
    assert 50_000 < report.looked_at <= 250_000
    assert {item.field: round(item.present / report.looked_at, 2) for item in report.fields} == {
        "type": 1.0,
        "fill": 0.9,
        "rare": 0.1,
    }


def test_types_may_come_in_turns(tmp_path: Path) -> None:
    """Messages of many types that come mixed up, as a backfill has them, are one sorted file per type."""
    names = [f"t{number}" for number in range(30)]
    expected = {name: Expected(20, 1) for name in names}
    attempt = rewrite_of(Archive(str(tmp_path)), "mend", HOUR.name)
    writer = SealedWriter(attempt, HOUR, expected)
    for turn in range(20):
        for name in names:
            writer.add(name, table_of(frame_of(1, turn)))
    writer.close()
    attempt.staging.place()
    attempt.commit([], {})
    attempt.clean()
    assert sorted(file.values["type"] for file in attempt.files) == sorted(names)
    for file in attempt.files:
        assert pl.read_parquet(tmp_path / file.path, hive_partitioning=False)["offset"].to_list() == list(range(20))


def test_much_that_waits_is_written_as_row_groups(tmp_path: Path) -> None:
    """Forty types of three megabytes at once do not all wait in memory: the fullest are written before the end."""
    chance = random.Random(1)
    names = [f"t{number}" for number in range(40)]
    attempt = rewrite_of(Archive(str(tmp_path)), "mend", HOUR.name)
    writer = SealedWriter(attempt, HOUR, {name: Expected(4, 1) for name in names})
    for turn in range(3):
        for name in names:
            writer.add(name, table_of(frame_of(1, turn, value=None, value_bytes=chance.randbytes(1024**2))))
    begun = list(attempt.staging.scratch.iterdir())
    assert sum(path.stat().st_size for path in begun) > 50 * 1024**2
    writer.abandon()
    attempt.discard()
    assert list((tmp_path / "_staging").iterdir()) == []


def test_messages_that_come_block_by_block(tmp_path: Path) -> None:
    """Every row group is sorted, partitions with few messages share one, and the file goes on block behind block.

    Over the whole file the messages of each partition are in order, however its row groups follow each other.
    """
    large = [frame_of(100_000, first, partition=partition) for first in (0, 100_000) for partition in (3, 1, 2)]
    small = [frame_of(5, topic=topic, topic_id="B", partition=partition) for topic in "zax" for partition in (1, 0)]
    frames = [*small, *large]
    tables = in_blocks(map(table_of, frames), size_of(table_of(pl.concat(large[:3]))))
    ordered = [pl.DataFrame(table.to_pydict(), schema=frame_schema()) for table in tables]
    with written(tmp_path, {"x": ordered}) as attempt:
        (file,) = attempt.files
    path = tmp_path / file.path
    with pq.ParquetFile(path) as parquet:
        groups = [pl.DataFrame(parquet.read_row_group(number)) for number in range(parquet.num_row_groups)]
    assert [group.select("topic", "partition").n_unique() for group in groups] == [3, 1, 1, 4, 1, 1, 1]
    for group in groups:
        assert group.select(ORDER).equals(group.select(ORDER).sort(ORDER))
    found = pl.read_parquet(path, hive_partitioning=False)
    assert found.equals(pl.concat(frames_of(path)))
    assert found.sort(ORDER).equals(pl.concat(frames).sort(ORDER))
    for (_, _), each in found.group_by("topic", "partition", maintain_order=True):
        assert each["offset"].is_sorted()
    with duckdb.connect() as connection:
        late = f"""FROM read_parquet('{path}') WHERE "partition" = 2 AND "offset" >= 199990"""
        assert len(connection.execute(late).fetchall()) == 10
    assert (file.stats["minValues"]["topic"], file.stats["maxValues"]["topic"]) == ("a", "z")


def test_large_messages_have_row_groups_of_a_good_size(tmp_path: Path) -> None:
    """What comes at once is cut by its bytes, and by its number of messages."""
    chance = random.Random(1)
    with written(tmp_path, {"x": [frame_of(100, value=None, value_bytes=[chance.randbytes(10**6)] * 100)]}) as attempt:
        assert pq.read_metadata(tmp_path / attempt.files[0].path).num_row_groups == 3
    with written(tmp_path, {"y": [frame_of(300_000)]}) as attempt:
        meta = pq.read_metadata(tmp_path / attempt.files[0].path)
        assert [meta.row_group(number).num_rows for number in range(meta.num_row_groups)] == [150_000, 150_000]


def test_a_file_given_up_leaves_nothing_open(tmp_path: Path) -> None:
    """A file that is abandoned at any moment can be removed, and another one takes its name."""
    path = tmp_path / "1.parquet"
    for count in (0, 3):
        file = SortedFile(path)
        if count:
            file.add(table_of(frame_of(count)))
        file.abandon()
        path.unlink()
    file = SortedFile(path)
    file.add(table_of(frame_of(3)))
    assert file.close({"a": "b"})["numRecords"] == 3
    assert pq.read_metadata(path).metadata[b"a"] == b"b"


def test_a_full_disk_in_the_middle_of_a_file(tmp_path: Path) -> None:
    """The disk's own error comes through, and letting go of the file afterwards, which writes again, hides it not."""
    values = [f"{chance:0100x}" for chance in map(random.Random(1).getrandbits, [400] * 130_000)]
    with mounted(tmp_path / "disk", megabytes=2) as disk:
        file = SortedFile(disk.path / "1.parquet")
        with pytest.raises(OSError, match="No space left on device"):
            file.add(table_of(frame_of(130_000, value=values)))
        file.abandon()
        (disk.path / "1.parquet").unlink()
        file = SortedFile(disk.path / "1.parquet")
        file.add(table_of(frame_of(100_000, value=values[:100_000])))
        with pytest.raises(OSError, match="No space left on device"):
            file.close({})


def test_hours_at_the_ends_of_the_calendar(tmp_path: Path) -> None:
    """The first and the last hour that a calendar has carry their bounds as any other."""
    for name, first in (
        (hour_at(envelope.FIRST_MS // envelope.HOUR_MS).name, envelope.FIRST_MS),
        (hour_at(envelope.LAST_MS // envelope.HOUR_MS).name, envelope.LAST_MS),
    ):
        with written(tmp_path / name, {"x": [frame_of(1, timestamp=first * 1000)]}, hour=name) as attempt:
            stamp = attempt.files[0].stats["minValues"]["timestamp"]
        assert stamp in ("0001-01-01T00:00:00.000Z", "9999-12-31T23:59:59.999Z")
        assert pl.read_delta(str(tmp_path / name)).height == 1
