"""Schemas registered, and messages written by Confluent's own serializers and by hand."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import fastavro
from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

Json = dict[str, Any]


def register(url: str, subject: str, text: str | Json, kind: str = "AVRO", references: Sequence[Any] = ()) -> int:
    """Register a schema, and return its id; references are name, subject and version."""
    schema = text if isinstance(text, str) else json.dumps(text)
    refers = [SchemaReference(*each) for each in references]
    with SchemaRegistryClient({"url": url}) as client:
        return int(client.register_schema(subject, Schema(schema, kind, refers)))


def framed(schema: int, body: bytes) -> bytes:
    """A payload in Confluent's wire format."""
    return b"\0" + schema.to_bytes(4, "big") + body


def avro(schema: Json | str, datum: Any) -> bytes:
    """A datum as Avro encodes it."""
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), datum)
    return stream.getvalue()


def serialized(url: str, topic: str, schema: Json, data: Sequence[Json]) -> list[bytes]:
    """Data as Confluent's serializer writes them, which registers the schema under the topic's name."""
    with SchemaRegistryClient({"url": url}) as client:
        write = AvroSerializer(client, json.dumps(schema))
        found = [write(datum, SerializationContext(topic, MessageField.VALUE)) for datum in data]
    return [each for each in found if each is not None]


def record(name: str = "Event", **fields: Any) -> Json:
    """A schema of a record, by the types of its fields."""
    return {"type": "record", "name": name, "fields": [{"name": each, "type": kind} for each, kind in fields.items()]}


def evolved(schema: Json, **fields: Any) -> Json:
    """The same schema with more fields, each with its type and default."""
    more = [{"name": name, "type": kind, "default": default} for name, (kind, default) in fields.items()]
    return {**schema, "fields": [*schema["fields"], *more]}


def decoded_settings(url: str, **more: Any) -> Mapping[str, Any]:
    """Fields of `Settings` for an archive that decodes all topics."""
    return {"registry_url": url, "payload_format": "registry", "registry_wait_seconds": 0, **more}
