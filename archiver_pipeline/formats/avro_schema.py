"""Schemas of Avro made ready for decoding: each type that JSON has no form for is marked with how it is written."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import cache, partial
from typing import Any
from uuid import UUID

from archiver_pipeline.formats.values import (
    base64_text,
    date_text,
    decimal_text,
    duration_text,
    shortest,
    time_text,
    timestamp_text,
)

MARK = "archiver-"
"""Begins the logical types that the schemas of messages are given here, so that no other reader of Avro is meant."""

_MILLI, _MICRO, _NANO = 1_000, 1_000_000, 1_000_000_000
_TEXTS: dict[tuple[str, str], Callable[[Any], Any]] = {
    ("bytes", "base64"): base64_text,
    ("fixed", "base64"): base64_text,
    ("fixed", "duration"): duration_text,
    ("fixed", "uuid"): lambda value: str(UUID(bytes=value)),
    ("float", "shortest"): shortest,
    ("int", "date"): date_text,
    ("int", "time-millis"): partial(time_text, unit=_MILLI),
    ("long", "time-micros"): partial(time_text, unit=_MICRO),
    **{
        ("long", f"{prefix}timestamp-{name}"): partial(timestamp_text, unit=unit, zone=zone)
        for prefix, zone in (("", "Z"), ("local-", ""))
        for name, unit in (("millis", _MILLI), ("micros", _MICRO), ("nanos", _NANO))
    },
}
"""How values of an Avro type, and the logical type that it is marked with, are written (Avro 1.12, "Logical Types")."""

_PLAIN = {"bytes": "base64", "fixed": "base64", "float": "shortest"}
_SIMPLE = ("null", "boolean", "int", "long", "float", "double", "bytes", "string", "enum", "fixed")
_KEPT = ("type", "name", "namespace", "symbols", "size", "scale", "precision")
_FIXED_SIZES = {"duration": 12, "uuid": 16}


def prepared(text: str) -> Any:
    """Read a schema, mark what has to be written in another way, and leave out what only a reader's schema needs.

    Raises:
        ValueError, KeyError, TypeError: it is no JSON, or no schema.
    """
    return _prepared(json.loads(text))


def _prepared(node: Any) -> Any:
    if isinstance(node, list):
        return [_prepared(branch) for branch in node]
    if isinstance(node, str):
        return _marked({"type": node}) if node in _PLAIN else node
    kind = node["type"]
    if isinstance(kind, dict | list):
        return _prepared(kind)
    kept = {name: node[name] for name in _KEPT if name in node}
    if kind in ("record", "error"):
        fields = [{"name": field["name"], "type": _prepared(field["type"])} for field in node["fields"]]
        return {**kept, "type": "record", "fields": fields}
    if kind == "array":
        return {"type": "array", "items": _prepared(node["items"])}
    if kind == "map":
        return {"type": "map", "values": _prepared(node["values"])}
    return _marked(kept, node.get("logicalType")) if kind in _SIMPLE else kind


def _marked(node: dict[str, Any], logical: Any = None) -> dict[str, Any]:
    """Mark a simple type. A logical type that is not known or does not fit is none, as Avro has it."""
    kind = node["type"]
    if logical == "decimal" and kind in ("bytes", "fixed") and _is_scale(node.setdefault("scale", 0)):
        return {**node, "logicalType": f"{MARK}decimal"}
    if kind == "fixed" and node.get("size") != _FIXED_SIZES.get(logical, node.get("size")):
        logical = None
    how = logical if (kind, logical) in _TEXTS else _PLAIN.get(kind)
    return {**node, "logicalType": MARK + how} if how else node


def _is_scale(scale: Any) -> bool:
    return isinstance(scale, int) and 0 <= scale < 4300


@cache
def register() -> None:
    """Make fastavro's readers, the compiled and the plain one, write marked types as JSON has them."""
    from fastavro import _read_py, read

    readers: dict[str, Callable[..., Any]] = {
        f"{kind}-{MARK}{how}": _reader(text) for (kind, how), text in _TEXTS.items()
    }
    for kind in ("bytes", "fixed"):
        readers[f"{kind}-{MARK}decimal"] = lambda value, writer, _=None: decimal_text(value, writer["scale"])
    read.LOGICAL_READERS.update(readers)
    _read_py.LOGICAL_READERS.update(readers)  # type: ignore[attr-defined]


def _reader(text: Callable[[Any], Any]) -> Callable[..., Any]:
    return lambda value, _writer, _reader=None: text(value)


def wrapped(schema: Any) -> dict[str, Any]:
    """A record of one field, `value`, that is encoded as the schema itself: fastavro forgets the names that a schema
    refers to where it is only a name or a union."""
    return {"type": "record", "name": "ArchiverValue", "fields": [{"name": "value", "type": schema}]}


def is_recursive(schema: Any) -> bool:
    """Whether a value of a prepared schema may be nested in one of its own type, to any depth."""
    return _walk(schema, frozenset(), {})


def _walk(node: Any, within: frozenset[str], known: dict[str, Any]) -> bool:
    if isinstance(node, list):
        return any(_walk(branch, within, known) for branch in node)
    if isinstance(node, str):
        return node in within
    if node["type"] == "record":
        name = str(node["name"])
        inside = within | {name, name.rpartition(".")[2], f"{node.get('namespace', '')}.{name}"}
        return any(_walk(field["type"], inside, known) for field in node["fields"])
    return _walk(node.get("items", node.get("values", "null")), within, known)


def has_empty_items(schemas: Iterable[Any]) -> bool:
    """Whether arrays of prepared schemas, each after those that it refers to, may have items of no bytes: then a few
    bytes make any number of them."""
    empty = {"null"}
    return any(_has_empty_items(schema, empty) for schema in schemas)


def _has_empty_items(node: Any, empty: set[str]) -> bool:
    """The same for one; the names of types that take no bytes are added to `empty`."""
    if isinstance(node, list):
        return any(_has_empty_items(branch, empty) for branch in node)
    if isinstance(node, str):
        return False
    inside = [field["type"] for field in node.get("fields", ())] + [node[k] for k in ("items", "values") if k in node]
    found = any(_has_empty_items(each, empty) for each in inside)
    if _is_empty(node, empty) and "name" in node:
        name = str(node["name"])
        empty |= {name, name.rpartition(".")[2], f"{node.get('namespace', '')}.{name}"}
    return found or (node["type"] == "array" and _is_empty(node["items"], empty))


def _is_empty(node: Any, empty: set[str]) -> bool:
    if isinstance(node, str | list):
        return isinstance(node, str) and node in empty
    if node["type"] == "record":
        return all(_is_empty(field["type"], empty) for field in node["fields"])
    return bool(node["type"] == "null" or (node["type"] == "fixed" and node["size"] == 0))
