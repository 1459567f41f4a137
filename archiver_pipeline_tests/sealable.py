"""An archive that is filled without a broker and then sealed, and its messages as other libraries read them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import polars as pl

from archiver_pipeline.hours import Hour, hour_at, parse_hour
from archiver_pipeline.rewrites.seal import Sealer
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.stored.files import COLUMNS
from archiver_pipeline.table.archive import Archive
from archiver_pipeline_tests.batches import (
    AUGUST_FIRST_AT_THREE,
    HOUR_MS,
    archive,
    event,
)

THREE = parse_hour("2019-08-01T03")
FOUR = parse_hour("2019-08-01T04")
UNKNOWN = hour_at(None)


class Sealable:
    """An archive that is filled without a broker, and its sealer.

    Attributes:
        path: the table's folder.
        target: the archive.
    """

    def __init__(self, folder: Path, **more: Any) -> None:
        self.settings = Settings(**{"topics": ("orders",), "BASE_DIR": folder, "keep_replaced_hours": 0, **more})
        self.target = Archive(self.settings.archive_uri, self.settings.lanes)
        self.path = Path(self.target.uri)

    def add(self, *names: object, count: int = 1, hour: int = 0, **fields: object) -> None:
        """Archive a batch of messages of some types, `hour` hours after three o'clock."""
        payloads = [event(name, number=number, **fields) for number in range(count) for name in names]
        archive(self.target, payloads, milliseconds=AUGUST_FIRST_AT_THREE + hour * HOUR_MS)

    def write(self, payloads: Sequence[bytes | None]) -> None:
        """Archive a batch of these payloads at three o'clock."""
        archive(self.target, payloads)

    def sealer(self, **options: Any) -> Sealer:
        """A fresh sealer, as every run has one."""
        return Sealer(self.settings, "test", **options)

    def keeping(self, hours: float) -> Sealer:
        """A sealer that keeps replaced files for so many hours."""
        return Sealer(self.settings.model_copy(update={"keep_replaced_hours": hours}))

    def listed(self, hour: Hour = THREE) -> dict[str, list[str]]:
        """The names of the files that the table lists for an hour, by type."""
        found: dict[str, list[str]] = {}
        for name, path in sorted(self.target.files(hour=hour).select("type", "path").iter_rows()):
            found.setdefault(name, []).append(path)
        return found

    def version(self) -> int:
        """The table's version."""
        return deltalake.DeltaTable(self.path).version()

    def by_delta(self) -> pl.DataFrame:
        """Every message as Polars reads the Delta table, in order."""
        return in_order(pl.read_delta(str(self.path)))

    def by_hive(self) -> pl.DataFrame:
        """Every message as DuckDB reads the files that lie in the folders, in order."""
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'UTC'")
            every = f"read_parquet('{self.path}/type=*/**/*.parquet', hive_types_autocast = false)"
            table = connection.sql(f"SELECT * FROM {every}").to_arrow_table()
        return in_order(pl.DataFrame(table))

    def stray(self) -> set[str]:
        """Files that the table does not list, and folders without a file."""
        listed = set(self.target.files()["path"])
        every = {path for path in self.path.rglob("*") if "_delta_log" not in path.parts}
        empty = {str(path.relative_to(self.path)) for path in every if path.is_dir() and not any(path.iterdir())}
        files = {str(path.relative_to(self.path)) for path in every if path.is_file()}
        return (files - listed) | (empty - {"_staging"})

    def last_commit(self) -> list[dict[str, Any]]:
        """The actions of the table's newest commit."""
        lines = (self.path / "_delta_log" / f"{self.version():020}.json").read_text().splitlines()
        return [json.loads(line) for line in lines]


def in_order(frame: pl.DataFrame) -> pl.DataFrame:
    """Messages by their identity, the columns as they are named everywhere."""
    return frame.select(*COLUMNS, "type", "dt", "hr").sort("topic", "topic_id", "partition", "offset")


def filled(folder: Path) -> Sealable:
    """An archive of three batches of two types at three o'clock, five messages of each, and one message at four."""
    found = Sealable(folder)
    for number in range(3):
        found.add("x", "y", count=5, batch=number)
    found.add("x", hour=1)
    return found
