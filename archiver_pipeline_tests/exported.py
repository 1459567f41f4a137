"""Messages of every kind in an archive, and the same read back from what was exported, by other libraries."""

from __future__ import annotations

import base64
import bz2
import csv
import gzip
import io
import json
import lzma
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.orc

from archiver_pipeline.batch.classifier import Classifier
from archiver_pipeline.batch.writer import BatchWriter
from archiver_pipeline.envelope import parse_type_rule
from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.attempt import batch_of
from archiver_pipeline_tests.batches import HEADERS, ORDERS, commit
from archiver_pipeline_tests.ugly_messages import PAYLOADS, TIMES

Headers = tuple[tuple[str, bytes | None], ...]

KEYS: tuple[bytes | None, ...] = (None, b"", b"k", b"\xff\x00", "ключ".encode(), b"\0", bytes(range(256)), b'a,"b"\r\n')
HEADER_ROWS: tuple[Headers, ...] = (
    (),
    (("h", b"\xff"), ("h", None), ("h", b"text"), ("", b"")),
    (("ключ", b'"quoted", with a comma\r\n'), ("\0", b"\0")),
)


class Message(NamedTuple):
    """A message as it was, and its type.

    Attributes:
        us: its time in microseconds since 1970, None without one.
    """

    topic: str
    topic_id: str
    partition: int
    offset: int
    us: int | None
    timestamp_type: str
    type: str
    key: bytes | None
    payload: bytes | None
    headers: Headers


def raw(rows: Sequence[tuple[bytes | None, bytes | None, Headers, int]], first: int = 0) -> pl.DataFrame:
    """Messages as `RangeReader.frames` yields them: key, payload, headers and milliseconds, offsets from `first` on."""
    keys, payloads, headers, stamps = zip(*rows, strict=True)
    listed = [[{"key": key, "value": value} for key, value in row] or None for row in headers]
    return pl.DataFrame(
        {
            "range": pl.Series([0] * len(rows), dtype=pl.UInt32),
            "offset": pl.Series(range(first, first + len(rows)), dtype=pl.Int64),
            "timestamp_ms": pl.Series(stamps, dtype=pl.Int64),
            "timestamp_type": pl.Series(["create"] * len(rows), dtype=pl.String),
            "key": pl.Series(keys, dtype=pl.Binary),
            "payload": pl.Series(payloads, dtype=pl.Binary),
            "headers": pl.Series(listed, dtype=HEADERS),
        }
    )


def archive_raw(target: Archive, frame: pl.DataFrame, at: TopicPartition = ORDERS) -> None:
    """Archive messages (`raw`) as the next of a partition."""
    attempt = batch_of(target, 0)
    rule = parse_type_rule("$.type")
    writer = BatchWriter(attempt.take, attempt.staging.scratch)
    for part in Classifier([at], lambda _: rule, attempt.types(), 1000).over([frame]):
        writer.add(part)
    writer.close()
    attempt.staging.sync()
    attempt.staging.place()
    first = int(frame["offset"][0])
    commit(attempt, first, first + frame.height, at, frame.height)
    attempt.clean()


def archive_ugly(target: Archive) -> None:
    """Archive every payload, and every time, with keys and headers of every kind in turn."""
    payloads = [payload for payload, _ in PAYLOADS.values()] + [b'{"type": "time"}'] * len(TIMES)
    times = list(TIMES)
    rows = [
        (KEYS[n % len(KEYS)], payload, HEADER_ROWS[n % len(HEADER_ROWS)], times[n % len(times)])
        for n, payload in enumerate(payloads)
    ]
    archive_raw(target, raw(rows))


def archived_messages(target: Archive) -> list[Message]:
    """What the archive has, read by Polars, in order."""
    frame = pl.read_delta(target.uri).sort("topic", "topic_id", "partition", "offset")
    return list(_of_rows(frame.with_columns(pl.col("timestamp").cast(pl.Int64)).iter_rows(named=True)))


def _of_rows(rows: Iterable[Mapping[str, Any]]) -> Iterator[Message]:
    for row in rows:
        us = row["timestamp"] if row["timestamp"] is not None else row.get("timestamp_us")
        text = None if row["value"] is None else row["value"].encode()
        payload = text if row["value_bytes"] is None else row["value_bytes"]
        headers = tuple((each["key"], each["value"]) for each in row["headers"] or ())
        named = (row["topic"], row["topic_id"], row["partition"], row["offset"], us, row["timestamp_type"], row["type"])
        yield Message(*named, row["key"], payload, headers)


def _restored(row: Mapping[str, Any], name: str) -> bytes | None:
    """The rule by which text becomes bytes again."""
    if row[f"{name}_bytes"] is not None:
        return base64.b64decode(row[f"{name}_bytes"], validate=True)
    return None if row[name] is None else str(row[name]).encode()


def _time(row: Mapping[str, Any]) -> int | None:
    if row["timestamp"] is None:
        return None if row["timestamp_us"] is None else int(row["timestamp_us"])
    found = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.(?:\d{3}|\d{6}))Z", row["timestamp"])
    assert found, row["timestamp"]
    return int(pl.Series([found[1]]).str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us").cast(pl.Int64)[0])


def _of_text(row: Mapping[str, Any], headers: list[dict[str, Any]] | None) -> Message:
    place = str(row["topic"]), str(row["topic_id"]), int(row["partition"]), int(row["offset"])
    restored = tuple((each["key"], _restored(each, "value")) for each in headers or ())
    key, payload = _restored(row, "key"), _restored(row, "value")
    return Message(*place, _time(row), row["timestamp_type"], row["type"], key, payload, restored)


def text_of(path: Path) -> bytes:
    """The content of a file, unpacked as its name says."""
    content = path.read_bytes()
    match path.suffix:
        case ".gz":
            return gzip.decompress(content)
        case ".bz2":
            return bz2.decompress(content)
        case ".xz":
            return lzma.decompress(content)
        case ".zst":
            stream = pa.CompressedInputStream(pa.BufferReader(content), "zstd")
            return bytes(stream.read())
    return content


def by_json(content: bytes) -> list[Message]:
    """JSON lines as Python reads them."""
    rows = [json.loads(line) for line in content.decode().split("\n")[:-1]]
    return [_of_text(row, row["headers"]) for row in rows]


_FIELD = re.compile(r'(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n)')


def by_rfc4180(content: bytes) -> list[Message]:
    """CSV by its grammar: nothing between commas is null, two quotes are empty text. Python's reader has to agree."""
    text = content.decode()
    records: list[list[str | None]] = [[]]
    position = 0
    while position < len(text):
        found = _FIELD.match(text, position)
        assert found, text[position : position + 80]
        quoted, bare, end = found.groups()
        records[-1].append(quoted.replace('""', '"') if quoted is not None else bare or None)
        if end != ",":
            records.append([])
        position = found.end()
    head, *rows = records[:-1]
    assert [[field or "" for field in row] for row in records[:-1]] == list(csv.reader(io.StringIO(text, newline="")))
    named = [dict(zip(map(str, head), row, strict=True)) for row in rows]
    return [_of_text(row, json.loads(row["headers"]) if row["headers"] is not None else None) for row in named]


def by_duckdb_csv(path: Path) -> list[Message]:
    """CSV as DuckDB reads it."""
    query = f"""SELECT * FROM read_csv('{path}', header = true, all_varchar = true, delim = ',', quote = '"',
        escape = '"', nullstr = '', allow_quoted_nulls = false, auto_detect = false, columns = {{{_VARCHARS}}})"""
    with duckdb.connect() as connection:
        rows = pl.DataFrame(connection.sql(query).to_arrow_table()).iter_rows(named=True)
    return [_of_text(row, json.loads(row["headers"]) if row["headers"] is not None else None) for row in rows]


_VARCHARS = ", ".join(
    f"'{name}': 'VARCHAR'"
    for name in (
        *("topic", "topic_id", "partition", "offset", "timestamp", "timestamp_us", "timestamp_type", "type"),
        *("key", "key_bytes", "value", "value_bytes", "headers"),
    )
)


def by_arrow_orc(path: Path) -> list[Message]:
    """ORC as Arrow reads it."""
    table = pyarrow.orc.read_table(path)
    index = table.schema.get_field_index("timestamp")
    stamps = table["timestamp"].cast(pa.timestamp("us", "UTC")).cast(pa.int64())
    return list(_of_rows(table.set_column(index, "timestamp", stamps).to_pylist()))


def by_polars_parquet(path: Path) -> list[Message]:
    """Parquet as Polars reads it."""
    frame = pl.read_parquet(path, hive_partitioning=False).with_columns(pl.col("timestamp").cast(pl.Int64))
    return list(_of_rows(frame.iter_rows(named=True)))


def by_duckdb_parquet(path: Path) -> list[Message]:
    """Parquet as DuckDB reads it."""
    query = f"SELECT * REPLACE (epoch_us(timestamp) AS timestamp) FROM read_parquet('{path}')"
    with duckdb.connect() as connection:
        return list(_of_rows(pl.DataFrame(connection.sql(query).to_arrow_table()).iter_rows(named=True)))
