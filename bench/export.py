"""`archiver export`: a million messages to each format, compressed or not: messages a second and memory.

The archive is written as batches write it, then sealed unless told otherwise. Each export is a process of its own, from
its start to its end, and what it wrote is counted by another library. No broker is needed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.process import Measured, measure
from bench.results import record

VARIANTS = (
    *("x.jsonl", "x.jsonl.gz", "x.jsonl.zst", "payloads.jsonl", "payloads.jsonl.zst"),
    *("x.csv", "x.csv.gz", "x.orc", "x.parquet", "f.jsonl/", "f.parquet/"),
)
"""What is exported to; the format is in the name, and payloads alone where it says so."""


def main() -> None:
    """Measure each, print a table and record the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.export", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--bytes", type=int, default=280, help="bytes of a message")
    parser.add_argument("--unsealed", action="store_true", help="from the small files of batches")
    parser.add_argument("--only", nargs="*", default=VARIANTS, help="some of: " + " ".join(VARIANTS))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="archiver-export-") as name:
        folder = Path(name)
        environment = {
            "BASE_DIR": str(folder / "data"),
            "ARCHIVER_TOPICS": "bench",
            "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        }
        sizes = (given.rows, given.bytes, -(-given.rows // 16), 4, 1)
        made = measure("bench.hour", "write", *map(str, sizes), environment=environment)
        if not given.unsealed:
            measure("bench.hour", "seal", environment=environment)
        found = {variant: _figures(_export(folder, variant, environment), given.rows) for variant in given.only}
    _print(found, made)
    if tuple(given.only) == VARIANTS:
        line = f"python -m bench.export --rows {given.rows} --bytes {given.bytes}" + " --unsealed" * given.unsealed
        record("export", line, found)


def _export(folder: Path, variant: str, environment: dict[str, str]) -> Measured:
    kind = variant.rstrip("/").split(".")[1]
    command = ["export", "--all", "--format", kind, "--out", str(folder / variant) + "/" * variant.endswith("/")]
    command += ["--json", *(["--payloads"] if variant.startswith("payloads") else [])]
    done = measure("archiver_pipeline.cli", *command, environment=environment)
    if (count := _count(folder / variant)) != done.report["messages"]:
        raise RuntimeError(f"{variant} has {count} messages, the export says {done.report['messages']}")
    return done


def _count(out: Path) -> int:
    """How many messages an export has, as another library reads it."""
    import duckdb
    import pyarrow.orc

    if out.suffix == ".orc":
        return int(pyarrow.orc.ORCFile(out).nrows)
    pattern = f"{out}/*/*/*/*" if out.is_dir() else str(out)
    reader = {"jsonl": "read_ndjson_objects", "csv": "read_csv", "parquet": "read_parquet"}[out.name.split(".")[1]]
    with duckdb.connect() as connection:
        (count,) = connection.sql(f"SELECT count(*) FROM {reader}('{pattern}')").fetchall()[0]
    return int(count)


def _figures(done: Measured, rows: int) -> dict[str, Any]:
    if done.report["messages"] != rows:
        raise RuntimeError(f"{done.report['messages']} of {rows} messages were exported")
    return {
        "messages_per_second": round(rows / done.seconds),
        "seconds": round(done.seconds, 2),
        "CPU_seconds": round(done.cpu_seconds, 2),
        "peak_MiB": done.peak_bytes >> 20,
        "MiB": round(done.report["bytes"] / 1024**2, 1),
        "files": done.report["files"],
    }


def _print(found: dict[str, dict[str, Any]], made: Measured) -> None:
    table = Table(title=f"{made.report['messages']:,} messages, {made.report['payload MiB']:,} MiB of payloads")
    table.add_column("--out")
    for name in next(iter(found.values()), {}):
        table.add_column(name.replace("_", " "), justify="right")
    for variant, figures in found.items():
        table.add_row(variant, *(f"{value:,}" for value in figures.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
