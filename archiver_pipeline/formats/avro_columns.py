"""Avro column by column: messages of one schema are put into one block of an Avro file, which Polars reads as a whole.

Between two messages stands a mark. Where a message is not exactly of the schema, the marks are not where they should
be, or the block cannot be read: then nothing of it is believed, and the messages are decoded one by one.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from archiver_pipeline.formats.avro_schema import MARK

if TYPE_CHECKING:
    import polars as pl

Text = Callable[["pl.Expr"], "pl.Expr"]

_SYNC = b"\0" * 16
_FIRST_US, _LAST_US = -62_135_596_800_000_000, 253_402_300_799_999_999
"""The first and the last microsecond of the years 1 to 9999."""

_MARK_NAME = "mark"


class _Unknown(Exception):
    """The schema has something that is not read in columns."""


@dataclass
class _Layout:
    """The columns of a block: the fields of records within records stand in a row, as they do in Avro's encoding.

    Attributes:
        fields: name and Avro type of each column.
        checks: conditions without which the JSON would not be that of a single message.
    """

    fields: list[dict[str, Any]] = field(default_factory=list)
    checks: list[pl.Expr] = field(default_factory=list)

    def add(self, kind: Any) -> pl.Expr:
        """Add a column."""
        import polars as pl

        name = f"c{len(self.fields)}"
        self.fields.append({"name": name, "type": kind})
        return pl.col(name)

    def record(self, schema: dict[str, Any]) -> pl.Expr:
        """Add the columns of a record, and return the struct of its fields."""
        import polars as pl

        parts = [self._value(item["type"]).alias(item["name"]) for item in schema["fields"]]
        if not parts:
            raise _Unknown
        return pl.struct(parts)

    def _value(self, node: Any) -> pl.Expr:
        if isinstance(node, dict) and node["type"] == "record":
            return self.record(node)
        if isinstance(node, dict) and node["type"] == "array":
            if node["items"] not in ("string", "int", "long", "double", "boolean"):
                raise _Unknown
            return self.add({"type": "array", "items": node["items"]})
        branches = node if isinstance(node, list) else [node]
        values = [branch for branch in branches if branch != "null"]
        if len(values) != 1 or len(branches) > 2:
            raise _Unknown
        kind, text = self._scalar(values[0])
        return text(
            self.add([branch if branch == "null" else kind for branch in branches] if len(branches) > 1 else kind)
        )

    def _scalar(self, node: Any) -> tuple[str, Text]:
        """The Avro type that a scalar is read as, and how its column becomes what JSON has."""
        if node in ("string", "int", "long", "double", "boolean"):
            return str(node), lambda column: column
        if not isinstance(node, dict):
            raise _Unknown
        if node["type"] == "enum":
            names = dict(enumerate(node["symbols"]))
            return "int", lambda column: column.replace_strict(names, return_dtype=_string())
        how = str(node.get("logicalType", "")).removeprefix(MARK)
        if how == "" and node["type"] in ("string", "int", "long", "double", "boolean"):
            return str(node["type"]), lambda column: column
        if how == "shortest":
            import polars as pl

            return "float", lambda column: column.cast(pl.String).cast(pl.Float64)
        if node["type"] == "bytes" and how == "base64":
            return "bytes", lambda column: column.bin.encode("base64")
        if how in _MOMENTS:
            return node["type"], lambda column: self._moment(column, how)
        raise _Unknown

    def _moment(self, column: pl.Expr, how: str) -> pl.Expr:
        import polars as pl

        scale, kind, form = _MOMENTS[how]
        self.checks.append(column.is_between(-(-_FIRST_US // scale), _LAST_US // scale).all())
        return column.cast(pl.Datetime(kind) if kind != "D" else pl.Date).dt.strftime(form)


_MOMENTS: dict[str, tuple[int, Any, str]] = {
    "date": (86_400_000_000, "D", "%Y-%m-%d"),
    "timestamp-millis": (1_000, "ms", "%Y-%m-%dT%H:%M:%S%.3fZ"),
    "timestamp-micros": (1, "us", "%Y-%m-%dT%H:%M:%S%.6fZ"),
    "local-timestamp-millis": (1_000, "ms", "%Y-%m-%dT%H:%M:%S%.3f"),
    "local-timestamp-micros": (1, "us", "%Y-%m-%dT%H:%M:%S%.6f"),
}
"""Microseconds of a unit, Polars' name of it, and the format."""


def _string() -> Any:
    import polars as pl

    return pl.String


class Columns:
    """Reads messages of one schema."""

    def __init__(self, layout: _Layout, json_text: pl.Expr) -> None:
        schema = {"type": "record", "name": "Row", "fields": [*layout.fields, {"name": _MARK_NAME, "type": "bytes"}]}
        text = json.dumps(schema).encode()
        # Avro 1.12, "Object Container Files": magic, a map of one entry, the sync marker.
        self._head = b"Obj\1" + _long(1) + _sized(b"avro.schema") + _sized(text) + b"\0" + _SYNC
        self._fields = layout.fields
        self._checks = layout.checks
        self._json_text = json_text

    def decode(self, bodies: pl.Series) -> pl.Series | None:
        """Return the JSON of each message (String), or None where one of them is not of the schema."""
        import polars as pl

        mark = os.urandom(16)
        block = _sized(mark).join([*bodies.to_list(), b""])
        count = len(bodies)
        file = b"".join((self._head, _long(count), _long(len(block)), block, _SYNC))
        try:
            frame = pl.read_avro(io.BytesIO(file))
            marked = (pl.col(_MARK_NAME) == pl.lit(mark)).all()
            if frame.height != count or not frame.select(pl.all_horizontal(marked, *self._checks)).item():
                return None
            return frame.select(self._json_text).to_series() if self._has_right_branches(frame, bodies) else None
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError):
            return None

    def _has_right_branches(self, frame: pl.DataFrame, bodies: pl.Series) -> bool:
        """Whether each union has an index that its schema knows: Polars takes any that is not that of null for a value.

        Where it stands follows from the lengths of what comes before it.
        """
        import polars as pl

        if not any(isinstance(item["type"], list) for item in self._fields):
            return True
        rows = pl.DataFrame({"body": bodies, "at": pl.Series([0], dtype=pl.Int64).new_from_index(0, len(bodies))})
        for item in self._fields:
            name, kind = item["name"], item["type"]
            rows = rows.with_columns(frame[name])
            length = _length(pl.col(name), kind)
            if isinstance(kind, list):
                null, value = (_long(kind.index(branch)) for branch in sorted(kind, key=lambda each: each != "null"))
                wanted = pl.when(pl.col(name).is_null()).then(pl.lit(null)).otherwise(pl.lit(value))
                if not rows.select((pl.col("body").bin.slice(pl.col("at"), 1) == wanted).all()).item():
                    return False
                length = 1 + length.fill_null(0)
            rows = rows.select("body", at=pl.col("at") + length)
        return bool((rows["at"] == bodies.bin.size()).all())


def _length(column: pl.Expr, kind: Any) -> pl.Expr:
    """How many bytes each value of a column takes in Avro's encoding, at least."""
    import polars as pl

    if isinstance(kind, list):
        (kind,) = (branch for branch in kind if branch != "null")
    if isinstance(kind, dict):
        items = column.list.eval(_length(pl.element(), kind["items"])).list.sum().fill_null(0)
        count = column.list.len().cast(pl.Int64)
        return pl.when(count == 0).then(1).otherwise(_long_length(count) + items + 1)
    if kind in ("string", "bytes"):
        size = (column.str.len_bytes() if kind == "string" else column.bin.size()).cast(pl.Int64)
        return _long_length(size) + size
    sizes = {"boolean": 1, "float": 4, "double": 8}
    if kind in sizes:
        return pl.when(column.is_not_null()).then(pl.lit(sizes[kind], pl.Int64))
    return _long_length(column.cast(pl.Int64))


def _long_length(number: pl.Expr) -> pl.Expr:
    """How many bytes numbers take as varints: seven bits each, of which one in all is the sign."""
    import polars as pl

    bare = pl.when(number < 0).then(-1 - number).otherwise(number)
    return (71 - bare.bitwise_leading_zeros().cast(pl.Int64)) // 7


def columns_of(schema: Any) -> Columns | None:
    """Columns for a schema of `prepared`, None where it has something that they do not know."""
    if not isinstance(schema, dict) or schema["type"] != "record":
        return None
    layout = _Layout()
    try:
        record = layout.record(schema)
    except _Unknown:
        return None
    return Columns(layout, record.struct.json_encode())


def _long(number: int) -> bytes:
    """A long as Avro encodes it: zigzag, seven bits a byte."""
    rest = (number << 1) ^ (number >> 63)
    found = bytearray()
    while rest > 0x7F:
        found.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*found, rest])


def _sized(content: bytes) -> bytes:
    return _long(len(content)) + content
