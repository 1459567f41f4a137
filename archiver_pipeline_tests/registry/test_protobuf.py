"""The JSON of Protobuf: what each type becomes, which type of a file is meant, and what is not of it."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import polars as pl
import pytest
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver_pipeline.formats.protobuf import ProtobufCodec
from archiver_pipeline.formats.registry import WriterSchema

MONEY = 'syntax = "proto3"; package shop; message Money { string currency = 1; int64 cents = 2; }'
EVENT = """
syntax = "proto3";
package shop;
import "common/money.proto";
import "confluent/meta.proto";
import "google/protobuf/any.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/struct.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
import "google/type/date.proto";
enum Kind { NONE = 0; SALE = 1; }
message Event {
  string event_type = 1;
  int64 big = 2;
  uint64 huge = 3;
  double d = 4;
  float f = 5;
  bool ok = 6;
  bytes raw = 7;
  Kind kind = 8;
  optional int32 maybe = 9;
  repeated string tags = 10;
  map<int64, Money> prices = 11;
  map<bool, bytes> flags = 12;
  oneof choice { string text = 13; int32 number = 14; }
  Event child = 15;
  google.protobuf.Timestamp at = 16;
  google.protobuf.Int64Value wrapped = 17;
  google.protobuf.Struct any_json = 18;
  google.protobuf.Any any = 19;
  google.protobuf.Duration took = 20;
  google.type.Date day = 21;
  repeated Kind kinds = 22;
  message Inner { int32 x = 1; message Deep { int32 y = 1; } }
}
message Other { string name = 1; }
"""
DEFAULTS = {
    "event_type": "",
    "big": 0,
    "huge": 0,
    "d": 0.0,
    "f": 0.0,
    "ok": False,
    "raw": "",
    "kind": "NONE",
    "tags": [],
    "prices": {},
    "flags": {},
    "kinds": [],
}


@cache
def event() -> tuple[ProtobufCodec, Any]:
    """The codec of `EVENT`, and the class of its first message."""
    codec = ProtobufCodec(WriterSchema("PROTOBUF", EVENT, (("common/money.proto", MONEY),)))
    return codec, GetMessageClass(codec._file.message_types_by_name["Event"])


def decode(codec: ProtobufCodec, *bodies: bytes) -> list[Any]:
    """The JSON of messages, read again; None for one that was not decoded."""
    texts = codec.decode(pl.Series(bodies, dtype=pl.Binary)).to_list()
    return [None if text is None else json.loads(text) for text in texts]


def one(**fields: Any) -> Any:
    """The JSON of an event without the fields that are there with their default."""
    codec, kind = event()
    (found,) = decode(codec, b"\0" + kind(**fields).SerializeToString())
    return {name: value for name, value in found.items() if name not in DEFAULTS or value != DEFAULTS[name]}


def test_what_cannot_be_missing_is_there() -> None:
    """Fields of which nobody can tell whether they were set have their default; the others are left out."""
    codec, _ = event()
    assert decode(codec, b"\0") == [DEFAULTS]
    assert one(maybe=0, number=0) == {"maybe": 0, "number": 0}


def test_every_type_has_its_json() -> None:
    """Names are as in the schema, integers exact, enums text, bytes base64, times ISO 8601; numbers that JSON does not
    have are null."""
    _, kind = event()
    assert one(event_type="sale", big=-(2**63), huge=2**64 - 1, ok=True) == {
        "event_type": "sale",
        "big": -(2**63),
        "huge": 2**64 - 1,
        "ok": True,
    }
    assert one(d=float("nan"), f=0.1, raw=b"\xff\0", kind=1, kinds=[0, 1, 7]) == {
        "d": None,
        "f": 0.1,
        "raw": "/wA=",
        "kind": "SALE",
        "kinds": ["NONE", "SALE", 7],
    }
    assert one(prices={2: {"currency": "EUR"}, -1: {"cents": 2**60}}, flags={True: b"x"}) == {
        "prices": {"-1": {"currency": "", "cents": 2**60}, "2": {"currency": "EUR", "cents": 0}},
        "flags": {"true": "eA=="},
    }
    assert one(child=kind(event_type="in")) == {"child": {**DEFAULTS, "event_type": "in"}}


def test_protobufs_own_types_have_a_json_of_their_own() -> None:
    """Times and durations are text, wrapped numbers are numbers, and JSON within a message is JSON."""
    _, kind = event()
    message = kind(wrapped={"value": 2**60}, day={"year": 2019, "month": 8, "day": 1})
    message.at.FromNanoseconds(1_564_628_400_000_000_001)
    message.took.FromMilliseconds(1500)
    message.any_json.update({"a": [1, None, "x"]})
    message.any.Pack(kind(event_type="packed"))
    codec, _ = event()
    (found,) = decode(codec, b"\0" + message.SerializeToString())
    assert found["at"] == "2019-08-01T03:00:00.000000001Z"
    assert (found["took"], found["wrapped"]) == ("1.500s", 2**60)
    assert found["any_json"] == {"a": [1, None, "x"]}
    assert found["day"] == {"year": 2019, "month": 8, "day": 1}
    assert found["any"]["event_type"] == "packed"
    message.any.type_url = "type.googleapis.com/no.Such"
    (found,) = decode(codec, b"\0" + message.SerializeToString())
    assert set(found["any"]) == {"@type", "value"}
    assert one(at={"seconds": 0}) == {"at": "1970-01-01T00:00:00.000Z"}
    assert one(took={"seconds": 2**60}) == {"took": {"seconds": 2**60, "nanos": 0}}
    assert one(at={"seconds": 2**60}) == {"at": {"seconds": 2**60, "nanos": 0}}


def test_the_indexes_tell_which_message_it_is() -> None:
    """The first of a file, another one, and one within another one, where maps do not count; there is none behind."""
    codec, _ = event()
    inner, deep = b"\4\0\0", b"\6\0\0\0"
    assert decode(codec, b"\2\2\n\1x", inner + b"\x08\5", deep + b"\x08\7") == [{"name": "x"}, {"x": 5}, {"y": 7}]
    assert decode(codec, b"\2\4\n\1x", b"\2\1\n\1x", b"", b"\x80") == [None] * 4


def test_what_is_not_of_the_schema_is_not_decoded() -> None:
    """Bytes that are cut short, of another type or no UTF-8; what the schema does not know is passed over."""
    codec, _ = event()
    assert decode(codec, b"\0\n\5ab", b"\0\x0a\1\xff", b"\0\xff\xff") == [None, None, None]
    assert decode(codec, b"\0\xf8\x3f\1") == [DEFAULTS]


def test_a_message_that_is_nested_too_deeply_is_not_decoded() -> None:
    """Protobuf's own limit is a hundred levels."""
    codec, _ = event()
    body = b""
    for _ in range(120):
        size = bytes([len(body)]) if len(body) < 128 else bytes([len(body) & 127 | 128, len(body) >> 7])
        body = b"\x7a" + size + body
    assert decode(codec, b"\0" + body) == [None]


def test_what_is_no_schema_is_refused() -> None:
    """The error has what protoc says of it; an import cannot lead out of its folder."""
    with pytest.raises(ValueError, match=r'archiver-value\.proto:1:29: Expected "{"'):
        ProtobufCodec(WriterSchema("PROTOBUF", 'syntax = "proto3"; message A'))
    with pytest.raises(ValueError, match=r"'\.\./a\.proto'"):
        ProtobufCodec(WriterSchema("PROTOBUF", MONEY, (("../a.proto", MONEY),)))


_FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "event_type": st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
        "big": st.integers(-(2**63), 2**63 - 1),
        "huge": st.integers(0, 2**64 - 1),
        "d": st.floats(allow_nan=False, allow_infinity=False),
        "f": st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False),
        "ok": st.booleans(),
        "raw": st.binary(max_size=4),
        "kind": st.integers(0, 3),
        "maybe": st.integers(-5, 5),
        "tags": st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), max_size=3),
        "flags": st.dictionaries(st.booleans(), st.binary(max_size=2)),
        "kinds": st.lists(st.integers(0, 2), max_size=3),
    },
)


@settings(max_examples=100)
@given(_FIELDS)
def test_protobufs_own_reader_of_json_gives_the_message_back(fields: dict[str, Any]) -> None:
    """What is written is JSON that Protobuf's own library reads, and it makes the same message of it."""
    codec, kind = event()
    message = kind(**fields)
    (text,) = codec.decode(pl.Series([b"\0" + message.SerializeToString()]))
    assert json_format.Parse(text, kind(), descriptor_pool=codec._json._pool) == message
