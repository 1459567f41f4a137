"""How a payload says which schema it was written with."""

from __future__ import annotations

import io
import uuid

import polars as pl
import pytest
from confluent_kafka.schema_registry.serde import SchemaId
from hypothesis import given
from hypothesis import strategies as st

from archiver_pipeline.formats.wire import HEADER, framed, is_glue, message_indexes
from archiver_pipeline_tests.batches import HEADERS

GUID = uuid.UUID(int=2**100 + 7)


def found(
    payloads: list[bytes | None], headers: list[list[tuple[str, bytes | None]] | None] | None = None
) -> list[object]:
    """Schema and body of each payload."""
    listed = headers or [None] * len(payloads)
    rows = [None if row is None else [{"key": key, "value": value} for key, value in row] for row in listed]
    schema, body = framed(pl.Series(payloads, dtype=pl.Binary), pl.Series(rows, dtype=HEADERS))
    return list(zip(schema, body, strict=True))


def test_a_zero_and_four_bytes() -> None:
    """The id is four bytes, unsigned and big-endian; what is shorter, begins otherwise, or is missing has no frame."""
    payloads = [b"\0\0\0\1\2body", b"\0\xff\xff\xff\xff", b"\0\0\0\1", b'{"a":1}', b"", None, b"\1\0\0\0\1x"]
    none = (None, None)
    assert found(payloads) == [("258", b"body"), ("4294967295", b""), none, none, none, none, none]
    assert found(payloads[:2]) == [("258", b"body"), ("4294967295", b"")]


def test_a_header_goes_before_the_payload() -> None:
    """The first header of that name has a GUID or an id; what it says beyond that belongs before the message."""
    guid = b"\1" + GUID.bytes
    headers: list[list[tuple[str, bytes | None]] | None] = [
        [("other", b"x"), (HEADER, guid)],
        [(HEADER, guid + b"\2\4"), (HEADER, b"\0\0\0\0\7")],
        [(HEADER, b"\0\0\0\0\7")],
        [(HEADER, b"\1short")],
        [(HEADER, None)],
        [(HEADER, guid)],
        None,
    ]
    payloads = [b"body", b"body", b"\0\0\0\0\1body", b"\0\0\0\0\1body", b"{}", None, b"\0\0\0\0\1body"]
    assert found(payloads, headers) == [
        (str(GUID), b"body"),
        (str(GUID), b"\2\4body"),
        ("7", b"\0\0\0\0\1body"),
        ("1", b"body"),
        (None, None),
        (None, None),
        ("1", b"body"),
    ]


@given(st.lists(st.integers(0, 2**31 - 1), max_size=5), st.binary(max_size=5))
def test_message_indexes_are_read_as_they_are_written(indexes: list[int], rest: bytes) -> None:
    """Confluent's client writes them, this reads them; the first message of a file is a single zero."""
    stream = io.BytesIO()
    SchemaId._encode_varints(stream, indexes or [0], zigzag=True)
    written = stream.getvalue()
    assert message_indexes(written + rest) == (tuple(indexes or [0]), len(written))


@pytest.mark.parametrize("body", [b"", b"\x80", b"\2", b"\3", b"\xff" * 9, b"\x08\0\0"])
def test_what_has_no_message_indexes(body: bytes) -> None:
    """Numbers that are cut short, negative or more than there are bytes are none."""
    with pytest.raises(ValueError):  # noqa: PT011, it goes no further than the codec
        message_indexes(body)


def test_the_header_of_aws_glue_is_known() -> None:
    """A byte 3, a byte for the compression, and a UUID."""
    payloads = [b"\3\0" + bytes(16), b"\3\5" + bytes(20), b"\3\1" + bytes(16), b"\3\0short", b"\0\0\0\0\1", None]
    assert is_glue(pl.Series(payloads, dtype=pl.Binary)).to_list() == [True, True, False, False, False, None]
