"""Messages as INSERT statements: written column by column, and large, so that a row costs microseconds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from archiver_pipeline.envelope import UNKNOWN_TIME
from archiver_pipeline.errors import FollowerError
from archiver_pipeline.followers.mysql_schema import TABLE
from archiver_pipeline.hours import MiB
from archiver_pipeline.stored.runs import PLACE

if TYPE_CHECKING:
    import polars as pl

_STATEMENT_BYTES = MiB
"""About so large a statement gets if it has more than one row: larger ones take the server longer per row."""

_SORTED_BYTES = 48 * MiB
_PART_BYTES = 6 * MiB
"""About so many bytes of messages are put into words at a time, which takes several times that."""

_ROOM_BYTES = 4096
"""What a statement has besides its rows, at most: its beginning, its end, and columns of one value."""

_COLUMNS = (
    *("topic", "topic_id", "partition", "offset", "timestamp", "timestamp_type"),
    *("key", "value_bytes", "headers", "type", "payload"),
)
_BINARY = ("key", "value_bytes")
_LONGEST_REPEATED = 512


@dataclass(frozen=True)
class Dialect:
    """How a server differs from others.

    Attributes:
        mariadb: it is MariaDB, whose JSON is the text as it came; MySQL sorts keys, rounds numbers and drops doubled
            keys, so there the text is kept, too, wherever it is another.
        max_packet: the largest statement that it takes, in bytes.
    """

    mariadb: bool
    max_packet: int

    @property
    def row(self) -> str:
        """What stands before a row of VALUES."""
        return "" if self.mariadb else "ROW"

    @property
    def value(self) -> str:
        """The payload as JSON, where the server takes it for JSON."""
        return "IF(JSON_VALID(payload), payload, NULL)"

    @property
    def value_text(self) -> str:
        """The payload as it came, where `value` is not it."""
        if self.mariadb:
            return "IF(JSON_VALID(payload), NULL, payload)"
        as_stored = "CAST(CAST(payload AS JSON) AS CHAR CHARACTER SET utf8mb4)"
        same = f"CAST({as_stored} AS BINARY) = CAST(payload AS BINARY)"
        return f"CASE WHEN NOT JSON_VALID(payload) THEN payload WHEN {same} THEN NULL ELSE payload END"


def statements(frames: Iterator[pl.DataFrame], dialect: Dialect) -> Iterator[str]:
    """Yield the statements that insert messages.

    Raises:
        FollowerError: a message is larger than what the server takes.
    """
    for part in _in_order(frames):
        yield from _statements(part, dialect)


def _in_order(frames: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Put messages into the order of the primary key, as many as memory allows: then pages are filled one by one."""
    held: list[pl.DataFrame] = []
    size = 0
    for frame in frames:
        held.append(frame)
        size += int(frame.estimated_size())
        if size >= _SORTED_BYTES:
            yield from _parts(held, size)
            held, size = [], 0
    yield from _parts(held, size)


def _parts(frames: list[pl.DataFrame], size: int) -> Iterator[pl.DataFrame]:
    """Put frames, of so many bytes together, into order and cut them."""
    import polars as pl

    if count := sum(frame.height for frame in frames):
        yield from pl.concat(frames).sort(*PLACE, "offset").iter_slices(1 + count * _PART_BYTES // max(size, 1))


def _statements(part: pl.DataFrame, dialect: Dialect) -> Iterator[str]:
    import polars as pl

    rows = _literals(part)
    size = pl.sum_horizontal(pl.col(name).str.len_bytes().cast(pl.Int64) + 1 for name in _COLUMNS)
    rows = rows.with_columns(size=size + len("ROW(),"))
    largest = dialect.max_packet - _ROOM_BYTES
    for row in rows.filter(pl.col("size") > largest).head(1).iter_rows(named=True):
        raise FollowerError(
            f"a message takes a statement of {row['size'] + _ROOM_BYTES:,} B in MySQL, and the server's"
            f" max_allowed_packet is {dialect.max_packet:,}",
            topic=row["topic"].strip("'"),
            partition=int(row["partition"]),
            start=int(row["offset"]),
            end=int(row["offset"]) + 1,
            hint="Make max_allowed_packet larger, up to 1 GiB; then the next run goes on with this message",
        )
    start = filled = 0
    most = min(_STATEMENT_BYTES, largest)
    for number, row_size in enumerate(rows["size"]):
        if filled and filled + row_size > most:
            yield _statement(rows[start:number], dialect)
            start, filled = number, 0
        filled += row_size
    yield _statement(rows[start:], dialect)


def _statement(rows: pl.DataFrame, dialect: Dialect) -> str:
    """One INSERT. A column of one value stands in it once: a literal for each row is most of what a row costs."""
    import polars as pl

    once = {name: rows[name][0] for name in _COLUMNS if _is_repeated(rows[name])}
    each = [name for name in _COLUMNS if name not in once]
    start, end = pl.lit(f"{dialect.row}("), pl.lit(")")
    values = ",".join(rows.select(pl.concat_str(start, pl.concat_str(*each, separator=","), end)).to_series())
    names = [name for name in _COLUMNS if name != "payload"]
    chosen = ", ".join(_chosen(name, f"`{name}`" if name in each else once[name]) for name in names)
    payload = f"{dialect.value}, {dialect.value_text}" if "payload" in each else "NULL, NULL"
    return (
        f"INSERT INTO {TABLE} ({', '.join(map(_quoted, names))}, `value`, value_text)"
        f" WITH given ({', '.join(map(_quoted, each))}) AS (VALUES {values}) SELECT {chosen}, {payload} FROM given"
    )


def _is_repeated(column: pl.Series) -> bool:
    """Whether all rows have one short value. Offsets always stand in the rows, so that these have something."""
    first = column[0]
    if column.name == "offset" or len(first) > _LONGEST_REPEATED or (column.name == "payload" and first != "NULL"):
        return False
    return bool((column == first).all())


def _quoted(name: str) -> str:
    return f"`{name}`"


def _chosen(name: str, source: str) -> str:
    # Of x'...' among the VALUES, MariaDB 10.11 keeps the length modulo 64 KiB, and says nothing.
    return f"UNHEX({source})" if name in _BINARY else source


def _literals(frame: pl.DataFrame) -> pl.DataFrame:
    """Every value as SQL has it."""
    import polars as pl

    known = pl.when(pl.col("dt") != UNKNOWN_TIME).then(pl.col("timestamp"))
    return frame.with_columns(headers=_headers(frame["headers"])).select(
        _text("topic"),
        _text("topic_id"),
        pl.col("partition").cast(pl.String),
        pl.col("offset").cast(pl.String),
        _or_null(pl.concat_str(pl.lit("'"), known.dt.strftime("%Y-%m-%d %H:%M:%S%.6f"), pl.lit("'"))).alias(
            "timestamp"
        ),
        _text("timestamp_type"),
        _bytes("key"),
        _bytes("value_bytes"),
        _text("headers"),
        _text("type"),
        _text("value").alias("payload"),
    )


def _text(name: str) -> pl.Expr:
    import polars as pl

    escaped = pl.col(name).str.replace_all("\\", "\\\\", literal=True).str.replace_all("'", "\\'", literal=True)
    return _or_null(pl.concat_str(pl.lit("'"), escaped, pl.lit("'"))).alias(name)


def _bytes(name: str) -> pl.Expr:
    import polars as pl

    return _or_null(pl.concat_str(pl.lit("'"), pl.col(name).bin.encode("hex"), pl.lit("'"))).alias(name)


def _or_null(literal: pl.Expr) -> pl.Expr:
    import polars as pl

    return literal.fill_null(pl.lit("NULL"))


def _headers(headers: pl.Series) -> pl.Series:
    """Headers as JSON: a list of objects with `key`, and `value` in base64 or null; null where there are none."""
    import polars as pl

    if headers.null_count() == len(headers):
        return pl.Series("headers", [None], dtype=pl.String).new_from_index(0, len(headers))
    key, value = pl.element().struct.field("key"), pl.element().struct.field("value").bin.encode("base64")
    wrapped = pl.struct(h=pl.col("headers").list.eval(pl.struct(key.alias("key"), value.alias("value"))))
    listed = wrapped.struct.json_encode().str.slice(len('{"h":')).str.head(-1)
    return headers.to_frame("headers").select(headers=pl.when(pl.col("headers").is_not_null()).then(listed))["headers"]
