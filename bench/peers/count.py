"""What is in the Parquet that one of them has written, as DuckDB reads it: messages by type, and how many are wrong."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from bench.peers.listed import listed, torn, visible

_READ = "FROM read_parquet(?, hive_partitioning = true, hive_types_autocast = false, union_by_name = true)"

_IDENTITY = '(partition::BIGINT << 48) + "offset"'

_WHOLE = f"""
    SELECT type, count(*), count(DISTINCT {_IDENTITY}), sum(strlen(value))::BIGINT,
           count(*) FILTER (
               value->>'$.type' IS DISTINCT FROM type
               OR epoch_ms("timestamp") // 3600000 <> epoch_ms(strptime(dt || hr, '%Y-%m-%d%H')) // 3600000)
    {_READ} GROUP BY type ORDER BY type
"""

_EMPTY = len('{"type": "", "uid": "", "ts": , "url": "", "seq": , "pad": ""}')

_FIELDS = f"""
    SELECT type, count(*), count(DISTINCT {_IDENTITY}),
           sum({_EMPTY} + strlen(type || uid || ts || url || seq || pad))::BIGINT, count(*) FILTER ({{misplaced}})
    {_READ} GROUP BY type ORDER BY type
"""

_MISPLACED = {
    "dt": "epoch_ms(ts) // 3600000 <> epoch_ms(strptime(dt || hr, '%Y-%m-%d%H')) // 3600000",
    "timestamp_hour": """epoch_ms("timestamp") // 3600000
                         <> epoch_ms(strptime(timestamp_hour, '%Y-%m-%d-%H')) // 3600000""",
}


def main() -> None:
    """Read all of it and print types, files and bytes."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers.count", description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder of the table, with type=*/dt=*/hr=*/")
    folder = parser.parse_args().folder
    paths = listed(folder)
    names = ("type", "messages", "distinct_offsets", "payload_bytes", "misplaced")
    found = [dict(zip(names, row, strict=True)) for row in _rows(_query(paths), paths)]
    print(json.dumps({"types": found, "files": len(paths), "bytes": sum(path.stat().st_size for path in paths)}))


def copies(folder: Path) -> dict[str, int]:
    """Rows and distinct messages, by the table's own log and by a reader of plain Parquet, and files that are torn."""
    plain = visible(folder)
    whole = [path for path in plain if not torn(path)]
    found = {"torn_files": len(plain) - len(whole)}
    table = [path for path in listed(folder) if path not in plain or path in whole]
    for name, paths in (("table", table), ("plain", whole)):
        ((rows, distinct),) = _rows(f"SELECT count(*), count(DISTINCT {_IDENTITY}) {_READ}", paths)
        found |= {f"{name}_rows": rows, f"{name}_messages": distinct}
    return found


def _query(paths: Sequence[Path]) -> str:
    """What to ask: of payloads as they came, or of fields, of which the length of the payload is put together."""
    described = f"DESCRIBE SELECT * {_READ}"
    columns = {row[0] for row in _rows(described, paths[:1])}
    if "value" in columns:
        return _WHOLE
    return _FIELDS.format(misplaced=_MISPLACED["dt" if "dt" in columns else "timestamp_hour"])


def _rows(query: str, paths: Sequence[Path]) -> list[tuple[Any, ...]]:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    return connection.execute(query, [[str(path) for path in paths]]).fetchall()


if __name__ == "__main__":
    main()
