"""Messages as nobody should send them, and what becomes of each in the archive."""

from __future__ import annotations

import hashlib
import json

HOUR_MS = 3_600_000

LONG = "x" * 300
LONG_EMOJI = "🎉" * 80

PAYLOADS: dict[str, tuple[bytes | None, str]] = {
    "a string": (b'{"type": "object.one"}', "object.one"),
    "a whole number": (b'{"type": 17}', "17"),
    "a fraction": (b'{"type": 1.50}', "1.50"),
    "a power of ten": (b'{"type": 1E3}', "1E3"),
    "more digits than a number has": (b'{"type": 12345678901234567890123}', "12345678901234567890123"),
    "a number too long for a folder": (b'{"type": ' + b"9" * 300 + b"}", "9" * 180 + "~" + "<hash>"),
    "zero below zero": (b'{"type": -0}', "-0"),
    "true": (b'{"type": true}', "true"),
    "false": (b'{"type": false}', "false"),
    "spaces around": (b' \r\n\t{ "type" : "object.one" } \n', "object.one"),
    "the path in a nested object": (b'{"data": {"type": "deep"}}', "_untyped"),
    "a type given twice": (b'{"type": "one", "type": "two"}', "one"),
    "escapes": (rb'{"type": "\u00e9\n\ud83c\udf89\u0000"}', "é\n🎉\0"),
    "an underscore in front": (b'{"type": "_private"}', "__private"),
    "a reserved name": (b'{"type": "_malformed"}', "__malformed"),
    "the name for null": (b'{"type": "__HIVE_DEFAULT_PARTITION__"}', "___HIVE_DEFAULT_PARTITION__"),
    "200 bytes": (json.dumps({"type": "y" * 200}).encode(), "y" * 200),
    "201 bytes": (json.dumps({"type": "y" * 201}).encode(), "y" * 180 + "~" + "<hash>"),
    "300 characters": (json.dumps({"type": LONG}).encode(), "x" * 180 + "~" + "<hash>"),
    "80 emoji": (json.dumps({"type": LONG_EMOJI}, ensure_ascii=False).encode(), "🎉" * 15 + "~" + "<hash>"),
    "no type": (b'{"uid": "u1"}', "_untyped"),
    "null": (b'{"type": null}', "_untyped"),
    "an object": (b'{"type": {"name": "object.one"}}', "_untyped"),
    "an array": (b'{"type": ["object.one"]}', "_untyped"),
    "an empty string": (b'{"type": ""}', "_untyped"),
    "JSON that is no object": (b'["type", "object.one"]', "_untyped"),
    "JSON text": (b'"object.one"', "_untyped"),
    "JSON null": (b"null", "_untyped"),
    "no JSON": (b"type=object.one", "_malformed"),
    "an empty payload": (b"", "_malformed"),
    "a space": (b" ", "_malformed"),
    "cut short": (b'{"type": "object.one", "uid": "u', "_malformed"),
    "two documents": (b'{"type": "one"}{"type": "two"}', "_malformed"),
    "a trailing comma": (b'{"type": "one",}', "_malformed"),
    "NaN": (b'{"type": "one", "price": NaN}', "_malformed"),
    "a byte order mark": (b'\xef\xbb\xbf{"type": "one"}', "_malformed"),
    "not UTF-8": (b'{"type": "object.one", "name": "\xff"}', "_malformed"),
    "an overlong form": (b'{"type": "\xc0\xaf"}', "_malformed"),
    "half of a pair": (rb'{"type": "\ud83c"}', "_malformed"),
    "UTF-16": ('{"type": "one"}'.encode("utf-16"), "_malformed"),
    "all bytes": (bytes(range(256)), "_malformed"),
    "zeros": (b"\0" * 100, "_malformed"),
    "very deep": (b'{"type": "deep", "a": ' + b"[" * 500 + b"]" * 500 + b"}", "deep"),
    "a tombstone": (None, "_tombstone"),
}
"""Payload and the type that it gets; `<hash>` stands for the start of the SHA-256 of the whole."""

UGLY_TYPES = (
    *("a/b", "a//b", "/", "..", ".", "../../escape", "/etc/escape", "~", "%", "%2F", "50%", "a=b", "type=a"),
    *("'", '"', "`", "a'b\"c", "; DROP VIEW messages; --", "\\", "C:\\x", "two\nlines", "\r", "\t", "\0", "\x7f"),
    *(" ", " a", "a ", "*", "?", "[a]", "{a,b}", "**", "$HOME", "#", "&", "|", ":", "CON", "nul.txt"),
    *("тип", "日本", "🎉", "👩‍👩‍👧", "é", "e\u0301", "\u202egnp", "\ufeff", "\u2028"),
    *("Object.One", "object.one", "OBJECT.ONE", "object_one", "object-one"),
    *("select", "messages", "offsets", "hours", "main", "1", "1.0", "true", "null", "NULL", "2019-08-01", "z" * 199),
)
"""Types that trip folders, file systems, readers or SQL which take them as they are."""

TIMES: dict[int, tuple[str, str]] = {
    0: ("1970-01-01", "00"),
    1: ("1970-01-01", "00"),
    HOUR_MS: ("1970-01-01", "01"),
    -2: ("1969-12-31", "23"),
    -HOUR_MS: ("1969-12-31", "23"),
    -HOUR_MS - 1: ("1969-12-31", "22"),
    -62_135_596_800_000: ("0001-01-01", "00"),
    951_782_400_000: ("2000-02-29", "00"),
    1_564_628_399_999: ("2019-08-01", "02"),
    253_402_300_799_999: ("9999-12-31", "23"),
    # From here on no calendar holds the time, or Kafka does not know it.
    -1: ("_unknown", "_unknown"),
    -62_135_596_800_001: ("_unknown", "_unknown"),
    253_402_300_800_000: ("_unknown", "_unknown"),
    9_223_372_036_854_775: ("_unknown", "_unknown"),
    9_223_372_036_854_776: ("_unknown", "_unknown"),
    2**63 - 1: ("_unknown", "_unknown"),
    -(2**63): ("_unknown", "_unknown"),
}
"""Timestamp in milliseconds, and the date and hour under which it lies; the last but one is in the year 292278994."""


def expected_type(text: str, payload: bytes | None) -> str:
    """Fill in the hash of a type that is too long."""
    if "<hash>" not in text:
        return text
    whole = str(json.loads(payload or b"")["type"])
    return text.replace("<hash>", hashlib.sha256(whole.encode()).hexdigest()[:16])
