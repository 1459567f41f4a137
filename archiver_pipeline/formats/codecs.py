"""The codecs of schemas, kept for as long as the process lives: what has an id never changes."""

from __future__ import annotations

import logging
import time
from threading import Event, Lock
from typing import TYPE_CHECKING, Protocol

from archiver_pipeline.errors import RegistryError, SchemaUnusable
from archiver_pipeline.formats.registry import SchemaRegistry, WriterSchema, unusable
from archiver_pipeline.formats.waits import Waits
from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.settings.settings import Settings

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 5.0
"""Seconds between two questions: each is twice the one before."""

_SAY_AGAIN_SECONDS = 15.0


class Codec(Protocol):
    """What decodes messages of one schema."""

    def decode(self, bodies: pl.Series) -> pl.Series:
        """Turn messages (Binary, without their frame) into JSON (String), null for what is not of the schema."""
        ...


class JsonCodec:
    """Messages of a JSON Schema, which are JSON as they are."""

    def decode(self, bodies: pl.Series) -> pl.Series:
        """Return the text of each message, null where it is not UTF-8."""
        from archiver_pipeline.frames import decoded

        return decoded(bodies)[0]


class Codecs:
    """The codecs of one registry's schemas.

    Attributes:
        missed: schemas that were waited for in vain; the next one to need them does not wait.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._registry = SchemaRegistry(settings)
        self._known: dict[str, Codec] = {}
        self.missed: set[str] = set()

    def known(self, schema: str) -> Codec | None:
        """The codec of a schema that was asked for before."""
        return self._known.get(schema)

    def of(self, schema: str) -> Codec:
        """Return the codec of a schema; what the registry does not have is asked for anew each time.

        Raises:
            RegistryError: the schema cannot be had, or cannot be used.
        """
        if schema not in self._known:
            fetched = self._registry.fetch(schema)
            try:
                self._known[schema] = _codec(fetched)
            except Exception as error:  # Each library has errors of its own for what is no schema.
                raise unusable(schema, error or type(error).__name__, self._settings) from error
        return self._known[schema]


def _codec(schema: WriterSchema) -> Codec:
    if schema.kind == "AVRO":
        from archiver_pipeline.formats.avro import AvroCodec

        return AvroCodec(schema)
    if schema.kind == "PROTOBUF":
        from archiver_pipeline.formats.protobuf import ProtobufCodec

        return ProtobufCodec(schema)
    if schema.kind == "JSON":
        return JsonCodec()
    raise ValueError(f"its type is {schema.kind}, and only AVRO, PROTOBUF and JSON are known")


_lock = Lock()
_shared: dict[tuple[str, ...], Codecs] = {}


def codecs_of(settings: Settings) -> Codecs:
    """The codecs of the registry in the settings, the same ones each time."""
    place = (settings.registry_url.get_secret_value(), *settings.registry_secrets, settings.registry_ca)
    key = (*place, settings.registry_certificate, settings.registry_key)
    with _lock:
        if key not in _shared:
            _shared[key] = Codecs(settings)
        return _shared[key]


class Patience:
    """Waits for the registry, says so, and gives up after `ARCHIVER_REGISTRY_WAIT_SECONDS`."""

    def __init__(self, settings: Settings, codecs: Codecs, stopped: Event) -> None:
        """Begin; `stopped` ends every wait."""
        self._settings = settings
        self._codecs = codecs
        self._stopped = stopped
        self._waits = Waits(settings)

    def until_there(self, schema: str, at: TopicPartition, offset: int) -> Codec:
        """Ask for the codec of a schema, which the message at this place needs, until it is there.

        Raises:
            RegistryError: there was none in time, or it is of no use; with the place of the message.
        """
        began = time.monotonic()
        limit = 0.0 if schema in self._codecs.missed else self._settings.registry_wait_seconds
        pause, said = _FIRST_PAUSE, float("-inf")
        noted = False
        while True:
            try:
                codec = self._codecs.of(schema)
            except RegistryError as error:
                noted = True
                self._waits.note(at, offset, schema, self._settings.registry_address, str(error))
                waited = time.monotonic() - began
                if waited >= limit or isinstance(error, SchemaUnusable):
                    self._codecs.missed.add(schema)
                    raise _placed(error, at, offset, waited) from error
                if self._stopped.is_set():
                    raise _placed(error, at, offset, waited) from error
                if waited - said >= _SAY_AGAIN_SECONDS:
                    said = waited
                    place = (at.topic, at.partition, offset)
                    log.warning("%s, partition %d, offset %d waits, %.0f s of %.0f s: %s", *place, waited, limit, error)
                self._stopped.wait(min(pause, limit - waited))
                pause = min(2 * pause, _LONGEST_PAUSE)
            else:
                self._codecs.missed.discard(schema)
                if noted:
                    log.info("%s, partition %d goes on: schema %s is there", at.topic, at.partition, schema)
                    self._waits.forget(at)
                return codec


def _placed(error: RegistryError, at: TopicPartition, offset: int, waited: float) -> RegistryError:
    """The same error with the place of the message and how long it was waited for."""
    what = f"{error.what}; it was waited for {waited:.0f} s" if waited >= 1 else error.what
    place = {"topic": at.topic, "partition": at.partition, "start": offset, "end": offset + 1}
    return type(error)(what, **place, hint=error.hint)  # type: ignore[arg-type]
