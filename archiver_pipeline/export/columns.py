"""Archived messages as the columns of an export: text for JSON and CSV, and types of their own for ORC and Parquet.

Where a column cannot say what a message has, the next one does: `key` or `key_bytes`, `value` or `value_bytes`,
`timestamp` or `timestamp_us`. So every byte can be restored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from archiver_pipeline import envelope
from archiver_pipeline.frames import decoded
from archiver_pipeline.stored.files import COLUMNS
from archiver_pipeline.stored.parquet import frame_schema

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa

TEXT_COLUMNS = (
    *("topic", "topic_id", "partition", "offset", "timestamp", "timestamp_us", "timestamp_type", "type"),
    *("key", "key_bytes", "value", "value_bytes", "headers"),
)
"""The columns of JSON lines and CSV; in a folder, `type` is in the path."""

_ORC_LAST_US = (2**63 - 1) // 1000
"""Readers of ORC hold a time in nanoseconds since 1970: until the year 2262. Before 1970 they do not all agree."""


def text_frame(frame: pl.DataFrame, *, hive: bool) -> pl.DataFrame:
    """Turn messages (the archive's columns and `type`) into `TEXT_COLUMNS`.

    Text is String, bytes are base64, `partition`, `offset` and `timestamp_us` are integers, and headers are a List of
    Struct (key, value, value_bytes), null where there are none.

    Args:
        frame: the messages.
        hive: leave out `type`, which is in the path.
    """
    import polars as pl

    key, key_bytes = decoded(frame["key"])
    stamp = pl.col("timestamp")
    us = stamp.cast(pl.Int64)
    dated = us.is_between(envelope.FIRST_MS * 1000, envelope.LAST_MS * 1000 + 999)
    # What no calendar holds would stop the formatting of all others.
    within = pl.when(dated).then(stamp)
    whole = us % 1000 == 0
    iso = within.dt.strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
    if not frame.select(whole.all()).item():
        iso = pl.when(whole).then(iso).otherwise(within.dt.strftime("%Y-%m-%dT%H:%M:%S%.6fZ"))
    return frame.with_columns(
        timestamp=iso,
        timestamp_us=pl.when(~dated).then(us),
        key=key,
        key_bytes=key_bytes.bin.encode("base64"),
        value_bytes=pl.col("value_bytes").bin.encode("base64"),
        headers=_headers(frame["headers"]),
    ).select(name for name in TEXT_COLUMNS if not hive or name != "type")


def _headers(headers: pl.Series) -> pl.Series:
    """Give each header its value as text, or as base64 where it is not UTF-8."""
    import polars as pl

    rows = pl.DataFrame({"headers": headers}).with_row_index("row").filter(pl.col("headers").list.len() > 0)
    each = rows.explode("headers").unnest("headers")
    text, rest = decoded(each["value"])
    shaped = each.select("row", headers=pl.struct("key", value=text, value_bytes=rest.bin.encode("base64")))
    if rows.is_empty():
        return pl.Series([None], dtype=pl.List(shaped.schema["headers"])).new_from_index(0, len(headers))
    lists = shaped.group_by("row", maintain_order=True).agg("headers")
    every = pl.DataFrame({"row": pl.int_range(len(headers), dtype=pl.get_index_type(), eager=True)})
    return every.join(lists, on="row", how="left", maintain_order="left")["headers"]


def csv_frame(frame: pl.DataFrame, *, hive: bool) -> pl.DataFrame:
    """The same as `text_frame`, but with headers as JSON text."""
    import polars as pl

    inside = pl.struct("headers").struct.json_encode().str.slice(len('{"headers":')).str.head(-1)
    return text_frame(frame, hive=hive).with_columns(headers=pl.when(pl.col("headers").is_not_null()).then(inside))


def parquet_table(frame: pl.DataFrame, *, hive: bool) -> pa.Table:
    """Turn messages into the archive's columns, and `type`, `dt` and `hr` unless they are in the path."""
    import polars as pl

    hour = _hour()
    full = frame.with_columns(dt=hour.struct.field("dt"), hr=hour.struct.field("hr"))
    return full.select(_typed(hive)).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(parquet_schema(hive=hive))


def orc_table(frame: pl.DataFrame, *, hive: bool) -> pa.Table:
    """The same as `parquet_table`, but what readers of ORC cannot hold as a time is in `timestamp_us`."""
    import polars as pl

    us = pl.col("timestamp").cast(pl.Int64)
    held = us.is_between(0, _ORC_LAST_US)
    hour = _hour()
    full = frame.with_columns(
        dt=hour.struct.field("dt"),
        hr=hour.struct.field("hr"),
        timestamp=pl.when(held).then("timestamp"),
        timestamp_us=pl.when(~held).then(us),
    )
    schema = orc_schema(hive=hive)
    return full.select(schema.names).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(schema)


def parquet_schema(*, hive: bool) -> pa.Schema:
    """The columns of a Parquet file as Arrow types them."""
    import pyarrow as pa

    text, binary = pa.string(), pa.binary()
    kinds = {
        **dict.fromkeys(_typed(hive), text),
        "partition": pa.int32(),
        "offset": pa.int64(),
        "timestamp": pa.timestamp("us", "UTC"),
        "key": binary,
        "value_bytes": binary,
        "headers": pa.list_(pa.struct([("key", text), ("value", binary)])),
    }
    return pa.schema(list(kinds.items()))


def orc_schema(*, hive: bool) -> pa.Schema:
    """The columns of an ORC file as Arrow types them."""
    import pyarrow as pa

    schema = parquet_schema(hive=hive)
    return schema.insert(schema.get_field_index("timestamp") + 1, pa.field("timestamp_us", pa.int64()))


def empty() -> pl.DataFrame:
    """No messages: the archive's columns and `type`."""
    import polars as pl

    return pl.DataFrame(schema={**frame_schema(), "type": pl.String()})


def _typed(hive: bool) -> list[str]:
    return list(COLUMNS) if hive else [*COLUMNS, *envelope.PARTITION_COLUMNS]


def _hour() -> pl.Expr:
    """`dt` and `hr` of each message, as the archive has them."""
    import polars as pl

    stamp = pl.col("timestamp")
    dated = stamp.cast(pl.Int64).is_between(envelope.FIRST_MS * 1000, envelope.LAST_MS * 1000 + 999)
    within = pl.when(dated).then(stamp)
    return pl.struct(
        dt=within.dt.strftime("%Y-%m-%d").fill_null(envelope.UNKNOWN_TIME),
        hr=within.dt.strftime("%H").fill_null(envelope.UNKNOWN_TIME),
    )
