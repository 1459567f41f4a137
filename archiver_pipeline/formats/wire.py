"""How a payload says with which schema it was written. No I/O."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

HEADER = "__value_schema_id"
"""The message header that has the id where the payload begins with none (confluent-kafka, `serde.py`)."""

_ID_BYTES, _GUID_BYTES, _GLUE_BYTES = 5, 17, 18


def framed(payload: pl.Series, headers: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Find the schema of each payload, and what was written with it.

    In Confluent's wire format a payload begins with a byte 0 and the schema's id, four bytes, big-endian. The newer one
    leaves the payload as it is and has a byte 1 and the schema's GUID in a header; for Protobuf, the indexes of the
    message follow the GUID there, and here stand before the payload, as they do in the older one.

    Args:
        payload: Binary.
        headers: List of Struct (key, value).

    Returns:
        The id in decimal digits or the GUID (String), and what was written (Binary); null where a payload has no frame.
    """
    import polars as pl

    frame = pl.DataFrame({"payload": payload, "headers": headers})
    bytes_ = pl.col("payload").bin
    prefixed = bytes_.starts_with(b"\0") & (bytes_.size() >= _ID_BYTES)
    number = bytes_.slice(1, 4).bin.reinterpret(dtype=pl.UInt32, endianness="big").cast(pl.String)
    # A slice that is too short cannot be reinterpreted, so the others are looked at alone.
    found = frame.with_row_index("row").filter(prefixed).select("row", schema=number, body=bytes_.slice(_ID_BYTES))
    if found.height < frame.height:
        rows = frame.select(row=pl.int_range(pl.len(), dtype=pl.get_index_type()))
        found = rows.join(found, on="row", how="left", maintain_order="left")
    schema, body = found["schema"], found["body"]
    if headers.null_count() == len(headers):
        return schema, body
    return _with_headers(payload, headers, schema, body)


def _with_headers(
    payload: pl.Series, headers: pl.Series, schema: pl.Series, body: pl.Series
) -> tuple[pl.Series, pl.Series]:
    """The same where a header has the schema, which goes before the payload's beginning."""
    import polars as pl

    rows, schemas, bodies = [], [], []
    for row, (content, listed) in enumerate(zip(payload, headers.to_list(), strict=True)):
        named = _named(listed) if listed and content is not None else None
        if named is not None:
            rows.append(row)
            schemas.append(named[0])
            bodies.append(named[1] + content)
    if not rows:
        return schema, body
    return schema.scatter(rows, pl.Series(schemas)), body.scatter(rows, pl.Series(bodies, dtype=pl.Binary))


def _named(headers: list[dict[str, Any]]) -> tuple[str, bytes] | None:
    """The schema that the first header of that name has, and what follows it there."""
    value = next((header["value"] for header in headers if header["key"] == HEADER), None) or b""
    if value[:1] == b"\1" and len(value) >= _GUID_BYTES:
        return str(uuid.UUID(bytes=value[1:_GUID_BYTES])), value[_GUID_BYTES:]
    if value[:1] == b"\0" and len(value) >= _ID_BYTES:
        return str(int.from_bytes(value[1:_ID_BYTES], "big")), value[_ID_BYTES:]
    return None


def is_glue(payload: pl.Series) -> pl.Series:
    """Whether each payload begins as those of the AWS Glue Schema Registry: a byte 3, 0 for plain or 5 for zlib, and a
    UUID of 16 bytes. Null stays null."""
    import polars as pl

    begins = payload.bin.starts_with(b"\3\0") | payload.bin.starts_with(b"\3\5")
    return begins & pl.Series(payload.bin.size() >= _GLUE_BYTES)


def message_indexes(body: bytes) -> tuple[tuple[int, ...], int]:
    """Read the indexes of a Protobuf message: their number, then each, as zigzag varints; a single 0 stands for [0].

    Returns:
        The way to the message's type, and where the message begins.

    Raises:
        ValueError: there are none.
    """
    count, position = _varint(body, 0)
    if count == 0:
        return (0,), position
    if not 0 < count <= len(body):
        raise ValueError(f"{count} message indexes")
    indexes = []
    for _ in range(count):
        index, position = _varint(body, position)
        indexes.append(index)
    return tuple(indexes), position


def _varint(body: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64 and position < len(body):
        byte = body[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), position
        shift += 7
    raise ValueError("a number is cut short")
