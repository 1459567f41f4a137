"""Payloads as lines, one a line: the original, or its JSON where it was decoded; and what of them no line can hold."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

TOMBSTONE, NOT_UTF8, NOT_ONE_LINE = "without a payload (tombstones)", "not UTF-8", "with line breaks but no JSON"
"""Why a message has no payload that can be a line."""

_LINE_BREAK = re.compile(r"[\r\n]+")


def lines(frame: pl.DataFrame) -> tuple[pl.DataFrame, Counter[str]]:
    """Return the payloads that can be lines, in order, and how many others there are and why.

    JSON with line breaks is put on one line: in JSON they can only be white space between tokens. Line breaks are
    carriage return and line feed.

    Args:
        frame: messages, the archive's columns.

    Returns:
        A frame of one column, `value`, String without nulls; and a count for each reason.
    """
    import polars as pl

    refused: Counter[str] = Counter()
    missing = frame["value"].is_null()
    if missing.any():
        binary = int((missing & frame["value_bytes"].is_not_null()).sum())
        refused.update({NOT_UTF8: binary, TOMBSTONE: int(missing.sum()) - binary})
    value = frame["value"].drop_nulls()
    broken = value.str.contains_any(["\n", "\r"]).arg_true()
    if len(broken):
        joined = pl.Series([_on_one_line(text) for text in value[broken]], dtype=pl.String)
        refused[NOT_ONE_LINE] = joined.null_count()
        value = value.scatter(broken, joined).drop_nulls()
    return value.to_frame("value"), +refused


def _on_one_line(text: str) -> str | None:
    """JSON (RFC 8259) without its line breaks; None for what is no JSON."""
    try:
        # Numbers stay text: one of ten thousand digits would be refused.
        json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return _LINE_BREAK.sub("", text)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")
