"""`python -m bench.queries_large`: DuckDB over a hundred million sealed messages, by our views and over ideal files.

Two days of five types are written as sealing writes them. Beside them lie the same rows as DuckDB itself writes them, a
file per type and hour in row groups of 122,880. Both are asked in turns, with all files in the page cache. It fails if
an answer differs, or if a file that a filter leaves out is opened.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from archiver_pipeline import envelope
from archiver_pipeline.hours import hour_at
from archiver_pipeline.rewrites.sealed_files import Expected, SealedWriter
from archiver_pipeline.stored.files import COLUMNS
from archiver_pipeline.stored.in_order import in_blocks
from archiver_pipeline.stored.parquet import table_of
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.attempt import rewrite_of
from archiver_pipeline.view import view
from bench.results import record

TYPES = ("object.one", "object.two", "object.three", "page.view", "page.click")
HOURS, PARTITIONS = 48, 4
FIRST_HOUR = 1_564_617_600_000 // envelope.HOUR_MS
DAY, HOUR = "2019-08-01", "07"
COUNTRIES = ["DE", "FR", "NL", "PL", "US"]
COUNT = "SELECT type, dt, hr, count(*) FROM {} GROUP BY ALL ORDER BY ALL"
FILTERS = {
    "type, dt, hr": (f"type = '{TYPES[1]}' AND dt = '{DAY}' AND hr = '{HOUR}'", 1),
    "dt, hr": (f"dt = '{DAY}' AND hr = '{HOUR}'", len(TYPES)),
    "type, dt": (f"type = '{TYPES[1]}' AND dt = '{DAY}'", 24),
    "dt": (f"dt = '{DAY}'", 24 * len(TYPES)),
}
"""What is asked for, and how many files have it."""


def main() -> None:
    """Make both, ask both, print and record the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.queries_large", description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where to make the files, or to find them from the last time")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="archiver-queries-"))
    try:
        console = Console()
        archive = Archive(str(folder / "archive"))
        if not (folder / "archive.duckdb").exists():
            console.print(f"Writing {given.rows:,} messages ...")
            console.print(f"... in {_make(archive, given.rows):.0f} s")
            view.refresh(folder / "archive.duckdb", archive)
        if not (folder / "ideal" / "done").exists():
            console.print("Writing the ideal files ...")
            _make_ideal(archive, folder / "ideal")
        figures = _ask(folder, archive, given.turns)
        console.print(_table(figures))
        record("queries", f"python -m bench.queries_large --rows {given.rows}", figures)
    finally:
        if given.folder is None:
            shutil.rmtree(folder)


def _make(archive: Archive, rows: int) -> float:
    """Write each hour and commit it."""
    began = time.monotonic()
    each = rows // (HOURS * len(TYPES)) // PARTITIONS * PARTITIONS
    tables = {name: list(in_blocks([_hour_of(name, each)])) for name in TYPES}
    expected = {name: Expected(each, 1) for name in TYPES}
    for number in range(HOURS):
        hour = hour_at(FIRST_HOUR + number)
        attempt = rewrite_of(archive, envelope.SEAL, hour.name)
        writer = SealedWriter(attempt, hour, expected)
        for name, every in tables.items():
            for table in every:
                writer.add(name, _moved(table, number))
        writer.close()
        attempt.staging.sync()
        attempt.staging.place()
        attempt.commit([], {})
        attempt.clean()
    return time.monotonic() - began


def _hour_of(type_name: str, rows: int) -> pa.Table:
    """Messages of about a hundred bytes in the first hour, in order of time, as batches archive them."""
    index = pl.col("index")
    seed = TYPES.index(type_name)

    def drawn(salt: int, end: int) -> pl.Expr:
        return (index.hash(seed * 10 + salt) % end).cast(pl.Int64)

    body = pl.struct(
        type=pl.lit(type_name),
        uid=pl.format("u{}", drawn(1, 100_000)),
        url=pl.format("/products/{}", drawn(2, 5_000)),
        amount=drawn(3, 100_000) / 100,
        country=pl.lit(pl.Series(COUNTRIES)).gather(drawn(4, len(COUNTRIES))),
        seq=index,
    )
    frame = pl.DataFrame({"index": pl.int_range(rows, eager=True)}).select(
        topic=pl.lit("events"),
        topic_id=pl.lit("A"),
        partition=(index % PARTITIONS).cast(pl.Int32),
        offset=index // PARTITIONS * len(TYPES) + seed,
        timestamp=(FIRST_HOUR * envelope.HOUR_MS + index * envelope.HOUR_MS // rows).cast(pl.Int64) * 1000,
        timestamp_type=pl.lit("create"),
        key=pl.format("u{}", drawn(1, 100_000)).cast(pl.Binary),
        value=body.struct.json_encode(),
        value_bytes=pl.lit(None, pl.Binary),
        headers=pl.lit(None, pl.List(pl.Struct({"key": pl.String, "value": pl.Binary}))),
    )
    return table_of(frame)


def _moved(table: pa.Table, hours: int) -> pa.Table:
    """The same messages some hours later, with the offsets that they have then."""
    later = {"offset": hours * 10**9, "timestamp": hours * envelope.HOUR_MS * 1000}
    for name, step in later.items():
        column = pl.Series(pl.from_arrow(table[name])).cast(pl.Int64) + step
        table = table.set_column(COLUMNS.index(name), name, column.to_arrow().cast(table.schema.field(name).type))
    return table


def _make_ideal(archive: Archive, folder: Path) -> None:
    """The same rows, as DuckDB writes them."""
    with duckdb.connect() as connection:
        for path in archive.files()["path"]:
            target = folder / Path(path).parent / "0.parquet"
            if target.exists():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            connection.execute(
                f"COPY (FROM read_parquet('{Path(archive.uri) / path}', hive_partitioning = false)) TO '{target}.new' "
                "(FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 122880)"
            )
            Path(f"{target}.new").rename(target)
    (folder / "done").touch()


def _ask(folder: Path, archive: Archive, turns: int) -> dict[str, Any]:
    ideal = f"read_parquet('{folder}/ideal/*/*/*/*.parquet', hive_partitioning = true, hive_types_autocast = false)"
    amount = "(value ->> '$.amount')::DOUBLE"
    pairs = {
        "count by type, dt, hr": (COUNT.format("messages"), COUNT.format(ideal)),
        "a JSON field over a day of a type": (
            f"SELECT count(amount), round(avg(amount), 6) FROM object_one WHERE dt = '{DAY}'",
            f"SELECT count({amount}), round(avg({amount}), 6) FROM {ideal} WHERE type = '{TYPES[0]}' AND dt = '{DAY}'",
        ),
    }
    figures: dict[str, Any] = {
        "messages": int(archive.files()["messages"].sum()),
        "files": archive.files().height,
        "bytes": int(archive.files()["bytes"].sum()),
        "ideal_bytes": sum(path.stat().st_size for path in folder.glob("ideal/*/*/*/*.parquet")),
    }
    with duckdb.connect(str(folder / "archive.duckdb"), read_only=True) as ours, duckdb.connect() as other:
        for name, (mine, theirs) in pairs.items():
            figures[name] = _in_turns(
                {"view": lambda: ours.execute(mine).fetchall(), "ideal": lambda: other.execute(theirs).fetchall()},  # noqa: B023
                turns,
            )
        figures["files opened"] = {name: _opened(ours, *what) for name, what in FILTERS.items()}
    return figures


def _in_turns(queries: dict[str, Callable[[], Any]], turns: int) -> dict[str, float]:
    """Median seconds of each query, and their ratio; the first answers, which warm up, do not count."""
    answers = {name: query() for name, query in queries.items()}
    if answers["view"] != answers["ideal"]:
        raise SystemExit(f"the answers differ: {answers['view'][:3]} and {answers['ideal'][:3]}")
    taken: dict[str, list[float]] = {name: [] for name in queries}
    for turn in range(turns):
        for name in sorted(queries, reverse=bool(turn % 2)):
            began = time.monotonic()
            queries[name]()
            taken[name].append(time.monotonic() - began)
    medians = {f"{name}_seconds": round(statistics.median(each), 4) for name, each in taken.items()}
    return {**medians, "ratio": round(medians["view_seconds"] / medians["ideal_seconds"], 3)}


def _opened(connection: duckdb.DuckDBPyConnection, condition: str, wanted: int) -> int:
    """How many files a query with a filter reads, as DuckDB itself says; no more than those that have what it asks."""
    query = f"EXPLAIN ANALYZE SELECT sum(strlen(value)) FROM messages WHERE {condition}"
    ((_, plan),) = connection.execute(query).fetchall()
    found = re.search(r"Total Files Read:\s*([\d,]+)", plan)
    if found is None or int(found.group(1)) != wanted:
        raise SystemExit(f"WHERE {condition} should read {wanted} files:\n{plan}")
    return wanted


def _table(figures: dict[str, Any]) -> Table:
    table = Table("", "view, s", "ideal, s", "ratio", title="medians, warm")
    for name, found in figures.items():
        if isinstance(found, dict) and "ratio" in found:
            table.add_row(
                name, f"{found['view_seconds']:.3f}", f"{found['ideal_seconds']:.3f}", f"{found['ratio']:.2f}"
            )
        elif isinstance(found, dict):
            table.add_row(f"{name}, of {figures['files']}", ", ".join(f"{key}: {n}" for key, n in found.items()))
        else:
            table.add_row(name, f"{found:,}")
    return table


if __name__ == "__main__":
    main()
