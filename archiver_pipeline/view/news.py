"""What is new in the archive since the DuckDB file was brought up to date, as the commits since then say."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from archiver_pipeline import envelope
from archiver_pipeline.storage.base import Storage
from archiver_pipeline.table import delta_log
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.delta_log import LogState
from archiver_pipeline.view.files import ViewFiles

if TYPE_CHECKING:
    import duckdb
    import polars as pl

LOOK_SECONDS = 600.0
"""So often all files of the archive are looked for; in between only what commits say of new ones."""

_OURS = f'"engineInfo":"{delta_log.ENGINE}"'.encode()

_FRESH_MOST = 2_000
"""So many files are new at most before the lists of old and new ones are put together."""


def only_added(
    connection: duckdb.DuckDBPyConnection, archive: Archive, log: LogState, files: ViewFiles, look_seconds: float
) -> pl.DataFrame | None:
    """The new files as `Archive.files` has them, and `sealed`; None where all files have to be looked at."""
    import polars as pl

    query = "SELECT version, looked, len(meta.fresh()) FROM meta.state"
    ((before, looked, fresh),) = connection.execute(query).fetchall()
    if files.broken or files.mended or not looked <= time.time() < looked + look_seconds or before < 0:
        return None
    actions = _added(archive.storage, before, log.version)
    if actions is None or fresh + len(actions) > _FRESH_MOST:
        return None
    text = dict.fromkeys(("path", *envelope.PARTITION_COLUMNS), pl.String)
    numbers = dict.fromkeys(("messages", "bytes", "added"), pl.Int64)
    rows = [
        (
            unquote(action["path"]),
            *(action["partitionValues"][name] for name in envelope.PARTITION_COLUMNS),
            json.loads(action.get("stats") or "{}").get("numRecords"),
            *(action["size"], action["modificationTime"]),
        )
        for action in actions
    ]
    if any(envelope.is_sealed(path) for path, *_ in rows):
        return None
    return pl.DataFrame(rows, schema={**text, **numbers}, orient="row").with_columns(pl.lit(False).alias("sealed"))


def _added(storage: Storage, after: int, until: int) -> list[dict[str, Any]] | None:
    """The files (Delta protocol, "Add File") of some commits, or None where one is gone or took files away."""
    found = []
    for version in range(after + 1, until + 1):
        try:
            lines = delta_log.commit(storage, version).splitlines()
        except FileNotFoundError:
            return None
        # Another program may add a file that is listed already.
        if any(line.startswith((b'{"remove"', b'{"metaData"')) for line in lines) or _OURS not in b"".join(lines[:1]):
            return None
        found += [json.loads(line)["add"] for line in lines if line.startswith(b'{"add"')]
    return found
