"""The same events as JSON, Avro, Protobuf and JSON Schema, in three versions of a schema."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from typing import Any

from bench.load import TYPES

Event = dict[str, Any]

FIRST_MS = 1_564_628_400_000
"""2019-08-01T03:00:00Z: the time of the first event; each comes a millisecond later."""

VERSIONS = 3

_FIELDS: list[Event] = [
    {"name": "type", "type": "string"},
    {"name": "uid", "type": "string"},
    {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "url", "type": "string"},
    {"name": "seq", "type": "long"},
    {"name": "price", "type": ["null", "double"], "default": None},
    {"name": "ok", "type": "boolean"},
    {"name": "device", "type": {"type": "enum", "name": "Device", "symbols": ["PHONE", "TABLET", "DESKTOP"]}},
    {"name": "referrer", "type": ["null", "string"], "default": None},
    {"name": "tags", "type": {"type": "array", "items": "string"}, "default": []},
]
_OF_VERSION = (8, 9, 10)
"""How many of the fields each version has."""

_NESTED = {
    "name": "device",
    "type": ["null", {"type": "record", "name": "Device", "fields": [{"name": "kind", "type": "string"}]}],
}

_PROTO = """syntax = "proto3";
package bench;
enum Device {{ PHONE = 0; TABLET = 1; DESKTOP = 2; }}
message Event {{
  string type = 1; string uid = 2; int64 ts = 3; string url = 4; int64 seq = 5; optional double price = 6;
  bool ok = 7; Device device = 8; {}
}}"""
_MORE = ("", "optional string referrer = 9;", "optional string referrer = 9; repeated string tags = 10;")


def event(number: int, version: int) -> Event:
    """One event, by its number alone."""
    found: Event = {
        "type": TYPES[number % len(TYPES)],
        "uid": f"u{number * 7919 % 100_000}",
        "ts": FIRST_MS + number,
        "url": f"https://shop.example/products/{number * 31 % 5_000}",
        "seq": number,
        "price": None if number % 3 else number % 10_000 / 100,
        "ok": number % 2 == 0,
        "device": ("PHONE", "TABLET", "DESKTOP")[number % 3],
    }
    if version >= 1:
        found["referrer"] = f"https://search.example/?q={number % 1000}" if number % 4 else None
    if version >= 2:
        found["tags"] = ["new", "sale", "b2b"][: number % 4]
    return found


def schema(kind: str, version: int) -> tuple[str, str]:
    """The type of a schema as the registry names it, and its text."""
    if kind == "protobuf":
        return "PROTOBUF", _PROTO.format(_MORE[version])
    if kind == "json-schema":
        names = [field["name"] for field in _FIELDS[: _OF_VERSION[version]]]
        text = {"$schema": "http://json-schema.org/draft-07/schema#", "properties": {name: {} for name in names}}
        return "JSON", json.dumps(text)
    fields = [dict(field) for field in _FIELDS[: _OF_VERSION[version]]]
    if kind == "avro-nested":
        fields = [_NESTED if field["name"] == "device" else field for field in fields]
    return "AVRO", json.dumps({"type": "record", "name": "Event", "namespace": "bench", "fields": fields})


def encoder(kind: str, version: int, schema_id: int) -> Callable[[int], bytes]:
    """What writes the event of a number."""
    head = b"\0" + schema_id.to_bytes(4, "big")
    if kind == "json":
        return lambda number: json.dumps(event(number, version)).encode()
    if kind == "json-schema":
        return lambda number: head + json.dumps(event(number, version)).encode()
    return _protobuf(version, head) if kind == "protobuf" else _avro(kind, version, head)


def _avro(kind: str, version: int, head: bytes) -> Callable[[int], bytes]:
    import fastavro

    parsed = fastavro.parse_schema(
        json.loads(schema(kind, version)[1].replace(', "logicalType": "timestamp-millis"', ""))
    )

    def write(number: int) -> bytes:
        stream = io.BytesIO()
        fastavro.schemaless_writer(
            stream, parsed, _nested(event(number, version)) if kind == "avro-nested" else event(number, version)
        )
        return head + stream.getvalue()

    return write


def _nested(found: Event) -> Event:
    return {**found, "device": {"kind": found["device"]}}


def _protobuf(version: int, head: bytes) -> Callable[[int], bytes]:
    from google.protobuf.message_factory import GetMessageClass

    from archiver_pipeline.formats.protoc import compiled
    from archiver_pipeline.formats.registry import WriterSchema

    file, _ = compiled(WriterSchema(*schema("protobuf", version)))
    kind = GetMessageClass(file.message_types_by_name["Event"])

    def write(number: int) -> bytes:
        fields = {name: value for name, value in event(number, version).items() if value is not None}
        return head + b"\0" + bytes(kind(**fields).SerializeToString())

    return write


def expected(kind: str, number: int, version: int) -> Event:
    """What the archive's JSON of an event is to say."""
    found = event(number, version)
    if kind.startswith("avro"):
        seconds, milliseconds = divmod(found["ts"], 1000)
        found["ts"] = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{milliseconds:03}Z"
        return _nested(found) if kind == "avro-nested" else found
    if kind == "protobuf":
        # A field that was not set is not there.
        return {name: value for name, value in found.items() if value is not None}
    return found
