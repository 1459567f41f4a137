"""The JSON fields of a type and how they widen."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import permutations, product

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver_pipeline.fields import MAX_FIELDS, UNKNOWN, Field, kind_of, merge, sampled, widen

KINDS = ("BIGINT", "DOUBLE", "BOOLEAN", "VARCHAR", "JSON", UNKNOWN)
HOLDS = {
    "BIGINT": {"BIGINT"},
    "DOUBLE": {"BIGINT", "DOUBLE"},
    "BOOLEAN": {"BOOLEAN"},
    "VARCHAR": {"BIGINT", "DOUBLE", "BOOLEAN", "VARCHAR"},
    "JSON": {"BIGINT", "DOUBLE", "BOOLEAN", "VARCHAR", "JSON"},
    UNKNOWN: set(),
}
"""The kinds whose values a column of a kind shows."""

names = st.sampled_from(["a", "A", "b", "a_1", "A_1", "topic", "Topic", "topic_1", "", "_"]) | st.text(max_size=4)
samples = st.dictionaries(names, st.sampled_from(KINDS), max_size=8)


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB in memory."""
    with duckdb.connect(config={"threads": 1}) as connection:
        yield connection


def found(connection: duckdb.DuckDBPyConnection, *values: str | None) -> dict[str, str]:
    """The fields that a sample of these messages has."""
    connection.execute("CREATE OR REPLACE TEMP TABLE texts (value VARCHAR)")
    connection.executemany("INSERT INTO texts VALUES (?)", [[value] for value in values])
    return sampled(connection, "SELECT value FROM texts")


def test_widening_does_not_depend_on_order() -> None:
    """Commutative and associative, and a kind with itself stays: whichever batch comes first makes no difference."""
    for one, other, third in product(KINDS, repeat=3):
        assert widen(one, other) == widen(other, one)
        assert widen(one, widen(other, third)) == widen(widen(one, other), third)
    assert [widen(kind, kind) for kind in KINDS] == list(KINDS)


def test_widening_never_narrows() -> None:
    """The wider kind shows what either of the two showed, and nothing is wider than it has to be."""
    for one, other in product(KINDS, repeat=2):
        wide = widen(one, other)
        assert HOLDS[one] | HOLDS[other] <= HOLDS[wide]
        fitting = [kind for kind in KINDS if HOLDS[one] | HOLDS[other] <= HOLDS[kind]]
        assert len(HOLDS[wide]) == min(len(HOLDS[kind]) for kind in fitting)


@given(st.lists(samples, max_size=5))
def test_columns_keep_their_name_and_place(batches: list[dict[str, str]]) -> None:
    """Whatever later samples find, what was there stays where it was, and only grows wider."""
    known: list[Field] = []
    for batch in batches:
        after = merge(known, batch, taken=["topic", "value"])
        for old, new in zip(known, after, strict=False):
            assert (new.field, new.column) == (old.field, old.column)
            assert new.kind == widen(old.kind, batch.get(old.field, UNKNOWN))
        columns = [item.column.lower() for item in after] + ["topic", "value"]
        assert len(set(columns)) == len(columns)
        assert {item.field for item in after} == {item.field for item in known} | {
            name for name in batch if name.isprintable()
        }
        assert all(item.column for item in after)
        known = after


@given(st.permutations(list(KINDS)))
def test_a_column_ends_as_wide_whatever_the_order_of_batches(kinds: list[str]) -> None:
    """The last state is that of all kinds together."""
    known: list[Field] = []
    for kind in kinds:
        known = merge(known, {"f": kind}, taken=[])
    assert known == [Field("f", "f", "JSON")]


def test_no_more_fields_than_a_view_can_have() -> None:
    """An object with ids as keys fills the view once; known fields are widened all the same."""
    many = merge([], {f"f{number}": "BIGINT" for number in range(2 * MAX_FIELDS)}, taken=[])
    assert [item.field for item in many] == [f"f{number}" for number in range(MAX_FIELDS)]
    after = merge(many, {"new": "BIGINT", "f0": "VARCHAR"}, taken=[])
    assert (len(after), after[0].kind) == (MAX_FIELDS, "VARCHAR")


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (1, "BIGINT"),
        (-1, "BIGINT"),
        (2**63, "BIGINT"),
        (1.5, "DOUBLE"),
        (10**40, "DOUBLE"),
        (True, "BOOLEAN"),
        ("", "VARCHAR"),
        (None, UNKNOWN),
        ([], "JSON"),
        ({}, "JSON"),
    ],
)
def test_the_kind_of_a_value(connection: duckdb.DuckDBPyConnection, value: object, kind: str) -> None:
    """As DuckDB's own reader of JSON tells it."""
    assert found(connection, json.dumps({"f": value})) == {"f": kind}


def test_a_type_that_a_later_duckdb_may_add_is_json() -> None:
    """JSON shows every value."""
    assert kind_of("SOMETHING NEW") == "JSON"


def test_fields_come_in_the_order_in_which_messages_have_them(connection: duckdb.DuckDBPyConnection) -> None:
    """Those of the first message first; the kinds of all messages count."""
    fields = found(connection, '{"b": 1, "a": null}', '{"c": [], "a": 2, "b": 1.5}')
    assert list(fields.items()) == [("b", "DOUBLE"), ("a", "BIGINT"), ("c", "JSON")]


@pytest.mark.parametrize("value", [None, "", "no json", '{"cut": ', "[1]", "3", "null", "[" * 5000])
def test_what_is_no_object_has_no_fields(connection: duckdb.DuckDBPyConnection, value: str | None) -> None:
    """And does not hide those of other messages."""
    for values in permutations([value, '{"a": 1}']):
        assert found(connection, *values) == {"a": "BIGINT"}


@given(
    name=st.text(max_size=6).filter(lambda text: not re.search("[\ud800-\udfff]", text)),
    value=st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5) | st.lists(st.integers()),
)
def test_a_column_shows_the_field_of_its_name(connection: duckdb.DuckDBPyConnection, name: str, value: object) -> None:
    """Whatever its name: read through the column's SQL, a message gives back what it had."""
    text = json.dumps({"before": 1, name: value, "after": 2})
    column = next((item for item in merge([], found(connection, text), taken=[]) if item.field == name), None)
    if column is None:
        assert not name.isprintable()
        return
    row = connection.execute(f'SELECT {column.expression()} FROM (SELECT ?::VARCHAR AS "value")', [text]).fetchone()
    assert row is not None
    if isinstance(value, list):
        assert json.loads(row[0]) == value
    elif isinstance(value, str) and "\0" in value:
        assert row[0] is None or row[0] == value
    else:
        assert row[0] == value
