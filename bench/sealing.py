"""`python -m bench.sealing`: tens of thousands of small files, before and after their hours are sealed, no broker.

Messages are made here and archived as batches are. It prints files, bytes, how long queries take, and what sealing
itself takes. It fails if a message is not as it was, or an answer is another one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table

from archiver_pipeline.batch.classifier import Classifier
from archiver_pipeline.batch.writer import BatchWriter
from archiver_pipeline.envelope import parse_type_rule
from archiver_pipeline.hours import Hour
from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.rewrites.seal import Sealer
from archiver_pipeline.settings.settings import Settings, load
from archiver_pipeline.steps import Clock
from archiver_pipeline.stored.digest import Sums
from archiver_pipeline.stored.files import COLUMNS
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.attempt import batch_of
from archiver_pipeline.view import view
from archiver_pipeline_tests.batches import AUGUST_FIRST_AT_THREE, HEADERS, HOUR_MS, commit
from bench.process import Measured, measure
from bench.queries import QUERIES, by_duckdb, by_parquet, by_polars

AT = TopicPartition("events", "AAAAAAAAAAAAAAAAAAAAAQ", 0)
TYPES = ("object.one", "object.two", "object.three", "page.view", "page.click")
AGENTS = [f"Mozilla/5.0 (X11; Linux x86_64; rv:{n}.0) Gecko/20100101 Firefox/{n}.0" for n in range(60, 70)]
COUNTRIES = ["DE", "FR", "NL", "PL", "US"]
READERS = {"duckdb": "DuckDB, archive.duckdb", "polars": "Polars, scan_delta", "parquet": "DuckDB, Parquet by glob"}
REFRESH_SECONDS = 30
"""How often the DuckDB file is brought up to date while hours are sealed, as in the job `seal`."""

Report = dict[str, Any]


def main() -> None:
    """Archive, measure, seal, measure again and compare; print tables."""
    given = _arguments()
    if given.part:
        print(json.dumps(PARTS[given.part](load(), given)))
        return
    console = Console()
    with tempfile.TemporaryDirectory(prefix="archiver-sealing-") as folder:
        # A child for each part: its peak memory is its own, and its caches are cold.
        def run(*parts: str) -> dict[str, Measured]:
            environment = {"BASE_DIR": folder, "ARCHIVER_KEEP_REPLACED_HOURS": "0"}
            found = {}
            for part in parts:
                console.print(f"{part} ... (load {os.getloadavg()[0]:.1f})")
                found[part] = measure("bench.sealing", "--part", part, *sys.argv[1:], environment=environment)
            return found

        before = run("fill", "batch", "state", *READERS, "content")
        sealing = run("seal")["seal"]
        after = run("state", *READERS, "content", "batch")
    console.print(_table(before, after))
    console.print(_work(sealing))
    for part in ("content", *READERS):
        if before[part].report.get("found") != after[part].report.get("found"):
            raise SystemExit(f"{part}: {before[part].report['found']} before, {after[part].report['found']} after")
    console.print(f"Messages and answers are the same before and after: {after['content'].report['found'][:2]}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.sealing", description=__doc__)
    parser.add_argument("--hours", type=int, default=200, help="at least 45, for a whole day to be asked about")
    parser.add_argument("--types", type=int, default=3, choices=range(1, len(TYPES) + 1))
    parser.add_argument("--files", type=int, default=100, help="files of a type and hour, one a batch")
    parser.add_argument("--messages", type=int, default=50, help="messages of a file")
    parser.add_argument("--turns", type=int, default=5, help="how often each query is asked")
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)
    return parser.parse_args()


def _fill(settings: Settings, given: argparse.Namespace) -> Report:
    """All batches but one, and the DuckDB file made of them."""
    archive = Archive(settings.archive_uri)
    seconds = [_timed(lambda: _archive(archive, given)) for _ in range(given.files - 1)]
    view.refresh(settings.view_path, archive)
    return {"seconds": sum(seconds)}


def _batch(settings: Settings, given: argparse.Namespace) -> Report:
    """One more batch, and the DuckDB file brought up to date: what every batch takes."""
    archive = Archive(settings.archive_uri)
    seconds = _timed(lambda: _archive(archive, given))
    return {"batch": seconds, "refresh": _timed(lambda: view.refresh(settings.view_path, archive))}


def _archive(archive: Archive, given: argparse.Namespace) -> None:
    """Archive a batch that has messages of every type and hour, and so leaves a file of each."""
    rule = parse_type_rule("$.type")
    attempt = batch_of(archive, 0)
    known = attempt.ledger.committed.get(AT)
    first = known.next if known else 0
    frame = _messages(given, first)
    writer = BatchWriter(attempt.take, attempt.staging.scratch)
    for classified in Classifier([AT], lambda _: rule, attempt.types(), 1000).over([frame]):
        writer.add(classified)
    writer.close()
    attempt.staging.sync()
    attempt.staging.place()
    commit(attempt, first, first + frame.height, AT, frame.height)
    attempt.clean()


def _messages(given: argparse.Namespace, first: int) -> pl.DataFrame:
    """Messages of about 300 bytes and eight fields, drawn by their offset, as `RangeReader.frames` yields them."""
    size = given.hours * given.types * given.messages
    frame = pl.DataFrame({"offset": pl.int_range(first, first + size, eager=True)})
    index = pl.col("offset") - first

    def drawn(seed: int, end: int) -> pl.Expr:
        return (pl.col("offset").hash(seed) % end).cast(pl.Int64)

    def one_of(texts: list[str], which: pl.Expr) -> pl.Expr:
        return pl.lit(pl.Series(texts)).gather(which)

    stamp = AUGUST_FIRST_AT_THREE + index // given.types % given.hours * HOUR_MS + drawn(1, HOUR_MS)
    user = pl.format("u{}", drawn(2, 100_000))
    body = pl.struct(
        type=one_of(list(TYPES), index % given.types),
        uid=user,
        ts=stamp,
        url=pl.format("https://shop.example/products/{}", drawn(3, 5_000)),
        amount=drawn(4, 100_000) / 100,
        session=pl.concat_str(*(pl.col("offset").hash(seed).cast(pl.String).str.zfill(20) for seed in (5, 6))),
        agent=one_of(AGENTS, drawn(7, len(AGENTS))),
        country=one_of(COUNTRIES, drawn(8, len(COUNTRIES))),
    )
    return frame.select(
        pl.lit(0, pl.UInt32).alias("range"),
        "offset",
        stamp.alias("timestamp_ms"),
        pl.lit("create").alias("timestamp_type"),
        user.cast(pl.Binary).alias("key"),
        body.struct.json_encode().cast(pl.Binary).alias("payload"),
        pl.lit(None, HEADERS).alias("headers"),
    )


def _state(settings: Settings, given: argparse.Namespace) -> Report:
    """Files, bytes, and how long it takes to open the table, to list it, and to make the DuckDB file of it anew."""
    archive = Archive(settings.archive_uri)
    sizes = [path.stat().st_size for path in Path(archive.uri).glob("type=*/**/*.parquet")]
    table = archive.table()
    other = settings.view_path.with_name("other.duckdb")
    other.unlink(missing_ok=True)
    return {
        "files": len(sizes),
        "bytes": sum(sizes),
        "view_bytes": settings.view_path.stat().st_size,
        "open": statistics.median(_timed(archive.table) for _ in range(given.turns)),
        "list": statistics.median(_timed(lambda: archive.files(table)) for _ in range(given.turns)),
        "ledger": statistics.median(_timed(archive.ledger) for _ in range(given.turns)),
        "anew": _timed(lambda: view.refresh(other, archive)),
    }


def _content(settings: Settings, given: argparse.Namespace) -> Report:
    """Messages, their digest, and how many each type and hour has."""
    archive = Archive(settings.archive_uri)
    listed = archive.files()
    sums = Sums()
    paths = [Path(archive.uri) / path for path in listed["path"]]
    for start in range(0, len(paths), 200):
        frame = pl.read_parquet(paths[start : start + 200], columns=list(COLUMNS), hive_partitioning=False, glob=False)
        for part in frame.iter_slices(100_000):
            sums.add(part.with_columns(range=pl.lit(0)))
    hours = listed.group_by("type", "dt", "hr").agg(pl.col("messages").sum()).sort("type", "dt", "hr")
    return {"found": [*sums.totals()[0], hours.rows()]}


def _seal(settings: Settings, given: argparse.Namespace) -> Report:
    """Seal every hour, bring the DuckDB file up to date now and then and at the end, and remove the small files."""
    clock = Clock(lambda _: None)
    sealer = Sealer(settings, on_step=clock.step)
    hours = [Hour(*row) for row in sealer.archive.files().select("dt", "hr").unique().sort("dt", "hr").iter_rows()]
    taken, refreshed, files = [], [], 0
    began = last = time.monotonic()
    for hour in hours:
        done: list[Any] = []
        taken.append(_timed(lambda: done.append(sealer.seal(hour))))  # noqa: B023
        clock.step("between")
        files += done[0].files_before
        if time.monotonic() - last >= REFRESH_SECONDS:
            refreshed.append(_timed(lambda: view.refresh(settings.view_path, sealer.archive)))
            last = time.monotonic()
    refreshed.append(_timed(lambda: view.refresh(settings.view_path, sealer.archive)))
    clock.step("end")
    clean = _timed(sealer.clean)
    return {
        "hours": len(hours),
        "files": files,
        "seal": taken,
        "refresh": refreshed,
        "clean": clean,
        "all": time.monotonic() - began,
        "steps": dict(Counter(clock.steps)),
    }


def _timed(work: Callable[[], object]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


PARTS: Mapping[str, Callable[[Settings, argparse.Namespace], Report]] = {
    "fill": _fill,
    "batch": _batch,
    "state": _state,
    "duckdb": lambda settings, given: by_duckdb(settings, TYPES[0], given.turns),
    "polars": lambda settings, given: by_polars(settings, TYPES[0], given.turns),
    "parquet": lambda settings, given: by_parquet(settings, TYPES[0], given.turns),
    "content": _content,
    "seal": _seal,
}


def _table(before: Mapping[str, Measured], after: Mapping[str, Measured]) -> Table:
    table = Table("", "before", "after", "ratio", title="seconds, medians; files in the page cache")
    for name, *numbers in _rows(before, after):
        shown = (f"{number:,}" if isinstance(number, int) else f"{number:.3f}" for number in numbers)
        table.add_row(name, *shown, f"{numbers[0] / numbers[1]:.1f}")
    return table


def _rows(before: Mapping[str, Measured], after: Mapping[str, Measured]) -> Iterator[tuple[str, float, float]]:
    def both(name: str, value: Callable[[Mapping[str, Measured]], Any]) -> tuple[str, Any, Any]:
        return name, value(before), value(after)

    yield both("files", lambda every: every["state"].report["files"])
    yield both("bytes", lambda every: every["state"].report["bytes"])
    yield both("bytes of archive.duckdb", lambda every: every["state"].report["view_bytes"])
    yield both("open the table", lambda every: every["state"].report["open"])
    yield both("list its files", lambda every: every["state"].report["list"])
    yield both("read the ledger", lambda every: every["state"].report["ledger"])
    yield both("make archive.duckdb anew", lambda every: every["state"].report["anew"])
    yield both("another batch", lambda every: every["batch"].report["batch"])
    yield both("... in archive.duckdb", lambda every: every["batch"].report["refresh"])
    for part, name in READERS.items():
        for number, query in enumerate(QUERIES):
            taken = (every[part].report["seconds"][number] for every in (before, after))
            first, again, cpu = zip(*taken, strict=True)
            yield f"{name}: {query}", *first
            yield "... again", *again
            yield "... again, CPU", *cpu
        yield both("... peak MiB", lambda every: every[part].peak_bytes >> 20)  # noqa: B023


def _work(sealing: Measured) -> Table:
    found = sealing.report
    seconds = sum(found["seal"])
    table = Table("sealing", "", title="seconds where nothing else is said")
    table.add_row("hours, and files that they had", f"{found['hours']:,}, {found['files']:,}")
    table.add_row("all of it", f"{found['all']:.1f}")
    rates = f"{found['hours'] / seconds:.2f}, {found['files'] / seconds:,.0f}"
    table.add_row("hours and files per second, sealing alone", rates)
    some = (found["seal"][0], statistics.median(found["seal"]), found["seal"][-1])
    table.add_row("an hour: first, median, last", ", ".join(f"{each:.2f}" for each in some))
    table.add_row("steps", ", ".join(f"{name} {taken:.1f}" for name, taken in found["steps"].items() if taken >= 0.05))
    table.add_row("refresh of archive.duckdb", ", ".join(f"{taken:.1f}" for taken in found["refresh"]))
    table.add_row("clean", f"{found['clean']:.1f}")
    table.add_row("CPU", f"{sealing.cpu_seconds:.1f}")
    table.add_row("peak MiB", f"{sealing.peak_bytes >> 20}")
    return table


if __name__ == "__main__":
    main()
