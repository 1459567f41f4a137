"""Classifying: frames of Kafka's messages come in, frames with the archive's columns and the type go out."""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Set
from functools import cache
from typing import TYPE_CHECKING

from archiver_pipeline import envelope
from archiver_pipeline.batch.message_types import classify
from archiver_pipeline.formats.decoder import Decoder
from archiver_pipeline.frames import envelope_frame
from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.visible import one_line

if TYPE_CHECKING:
    import duckdb
    import polars as pl

log = logging.getLogger(__name__)

_ROWS, _BYTES = 50_000, 16 * 1024**2
"""So much is classified at once: fewer calls where frames are small."""

_DECODED_BYTES = 4 * 1024**2
"""So much is decoded at once: its JSON may take twenty times as much."""


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
        decoder: Decoder | None = None,
    ) -> None:
        """Begin.

        Args:
            places: the topic partitions, by the numbers that frames have in `range`.
            rule_of: the type rule of a topic.
            known_types: the types that the archive has.
            max_types: how many it may have.
            decoder: decodes the payloads of its topics; without it all are taken as they come.
        """
        self._places = places
        self._decoder = decoder
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
                "a type field that is really an id? One of them: %s",
                len(self._refused_types),
                one_line(min(self._refused_types)[:100]),
            )

    def _classify(self) -> Iterator[pl.DataFrame]:
        """Give the collected frames the archive's columns and the type."""
        import polars as pl

        if not self._raw:
            return
        raw = pl.concat(self._raw)
        self._raw, self._raw_bytes = [], 0
        for frame in self._enveloped(raw):
            parts = frame.partition_by("topic", maintain_order=True) if len(self._rules) > 1 else [frame]
            for part in parts:
                types = classify(part, self._rules[part["topic"][0]], self._duckdb)
                yield part.with_columns(self._within_limit(types))

    def _enveloped(self, raw: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """Give messages the archive's columns: those to be decoded a few at a time, the others at once."""
        if self._decoder is None:
            yield envelope_frame(raw, self._places)
            return
        framed = raw["range"].is_in(self._decoder.ranges)
        if not framed.all():
            yield envelope_frame(raw.filter(~framed), self._places)
        if framed.any():
            decoded = raw.filter(framed)
            rows = max(1, decoded.height * _DECODED_BYTES // max(1, int(decoded.estimated_size())))
            for part in decoded.iter_slices(rows):
                yield envelope_frame(part, self._places, self._decoder.split(part))

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
