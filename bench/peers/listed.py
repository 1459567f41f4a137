"""Which Parquet files of a folder a reader takes: by the log of the table, where there is one, and without it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def listed(folder: Path) -> list[Path]:
    """The files that the newest version of the table has: Delta's, Iceberg's, Spark's log; all visible ones without."""
    if (folder / "_delta_log").exists():
        return sorted(_delta(folder))
    if (folder / "metadata").exists():
        return sorted(_iceberg(folder))
    if (folder / "_spark_metadata").exists():
        return sorted(set(_spark(folder)))
    return visible(folder)


def visible(folder: Path) -> list[Path]:
    """The files that a reader of plain Parquet takes: all in folders of a type whose names are not hidden."""
    return [path for path in sorted(folder.glob("**/type=*/**/*")) if path.is_file() and path.name[0] not in "._"]


def torn(path: Path) -> bool:
    """Whether a file has no end of a Parquet file, so that a reader of it fails."""
    with path.open("rb") as opened:
        opened.seek(max(0, path.stat().st_size - 4))
        return opened.read() != b"PAR1"


def _delta(folder: Path) -> Iterator[Path]:
    from urllib.parse import unquote

    from deltalake import DeltaTable

    for uri in DeltaTable(str(folder)).file_uris():
        path = uri.removeprefix("file://")
        yield Path(path) if Path(path).exists() else Path(unquote(path))


def _iceberg(folder: Path) -> Iterator[Path]:
    from bench.peers.connect import newest

    metadata = newest(folder)
    assert metadata is not None
    for snapshot in metadata.get("snapshots", []):
        if snapshot["snapshot-id"] == metadata["current-snapshot-id"]:
            for manifest in _records(snapshot["manifest-list"]):
                for entry in _records(manifest["manifest_path"]):
                    if entry["status"] != 2:  # deleted
                        yield Path(entry["data_file"]["file_path"])


def _records(path: str) -> list[Any]:
    """The records of an Avro file."""
    from fastavro import reader

    with Path(path.removeprefix("file:")).open("rb") as opened:
        return list(reader(opened))


def _spark(folder: Path) -> Iterator[Path]:
    for batch in (folder / "_spark_metadata").iterdir():
        if not batch.name.startswith("."):
            for line in batch.read_text().splitlines()[1:]:
                yield Path(json.loads(line)["path"].removeprefix("file://"))
