"""Classifying: frames of Kafka's messages come in, frames with the archive's columns and the type go out."""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable, Generator, Iterable, Set
from functools import cache
from typing import TYPE_CHECKING

from archiver_pipeline import envelope
from archiver_pipeline.frames import envelope_frame
from archiver_pipeline.message_types import classify
from archiver_pipeline.plan import TopicPartition

if TYPE_CHECKING:
    import duckdb
    import polars as pl

log = logging.getLogger(__name__)

_ROWS, _BYTES = 50_000, 16 * 1024**2
"""So much is classified at once: fewer calls where frames are small."""


@cache
def _database() -> duckdb.DuckDBPyConnection:
    """One for the whole process: to make it takes as long as a small batch."""
    import duckdb

    atexit.register(_database.cache_clear)  # It complains if it is still there when the interpreter goes.
    return duckdb.connect(config={"threads": 1})


class Classifier:
    """Gives messages their type, and keeps the number of types within its limit.

    Attributes:
        types: the types known so far, the reserved ones not counted.
    """

    def __init__(
        self,
        places: list[TopicPartition],
        rule_of: Callable[[str], envelope.TypeRule],
        known_types: Set[str],
        max_types: int,
    ) -> None:
        self._places = places
        self._rules = {topic: rule_of(topic) for topic in {at.topic for at in places}}
        self.types = set(known_types)
        self._max_types = max_types
        self._refused_types: set[str] = set()
        self._duckdb = _database().cursor()
        self._raw: list[pl.DataFrame] = []
        self._raw_bytes = 0

    def over(self, frames: Iterable[pl.DataFrame]) -> Generator[pl.DataFrame]:
        """Take frames of `RangeReader.frames`; yield larger ones, each of one topic, that have the archive's columns,
        `type` (String) and `hour` (Int64, hours since 1970, null for none)."""
        try:
            for frame in frames:
                if frame.height:
                    self._raw.append(frame)
                self._raw_bytes += int(frame.estimated_size())
                if sum(part.height for part in self._raw) >= _ROWS or self._raw_bytes >= _BYTES:
                    yield from self._classify()
            yield from self._classify()
        finally:
            self._duckdb.close()
        if self._refused_types:
            log.warning(
                "%d new types were archived as _other, because the archive has as many as ARCHIVER_MAX_TYPES allows: "
                "a type field that is really an id? One of them: %.100s",
                len(self._refused_types),
                min(self._refused_types),
            )

    def _classify(self) -> list[pl.DataFrame]:
        """Give the collected frames the archive's columns and the type."""
        import polars as pl

        if not self._raw:
            return []
        frame = envelope_frame(pl.concat(self._raw), self._places)
        self._raw, self._raw_bytes = [], 0
        parts = frame.partition_by("topic", maintain_order=True) if len(self._rules) > 1 else [frame]
        return [
            part.with_columns(self._within_limit(classify(part, self._rules[part["topic"][0]], self._duckdb)))
            for part in parts
        ]

    def _within_limit(self, found: pl.Series) -> pl.Series:
        """Turn new types past the limit into `_other`."""
        for name in found.unique(maintain_order=True):
            if name in self.types or name in envelope.RESERVED:
                continue
            if len(self.types) < self._max_types:
                self.types.add(name)
            else:
                self._refused_types.add(name)
        if not self._refused_types:
            return found
        return found.replace(dict.fromkeys(self._refused_types, envelope.OTHER)).alias("type")
