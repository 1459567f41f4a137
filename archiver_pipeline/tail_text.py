"""The payloads of a Schema Registry's formats as text, for whoever looks on: nothing is waited for."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from archiver_pipeline.errors import RegistryError
from archiver_pipeline.frames import Headers
from archiver_pipeline.settings.settings import Settings

if TYPE_CHECKING:
    import polars as pl
    from confluent_kafka import Message

log = logging.getLogger(__name__)

_AGAIN_SECONDS = 10.0
"""A schema that could not be had is asked for again after that; its messages are shown as they came until then."""


class PayloadTexts:
    """Decodes what is shown of messages."""

    def __init__(self, settings: Settings) -> None:
        """Begin; the registry is asked once a message needs it."""
        self._settings = settings
        self._missed: dict[str, float] = {}

    def of(self, messages: Sequence[Message], headers: Sequence[Headers]) -> list[str | None]:
        """Return the JSON of each message that has a schema, None for the others and where the schema cannot be had."""
        texts: list[str | None] = [None] * len(messages)
        rows = [n for n, message in enumerate(messages) if self._settings.is_registry(message.topic() or "")]
        if not rows:
            return texts
        import polars as pl

        from archiver_pipeline.formats.wire import framed

        payload = pl.Series([messages[n].value() for n in rows], dtype=pl.Binary)
        listed = [[{"key": key, "value": value} for key, value in headers[n]] or None for n in rows]
        kind = pl.List(pl.Struct({"key": pl.String, "value": pl.Binary}))
        schema, body = framed(payload, pl.Series(listed, dtype=kind))
        for name in schema.unique().drop_nulls():
            wanted = (schema == name).arg_true()
            for place, text in zip(wanted, self._decoded(name, body.gather(wanted)), strict=False):
                texts[rows[place]] = text
        return texts

    def _decoded(self, schema: str, bodies: pl.Series) -> Sequence[str | None]:
        """The JSON of messages of one schema, nothing where that cannot be had."""
        from archiver_pipeline.formats.codecs import codecs_of

        if schema in self._settings.registry_undecoded or self._missed.get(schema, 0.0) > time.monotonic():
            return []
        try:
            return codecs_of(self._settings).of(schema).decode(bodies).to_list()
        except RegistryError as error:
            if schema not in self._missed:
                log.warning("shown as they came, for they cannot be decoded: %s", error)
            self._missed[schema] = time.monotonic() + _AGAIN_SECONDS
            return []
