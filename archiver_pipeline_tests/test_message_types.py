"""Rules of the message type: what a payload is, JSON or not, told alike for one text and for whole columns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import duckdb
import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from archiver_pipeline.batch.message_types import classify, type_of
from archiver_pipeline.envelope import MALFORMED, TOMBSTONE, UNTYPED, parse_type_rule

HEADERS = pl.List(pl.Struct({"key": pl.String, "value": pl.Binary}))
PATHS = ("$.type", "$.a.b[1]", "$['event type']", "$", "$[0]")
Headers = Sequence[tuple[str, bytes | None]]


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB as the writer has it."""
    with duckdb.connect(config={"threads": 1}) as connection:
        yield connection


def frame(
    values: Sequence[str | None], rest: Sequence[bytes | None] = (), headers: Sequence[Headers | None] = ()
) -> pl.DataFrame:
    """Rows as the writer hands them over: text, or bytes that are no text, and headers."""
    rows = [None if row is None else [{"key": key, "value": value} for key, value in row] for row in headers]
    return pl.DataFrame(
        {
            "value": pl.Series(values, dtype=pl.String),
            "value_bytes": pl.Series(rest or [None] * len(values), dtype=pl.Binary),
            "headers": pl.Series(rows or [None] * len(values), dtype=HEADERS),
        }
    )


# Keys and values that the rules look at come up often; the rest is whatever JSON may hold.
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.sampled_from(["object.one", "_x", "", "NaN", ", ]", "x" * 250, "\ud800", "\0", "🎉"])
)
keys = st.sampled_from(["type", "a", "b", "event type", "Type", ""]) | st.text(max_size=3)
documents = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(st.tuples(keys, inner), max_size=4).map(lambda pairs: Pairs(pairs))
    ),
    max_leaves=8,
)
TOKENS = (
    *(
        '{"type":',
        '{"a":{"b":[0,',
        '{"event type":',
        '"type"',
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        '"',
        "\\",
        " ",
        "\n",
        "\t",
    ),
    *(
        "true",
        "false",
        "null",
        "NaN",
        "nan",
        "Infinity",
        "-Infinity",
        "inf",
        "-0",
        "0",
        "1",
        "-",
        "1e2",
        "1.0",
        "+1",
        "01",
    ),
    *(
        '"x"',
        '"\\ud800"',
        '"\\ud83c\\udf89"',
        '"\\u0000"',
        '"_y"',
        "\ufeff",
        "\0",
        "\x0b",
        "//",
        "/*",
        "*/",
        "'",
        "0x1",
    ),
    *(
        "99999999999999999999",
        "1e999",
        "-0.0",
        "tru",
        '"\x01"',
        '"\\x"',
        '"\\u12"',
        ",}",
        ",]",
        "]]",
        "}}",
        "\u2028",
        ".5",
    ),
)
near_json = st.lists(st.sampled_from(TOKENS), max_size=8).map("".join)


class Pairs(list[tuple[str, object]]):
    """A JSON object that may have a key twice."""


def write(document: object, spaces: bool) -> str:
    """Write a JSON document, with spaces or without."""
    match document:
        case Pairs():
            inner = (f"{json.dumps(key)}:{' ' * spaces}{write(value, spaces)}" for key, value in document)
            return "{" + f",{' ' * spaces}".join(inner) + "}"
        case list():
            return "[" + ",".join(write(value, spaces) for value in document) + " " * spaces + "]"
        case _:
            return json.dumps(document)


@settings(max_examples=250)
@given(
    st.lists(st.builds(write, documents, st.booleans()) | near_json, min_size=1, max_size=20), st.sampled_from(PATHS)
)
@example(["-0", "-0 ", "[-0]", '{"type":-0}'], "$")
@example(['{"type":"a","type":"b"}', '{"type":{},"type":"b"}'], "$.type")
@example(['{"a":{"b":[1,2,],}}', '{"a":{"b":[1,"x"]},"c":[1,]}'], "$.a.b[1]")
@example(['{"type":"x","n":NaN}', '{"type":"x","n":"NaN"}', '{"type":Infinity}', '{"n":-inf,"type":"x"}'], "$.type")
@example(['{"type":"x","n":"\\ud800"}', '{"type":"\\ud800"}', '{"type":"\\ud83c\\udf89"}', '{"\\udc00":1}'], "$.type")
@example(['{"type":1e2}', '{"type":1.0}', '{"type":99999999999999999999}', '{"type":-5}', '{"type":1e999}'], "$.type")
@example(
    ["\ufeff{}", '{"type":"x"}\0', '\0{"type":"x"}', '{"type":"x"} {"type":"y"}', "", " ", '{"type":"x"'], "$.type"
)
def test_columns_and_single_texts_agree(connection: duckdb.DuckDBPyConnection, texts: list[str], path: str) -> None:
    """`classify` gives row by row what `type_of` gives, for JSON and for what looks like it."""
    texts = [text.encode(errors="replace").decode() for text in texts]
    rule = parse_type_rule(path)
    assert classify(frame(texts), rule, connection).to_list() == [type_of(text, rule) for text in texts]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"type": "object.one"}', "object.one"),
        ('{"type": 7}', "7"),
        ('{"type": 1.50}', "1.50"),
        ('{"type": 1e2}', "1e2"),
        ('{"type": -0}', "-0"),
        ('{"type": 123456789012345678901234567890}', "123456789012345678901234567890"),
        ('{"type": true}', "true"),
        ('{"type": "_malformed"}', "__malformed"),
        ('{"type": "\\u00e9\\ud83c\\udf89"}', "é🎉"),
        ('{"type": "a", "type": "b"}', "a"),
        ('{"type": null}', UNTYPED),
        ('{"type": ""}', UNTYPED),
        ('{"type": {"x": 1}}', UNTYPED),
        ('{"type": ["x"]}', UNTYPED),
        ('{"Type": "x"}', UNTYPED),
        ("{}", UNTYPED),
        ("[1, 2]", UNTYPED),
        ('"type"', UNTYPED),
        ("7", UNTYPED),
        ("null", UNTYPED),
        ("", MALFORMED),
        ("hello", MALFORMED),
        ('{"type": "x"', MALFORMED),
        ('{"type": "x",}', MALFORMED),
        ('{"type": "x", "n": NaN}', MALFORMED),
        ('{"type": "\\ud800"}', MALFORMED),
        ('\ufeff{"type": "x"}', MALFORMED),
        ("{'type': 'x'}", MALFORMED),
        ('{"type": "a\nb"}', MALFORMED),
    ],
)
def test_the_type_of_a_payload(connection: duckdb.DuckDBPyConnection, text: str, expected: str) -> None:
    """A scalar at the path gives its text as it was written; nothing there `_untyped`; no JSON `_malformed`."""
    rule = parse_type_rule("$.type")
    assert type_of(text, rule) == expected
    assert classify(frame([text]), rule, connection).to_list() == [expected]


@pytest.mark.parametrize("inner", ["", '"type": NaN', '"x": "\\ud800"', '"x": [1,]'])
def test_depth_is_no_harm(connection: duckdb.DuckDBPyConnection, inner: str) -> None:
    """JSON nested a hundred thousand deep stops nothing, whatever lies at its ground, and the type before it counts."""
    deep = '{"type": "x", "y": ' + '{"a":' * 100_000 + "{" + inner + "}" + "}" * 100_000 + "}"
    found = classify(frame([deep, '{"type": "y"}']), parse_type_rule("$.type"), connection).to_list()
    assert found[0] in ("x", MALFORMED)
    assert found[1] == "y"


def test_bytes_and_nothing() -> None:
    """A null payload is a tombstone, one that is not UTF-8 is malformed where the type would be in it."""
    rows = frame([None, None, ""], [None, b"\xff{}", None])
    with duckdb.connect() as connection:
        assert classify(rows, parse_type_rule("$.type"), connection).to_list() == [TOMBSTONE, MALFORMED, MALFORMED]
        assert classify(rows, parse_type_rule("constant:c"), connection).to_list() == [TOMBSTONE, "c", "c"]
        assert classify(rows, parse_type_rule("header:h"), connection).to_list() == [TOMBSTONE, UNTYPED, UNTYPED]


def test_the_last_header_counts(connection: duckdb.DuckDBPyConnection) -> None:
    """The type is the last header of exactly that name; none, an empty one, or one that is no text, is `_untyped`."""
    rows: list[Headers | None] = [
        [("kind", b"a"), ("kind", b"b"), ("other", b"c")],
        [("Kind", b"a")],
        [("kind", b"")],
        [("kind", None)],
        [("kind", b"a"), ("kind", b"\xff")],
        [("kind", b"_malformed")],
        [("kind", "тип/🎉".encode())],
        [],
        None,
    ]
    found = classify(frame(["not JSON"] * len(rows), headers=rows), parse_type_rule("header:kind"), connection)
    assert found.to_list() == ["b", *[UNTYPED] * 4, "__malformed", "тип/🎉", UNTYPED, UNTYPED]


def test_a_constant_is_everybodys_type(connection: duckdb.DuckDBPyConnection) -> None:
    """By a constant rule every payload has that type, by the same rules of names."""
    assert classify(frame(["{", "{}"]), parse_type_rule("constant:_x"), connection).to_list() == ["__x", "__x"]


def test_the_answer_is_a_column_without_nulls(connection: duckdb.DuckDBPyConnection) -> None:
    """The answer is a String series named `type`, for any number of rows."""
    for rule in ("$.type", "header:h", "constant:c"):
        for values in ([], [None], ['{"type": "x"}', None, "{"]):
            found = classify(frame(values), parse_type_rule(rule), connection)
            assert (found.name, found.len(), found.null_count()) == ("type", len(values), 0)
            assert found.dtype == pl.String
