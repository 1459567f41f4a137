"""The type of each message, found out column by column: DuckDB reads the JSON, Python judges only the doubtful rest."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from archiver_pipeline.envelope import MALFORMED, TOMBSTONE, UNTYPED, TypeRule, type_name

if TYPE_CHECKING:
    import duckdb
    import polars as pl

LENIENT = r",\s*[\]}]|[:\[,]\s*-?(?i:nan|inf)|^\s*-?(?i:nan|inf)|-0\s*(?:[,}\]]|$)"
"""What DuckDB's reader lets pass although RFC 8259 does not (a trailing comma, NaN, Infinity), or writes anew (-0)."""

_TRACES = [",]", ",}", ", ]", ", }", ",  ", ", \t", ", \n", ", \r", ",\t", ",\n", ",\r", "-0"]
_WORDS = ["nan", "inf"]
"""What every such text has somewhere. Both are found ten times faster, and seldom."""

SURROGATE = r"\\u[dD][89a-fA-F]"
"""A lone surrogate, which JSON's grammar lets pass and DuckDB's reader does not."""

_PLAIN_NUMBER = re.compile(r"-?[1-9]\d*|0")


_LARGE, _SLICE_BYTES = 2048, 4 * 1024**2
"""Where messages are larger, so many bytes are read at a time: JSON of nothing but brackets takes twenty times as much,
and DuckDB keeps it for a thousand rows."""


class _Number(str):
    """A JSON number as it was written."""


def type_of(text: str, rule: TypeRule) -> str:
    """Return the type of one JSON text by a path rule, read strictly (RFC 8259); of a key given twice the first counts.

    This is the rule in its plainest form; `classify` gives the same answer for whole columns.
    """
    try:
        node: Any = json.loads(
            text,
            parse_int=_Number,
            parse_float=_Number,
            parse_constant=_refuse,
            object_pairs_hook=lambda pairs: dict(reversed(pairs)),
        )
        for step in rule.steps:
            node = _child(node, step)
        if isinstance(node, bool):
            return str(node).lower()
        if not isinstance(node, str):
            return UNTYPED
        node.encode()
        return type_name(node)
    except ValueError:
        return MALFORMED


def _child(node: Any, step: str | int) -> Any:
    """Take one step of a JSON path; None where it leads nowhere."""
    if isinstance(step, str):
        return node.get(step) if isinstance(node, dict) else None
    return node[step] if isinstance(node, list) and step < len(node) else None


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")


def classify(frame: pl.DataFrame, rule: TypeRule, connection: duckdb.DuckDBPyConnection) -> pl.Series:
    """Return the type of each row, a String series named `type` without nulls.

    Args:
        frame: columns `value` (String, null where the payload is not UTF-8, or not of its schema), `value_bytes`
            (Binary, there, too, where `value` was decoded from it), `headers`.
        rule: where the type comes from.
        connection: an in-memory DuckDB connection of the calling thread.
    """
    import polars as pl

    if rule.kind == "path":
        found = _by_path(frame["value"], rule, connection)
    elif rule.kind == "constant":
        found = pl.Series([type_name(rule.name)], dtype=pl.String).new_from_index(0, frame.height)
    else:
        found = _by_header(frame["headers"], rule.name)
    tombstone = pl.col("value").is_null() & pl.col("value_bytes").is_null()
    undecoded = pl.col("value").is_null() & pl.col("value_bytes").is_not_null() & pl.lit(rule.kind == "path")
    return frame.select(
        pl.when(tombstone)
        .then(pl.lit(TOMBSTONE))
        .when(undecoded)
        .then(pl.lit(MALFORMED))
        .otherwise(found)
        .alias("type")
    ).to_series()


def _by_path(values: pl.Series, rule: TypeRule, connection: duckdb.DuckDBPyConnection) -> pl.Series:
    """The type of each JSON text; null stays null."""
    import polars as pl

    sizes = values.str.len_bytes().cast(pl.Int64).fill_null(0)
    if len(values) < 2 or sizes.sum() <= _SLICE_BYTES or not (sizes > _LARGE).any():
        return _read(values, rule, connection)
    slices = _runs(sizes.cum_sum() // _SLICE_BYTES)
    return pl.concat([_read(values.slice(*place), rule, connection) for place in slices])


def _read(values: pl.Series, rule: TypeRule, connection: duckdb.DuckDBPyConnection) -> pl.Series:
    """The type of each JSON text, all of them read at once; null stays null."""
    import polars as pl

    connection.register("texts", pl.DataFrame({"value": values}).to_arrow(compat_level=pl.CompatLevel.oldest()))
    path = rule.json_path.replace("'", "''")
    answer = connection.sql(
        f"SELECT token, CASE WHEN token IS NULL AND value IS NOT NULL THEN json_valid(value) END AS valid "
        f"FROM (SELECT value, try(json_extract(value, '{path}'))::VARCHAR AS token FROM texts)"
    ).to_arrow_table()
    rows = cast("pl.DataFrame", pl.from_arrow(answer))
    connection.unregister("texts")
    tokens = rows["token"]
    names = {token: _name_of(token) for token in tokens.unique().drop_nulls()}
    types = tokens.replace_strict(names, return_dtype=pl.String) if names else tokens
    valid = rows["valid"]
    if valid.null_count() < len(valid):
        types = (
            pl.DataFrame({"type": types, "valid": valid})
            .select(
                pl.when("valid").then(pl.lit(UNTYPED)).when(~pl.col("valid")).then(pl.lit(MALFORMED)).otherwise("type")
            )
            .to_series()
        )
    in_doubt = _is_lenient(values) | (tokens.is_not_null() & types.is_null())
    if (types == MALFORMED).any():
        in_doubt |= (types == MALFORMED) & values.str.contains(SURROGATE)
    if not in_doubt.any():
        return types
    rows_in_doubt = in_doubt.arg_true()
    judged = [_judge(text, rule, name) for text, name in zip(values[rows_in_doubt], types[rows_in_doubt], strict=True)]
    return types.scatter(rows_in_doubt, judged)


def _runs(numbers: pl.Series) -> Iterator[tuple[int, int]]:
    """Start and length of each run of the same number."""
    start = 0
    for length in numbers.rle().struct.field("len"):
        yield start, length
        start += length


def _is_lenient(values: pl.Series) -> pl.Series:
    """Whether each text may have what `LENIENT` finds; null stays null."""
    suspects = values.str.contains_any(_TRACES) | values.str.contains_any(_WORDS, ascii_case_insensitive=True)
    rows = suspects.arg_true()
    return suspects.scatter(rows, values[rows].str.contains(LENIENT)) if len(rows) else suspects


def _name_of(token: str) -> str | None:
    """Return the type for a JSON token as DuckDB writes it; None where the token is not as the message had it."""
    match token[0]:
        case '"':
            return type_name(json.loads(token))
        case "t" | "f":
            return token
        case "{" | "[" | "n":
            return UNTYPED
        case _:
            return type_name(token) if _PLAIN_NUMBER.fullmatch(token) else None


def _judge(text: str, rule: TypeRule, fallback: str | None) -> str:
    try:
        return type_of(text, rule)
    except RecursionError:
        return fallback or UNTYPED


def _by_header(headers: pl.Series, name: str) -> pl.Series:
    """The text of the last header of that name; a missing one, or one that is not UTF-8, gives no type."""
    import polars as pl

    def read(row: list[dict[str, Any]] | None) -> str:
        for header in reversed(row or []):
            if header["key"] == name:
                try:
                    return type_name((header["value"] or b"").decode())
                except UnicodeDecodeError:
                    return UNTYPED
        return UNTYPED

    return pl.Series("type", [read(row) for row in headers.to_list()], dtype=pl.String)
