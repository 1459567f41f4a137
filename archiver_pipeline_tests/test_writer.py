"""Frames become Parquet files by type and hour, and no row is lost on the way."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver_pipeline import envelope
from archiver_pipeline.batch.classifier import Classifier
from archiver_pipeline.batch.writer import BatchWriter
from archiver_pipeline.envelope import FIRST_MS, LAST_MS, MAX_TIMESTAMP_MS, TypeRule, parse_type_rule
from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.attempt import batch_of
from archiver_pipeline_tests.batches import AUGUST_FIRST_AT_THREE, HOUR_MS, ORDERS, event, raw_frame

CLICKS = TopicPartition("clicks", "B", 3)
COLUMNS = ["topic", "topic_id", "partition", "offset", "timestamp", "timestamp_type", "key", "value", "value_bytes"]


@dataclass
class Written:
    """Keeps what a writer writes: partition values, rows and statistics of each file."""

    files: list[tuple[Mapping[str, str], pl.DataFrame, Mapping[str, Any]]] = field(default_factory=list)
    size: int = 0

    def take(self, path: Path, values: Mapping[str, str], stats: Mapping[str, Any]) -> None:
        """Take one file."""
        content = path.read_bytes()
        path.unlink()
        self.size += len(content)
        self.files.append((dict(values), pl.read_parquet(io.BytesIO(content)), stats))

    def frames(self) -> Iterator[tuple[Mapping[str, str], pl.DataFrame]]:
        """Partition values and rows of each file, times as numbers: Python's datetime ends with year 9999."""
        for values, frame, _ in self.files:
            yield values, frame.with_columns(pl.col("timestamp").cast(pl.Int64))

    def rows(self) -> list[dict[str, Any]]:
        """All rows with their type, in the order of topic, partition and offset."""
        rows = [{**row, **values} for values, frame in self.frames() for row in frame.iter_rows(named=True)]
        return sorted(rows, key=lambda row: (row["topic"], row["partition"], row["offset"]))

    def types(self) -> Counter[str]:
        """Messages of each type."""
        return Counter(row["type"] for row in self.rows())

    def folders(self) -> set[str]:
        """The Hive paths of the files."""
        return {envelope.folder(values) for values, *_ in self.files}


def written(
    *frames: pl.DataFrame,
    places: Sequence[TopicPartition] = (ORDERS,),
    rules: Mapping[str, str] | None = None,
    known: set[str] | None = None,
    max_types: int = 1000,
) -> Written:
    """What a writer makes of these frames; its own counts are checked on the way."""
    result = Written()

    def rule_of(topic: str) -> TypeRule:
        return parse_type_rule((rules or {}).get(topic, "$.type"))

    with TemporaryDirectory() as folder:
        writer = BatchWriter(result.take, Path(folder))
        for frame in Classifier(list(places), rule_of, known or set(), max_types).over(frames):
            writer.add(frame)
        writer.close()
    assert writer.types == result.types()
    assert (writer.files, writer.bytes) == (len(result.files), result.size)
    return result


times = st.one_of(
    st.integers(AUGUST_FIRST_AT_THREE - HOUR_MS, AUGUST_FIRST_AT_THREE + 2 * HOUR_MS),
    st.sampled_from([-1, 0, -2, FIRST_MS, FIRST_MS - 1, LAST_MS, LAST_MS + 1, MAX_TIMESTAMP_MS, -(2**63), 2**63 - 1]),
)
payloads = st.one_of(
    st.none(), st.binary(max_size=8), st.sampled_from(["a", "b", "_c", ""]).map(event), st.just(b"\xff"), st.just(b"{}")
)
messages = st.lists(st.tuples(payloads, times), min_size=1, max_size=20)


@settings(max_examples=30)
@given(st.lists(messages, max_size=4))
def test_every_message_is_written_once_and_unchanged(batches: list[list[tuple[bytes | None, int]]]) -> None:
    """Rows in are rows out, whatever the payloads and the times, and each lies under its own hour."""
    frames: list[pl.DataFrame] = []
    wanted: list[tuple[bytes | None, int]] = []
    for batch in batches:
        frames.append(raw_frame([row for row, _ in batch], len(wanted), [time for _, time in batch]))
        wanted += batch
    rows = written(*frames).rows()
    assert [row["offset"] for row in rows] == list(range(len(wanted)))
    for row, (payload, time) in zip(rows, wanted, strict=True):
        assert (row["value_bytes"] if row["value"] is None else row["value"].encode()) == payload
        known = time != -1 and FIRST_MS <= time <= LAST_MS
        place = envelope.hour_name(time // HOUR_MS if known else None)
        assert (row["dt"], row["hr"]) == place
        assert row["timestamp_type"] == ("none" if time == -1 else "create")


def test_a_file_holds_one_type_and_one_hour() -> None:
    """Files lie at type=/dt=/hr=, in UTC, and hold no partition column again."""
    stamps = [AUGUST_FIRST_AT_THREE, AUGUST_FIRST_AT_THREE + HOUR_MS - 1, AUGUST_FIRST_AT_THREE + HOUR_MS]
    result = written(raw_frame([event("a"), event("a"), event("a")], 0, stamps), raw_frame([event("b/c")], 3))
    assert sorted((envelope.folder(values), frame.height) for values, frame, _ in result.files) == [
        ("type=a/dt=2019-08-01/hr=03", 2),
        ("type=a/dt=2019-08-01/hr=04", 1),
        ("type=b%2Fc/dt=2019-08-01/hr=03", 1),
    ]
    for _, frame, _ in result.files:
        assert frame.columns == [*COLUMNS, "headers"]


def test_the_columns_have_the_types_of_the_contract() -> None:
    """Also where all values are null."""
    ((_, frame, _),) = written(raw_frame([None])).files
    header = pl.Struct({"key": pl.String, "value": pl.Binary})
    text, binary = pl.String, pl.Binary
    types = [text, text, pl.Int32, pl.Int64, pl.Datetime("us", "UTC"), text, binary, text, binary, pl.List(header)]
    assert frame.dtypes == types


def test_a_time_that_no_calendar_holds_goes_to_the_unknown_folder() -> None:
    """No message is dropped for its time; where 64 bits of microseconds hold it, the column still has it."""
    stamps = [-1, LAST_MS + 1, FIRST_MS - 1, MAX_TIMESTAMP_MS + 1, -(2**63)]
    result = written(raw_frame([event("a")] * 5, 0, stamps))
    assert result.folders() == {"type=a/dt=_unknown/hr=_unknown"}
    ((_, frame, stats),) = result.files
    assert frame["timestamp"].cast(pl.Int64).to_list() == [None, *(1000 * time for time in stamps[1:3]), None, None]
    assert stats == {"numRecords": 5, "minValues": {"offset": 0}, "maxValues": {"offset": 4}}


def test_statistics_are_those_of_the_rows() -> None:
    """Readers skip files by them, so a wrong bound would hide messages; times are ISO text, rounded to milliseconds."""
    stamps = [AUGUST_FIRST_AT_THREE + 1999, AUGUST_FIRST_AT_THREE + 5, AUGUST_FIRST_AT_THREE + 1000]
    ((_, _, stats),) = written(raw_frame([event("a")] * 3, 7, stamps)).files
    assert stats == {
        "numRecords": 3,
        "minValues": {"offset": 7, "timestamp": "2019-08-01T03:00:00.005Z"},
        "maxValues": {"offset": 9, "timestamp": "2019-08-01T03:00:01.999Z"},
    }


@pytest.mark.parametrize("time", [FIRST_MS, LAST_MS, 0, -1_000_000])
def test_statistics_reach_from_the_first_year_to_the_last(time: int) -> None:
    """ISO text that reads back as the very time."""
    ((_, _, stats),) = written(raw_frame([event("a")], 0, time)).files
    moment = datetime.fromisoformat(stats["minValues"]["timestamp"])
    assert stats["minValues"] == stats["maxValues"]
    assert (moment - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000 == time
    json.dumps(stats)


def test_types_past_the_limit_become_other(caplog: pytest.LogCaptureFixture) -> None:
    """First come, first served; types that the archive has stay as they are, and the reserved ones do not count."""
    first = raw_frame([event("new"), event("old"), event("x1"), b"no json", b"{}", None])
    second = raw_frame([event(f"x{number}") for number in range(1, 5)] + [event("new"), event("old")], 6)
    types = written(first, second, known={"old"}, max_types=2).types()
    assert types == {"new": 2, "old": 2, "_other": 5, "_malformed": 1, "_untyped": 1, "_tombstone": 1}
    (warning,) = [record.message for record in caplog.records]
    assert "4 new types were archived as _other" in warning
    assert "ARCHIVER_MAX_TYPES" in warning
    assert "x1" in warning


def test_an_archive_that_has_more_types_than_allowed_keeps_them() -> None:
    """The limit was lowered: what is stored stays a type, nothing is added."""
    types = written(raw_frame([event("a"), event("b"), event("c"), event("d")]), known={"a", "b", "c"}, max_types=1)
    assert types.types() == {"a": 1, "b": 1, "c": 1, "_other": 1}


def test_a_payload_that_names_a_reserved_type_is_told_apart() -> None:
    """One more underscore in front: nobody can smuggle a message into `_malformed`."""
    types = written(raw_frame([event("_other"), event("_malformed"), event("__x")])).types()
    assert types == {"__other": 1, "__malformed": 1, "___x": 1}


def test_each_topic_has_its_own_rule() -> None:
    """Also where the messages of several topics come mixed in one frame."""
    orders = raw_frame([event("a", kind="k1"), event("b", kind="k2")])
    clicks = raw_frame([event("a", kind="k1"), event("b", kind="k2")], range_number=1)
    mixed = pl.concat([orders, clicks])[[2, 0, 3, 1]]
    rows = written(mixed, places=[ORDERS, CLICKS], rules={"clicks": "$.kind"}).rows()
    found = [(row["topic"], row["topic_id"], row["partition"], row["offset"], row["type"]) for row in rows]
    assert found == [
        ("clicks", "B", 3, 0, "k1"),
        ("clicks", "B", 3, 1, "k2"),
        ("orders", "A", 0, 0, "a"),
        ("orders", "A", 0, 1, "b"),
    ]


def test_partitions_of_a_topic_share_its_files() -> None:
    """A file a type and hour, not one a partition; rows know where they come from."""
    second = TopicPartition("orders", "A", 1)
    frames = raw_frame([event("a")] * 2), raw_frame([event("a")] * 3, 100, range_number=1)
    ((_, frame, stats),) = written(*frames, places=[ORDERS, second]).files
    assert sorted(frame.select("partition", "offset").rows()) == [(0, 0), (0, 1), (1, 100), (1, 101), (1, 102)]
    assert (stats["numRecords"], stats["minValues"]["offset"], stats["maxValues"]["offset"]) == (5, 0, 102)


def test_very_many_types_and_hours_are_written_each_to_its_own_file() -> None:
    """Old data read at once touches thousands of hours."""
    types, hours = 40, 25
    names = [f"t{number % types}" for number in range(types * hours * 2)]
    stamps = [AUGUST_FIRST_AT_THREE + number // types % hours * HOUR_MS for number in range(len(names))]
    result = written(raw_frame([event(name) for name in names], 0, stamps))
    assert len(result.files) == len(result.folders()) == types * hours
    assert [row["offset"] for row in result.rows()] == list(range(len(names)))
    assert {frame.height for _, frame, _ in result.files} == {2}


def test_large_messages_are_written_in_between() -> None:
    """What is held in memory is bounded: far more than the buffer comes out as several files, nothing missing."""
    payload = event("a", pad="x" * 1_000_000)
    frames = [raw_frame([payload] * 35, 35 * number) for number in range(3)]
    result = written(*frames, raw_frame([payload], 105))
    assert len(result.files) > 1
    assert [row["offset"] for row in result.rows()] == list(range(106))
    assert {len(row["value"]) for row in result.rows()} == {len(payload)}


def test_nothing_in_makes_no_file() -> None:
    """A batch may hold nothing but offsets."""
    assert written().files == []


def test_headers_are_kept_in_order_with_repeats() -> None:
    """A header without a value is not one with an empty value."""
    headers = [("b", b"1"), ("a", None), ("b", b""), ("", b"\xff")]
    (row,) = written(raw_frame([event()], headers=headers)).rows()
    assert [(header["key"], header["value"]) for header in row["headers"]] == headers


def test_a_name_ends_in_the_hash_of_the_content(tmp_path: Any) -> None:
    """The first 16 hex digits of the SHA-256: `verify` finds a changed byte without a second ledger."""
    archive = Archive(str(tmp_path))
    attempt = batch_of(archive, 0)
    writer = BatchWriter(attempt.take, attempt.staging.scratch)
    classifier = Classifier([ORDERS], lambda _: parse_type_rule("$.type"), set(), 10)
    for frame in classifier.over([raw_frame([event("a"), event("a"), event("b")])]):
        writer.add(frame)
    writer.close()
    attempt.staging.sync()
    attempt.staging.place()
    placed = sorted(tmp_path.glob("type=*/**/*.parquet"))
    assert [path.parts[-4] for path in placed] == ["type=a", "type=b"]
    for path in placed:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        assert path.name.endswith(f"-{digest}.parquet")
        assert path.name.startswith(attempt.staging.attempt)
    attempt.discard()
