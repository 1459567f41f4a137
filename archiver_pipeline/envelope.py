"""The shape of an archived message: its columns, the name of its type, and where in the archive it lies."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal
from urllib.parse import quote, unquote

MALFORMED, UNTYPED, TOMBSTONE, OTHER, ERASED = "_malformed", "_untyped", "_tombstone", "_other", "_erased"
RESERVED = frozenset({MALFORMED, UNTYPED, TOMBSTONE, OTHER, ERASED})
"""Types that the archive gives; a payload's own type never begins with a single underscore."""

UNKNOWN_TIME = "_unknown"
PARTITION_COLUMNS = ("type", "dt", "hr")
STAGING = "_staging"
"""Folder of the archive for files that are being written; readers skip names that begin with `_`."""

SEAL = "seal"
"""How the names of files begin that hold a closed hour of a type, sorted."""

HOUR_MS = 3_600_000
FIRST_MS = int(datetime(1, 1, 1, tzinfo=UTC).timestamp()) * 1000
LAST_MS = int(datetime(9999, 12, 31, 23, tzinfo=UTC).timestamp()) * 1000 + HOUR_MS - 1
"""The first and the last millisecond that has a calendar date, year 1 to year 9999."""

MAX_TIMESTAMP_MS = (2**63 - 1) // 1000
"""The largest time in milliseconds that a 64-bit count of microseconds holds."""

TYPE_RULES = "a JSON path such as $.type, $.meta.kind or $['event type'], or header:NAME, or constant:NAME"
"""What `parse_type_rule` takes, in words."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_ENCODED, _KEPT_ENCODED = 200, 180
_STEP = re.compile(r"""\.([A-Za-z0-9_-]+)|\."([^"\\]+)"|\['([^'"\\]+)'\]|\["([^"\\]+)"\]|\[([0-9]{1,9})\]""")


@dataclass(frozen=True)
class TypeRule:
    """Where the type of a message comes from.

    Attributes:
        kind: `path` for a JSON path, `header` for the last header of that name, `constant` for one type for all.
        name: the header's name or the constant.
        steps: the JSON path as object keys and array indexes.
    """

    kind: Literal["path", "header", "constant"]
    name: str = ""
    steps: tuple[str | int, ...] = ()

    @property
    def json_path(self) -> str:
        """The path in the one form that every reader takes: `$."a"."b"[0]`."""
        return "$" + "".join(f"[{step}]" if isinstance(step, int) else f'."{step}"' for step in self.steps)


def parse_type_rule(text: str) -> TypeRule:
    """Read `$.a.b[0]`, `$['a b']`, `header:NAME` or `constant:NAME`. Raises ValueError(TYPE_RULES)."""
    kind, _, name = text.partition(":")
    if kind == "header" and name:
        return TypeRule("header", name)
    if kind == "constant" and name:
        return TypeRule("constant", name)
    if text.startswith("$"):
        steps: list[str | int] = []
        position = 1
        while position < len(text):
            match = _STEP.match(text, position)
            key = next((group for group in match.groups()[:4] if group is not None), None) if match else None
            if match is None or key == "*":  # which readers take for a wildcard, quoted or not
                break
            steps.append(int(match.group(5)) if key is None else key)
            position = match.end()
        else:
            return TypeRule("path", steps=tuple(steps))
    raise ValueError(TYPE_RULES)


def type_name(text: str) -> str:
    """Return the type that a payload's text gives: never empty, never reserved, and short enough for a folder name.

    A text whose percent-encoded UTF-8 passes 200 bytes is cut to whole characters of at most 180 such bytes, then `~`
    and the first 16 hex digits of the SHA-256 of the whole.
    """
    if not text:
        return UNTYPED
    if text.startswith("_"):
        text = "_" + text
    if (len(text) * 3 <= _MAX_ENCODED and text.isascii()) or len(encode(text)) <= _MAX_ENCODED:
        return text
    kept, size = 0, 0
    for character in text:
        size += len(encode(character))
        if size > _KEPT_ENCODED:
            break
        kept += 1
    return text[:kept] + "~" + hashlib.sha256(text.encode()).hexdigest()[:16]


def encode(text: str) -> str:
    """Percent-encode a partition value for its folder name; RFC 3986's unreserved characters stay."""
    return quote(text, safe="-._~")


def hour_name(hour: int | None) -> tuple[str, str]:
    """Return `dt` and `hr` of an hour given as hours since 1970-01-01 UTC; None is a time that no calendar holds."""
    if hour is None:
        return UNKNOWN_TIME, UNKNOWN_TIME
    moment = _EPOCH + timedelta(hours=hour)
    return f"{moment.year:04}-{moment.month:02}-{moment.day:02}", f"{moment.hour:02}"


def folder(values: Mapping[str, str]) -> str:
    """Return the Hive path of partition values: `type=object.one/dt=2019-08-01/hr=03`."""
    return "/".join(f"{column}={encode(values[column])}" for column in PARTITION_COLUMNS)


def partition_values(path: str) -> dict[str, str]:
    """Read the partition values back from a Hive path; the opposite of `folder`."""
    pairs = (part.partition("=") for part in path.split("/")[:-1])
    return {column: unquote(value) for column, _, value in pairs if column in PARTITION_COLUMNS}


def is_sealed(path: str) -> bool:
    """Tell whether a file was written by the sealing of its hour: the name of its attempt says so."""
    return path.rpartition("/")[2].startswith(SEAL + "-")


def file_name(attempt: str, number: int, digest: str) -> str:
    """Name a file: unique to the attempt, and ending in the first 16 hex digits of its content's SHA-256."""
    return f"{attempt}-{number:05}-{digest[:16]}.parquet"


def content_hash(name: str) -> str | None:
    """Return the 16 hex digits that a file's name claims of its content, or None for a file that is not ours."""
    match = re.search(r"-([0-9a-f]{16})\.parquet$", name)
    return match.group(1) if match else None
