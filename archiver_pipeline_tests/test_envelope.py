"""Rules of names: what a message's type is called, and in which folder it lies."""

from __future__ import annotations

import hashlib
import os
from datetime import date
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from archiver_pipeline.envelope import (
    FIRST_MS,
    HOUR_MS,
    LAST_MS,
    RESERVED,
    UNTYPED,
    TypeRule,
    content_hash,
    encode,
    file_name,
    folder,
    hour_name,
    parse_type_rule,
    partition_values,
    type_name,
)

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
long_texts = st.builds(lambda text, times: text * times, texts, st.integers(1, 40))


def encoded_bytes(text: str) -> int:
    """The length of a text's percent-encoding (RFC 3986, unreserved characters kept)."""
    return len(quote(text, safe="-._~"))


def test_a_type_is_the_text_itself() -> None:
    """A short text is its own type, whatever characters it has."""
    for text in (
        "object.one",
        "a/b",
        "..",
        "тип",
        "🎉",
        "a=b",
        "50%",
        'quo"te',
        "two\nlines",
        " ",
        "\0",
        "a_b",
        "x" * 200,
    ):
        assert type_name(text) == text


def test_an_empty_text_is_no_type() -> None:
    """An empty text gives `_untyped`."""
    assert type_name("") == UNTYPED


def test_a_leading_underscore_is_doubled() -> None:
    """A text that begins with `_` gets one more, so that it can be none of the archive's own types."""
    assert type_name("_malformed") == "__malformed"
    assert type_name("__x") == "___x"
    assert type_name("_") == "__"
    assert type_name("__HIVE_DEFAULT_PARTITION__") == "___HIVE_DEFAULT_PARTITION__"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("x" * 201, "x" * 180),
        ("é" * 34, "é" * 30),  # six bytes each: 204 in all
        ("🎉" * 17, "🎉" * 15),  # twelve bytes each: 204 in all
        ("x" * 179 + "é" * 10, "x" * 179),  # a character is kept whole or not at all
        ("_" + "x" * 200, "__" + "x" * 178),
        (" " * 67, " " * 60),
    ],
)
def test_a_long_type_is_cut_and_hashed(text: str, kept: str) -> None:
    """Over 200 encoded bytes, whole characters of at most 180 are kept, then `~` and 16 hex digits of the whole."""
    whole = "_" + text if text.startswith("_") else text
    assert type_name(text) == kept + "~" + hashlib.sha256(whole.encode()).hexdigest()[:16]


def test_two_hundred_bytes_are_not_cut() -> None:
    """The bound is the encoded length, and belongs to what is kept."""
    for text in ("x" * 200, "é" * 33 + "xx", "🎉" * 16 + "x" * 8, "_" + "x" * 198):
        assert encoded_bytes(text) >= 199
        assert "~" not in type_name(text)


@given(texts | long_texts)
def test_every_type_fits_into_a_folder_name(text: str) -> None:
    """A type is never empty, reserved only as `_untyped` for no text at all, and its folder has at most 255 bytes."""
    name = type_name(text)
    assert name
    assert name not in RESERVED or text == ""
    assert encoded_bytes(name) <= 200
    assert len(f"type={encode(name)}".encode()) <= 255
    assert not name.startswith("_") or text == "" or name.startswith("__")


@given(texts | long_texts, texts | long_texts)
def test_two_texts_are_two_types(one: str, other: str) -> None:
    """Different texts give different types, cut or not."""
    assume(one != other)
    assert type_name(one) != type_name(other)
    assert type_name("x" * 200 + one) != type_name("x" * 200 + other)


@given(texts, texts, texts)
def test_a_path_gives_back_its_values(type_text: str, dt: str, hr: str) -> None:
    """What `folder` writes, `partition_values` reads, and no value can leave its folder."""
    values = {"type": type_text, "dt": dt, "hr": hr}
    path = folder(values)
    assert partition_values(f"{path}/file.parquet") == values
    assert [part.partition("=")[0] for part in path.split("/")] == ["type", "dt", "hr"]


def test_a_folder_is_as_the_contract_has_it() -> None:
    """The path is Hive's, percent-encoded."""
    assert folder({"type": "object.one", "dt": "2019-08-01", "hr": "03"}) == "type=object.one/dt=2019-08-01/hr=03"
    assert folder({"type": "a/b c", "dt": "_unknown", "hr": "_unknown"}) == "type=a%2Fb%20c/dt=_unknown/hr=_unknown"


def test_the_disk_takes_the_longest_type(tmp_path: Path) -> None:
    """The longest types can be made as folders, `.` and `..` too."""
    for text in ("x" * 1000, "é" * 1000, "🎉" * 1000, " " * 1000, ".", "..", "\0" * 1000):
        os.makedirs(tmp_path / folder({"type": type_name(text), "dt": "2019-08-01", "hr": "03"}))
    assert len(list(tmp_path.iterdir())) == 7


@pytest.mark.parametrize(
    ("hour", "expected"),
    [
        (0, ("1970-01-01", "00")),
        (-1, ("1969-12-31", "23")),
        (434_619, ("2019-08-01", "03")),
        (FIRST_MS // HOUR_MS, ("0001-01-01", "00")),
        (LAST_MS // HOUR_MS, ("9999-12-31", "23")),
        (None, ("_unknown", "_unknown")),
    ],
)
def test_an_hour_has_a_date_and_a_number(hour: int | None, expected: tuple[str, str]) -> None:
    """Date and hour are UTC, padded with zeros from year 1 to year 9999; no time is `_unknown`."""
    assert hour_name(hour) == expected


@given(st.integers(FIRST_MS, LAST_MS))
def test_an_hour_is_that_of_its_time(milliseconds: int) -> None:
    """The hour of a time is the one that a calendar gives, before 1970 too."""
    days, rest = divmod(milliseconds, 86_400_000)
    day = date.fromordinal(date(1970, 1, 1).toordinal() + days).isoformat()
    assert hour_name(milliseconds // HOUR_MS) == (day, f"{rest // HOUR_MS:02}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$", TypeRule("path")),
        ("$.type", TypeRule("path", steps=("type",))),
        ("$.meta.kind", TypeRule("path", steps=("meta", "kind"))),
        ("$.a-b.c_d.9", TypeRule("path", steps=("a-b", "c_d", "9"))),
        ("$['event type']", TypeRule("path", steps=("event type",))),
        ('$["it\'s"].x', TypeRule("path", steps=("it's", "x"))),
        ('$."a.b"[0][12]', TypeRule("path", steps=("a.b", 0, 12))),
        ("$['тип']", TypeRule("path", steps=("тип",))),
        ("header:event-type", TypeRule("header", "event-type")),
        ("header: a:b", TypeRule("header", " a:b")),
        ("constant:click", TypeRule("constant", "click")),
        ("constant:$.type", TypeRule("constant", "$.type")),
    ],
)
def test_a_type_rule_is_read(text: str, expected: TypeRule) -> None:
    """JSON paths of names and indexes, headers and constants are rules."""
    assert parse_type_rule(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "type",
            ".type",
            "$type",
            "$.",
            "$..a",
            "$.a.",
            "$.*",
            "$[*]",
            "$['*']",
            '$."*"',
            "$[]",
            "$['']",
            "$[-1]",
        ),
        *("$[1:2]", "$.a b", "$['a", "$['a']x", "$[99999999999]", "$[?(@.a)]", "$['a\\'b']", "$[٣]"),
        *("header:", "constant:", "header", "constant", "Header:x", " $.type"),
    ],
)
def test_what_is_no_type_rule_is_refused(text: str) -> None:
    """Wildcards, slices, filters and half a rule are refused with what is allowed instead."""
    with pytest.raises(ValueError, match=r"a JSON path such as \$\.type.*header:NAME, or constant:NAME"):
        parse_type_rule(text)


def test_every_path_has_one_form() -> None:
    """However a path is written, readers get it quoted."""
    assert parse_type_rule("$.a['b c'][0]").json_path == '$."a"."b c"[0]'
    assert parse_type_rule("$").json_path == "$"


def test_a_file_is_named_after_its_content() -> None:
    """A file's name tells its attempt and the first 16 hex digits of its content's SHA-256."""
    name = file_name("lane0-0123456789ab", 7, hashlib.sha256(b"abc").hexdigest())
    assert name == "lane0-0123456789ab-00007-ba7816bf8f01cfea.parquet"
    assert content_hash(f"type=x/{name}") == "ba7816bf8f01cfea"
    assert content_hash("part-00000-foreign.snappy.parquet") is None
