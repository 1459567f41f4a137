"""Writing a batch: frames come in, Parquet files by type and hour go out to the staging folder."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archiver_pipeline import envelope
from archiver_pipeline.storage.staging import translated

if TYPE_CHECKING:
    import polars as pl

_FLUSH_BYTES = 64 * 1024**2
"""Payload that is held in memory before it is written: larger gives fewer files, smaller less memory."""

_GROUPS_AT_ONCE = 1_000
"""Types and hours that are split off at once: a frame for each of a hundred thousand takes 700 MB."""

_COMPRESSION_LEVEL = 1


class BatchWriter:
    """Collects the classified frames of a batch, and writes a Parquet file per type and hour when the buffer is full.

    Attributes:
        types: how many messages of each type were written.
        files, bytes: how many files, and their size on disk.
        newest: the latest time of a message (ISO, UTC), empty where none has one that a calendar holds.
    """

    def __init__(self, take: Callable[[Path, Mapping[str, str], Mapping[str, Any]], object], scratch: Path) -> None:
        """Begin.

        Args:
            take: is given each file when it is written, its partition values and its statistics, and takes it away.
            scratch: a folder to write them to.
        """
        self.types: Counter[str] = Counter()
        self.files = 0
        self.bytes = 0
        self.newest = ""
        self._take = take
        self._scratch = scratch
        self._frames: list[pl.DataFrame] = []
        self._frames_bytes = 0

    def add(self, frame: pl.DataFrame) -> None:
        """Take a frame of `Classifier.over`."""
        self._frames.append(frame)
        self._frames_bytes += int(frame.estimated_size())
        if self._frames_bytes >= _FLUSH_BYTES:
            self._flush()

    def close(self) -> None:
        """Write what is left."""
        self._flush()

    def _flush(self) -> None:
        """Write one file per type and hour of what is collected."""
        import polars as pl

        if not self._frames:
            return
        shards = _shards(pl.concat(self._frames))
        self._frames, self._frames_bytes = [], 0
        while shards:
            groups = shards.pop().partition_by(["type", "hour"], maintain_order=True, as_dict=True, include_key=False)
            while groups:
                (name, hour), group = groups.popitem()
                self._write_group(name, hour, group)

    def _write_group(self, name: str, hour: int | None, group: pl.DataFrame) -> None:
        date, time = envelope.hour_name(hour)
        path = self._scratch / f"{self.files}.parquet"
        with translated(path):
            _write_parquet(group, path)
            self.bytes += path.stat().st_size
        found = statistics(group)
        # Of the years 1 to 9999, each with four digits: so the latest time is the greatest text, too.
        self.newest = max(self.newest, found["maxValues"].get("timestamp", ""))
        self._take(path, {"type": name, "dt": date, "hr": time}, found)
        self.types[name] += group.height
        self.files += 1


def _write_parquet(frame: pl.DataFrame, path: Path) -> None:
    """Write a frame straight to a file: Python in between would hold up the thread that reads. Raises OSError."""
    import polars as pl

    try:
        frame.write_parquet(path, compression="zstd", compression_level=_COMPRESSION_LEVEL)
    except pl.exceptions.ComputeError as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def _shards(frame: pl.DataFrame) -> list[pl.DataFrame]:
    """Split a frame so that no part has many more than `_GROUPS_AT_ONCE` types and hours."""
    import polars as pl

    group = pl.struct("type", "hour")
    count = int(frame.select(group.n_unique()).item()) // _GROUPS_AT_ONCE + 1
    if count == 1:
        return [frame]
    return frame.with_columns((group.hash() % count).alias("shard")).partition_by("shard", include_key=False)


def statistics(frame: pl.DataFrame) -> dict[str, Any]:
    """Return a file's statistics as Delta has them (Delta protocol, "Per-file Statistics")."""
    import polars as pl

    low: dict[str, Any] = {"offset": frame["offset"].min()}
    high: dict[str, Any] = {"offset": frame["offset"].max()}
    # Years before 1 and after 9999, which no ISO time holds, are left without statistics.
    if frame.select(within_calendar(pl.col("timestamp")).all(ignore_nulls=False)).item():
        stamps = frame["timestamp"].cast(pl.Int64) // 1000
        low["timestamp"], high["timestamp"] = iso(stamps.min()), iso(stamps.max())
    return {"numRecords": frame.height, "minValues": low, "maxValues": high}


def within_calendar(timestamp: pl.Expr) -> pl.Expr:
    """Tell whether a time lies in the years 1 to 9999; null where there is none."""
    import polars as pl

    return (timestamp.cast(pl.Int64) // 1000).is_between(envelope.FIRST_MS, envelope.LAST_MS)


def iso(milliseconds: Any) -> str:
    """Write a time in milliseconds since 1970 as statistics have it."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
