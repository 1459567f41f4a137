"""Rules of the formats: whatever a message holds, each of them gives it back byte for byte, to whoever reads it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver_pipeline.export import payloads
from archiver_pipeline.export.columns import TEXT_COLUMNS, empty
from archiver_pipeline.export.exporter import Exported, Exporter
from archiver_pipeline.export.formats import Format, table_writer, text_writer
from archiver_pipeline.export.target import target
from archiver_pipeline.stored.files import quietly
from archiver_pipeline.stored.parquet import frame_schema
from archiver_pipeline.stored.selected import Selected
from archiver_pipeline.stored.selection import Selection
from archiver_pipeline.table.archive import Archive
from archiver_pipeline_tests.exported import (
    Message,
    archive_ugly,
    archived_messages,
    by_arrow_orc,
    by_duckdb_csv,
    by_duckdb_parquet,
    by_json,
    by_polars_parquet,
    by_rfc4180,
    text_of,
)
from archiver_pipeline_tests.ugly_messages import PAYLOADS

READERS: dict[str, tuple[Format, str, Callable[[Path], list[Message]]]] = {
    "json": ("jsonl", ".jsonl", lambda path: by_json(text_of(path))),
    "json.gz": ("jsonl", ".jsonl.gz", lambda path: by_json(text_of(path))),
    "json.zst": ("jsonl", ".json.zst", lambda path: by_json(text_of(path))),
    "json.bz2": ("jsonl", ".bz2", lambda path: by_json(text_of(path))),
    "json.xz": ("jsonl", ".ndjson.xz", lambda path: by_json(text_of(path))),
    "csv, grammar": ("csv", ".csv", lambda path: by_rfc4180(text_of(path))),
    "csv, DuckDB": ("csv", ".csv", by_duckdb_csv),
    "csv.gz, DuckDB": ("csv", ".csv.gz", by_duckdb_csv),
    "csv.zst": ("csv", ".csv.zst", lambda path: by_rfc4180(text_of(path))),
    "orc, Arrow": ("orc", ".orc", by_arrow_orc),
    "parquet, Polars": ("parquet", ".parquet", by_polars_parquet),
    "parquet, DuckDB": ("parquet", ".parquet", by_duckdb_parquet),
}
"""Format, ending of the name, and what reads it back."""


@pytest.fixture(scope="module")
def ugly(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """An archive with every payload, key, header and time that nobody should send."""
    found = Archive(str(tmp_path_factory.mktemp("ugly") / "archive"))
    archive_ugly(found)
    return found


def export(archive: Archive, kind: str, out: Path | str, selection: Selection | None = None, **more: bool) -> Exported:
    """Export what is selected, everything by default."""
    moment = Selected(archive, Selection())
    return Exporter(archive, moment, selection or Selection(), target(kind, str(out), **more), quietly).run()  # type: ignore[arg-type]


@pytest.mark.parametrize("reader", READERS)
def test_every_message_comes_back(ugly: Archive, reader: str, tmp_path: Path) -> None:
    """Each payload, key, header and time of the tables is read back as it was, in order, with its type."""
    kind, ending, read = READERS[reader]
    out = tmp_path / f"messages{ending}"
    done = export(ugly, kind, out)
    found = read(out)
    assert found == archived_messages(ugly)
    assert (done.messages, done.files, done.bytes) == (len(found), 1, out.stat().st_size)
    assert [message.payload for message in found][: len(PAYLOADS)] == [payload for payload, _ in PAYLOADS.values()]


@pytest.mark.parametrize(
    ("ending", "tool"), [(".gz", "gzip"), (".zst", "zstd"), (".bz2", "bzip2"), (".xz", "xz")], ids=lambda item: item
)
def test_the_usual_tools_unpack_it(ugly: Archive, ending: str, tool: str, tmp_path: Path) -> None:
    """What is compressed is read by the tools of that name, and says nothing of the name it had at first."""
    export(ugly, "jsonl", plain := tmp_path / "plain.jsonl")
    export(ugly, "jsonl", packed := tmp_path / f"packed.jsonl{ending}")
    try:
        shown = subprocess.run([tool, "-d", "-c", str(packed)], capture_output=True, check=True, timeout=120).stdout
    except FileNotFoundError:
        pytest.skip(f"{tool} is not installed")
    assert shown == plain.read_bytes()
    assert b"partial" not in packed.read_bytes()


def test_the_columns_are_those_that_are_promised(ugly: Archive, tmp_path: Path) -> None:
    """Every line has each column, in the order of the documentation, and so has the first line of CSV."""
    export(ugly, "jsonl", lines := tmp_path / "x.jsonl")
    assert {tuple(json.loads(line)) for line in lines.read_text().split("\n")[:-1]} == {TEXT_COLUMNS}
    export(ugly, "csv", table := tmp_path / "x.csv")
    assert table.read_bytes().split(b"\r\n")[0].decode() == ",".join(f'"{name}"' for name in TEXT_COLUMNS)


def test_duckdb_reads_the_lines(ugly: Archive, tmp_path: Path) -> None:
    """DuckDB finds the columns and types of the lines by itself, and the payload's own fields in them."""
    export(ugly, "jsonl", out := tmp_path / "x.jsonl.gz", Selection(types=("time", "object.one")))
    with duckdb.connect() as connection:
        query = f"""SELECT count(*), count(value->>'$.type'), typeof(min("offset")) FROM '{out}'"""
        (row,) = connection.sql(query).fetchall()
    assert row[0] == row[1] > 10
    assert row[2] == "BIGINT"


@pytest.mark.parametrize("kind", ["jsonl", "csv", "orc", "parquet"])
def test_no_message_is_a_valid_file(ugly: Archive, kind: Format, tmp_path: Path) -> None:
    """Where nothing is selected, the file is there, with its columns and without a message."""
    done = export(ugly, kind, out := tmp_path / f"x.{kind}", Selection(topics=("nothing",)))
    (read,) = [reader for each, ending, reader in list(READERS.values())[::-1] if ending == f".{kind}"][:1]
    assert (done.messages, done.files, read(out)) == (0, 1, [])


headers_rows = st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=20)), max_size=3).map(tuple)
messages = st.lists(
    st.tuples(
        st.none() | st.binary(max_size=20) | st.text(max_size=20).map(str.encode),
        st.none() | st.binary(max_size=40) | st.text(max_size=40).map(str.encode),
        headers_rows,
        st.none() | st.integers(-(2**63) + 1, 2**63 - 1),
    ),
    max_size=12,
)


@settings(max_examples=60)
@given(messages)
def test_any_bytes_come_back(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[object, ...]]) -> None:
    """Random keys, payloads, headers and times, to the microsecond, are the same after each format."""
    folder = tmp_path_factory.mktemp("any")
    frame = frame_of(rows)
    wanted = [
        Message("t", "A", 0, n, us, "create", "x", key, payload, headers)  # type: ignore[arg-type]
        for n, (key, payload, headers, us) in enumerate(rows)
    ]
    for name in ("json.zst", "csv, grammar", "orc, Arrow", "parquet, Polars"):
        kind, ending, read = READERS[name]
        path = folder / f"x{ending}"
        if kind in ("jsonl", "csv"):
            sink = open(path.with_suffix(""), "wb")  # noqa: SIM115, the writer closes it
            writer = text_writer(kind, sink, payloads=False, hive=False)
            path = path.with_suffix("")
        else:
            writer = table_writer(kind, path, hive=False)  # type: ignore[assignment]
        writer.write(frame)
        writer.close()
        found = by_json(path.read_bytes()) if kind == "jsonl" else read(path)
        assert found == wanted, name


def frame_of(rows: list[tuple[object, ...]]) -> pl.DataFrame:
    """Messages as the archive has them: key, payload, headers, microseconds."""
    made = []
    for n, (key, payload, headers, us) in enumerate(rows):
        plain = isinstance(payload, bytes) and is_text(payload)
        text, rest = (payload.decode(), None) if plain else (None, payload)  # type: ignore[attr-defined]
        listed = [{"key": each, "value": value} for each, value in headers] or None  # type: ignore[attr-defined]
        made.append(("t", "A", 0, n, us, "create", key, text, rest, listed, "x"))
    schema = {**frame_schema(), "timestamp": pl.Int64(), "type": pl.String()}
    frame = pl.DataFrame(made, schema=schema, orient="row")
    return frame.with_columns(pl.col("timestamp").cast(pl.Datetime("us", "UTC"))) if rows else empty()


def test_payloads_are_lines(ugly: Archive, tmp_path: Path) -> None:
    """Each payload that can be a line is one, byte for byte; JSON with line breaks is the same JSON on one line."""
    export(ugly, "jsonl", out := tmp_path / "x.jsonl", payloads=True, leave_out=True)
    given_in = [message.payload for message in archived_messages(ugly)]
    wanted = []
    for payload in given_in:
        if payload is None or not is_text(payload):
            continue
        if b"\n" in payload or b"\r" in payload:
            assert json.loads(payload)
            payload = payload.replace(b"\r", b"").replace(b"\n", b"")
        wanted.append(payload + b"\n")
    assert out.read_bytes() == b"".join(wanted)


def is_text(payload: bytes) -> bool:
    """Whether bytes are UTF-8."""
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{\n  "a": 1,\r\n  "b": "x y"\r}\n', '{  "a": 1,  "b": "x y"}'),
        ('\n"\\n"', '"\\n"'),
        ("1\n", "1"),
        ("[" + "1," * 3 + "\n" + "9" * 5000 + "]", "[1,1,1," + "9" * 5000 + "]"),
        ("", ""),
        ("no line break", "no line break"),
        ("\u2028\x85\v\f", "\u2028\x85\v\f"),
        ("1\n2", None),
        ('{"a": "b\nc"}', None),
        ('{"a": NaN,\n}', None),
        ("two\nlines", None),
        ("[" * 100_000 + "\n", None),
        ("\r", None),
    ],
)
def test_line_breaks(text: str, line: str | None) -> None:
    """In JSON a line break is white space and goes; other text with one is no line; nothing else is touched."""
    found, refused = payloads.lines(frame_of([(None, text.encode(), (), 0)]))
    assert found["value"].to_list() == ([line] if line is not None else [])
    assert dict(refused) == ({} if line is not None else {payloads.NOT_ONE_LINE: 1})
    if line:
        assert line == text or json.loads(line, parse_int=str) == json.loads(text, parse_int=str)
