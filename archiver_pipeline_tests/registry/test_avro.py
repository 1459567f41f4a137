"""The JSON of Avro: what each type becomes, whichever way it is decoded, and what is not of its schema."""

from __future__ import annotations

import json
import math
import random
import struct
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archiver_pipeline.formats.avro import AvroCodec
from archiver_pipeline.formats.registry import WriterSchema
from archiver_pipeline_tests.registry.written import Json, avro, record

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
_LONG, _INT = st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1)


def logical(kind: str, name: str, **more: Any) -> Json:
    """A type with a logical type."""
    return {"type": kind, "logicalType": name, **more}


def codec(schema: Any, *references: tuple[str, Json]) -> AvroCodec:
    """The codec of a schema."""
    texts = tuple((name, json.dumps(text)) for name, text in references)
    return AvroCodec(WriterSchema("AVRO", json.dumps(schema), texts))


def decode(of: AvroCodec, *bodies: bytes) -> list[Any]:
    """The JSON of messages, read again; None for one that was not decoded."""
    texts = of.decode(pl.Series(bodies, dtype=pl.Binary)).to_list()
    return [None if text is None else (json.loads(text),) for text in texts]


DECIMAL = logical("bytes", "decimal", precision=30, scale=2)
FIXED = {"type": "fixed", "name": "F", "size": 2}
DURATION = {**logical("fixed", "duration"), "name": "D", "size": 12}
ENUM = {"type": "enum", "name": "K", "symbols": ["A", "B"]}

MAPPING: list[tuple[Any, Any, Any]] = [
    ("null", None, None),
    ("boolean", True, True),
    ("int", -(2**31), -(2**31)),
    ("long", 2**63 - 1, 2**63 - 1),
    ("double", 1e300, 1e300),
    ("double", math.nan, None),
    ("double", -math.inf, None),
    ("float", 0.1, 0.1),
    ("float", math.inf, None),
    ("string", 'ключ "\\\n\u0001', 'ключ "\\\n\u0001'),
    ("bytes", b"\xff\0", "/wA="),
    (FIXED, b"\xff\0", "/wA="),
    (ENUM, "B", "B"),
    ({"type": "array", "items": "long"}, [1, 2], [1, 2]),
    ({"type": "map", "values": "bytes"}, {"b": b"\0", "a": b""}, {"b": "AA==", "a": ""}),
    (["null", "string"], None, None),
    (["null", "string", "long"], 5, 5),
    (["null", DECIMAL], Decimal("-1.20"), "-1.20"),
    (DECIMAL, Decimal("12345678901234567890.00"), "12345678901234567890.00"),
    ({**DECIMAL, "scale": 0}, Decimal(-7), "-7"),
    ({**DECIMAL, "scale": -1}, b"\1", "AQ=="),
    (logical("int", "date"), -1, "1969-12-31"),
    (logical("int", "date"), 2**31 - 1, 2**31 - 1),
    (logical("int", "time-millis"), 86_399_999, "23:59:59.999"),
    (logical("int", "time-millis"), 86_400_000, 86_400_000),
    (logical("long", "time-micros"), 1, "00:00:00.000001"),
    (logical("long", "timestamp-millis"), 1_564_628_400_123, "2019-08-01T03:00:00.123Z"),
    (logical("long", "timestamp-millis"), -62_135_596_800_000, "0001-01-01T00:00:00.000Z"),
    (logical("long", "timestamp-millis"), 2**62, 2**62),
    (logical("long", "timestamp-micros"), -1, "1969-12-31T23:59:59.999999Z"),
    (logical("long", "timestamp-nanos"), -1, "1969-12-31T23:59:59.999999999Z"),
    (logical("long", "local-timestamp-millis"), 0, "1970-01-01T00:00:00.000"),
    (logical("string", "uuid"), "no uuid at all", "no uuid at all"),
    ({**logical("fixed", "uuid"), "name": "U", "size": 16}, bytes(16), "00000000-0000-0000-0000-000000000000"),
    (DURATION, struct.pack("<III", 14, 3, 4005), "P14M3DT4.005S"),
    (logical("long", "made-up"), 5, 5),
    (record("Inner", b="long", a="string"), {"b": 1, "a": "x"}, {"b": 1, "a": "x"}),
]
"""Type, value, and what JSON has for it."""


def without_logical(kind: Any) -> Any:
    """The type as its values are written by hand: no logical type but that of decimals."""
    if isinstance(kind, list):
        return [without_logical(each) for each in kind]
    if not isinstance(kind, dict) or (kind.get("logicalType") == "decimal" and kind["scale"] >= 0):
        return kind
    return {name: value for name, value in kind.items() if name != "logicalType"}


@pytest.mark.parametrize("number", range(len(MAPPING)))
def test_every_type_has_its_json(number: int) -> None:
    """Numbers stay exact, bytes are base64, times are ISO 8601, decimals are text, and what JSON has no number for is
    null: in columns, message by message, and in places where one of the two cannot be used."""
    kind, value, wanted = MAPPING[number]
    simple = record(x=kind)
    body = avro(record(x=without_logical(kind)), {"x": value})
    assert decode(codec(simple), body) == [({"x": wanted},)]
    within = record(m={"type": "map", "values": kind})
    body = avro(record(m={"type": "map", "values": without_logical(kind)}), {"m": {"k": value}})
    assert decode(codec(within), body) == [({"m": {"k": wanted}},)]


def test_fields_stand_in_the_order_of_the_schema() -> None:
    """The text has the fields as the schema has them, and names them as the schema does."""
    of = codec(record(zeta="int", _a="int", Beta="int"))
    (text,) = of.decode(pl.Series([avro(record(zeta="int", _a="int", Beta="int"), {"zeta": 1, "_a": 2, "Beta": 3})]))
    assert text == '{"zeta":1,"_a":2,"Beta":3}'


COLUMNS = record(
    s="string",
    l="long",
    d="double",
    f="float",
    b="boolean",
    i="int",
    ns=["null", "string"],
    nd=["double", "null"],
    nf=["null", "float"],
    k=ENUM,
    nk=["null", {**ENUM, "name": "K2"}],
    y="bytes",
    ny=["null", "bytes"],
    al={"type": "array", "items": "string"},
    ad={"type": "array", "items": "double"},
    ms=logical("long", "timestamp-millis"),
    us=["null", logical("long", "timestamp-micros")],
    day=logical("int", "date"),
    r=record("Inner", q="long", s=["null", "string"]),
)
PLAIN = {**COLUMNS, "fields": [{**f, "type": without_logical(f["type"])} for f in COLUMNS["fields"]]}
ROWS = st.fixed_dictionaries(
    {
        "s": _TEXT,
        "l": _LONG,
        "d": st.floats(),
        "f": st.floats(width=32),
        "b": st.booleans(),
        "i": _INT,
        "ns": st.none() | _TEXT,
        "nd": st.none() | st.floats(),
        "nf": st.none() | st.floats(width=32),
        "k": st.sampled_from("AB"),
        "nk": st.none() | st.sampled_from("AB"),
        "y": st.binary(max_size=5),
        "ny": st.none() | st.binary(max_size=4),
        "al": st.lists(_TEXT, max_size=3),
        "ad": st.lists(st.floats(), max_size=3),
        "ms": st.integers(-62_135_596_800_000, 253_402_300_799_999),
        "us": st.none() | st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999),
        "day": st.integers(-719_162, 2_932_896),
        "r": st.fixed_dictionaries({"q": _LONG, "s": st.none() | _TEXT}),
    }
)


@settings(max_examples=150)
@given(st.lists(ROWS, min_size=1, max_size=4))
def test_both_ways_give_one_text(rows: list[Json]) -> None:
    """Column by column or message by message, the JSON is the same to the letter."""
    bodies = pl.Series([avro(PLAIN_SCHEMA(), row) for row in rows], dtype=pl.Binary)
    of = codec(COLUMNS)
    assert of.columns is not None
    fast = of.columns.decode(bodies)
    of.columns = None
    assert fast is not None
    assert fast.to_list() == of.decode(bodies).to_list()


def PLAIN_SCHEMA() -> Json:
    """A copy, for fastavro writes into what it parses."""
    copied: Json = json.loads(json.dumps(PLAIN))
    return copied


def test_bytes_that_are_not_of_the_schema_are_found() -> None:
    """Whatever is done to one message of many, in columns nothing of it is believed that is not so read alone."""
    chance = random.Random(7)
    schema = record(s="string", n=["null", "long"], d="double", a={"type": "array", "items": "string"}, b="boolean")
    rows = [{"s": "x" * n, "n": n or None, "d": n / 3, "a": ["y"] * (n % 3), "b": n % 2 == 0} for n in range(20)]
    good = [avro(schema, row) for row in rows]
    of, alone = codec(schema), codec(schema)
    alone.columns = None
    assert of.columns is not None
    broken = 0
    for _ in range(300):
        bodies = list(good)
        body, place = bytearray(bodies[number := chance.randrange(20)]), chance.randrange(8)
        match chance.randrange(3):
            case 0:
                body = body[:place]
            case 1:
                body[place % len(body)] = chance.randrange(256)
            case _:
                body[place:place] = chance.randbytes(3)
        bodies[number] = bytes(body)
        found = alone.decode(pl.Series(bodies)).to_list()
        fast = of.columns.decode(pl.Series(bodies))
        assert fast is None or fast.to_list() == found
        assert of.decode(pl.Series(bodies)).to_list() == found
        assert [each is None for each in found].count(True) == (found[number] is None)
        broken += found[number] is None
    assert broken > 100


def test_a_message_that_is_nested_too_deeply_is_not_decoded() -> None:
    """A list of a million links, which would overflow the stack of a compiled reader, is passed over."""
    of = codec(record("Node", next=["null", "Node"]))
    assert decode(of, b"\2" * 3 + b"\0", b"\2" * 1_000_000 + b"\0", b"\0") == [
        ({"next": {"next": {"next": {"next": None}}}},),
        None,
        ({"next": None},),
    ]


def test_a_few_bytes_do_not_make_any_number_of_items() -> None:
    """Items of no bytes could be a thousand billion in six bytes: such messages are kept as they are."""
    endless = b"\x80\x80\x80\x80\x80\x80\x20"
    nothing, none = record("Nothing"), {"type": "fixed", "name": "None", "size": 0}
    for items in ("null", nothing, none, record("Outer", n=nothing, m="Nothing")):
        assert decode(codec(record(a={"type": "array", "items": items})), endless, b"\0") == [None, None]
    by_name = record(x=nothing, a={"type": "array", "items": "Nothing"})
    assert decode(codec(by_name), endless) == [None]
    assert decode(codec(record(x="Nothing", a={"type": "array", "items": "int"}), ("n", nothing)), b"\2\2\0") == [
        ({"x": {}, "a": [1]},)
    ]


def test_schemas_refer_to_each_other() -> None:
    """A schema may use types of others, which use types of others in their turn."""
    money = record("shop.Money", currency="string", cents="long")
    item = record("shop.Item", what="string", price="shop.Money")
    order = record("shop.Order", items={"type": "array", "items": "shop.Item"}, total="shop.Money")
    whole = record("shop.Order", items={"type": "array", "items": record("shop.Item", what="string", price=money)})
    whole["fields"].append({"name": "total", "type": "shop.Money"})
    datum = {"items": [{"what": "tea", "price": {"currency": "EUR", "cents": 350}}]}
    datum |= {"total": {"currency": "EUR", "cents": 350}}  # type: ignore[dict-item]
    of = codec(order, ("money", money), ("item", item))
    assert decode(of, avro(whole, datum)) == [(datum,)]
    both = codec(["shop.Money", "shop.Item"], ("money", money), ("item", item))
    assert decode(both, b"\0\6EUR\2", b"\2\6tea\6EUR\2") == [
        ({"currency": "EUR", "cents": 1},),
        ({"what": "tea", "price": {"currency": "EUR", "cents": 1}},),
    ]
    for alone in ("shop.Money", {"type": "shop.Money"}):
        assert decode(codec(alone, ("money", money)), b"\6EUR\2") == [({"currency": "EUR", "cents": 1},)]


def test_a_message_need_not_be_a_record() -> None:
    """A schema may be a simple type or a union, and its JSON is then no object."""
    assert decode(codec("string"), b"\6abc", b"\6ab") == [("abc",), None]
    assert decode(codec(logical("long", "timestamp-millis")), b"\2") == [("1970-01-01T00:00:00.001Z",)]
    assert decode(codec(["null", "bytes"]), b"\2\2\xff", b"\0", b"\4") == [("/w==",), (None,), None]


def test_what_only_a_reader_needs_is_not_looked_at() -> None:
    """A default that does not fit, or a name that Java would not take, keeps no message from being decoded."""
    odd = record("Bad-name", n="int", k={**ENUM, "default": "Z"})
    odd["fields"][0]["default"] = "no number"
    assert decode(codec(odd), b"\2\2") == [({"n": 1, "k": "B"},)]
    for schema in ("nope", {"type": "record"}, {}, 5, record("R", x="nope")):
        with pytest.raises(Exception, match=r"."):
            codec(schema)
