"""The field report of a sealed file: what it says, that nothing breaks it, and what two of them differ in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver_pipeline.fields import MAX_FIELDS
from archiver_pipeline.view import field_sample, hour_fields
from archiver_pipeline.view.hour_fields import Change, FieldSeen, HourFields, changes, parse, read, report, together

THREE = datetime(2019, 8, 1, 3, tzinfo=UTC)
THREE_US = 1_564_628_400_000_000
KINDS = ("BIGINT", "DOUBLE", "BOOLEAN", "VARCHAR", "JSON", "NULL")

UGLY = {
    "cut short": '{"cut": ',
    "empty": "",
    "spaces": " ",
    "a list": '["n", 1]',
    "a number": "3",
    "null": "null",
    "no number": '{"m": NaN, "i": -Infinity}',
    "half a character": '{"m": "\\ud800", "\\ud800": 1}',
    "nothing in the name": '{"": 1}',
    "zeros": '{"m": "\\u0000", "a\\u0000b": 1}',
    "open lists": "[" * 5000,
    "nested lists": '{"m": ' + "[" * 100_000 + "]" * 100_000 + "}",
    "nested objects": '{"m":' * 2000 + "1" + "}" * 2000,
    "a name twice": '{"m": 1, "m": "x"}',
    "a large number": '{"m": ' + "9" * 5000 + ', "e": 1e999999}',
    "a mark in front": "\ufeff{}",
    "two objects": "{}{}",
    "a pointer for a name": '{"/n": 1, "~n": 1, "~1": 1, "/": 1, "*": 1, "0": 1, "$.n": 1}',
    "SQL for a name": """{"'; DROP TABLE x; --": 1, "a\\"b": 1, "?": 1, "$1": 1}""",
    "a long name": '{"' + "k" * 100_000 + '": 1}',
}

counts = st.integers(0, 2000)
kind_counts = st.dictionaries(st.sampled_from(KINDS), st.integers(1, 2000), min_size=1, max_size=3)
times = st.none() | st.integers(-(2**62), 2**62)


@st.composite
def hours(draw: st.DrawFn) -> HourFields:
    """A report as it may come from any hour."""
    kinds = draw(st.dictionaries(st.text(max_size=3), kind_counts, max_size=6))
    looked_at = max([draw(counts), *(sum(each.values()) for each in kinds.values())])
    fields = (FieldSeen(name, sum(each.values()), each, draw(times), draw(times)) for name, each in kinds.items())
    return HourFields(looked_at + draw(counts), looked_at, tuple(fields))


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """DuckDB in memory, with no more of it than a sealing has."""
    with duckdb.connect(config={"threads": 2, "memory_limit": "400MB"}) as connection:
        yield connection


def looked_at(
    connection: duckdb.DuckDBPyConnection, *values: str | None, at: Sequence[datetime | None] = ()
) -> HourFields:
    """The report of these messages, one a second from three o'clock on."""
    stamps = at or [THREE + timedelta(seconds=number) for number in range(len(values))]
    columns = [pl.Series("value", values, pl.String), pl.Series("timestamp", stamps, pl.Datetime("us", "UTC"))]
    connection.register("messages", pl.DataFrame(columns).to_arrow())
    return parse(report(connection, "FROM messages"))


def by_name(hour: HourFields) -> dict[str, FieldSeen]:
    """The fields of a report."""
    return {item.field: item for item in hour.fields}


def hour(looked_at: int = 1000, **kinds: dict[str, int]) -> HourFields:
    """A report of fields with these kinds."""
    return HourFields(looked_at, looked_at, tuple(FieldSeen(name, sum(k.values()), k) for name, k in kinds.items()))


def sentences(before: HourFields, after: HourFields) -> list[str]:
    """What people read of the difference."""
    return [change.sentence() for change in changes(before, after, "object.one")]


def test_a_report_says_who_has_which_field_since_when(connection: duckdb.DuckDBPyConnection) -> None:
    """Messages, kinds and times of each field, the most frequent one first, also where others have no fields."""
    found = looked_at(connection, '{"a": 1, "b": null}', None, "no json", '{"b": 1.5, "a": "x"}', "[1]", '{"a": 2}')
    assert found == HourFields(
        6,
        6,
        (
            FieldSeen("a", 3, {"BIGINT": 2, "VARCHAR": 1}, THREE_US, THREE_US + 5_000_000),
            FieldSeen("b", 2, {"NULL": 1, "DOUBLE": 1}, THREE_US, THREE_US + 3_000_000),
        ),
    )


def test_equally_frequent_fields_come_as_the_messages_have_them(connection: duckdb.DuckDBPyConnection) -> None:
    """The columns of a typed view get this order."""
    found = looked_at(connection, *['{"z": 1, "m": 2, "a": 3, "k": 4}'] * 3)
    assert list(by_name(found)) == ["z", "m", "a", "k"]


def test_a_message_without_a_time_counts_all_the_same(connection: duckdb.DuckDBPyConnection) -> None:
    """It just does not say when."""
    found = looked_at(connection, '{"a": 1}', '{"a": 1, "b": 1}', at=[THREE, None])
    assert by_name(found) == {
        "a": FieldSeen("a", 2, {"BIGINT": 2}, THREE_US, THREE_US),
        "b": FieldSeen("b", 1, {"BIGINT": 1}, None, None),
    }


def test_no_message_gives_an_empty_report(connection: duckdb.DuckDBPyConnection) -> None:
    """Not an error."""
    assert looked_at(connection) == HourFields(0, 0, ())


@pytest.mark.parametrize(("value", "kind"), [("1", "BIGINT"), ("18446744073709551615", "BIGINT"), ("1e5", "DOUBLE"),
                                             ("1" * 40, "DOUBLE"), ("true", "BOOLEAN"), ('""', "VARCHAR"),
                                             ("{}", "JSON"), ("[]", "JSON"), ("null", "NULL")])  # fmt: skip
def test_the_kinds_are_those_of_the_typed_views(connection: duckdb.DuckDBPyConnection, value: str, kind: str) -> None:
    """As DuckDB's reader of JSON tells them."""
    assert by_name(looked_at(connection, f'{{"f": {value}}}'))["f"].kinds == {kind: 1}


@pytest.mark.parametrize("ugly", UGLY.values(), ids=UGLY)
def test_ugly_json_neither_breaks_nor_hides(connection: duckdb.DuckDBPyConnection, ugly: str) -> None:
    """Whatever it is, it is counted as a message, and the fields of its neighbours are there."""
    found = looked_at(connection, '{"n": 1}', ugly, '{"n": 2}')
    assert found.looked_at == 3
    assert by_name(found)["n"].present >= 2


def test_of_a_field_that_is_there_twice_the_first_counts(connection: duckdb.DuckDBPyConnection) -> None:
    """As in the typed view, and the message is counted once."""
    assert looked_at(connection, '{"m": 1, "m": "x"}').fields == (FieldSeen("m", 1, {"BIGINT": 1}, THREE_US, THREE_US),)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(st.dictionaries(st.text(max_size=8), json_values, max_size=5) | st.text() | st.none(), max_size=6))
def test_any_message_can_be_looked_at(
    connection: duckdb.DuckDBPyConnection, messages: list[dict[str, object] | str | None]
) -> None:
    """Names of any text, values of any size: each name that DuckDB can read is there, as often as messages have it."""
    texts = [json.dumps(message) if isinstance(message, dict) else message for message in messages]
    texts = [text if text is None else text.encode(errors="replace").decode() for text in texts]
    found = looked_at(connection, *texts)
    assert (found.messages, found.looked_at) == (len(texts), len(texts))
    expected: dict[str, int] = {}
    for text in texts:
        for name in connection.execute("SELECT json_keys(try_cast(? AS JSON))", [text]).fetchall()[0][0] or []:
            expected[name] = expected.get(name, 0) + 1
    assert {name: item.present for name, item in by_name(found).items()} == expected
    for item in found.fields:
        assert sum(item.kinds.values()) == item.present
        assert set(item.kinds) <= set(KINDS)


def test_of_a_great_hour_a_sample_is_looked_at(connection: duckdb.DuckDBPyConnection) -> None:
    """It is spread over the whole hour, its size is in the report, and the shares are right."""
    select = (
        """SELECT '{"all": 1' || CASE WHEN i % 5 = 0 THEN ', "fifth": ""}' ELSE '}' END AS value, """
        "make_timestamptz(i) AS timestamp FROM range(1000000) AS numbers(i)"
    )
    found = parse(report(connection, select))
    assert found.messages == 1_000_000
    assert abs(found.looked_at - field_sample.SAMPLE_MESSAGES) < 5_000
    fields = by_name(found)
    assert fields["all"].present == found.looked_at
    assert abs(fields["fifth"].present / found.looked_at - 0.2) < 0.01
    first, last = fields["all"].first, fields["all"].last
    assert first is not None
    assert last is not None
    assert first < 1_000
    assert last > 999_000
    assert report(connection, select) == report(connection, select)


def test_a_sample_made_before_says_how_many_messages_there_are(connection: duckdb.DuckDBPyConnection) -> None:
    """What was looked at is what came."""
    text = report(connection, "SELECT '{\"a\": 1}' AS value, NULL::TIMESTAMPTZ AS timestamp", 50_000)
    assert (parse(text).messages, parse(text).looked_at) == (50_000, 1)


def test_large_messages_are_sampled_by_their_bytes(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    """An hour of messages of 5 MB is looked at within the memory that there is; the report stays small."""
    path = tmp_path / "large.parquet"
    message = '{"a": 1, "b": [' + "0.25, " * 800_000 + "0]}"
    frame = pl.DataFrame({"value": [message] * 60, "timestamp": [THREE] * 60})
    frame.write_parquet(path, row_group_size=4)
    text = report(connection, f"SELECT value, timestamp FROM read_parquet('{path}')")
    found = parse(text)
    assert found.messages == 60
    assert 1 <= found.looked_at < 60
    assert {name: item.present for name, item in by_name(found).items()} == dict.fromkeys("ab", found.looked_at)
    assert len(text) < 1000


def test_a_message_that_fills_the_memory_is_passed_over(connection: duckdb.DuckDBPyConnection) -> None:
    """It is not among those looked at; the others are."""
    found = looked_at(connection, '{"a": 1}', '{"b": "' + "x" * field_sample.LARGEST_BYTES + '"}')
    assert (found.messages, found.looked_at, list(by_name(found))) == (2, 1, ["a"])


def test_ids_as_names_leave_the_frequent_fields(connection: duckdb.DuckDBPyConnection) -> None:
    """The report is bounded, says that something was left out, and has what most messages have."""
    found = looked_at(connection, *(json.dumps({f"id{n}": 1, f"x{n}": 1, "often": n}) for n in range(5000)))
    assert len(found.fields) == MAX_FIELDS
    assert not found.complete
    assert found.fields[0].field == "often"
    assert found.fields[0].present == 5000


def test_a_report_outlives_what_follows_it(connection: duckdb.DuckDBPyConnection) -> None:
    """Nothing of it stays in the connection, and the next one does not depend on it."""
    before = connection.execute("FROM duckdb_tables()").fetchall()
    assert by_name(looked_at(connection, '{"a": 1}')).keys() == {"a"}
    assert by_name(looked_at(connection, '{"b": 1}')).keys() == {"b"}
    assert connection.execute("FROM duckdb_tables()").fetchall() == before


def test_a_report_can_be_read_by_every_tool(connection: duckdb.DuckDBPyConnection) -> None:
    """It is ASCII, whatever the names are."""
    connection.register("messages", pl.DataFrame({"value": ['{"ü🎉\\u202e": 1}'], "timestamp": [THREE]}).to_arrow())
    text = report(connection, "FROM messages")
    assert text.isascii()
    assert parse(text).fields[0].field == "ü🎉\u202e"


def test_a_report_of_a_later_release_is_read_as_far_as_it_is_known() -> None:
    """More members, more kinds and no times are no fault."""
    field = {"field": "a", "present": 3, "kinds": {"DECIMAL": 3}, "quantiles": [1]}
    text = json.dumps({"format": 9, "messages": 5, "looked_at": 4, "fields": [field], "more": {}})
    assert parse(text) == HourFields(5, 4, (FieldSeen("a", 3, {"DECIMAL": 3}),))


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "{}", "[" * 100_000, '{"messages": 1, "looked_at": 1, "fields": 7}', "NaN",
     '{"messages": "1", "looked_at": 1, "fields": []}', '{"messages": 1e400, "looked_at": 1, "fields": []}',
     '{"messages": 18446744073709551616, "looked_at": 1, "fields": []}',
     '{"messages": 1, "looked_at": 1, "fields": [{"field": "a"}]}'],
)  # fmt: skip
def test_what_is_no_report_is_one_kind_of_error(text: str) -> None:
    """Whoever reads footers can pass over it."""
    with pytest.raises(ValueError, match="no report of fields"):
        parse(text)


def test_a_name_that_no_text_can_hold_is_left_out() -> None:
    """Half a character, as another writer might have put there."""
    text = '{"messages": 1, "looked_at": 1, "fields": [{"field": "\\ud800", "present": 1, "kinds": {}}]}'
    assert parse(text) == HourFields(1, 1, ())


def test_reports_come_from_footers(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    """Several files at once, in a folder of any name; a file without a report has none."""
    folder = tmp_path / "[a]*?'b"
    folder.mkdir()
    frame = pl.DataFrame({"a": [1]})
    text = '{"messages": 2, "looked_at": 1, "fields": []}'
    frame.write_parquet(folder / "with.parquet", metadata={hour_fields.KEY: text})
    frame.write_parquet(folder / "without.parquet", metadata={"other": text})
    frame.write_parquet(folder / "wrong.parquet", metadata={hour_fields.KEY: "{}"})
    paths = [str(folder / name) for name in ("with.parquet", "without.parquet", "wrong.parquet")]
    assert read(connection, paths) == {paths[0]: HourFields(2, 1, ())}
    assert read(connection, []) == {}


def test_reports_of_several_files_add_up() -> None:
    """Messages, kinds and times; a field that one of them has not counts as absent there."""
    one = HourFields(10, 5, (FieldSeen("a", 5, {"BIGINT": 5}, 10, 20), FieldSeen("b", 1, {"NULL": 1})))
    other = HourFields(7, 7, (FieldSeen("b", 7, {"VARCHAR": 6, "NULL": 1}, 3, 30),))
    assert together([one, other]) == HourFields(
        17, 12, (FieldSeen("b", 8, {"VARCHAR": 6, "NULL": 2}, 3, 30), FieldSeen("a", 5, {"BIGINT": 5}, 10, 20))
    )
    assert together([one]) == one
    assert together([]) == HourFields(0, 0, ())


def test_a_field_that_appears_or_disappears_is_named_with_its_share() -> None:
    """The sentence has type, field, what happened, and how many messages it concerns."""
    old = hour(a={"BIGINT": 1000})
    new = hour(a={"BIGINT": 1000}, coupon={"VARCHAR": 125})
    assert sentences(old, new) == [
        "object.one: field 'coupon' appeared: 12.5 % of the messages have it, none had it in the hour before"
    ]
    assert sentences(new, old) == [
        "object.one: field 'coupon' disappeared: no message has it, 12.5 % had it in the hour before"
    ]


def test_a_field_that_changes_its_type_is_named_with_both() -> None:
    """Whole numbers that become fractions are a change, and so is a second kind beside the first."""
    whole, mixed = hour(price={"BIGINT": 1000}), hour(price={"DOUBLE": 500, "BIGINT": 400, "NULL": 100})
    assert sentences(whole, hour(price={"DOUBLE": 500})) == [
        "object.one: field 'price' changed type: BIGINT in the hour before (in 100 % of the messages), "
        "DOUBLE now (in 50 %)"
    ]
    (change,) = changes(whole, mixed)
    assert change == Change("", "price", "changed type", whole.fields[0], mixed.fields[0], 1.0, 1.0)
    assert "DOUBLE (55.6 %) and BIGINT (44.4 %) now" in change.sentence()


def test_null_alone_is_no_change_of_type() -> None:
    """Nor is a field that was null so far and now has a value, or the other way round."""
    values, both, nulls = hour(f={"BIGINT": 900}), hour(f={"BIGINT": 450, "NULL": 450}), hour(f={"NULL": 900})
    for one in (values, both, nulls):
        for other in (values, both, nulls):
            assert changes(one, other) == []


@pytest.mark.parametrize("present", [0, 1, 9])
def test_rare_fields_raise_no_alarm(present: int) -> None:
    """One that nine messages of an hour have may well be missing in another."""
    rare = hour(rare={"BIGINT": present}) if present else hour()
    assert changes(hour(), rare) == changes(rare, hour()) == []
    often = hour(f={"BIGINT": 1000 - present, "VARCHAR": present} if present else {"BIGINT": 1000})
    assert changes(hour(f={"BIGINT": 1000}), often) == []


def test_a_small_hour_is_no_witness() -> None:
    """Where few messages were looked at, none of them having a field says little."""
    many, few = hour(1000, f={"BIGINT": 100}), hour(99)
    assert changes(few, many) == changes(many, few) == []
    assert [change.what for change in changes(hour(100), many)] == ["appeared"]
    # The field was there, but so seldom that its other kind could not be expected.
    seldom = hour(1000, f={"BIGINT": 9})
    assert changes(seldom, hour(1000, f={"BIGINT": 100, "VARCHAR": 900})) == []


def test_an_incomplete_report_tells_of_no_absence() -> None:
    """A field that had to be left out may have been there."""
    full = hour(f={"BIGINT": 500})
    cut = HourFields(1000, 1000, (), complete=False)
    assert changes(cut, full) == changes(full, cut) == []
    assert [change.what for change in changes(HourFields(1000, 1000, ()), full)] == ["appeared"]


@given(hours())
def test_an_hour_does_not_differ_from_itself(one: HourFields) -> None:
    """Nor from itself twice."""
    assert changes(one, one) == changes(one, together([one, one])) == []


@given(hours(), hours())
def test_a_change_is_the_same_seen_from_either_side(one: HourFields, other: HourFields) -> None:
    """What appears forwards disappears backwards, each field at most once, and only where enough was to be expected."""
    opposite = {"appeared": "disappeared", "disappeared": "appeared", "changed type": "changed type"}
    there, back = changes(one, other), changes(other, one)
    assert {change.field: change.what for change in there} == {c.field: opposite[c.what] for c in back}
    for change in there:
        assert change.sentence()
        if change.what == "appeared":
            assert one.looked_at * change.share_after > hour_fields.ENOUGH - 1e-6
            assert change.before is None


@given(hours())
def test_a_report_is_read_back_as_it_was_written(one: HourFields) -> None:
    """Names of any text, and times of any year."""
    fields = [
        {"field": item.field, "present": item.present, "kinds": item.kinds, "first": item.first, "last": item.last}
        for item in one.fields
    ]
    text = json.dumps({"messages": one.messages, "looked_at": one.looked_at, "fields": fields})
    encodable = tuple(item for item in one.fields if item.field.encode(errors="replace").decode() == item.field)
    assert parse(text) == HourFields(one.messages, one.looked_at, encodable)
