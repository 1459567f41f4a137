"""Decoding frames: the payloads of topics in a registry's formats become JSON, and stay as they came beside it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from threading import Event
from typing import TYPE_CHECKING

from archiver_pipeline.formats.codecs import Codec, Patience, codecs_of
from archiver_pipeline.formats.wire import framed, is_glue
from archiver_pipeline.frames import split
from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.settings.settings import Settings

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger(__name__)


class Decoder:
    """Turns payloads into `value` and `value_bytes`, schema by schema.

    Attributes:
        ranges: the numbers of the topic partitions that it is for.
    """

    def __init__(self, settings: Settings, places: Sequence[TopicPartition], stopped: Event | None = None) -> None:
        """Make ready.

        Args:
            settings: which topics, which registry, which schemas not.
            places: the topic partitions, by the numbers that frames have in `range`.
            stopped: ends every wait for the registry.
        """
        self.ranges = [number for number, at in enumerate(places) if settings.is_registry(at.topic)]
        self._places = places
        self._undecoded = frozenset(settings.registry_undecoded)
        self._codecs = codecs_of(settings)
        self._patience = Patience(settings, self._codecs, stopped or Event())
        self._warned_of_glue = False

    def split(self, frame: pl.DataFrame) -> tuple[pl.Series, pl.Series]:
        """Return `value`, the JSON of each payload, and `value_bytes`, the payload itself.

        What has no frame, and what was decoded before, is as `frames.split` has it. What is not of its schema, or of
        one that is not to be decoded, has no `value`.

        Args:
            frame: as `RangeReader.frames` has them.

        Raises:
            RegistryError: a schema cannot be had.
        """
        import polars as pl

        payload = value_bytes = frame["payload"]
        schema, body = framed(payload, frame["headers"])
        if "known" in frame.columns:
            schema = pl.select(pl.when(frame["known"].is_null()).then(schema)).to_series()
        value = pl.Series([None], dtype=pl.String).new_from_index(0, len(payload))
        plain = schema.is_null()
        if plain.any():
            self._warn_of_glue(frame, plain)
            text, rest = split(frame.filter(plain))
            value, value_bytes = value.scatter(plain.arg_true(), text), payload.scatter(plain.arg_true(), rest)
        for name in schema.unique().drop_nulls():
            if name not in self._undecoded:
                rows = (schema == name).arg_true()
                texts = self._codec(name, frame, rows[0]).decode(body.gather(rows))
                value = texts if len(rows) == len(value) else value.scatter(rows, texts)
        return value, value_bytes

    def _codec(self, schema: str, frame: pl.DataFrame, row: int) -> Codec:
        codec = self._codecs.known(schema)
        if codec is not None:
            return codec
        at = self._places[frame["range"][row]]
        return self._patience.until_there(schema, at, frame["offset"][row])

    def _warn_of_glue(self, frame: pl.DataFrame, plain: pl.Series) -> None:
        """Say once that payloads are framed as AWS Glue does it, which no registry of Confluent's kind knows."""
        glue = plain & is_glue(frame["payload"])
        if glue.any() and not self._warned_of_glue:
            self._warned_of_glue = True
            at = self._places[frame["range"].filter(glue)[0]]
            log.warning(
                "%s, partition %d, offset %d has the header of the AWS Glue Schema Registry, which is not asked: such "
                "messages are archived as they are, under _malformed",
                *(at.topic, at.partition, frame["offset"].filter(glue)[0]),
            )


def decoder_of(settings: Settings, places: Sequence[TopicPartition], stopped: Event | None = None) -> Decoder | None:
    """A decoder, made as `Decoder` says; None where nothing of these partitions is to be decoded."""
    return Decoder(settings, places, stopped) if any(settings.is_registry(at.topic) for at in places) else None
