"""What is in the Parquet that one of them has written, as DuckDB reads it: messages by type, and how many are wrong."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import duckdb

_ASKED = """
    SELECT type, count(*), count(DISTINCT (partition::BIGINT << 48) + "offset"), sum(strlen(value))::BIGINT,
           count(*) FILTER (
               value->>'$.type' IS DISTINCT FROM type
               OR epoch_ms("timestamp") // 3600000 <> epoch_ms(strptime(dt || hr, '%Y-%m-%d%H')) // 3600000)
    FROM read_parquet(?, hive_partitioning = true, hive_types_autocast = false, union_by_name = true)
    GROUP BY type ORDER BY type
"""


def main() -> None:
    """Read all of it and print types, files and bytes."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers.count", description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder with type=*/dt=*/hr=*/")
    folder = parser.parse_args().folder
    paths = listed(folder)
    rows = duckdb.execute(_ASKED, [[str(path) for path in paths]]).fetchall()
    names = ("type", "messages", "distinct_offsets", "payload_bytes", "misplaced")
    found = [dict(zip(names, row, strict=True)) for row in rows]
    print(json.dumps({"types": found, "files": len(paths), "bytes": sum(path.stat().st_size for path in paths)}))


def listed(folder: Path) -> list[Path]:
    """The Parquet files that a reader takes: those that a Delta log lists, where there is one, or all not hidden."""
    if (folder / "_delta_log").exists():
        from archiver_pipeline.archive import Archive

        return [folder / path for path in Archive(str(folder)).files()["path"]]
    return [path for path in sorted(folder.glob("type=*/dt=*/hr=*/*")) if not path.name.startswith((".", "_"))]


if __name__ == "__main__":
    main()
