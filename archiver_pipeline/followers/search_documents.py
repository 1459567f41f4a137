"""Messages as documents: their index, their id, their text."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from archiver_pipeline.envelope import UNKNOWN_TIME

if TYPE_CHECKING:
    import polars as pl

COLUMNS = (
    *("topic", "topic_id", "partition", "offset", "timestamp", "timestamp_type"),
    *("key", "value", "value_bytes", "headers", "type", "dt", "hr"),
)
LARGEST_PAYLOAD = 10 * 1024 * 1024
"""A larger payload stays in the archive only: Elasticsearch takes no string over 20 million characters."""

MAX_DEPTH = 20
"""JSON that is nested deeper is not given to be indexed: Elasticsearch refuses it, and a thread of OpenSearch dies of a
stack overflow from about 1000 on, without an answer."""

MAX_LEAVES, MAX_NAMES = 50_000, 4 * 1024 * 1024
"""Nor is JSON with more values than that, or with more characters in the paths to all of them: a node keeps the path
with each value, and a long name above many values would fill its memory."""

_SMALL = 2000
"""JSON with no more characters cannot be too much, but for its depth."""

_KEPT = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789._-")
_MAX_TYPE, _KEPT_TYPE = 180, 160


@dataclass(frozen=True, slots=True)
class Document:
    """A message as a document.

    Attributes:
        index, id: where it lies.
        identity: the JSON of all but payload and end: `{"topic":"orders",…`.
        payload: what `value` or `value_base64` add to it, after a comma.
        fields: the message's JSON, where it is an object that may be indexed.
        left_out: what of it was left out.
        why: the reason for that.
    """

    index: str
    id: str
    identity: str
    payload: str
    fields: str
    left_out: tuple[str, ...] = ()
    why: str = ""

    def lines(self, attempt: int) -> bytes:
        """The two lines of `_bulk`. A version makes sure that an attempt which was passed by changes nothing."""
        action = f'{{"index":{{"_index":"{self.index}","_id":{_text(self.id)},"version":{attempt},'
        parts = [action, f'"version_type":"external_gte"}}}}\n{self.identity},"attempt":{attempt}', self.payload]
        if self.fields:
            parts += [',"fields":', self.fields]
        if self.left_out:
            parts.append(f',"left_out":{json.dumps(self.left_out)},"left_out_why":{_text(self.why)}')
        return ("".join(parts) + "}\n").encode("utf-8", "replace")

    def without_fields(self, why: str) -> Document:
        """The same without its parsed JSON."""
        return replace(self, fields="", left_out=(*self.left_out, "fields"), why=why)

    def without_payload(self, why: str) -> Document:
        """The same without payload."""
        names = dict.fromkeys((*self.left_out, "fields", "value"))
        return replace(self, fields="", payload="", left_out=tuple(names), why=why)


@lru_cache(10_000)
def index_name(prefix: str, kind: str, dt: str) -> str:
    """The index of a type and day. Bytes other than `a-z0-9._-` become `~` and two hex digits, so no two types share.

    A type that gets longer than 180 characters by this is cut, and ends in `~~` and 16 digits of its SHA-256.
    """
    name = "".join(chr(byte) if byte in _KEPT else f"~{byte:02x}" for byte in kind.encode())
    if len(name) > _MAX_TYPE:
        name = f"{name[:_KEPT_TYPE]}~~{hashlib.sha256(kind.encode()).hexdigest()[:16]}"
    return f"{prefix}-{name}-{day_name(dt)}"


def day_name(dt: str) -> str:
    """A day as names of indices end: `2019.08.01`, or `unknown`."""
    return "unknown" if dt == UNKNOWN_TIME else dt.replace("-", ".")


def rest_name(prefix: str) -> str:
    """The index of messages whose own index the cluster refuses to make."""
    return f"{prefix}-~~rest"


def documents(frame: pl.DataFrame, prefix: str) -> Iterator[Document]:
    """Turn messages into documents."""
    import polars as pl

    moment = pl.col("timestamp")
    known = moment.is_not_null() & (pl.col("dt") != UNKNOWN_TIME)
    iso = pl.when(known).then(moment).dt.to_string("%Y-%m-%dT%H:%M:%S%.3fZ")
    ms = moment.dt.epoch("ms")
    rows = frame.select(*COLUMNS[:4], iso.alias("timestamp"), ms.alias("timestamp_ms"), *COLUMNS[5:])
    for (
        topic,
        topic_id,
        partition,
        offset,
        at,
        at_ms,
        at_type,
        key,
        value,
        raw,
        headers,
        kind,
        dt,
        hr,
    ) in rows.iter_rows():
        identity: dict[str, Any] = {"topic": topic, "topic_id": topic_id, "partition": partition, "offset": offset}
        if at is not None:
            identity["timestamp"] = at
        identity |= {"timestamp_ms": at_ms, "timestamp_type": at_type, "type": kind, "dt": dt, "hr": hr}
        if key is not None:
            identity |= _bytes("key", key)
        if headers:
            identity["headers"] = [_header(header) for header in headers]
        place = (index_name(prefix, kind, dt), f"{topic}:{topic_id}:{partition}:{offset}")
        yield _document(place, identity, value, raw)


def _document(place: tuple[str, str], identity: dict[str, Any], value: str | None, raw: bytes | None) -> Document:
    size = len(raw) if raw is not None else len(value.encode()) if value is not None else None
    identity["size"] = size
    head = _text(identity)[:-1]
    if size is None:
        return Document(*place, head, "", "")
    if size > LARGEST_PAYLOAD or (value is not None and len(value) > LARGEST_PAYLOAD):
        why = f"a payload over {LARGEST_PAYLOAD} bytes is in the archive only"
        return Document(*place, head, "", "").without_payload(why)
    if value is None:
        return Document(*place, head, f',"value_base64":"{base64.b64encode(raw or b"").decode()}"', "")
    fields, why = fields_of(value)
    document = Document(*place, head, f',"value":{_text(value)}', fields)
    return document.without_fields(why) if why else document


def fields_of(value: str) -> tuple[str, str]:
    """JSON that may be indexed, on one line, and why it may not be; twice nothing for what is no object of JSON."""
    if not value.lstrip(" \t\r\n").startswith("{"):
        return "", ""
    try:
        parsed = _parse(value)
    except RecursionError:
        return "", _DEEP
    except ValueError:
        return "", ""
    if (len(value) > _SMALL or value.count("{") + value.count("[") > MAX_DEPTH) and (why := _too_much(parsed)):
        return "", why
    # Within JSON that is right, line ends are nothing but space.
    return value.replace("\n", " ").replace("\r", " "), ""


_DEEP = f"its JSON is nested deeper than {MAX_DEPTH}"


def _too_much(parsed: dict[str, Any]) -> str:
    """Why JSON is not given to be indexed; empty if it may be."""
    left: list[tuple[Any, int, int]] = [(parsed, 1, 0)]
    leaves = names = 0
    while left:
        node, depth, above = left.pop()
        if depth > MAX_DEPTH:
            return _DEEP
        for name, item in node.items() if isinstance(node, dict) else (("", item) for item in node):
            path = above + len(name) + 1
            if isinstance(item, dict | list):
                left.append((item, depth + 1, path))
            else:
                leaves, names = leaves + 1, names + path
        if leaves > MAX_LEAVES or names > MAX_NAMES:
            return f"its JSON has over {MAX_LEAVES} values, or over {MAX_NAMES} characters in their names"
    return ""


def _no_json(name: str) -> None:
    raise ValueError(name)


def _header(header: dict[str, Any]) -> dict[str, Any]:
    value = header["value"]
    return {"key": header["key"], **({} if value is None else _bytes("value", value))}


def _bytes(name: str, value: bytes) -> dict[str, str]:
    try:
        return {name: value.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(value).decode()}


_parse = json.JSONDecoder(parse_constant=_no_json).decode
_text = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode
