"""The same questions to the archive by every way there is: its DuckDB file, Polars, and plain Parquet."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any

import polars as pl

from archiver_pipeline.settings.settings import Settings

DAY, HOUR = "2019-08-02", "07"
QUERIES = ("count(*)", "an hour: count(*), sum(offset)", "a day of a type: avg(amount)", "a day of a type: users")

Report = dict[str, Any]
"""`seconds` (first, median of the others, median of their CPU) and `found`, the answer, for each of `QUERIES`."""


def by_duckdb(settings: Settings, type_name: str, turns: int) -> Report:
    """The queries through the views of the DuckDB file."""
    import duckdb

    typed = f"FROM {type_name.replace('.', '_')} WHERE dt = '{DAY}'"
    queries = [
        "SELECT count(*) FROM messages",
        f"""SELECT count(*), sum("offset")::BIGINT FROM messages WHERE dt = '{DAY}' AND hr = '{HOUR}'""",
        f"SELECT avg(amount) {typed}",
        f"SELECT count(DISTINCT uid) {typed}",
    ]
    return _asked(lambda: duckdb.connect(str(settings.view_path), read_only=True), queries, turns)


def by_parquet(settings: Settings, type_name: str, turns: int) -> Report:
    """The queries over the Parquet files, as DuckDB finds them below their Hive folders."""
    import duckdb

    pattern = f"{settings.archive_uri}/type=*/dt=*/hr=*/*.parquet"
    files = f"FROM read_parquet('{pattern}', hive_partitioning = true, hive_types_autocast = false)"
    typed = f"{files} WHERE type = '{type_name}' AND dt = '{DAY}'"
    queries = [
        f"SELECT count(*) {files}",
        f"""SELECT count(*), sum("offset")::BIGINT {files} WHERE dt = '{DAY}' AND hr = '{HOUR}'""",
        f"SELECT avg((value->>'$.amount')::DOUBLE) {typed}",
        f"SELECT count(DISTINCT value->>'$.uid') {typed}",
    ]
    return _asked(duckdb.connect, queries, turns)


def _asked(connect: Callable[[], Any], queries: list[str], turns: int) -> Report:
    """Ask each query again and again on a connection of its own; opening that belongs to the first time."""

    def rows(query: str) -> Iterator[Sequence[Any]]:
        with closing(connect()) as connection:
            while True:
                yield connection.execute(query).fetchone()

    return _repeated((rows(query) for query in queries), turns)


def _repeated(queries: Iterable[Iterator[Sequence[Any]]], turns: int) -> Report:
    """Take the answer of each query once, and `turns` times more: seconds of the first, median, median of the CPU's."""
    seconds, found = [], []
    for query in queries:
        answer: Sequence[Any] = ()
        taken = []
        for _ in range(turns + 1):
            began, used = time.monotonic(), time.process_time()
            answer = next(query)
            taken.append((time.monotonic() - began, time.process_time() - used))
        again = [statistics.median(each) for each in zip(*taken[1:], strict=True)]
        seconds.append((taken[0][0], *again))
        found.append([round(float(number), 6) for number in answer])
    return {"seconds": seconds, "found": found}


def by_polars(settings: Settings, type_name: str, turns: int) -> Report:
    """The queries over the Delta table."""
    hour = (pl.col("dt") == DAY) & (pl.col("hr") == HOUR)
    typed = (pl.col("type") == type_name) & (pl.col("dt") == DAY)
    asked: list[tuple[pl.Expr, list[pl.Expr]]] = [
        (pl.lit(True), [pl.len()]),
        (hour, [pl.len(), pl.col("offset").sum()]),
        (typed, [pl.col("value").str.json_path_match("$.amount").cast(pl.Float64).mean()]),
        (typed, [pl.col("value").str.json_path_match("$.uid").n_unique()]),
    ]

    def rows(condition: pl.Expr, wanted: list[pl.Expr]) -> Iterator[Sequence[Any]]:
        while True:
            yield pl.scan_delta(settings.archive_uri).filter(condition).select(wanted).collect().row(0)

    return _repeated((rows(*query) for query in asked), turns)
