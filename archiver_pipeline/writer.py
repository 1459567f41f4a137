"""Writing a batch: frames come in, Parquet files by type and hour go out to the staging folder."""

from __future__ import annotations

import io
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from archiver_pipeline import envelope
from archiver_pipeline.frames import envelope_frame
from archiver_pipeline.message_types import classify
from archiver_pipeline.plan import TopicPartition

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger(__name__)

_CLASSIFY_ROWS, _CLASSIFY_BYTES = 50_000, 16 * 1024**2
_FLUSH_BYTES = 64 * 1024**2
"""Payload that is held in memory before it is written: larger gives fewer files, smaller less memory."""

_GROUPS_AT_ONCE = 1_000
"""Types and hours that are split off at once: a frame for each of a hundred thousand takes 700 MB."""

_COMPRESSION_LEVEL = 1


class BatchWriter:
    """Collects the frames of a batch and writes one Parquet file per type and hour each time the buffer is full.

    Attributes:
        types: how many messages of each type were written.
        files, bytes: how many files, and their size on disk.
    """

    def __init__(
        self,
        places: list[TopicPartition],
        rule_of: Callable[[str], envelope.TypeRule],
        known_types: set[str],
        max_types: int,
        write: Callable[[Mapping[str, str], bytes, Mapping[str, Any]], None],
    ) -> None:
        import duckdb

        self.types: Counter[str] = Counter()
        self.files = 0
        self.bytes = 0
        self._places = places
        self._rules = {topic: rule_of(topic) for topic in {at.topic for at in places}}
        self._known_types = set(known_types)
        self._max_types = max_types
        self._refused_types: set[str] = set()
        self._write = write
        self._duckdb = duckdb.connect(config={"threads": 1})
        self._raw: list[pl.DataFrame] = []
        self._typed: list[pl.DataFrame] = []
        self._raw_bytes = self._typed_bytes = 0

    def add(self, frame: pl.DataFrame) -> None:
        """Take a frame of `RangeReader.frames`."""
        self._raw.append(frame)
        self._raw_bytes += int(frame.estimated_size())
        if sum(part.height for part in self._raw) >= _CLASSIFY_ROWS or self._raw_bytes >= _CLASSIFY_BYTES:
            self._classify()
        if self._typed_bytes >= _FLUSH_BYTES:
            self._flush()

    def close(self) -> None:
        """Write what is left."""
        self._classify()
        self._flush()
        self._duckdb.close()
        if self._refused_types:
            log.warning(
                "%d new types were archived as _other, because the archive may have %d types (ARCHIVER_MAX_TYPES): "
                "a type field that is really an id? One of them: %.100s",
                len(self._refused_types),
                self._max_types,
                min(self._refused_types),
            )

    def _classify(self) -> None:
        """Give the collected frames the archive's columns and the type."""
        import polars as pl

        if not self._raw:
            return
        frame = envelope_frame(pl.concat(self._raw), self._places)
        self._raw, self._raw_bytes = [], 0
        parts = frame.partition_by("topic", maintain_order=True) if len(self._rules) > 1 else [frame]
        for part in parts:
            found = classify(part, self._rules[part["topic"][0]], self._duckdb)
            typed = part.with_columns(self._within_limit(found))
            self._typed.append(typed)
            self._typed_bytes += int(typed.estimated_size())

    def _within_limit(self, found: pl.Series) -> pl.Series:
        """Turn new types past the limit into `_other`."""
        for name in found.unique(maintain_order=True):
            if name in self._known_types or name in envelope.RESERVED:
                continue
            if len(self._known_types) < self._max_types:
                self._known_types.add(name)
            else:
                self._refused_types.add(name)
        if not self._refused_types:
            return found
        return found.replace(dict.fromkeys(self._refused_types, envelope.OTHER)).alias("type")

    def _flush(self) -> None:
        """Write one file per type and hour of what is collected."""
        import polars as pl

        if not self._typed:
            return
        shards = _shards(pl.concat(self._typed))
        self._typed, self._typed_bytes = [], 0
        while shards:
            groups = shards.pop().partition_by(["type", "hour"], maintain_order=True, as_dict=True, include_key=False)
            while groups:
                (name, hour), group = groups.popitem()
                self._write_group(name, hour, group)

    def _write_group(self, name: str, hour: int | None, group: pl.DataFrame) -> None:
        date, time = envelope.hour_name(hour)
        buffer = io.BytesIO()
        group.write_parquet(buffer, compression="zstd", compression_level=_COMPRESSION_LEVEL)
        content = buffer.getvalue()
        self._write({"type": name, "dt": date, "hr": time}, content, statistics(group))
        self.types[name] += group.height
        self.files += 1
        self.bytes += len(content)


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
    # As numbers: no Python datetime holds the years before 1 and after 9999, which are then left without statistics.
    stamps = frame["timestamp"].cast(pl.Int64) // 1000
    if stamps.is_between(envelope.FIRST_MS, envelope.LAST_MS).all(ignore_nulls=False):
        low["timestamp"], high["timestamp"] = _iso(stamps.min()), _iso(stamps.max())
    return {"numRecords": frame.height, "minValues": low, "maxValues": high}


def _iso(milliseconds: Any) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
