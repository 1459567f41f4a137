"""Frames: messages as Kafka has them, and as the archive has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from archiver_pipeline import envelope
from archiver_pipeline.plan import TopicPartition

if TYPE_CHECKING:
    import polars as pl
    from confluent_kafka import Message

_TIMESTAMP_TYPES = {0: "none", 1: "create", 2: "append"}

Headers = list[tuple[str, bytes | None]]
"""The headers of a message; order and repeats kept."""


def envelope_frame(
    frame: pl.DataFrame, places: list[TopicPartition], payload: tuple[pl.Series, pl.Series] | None = None
) -> pl.DataFrame:
    """Give a frame of `RangeReader.frames` the archive's columns but for the type; `hour` (Int64, hours since 1970,
    null where no calendar holds the time) is added.

    Args:
        frame: the messages.
        places: the topic partitions, by the numbers in `range`.
        payload: what `value` and `value_bytes` are; without it they are as `split` has them.
    """
    import polars as pl

    ms = pl.col("timestamp_ms")
    timed = _timed()
    value, value_bytes = payload or split(frame)
    index = frame["range"]

    def column(values: list[Any], dtype: Any) -> pl.Series:
        return pl.Series(values, dtype=dtype).gather(index)

    return frame.select(
        column([at.topic for at in places], pl.String).alias("topic"),
        column([at.topic_id for at in places], pl.String).alias("topic_id"),
        column([at.partition for at in places], pl.Int32).alias("partition"),
        "offset",
        pl.when(timed & ms.is_between(-envelope.MAX_TIMESTAMP_MS, envelope.MAX_TIMESTAMP_MS))
        .then(ms * 1000)
        .cast(pl.Datetime("us", "UTC"))
        .alias("timestamp"),
        pl.when(timed).then("timestamp_type").otherwise(pl.lit("none")).alias("timestamp_type"),
        "key",
        value.alias("value"),
        value_bytes.alias("value_bytes"),
        "headers",
        hour_of_frame().alias("hour"),
    )


def _timed() -> pl.Expr:
    import polars as pl

    # A time that no column holds is null in the archive, and its type stays.
    return (pl.col("timestamp_type") != "none") & pl.col("timestamp_ms").ne_missing(-1)


def hour_of_frame() -> pl.Expr:
    """The hour of each message of `RangeReader.frames`: hours since 1970 (Int64), null where no calendar holds it."""
    import polars as pl

    ms = pl.col("timestamp_ms")
    known = _timed() & ms.is_between(envelope.FIRST_MS, envelope.LAST_MS)
    return pl.when(known).then(ms.floordiv(envelope.HOUR_MS))


def raw_frame(frame: pl.DataFrame, places: list[TopicPartition]) -> pl.DataFrame:
    """Give archived messages the columns of `RangeReader.frames`, the opposite of `envelope_frame`; and `known`
    (String), the JSON of those that were decoded.

    Args:
        frame: the archive's columns.
        places: topic partitions, among them those of all messages.
    """
    import polars as pl

    numbers = pl.DataFrame(
        [(at.topic, at.topic_id, at.partition, number) for number, at in enumerate(places)],
        schema={"topic": pl.String, "topic_id": pl.String, "partition": pl.Int32, "range": pl.UInt32},
        orient="row",
    )
    return frame.join(numbers, on=["topic", "topic_id", "partition"], how="left", maintain_order="left").select(
        "range",
        "offset",
        (pl.col("timestamp").cast(pl.Int64) // 1000).alias("timestamp_ms"),
        "timestamp_type",
        "key",
        original().alias("payload"),
        "headers",
        pl.when(pl.col("value_bytes").is_not_null()).then("value").alias("known"),
    )


def original() -> pl.Expr:
    """The payload as it came, by the archive's columns (Binary); null for a tombstone."""
    import polars as pl

    return pl.coalesce("value_bytes", pl.col("value").cast(pl.Binary))


def packed(frame: pl.DataFrame) -> pl.DataFrame:
    """The same rows in memory of their own: what was filtered holds on to much of what it was filtered from."""
    import polars as pl

    return pl.DataFrame(frame.rechunk().to_arrow(compat_level=pl.CompatLevel.oldest()))


def split(frame: pl.DataFrame) -> tuple[pl.Series, pl.Series]:
    """What `value` and `value_bytes` are of messages that need no decoding: text where the payload is UTF-8, else
    bytes. Both, where `known` has the JSON of a payload that was decoded before."""
    value, value_bytes = decoded(frame["payload"])
    if "known" in frame.columns and (rows := frame["known"].is_not_null().arg_true()).len():
        value = value.scatter(rows, frame["known"].gather(rows))
        value_bytes = value_bytes.scatter(rows, frame["payload"].gather(rows))
    return value, value_bytes


def decoded(payload: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Split bytes, payloads or keys, into text where they are UTF-8 and bytes where they are not.

    One value that is not UTF-8 makes the cast of a whole column fail, so only then is each value looked at.
    """
    import polars as pl

    try:
        return payload.cast(pl.String), pl.Series([None], dtype=pl.Binary).new_from_index(0, len(payload))
    except pl.exceptions.ComputeError:
        texts: list[str | None] = []
        rest: list[bytes | None] = []
        for value in payload:
            try:
                texts.append(None if value is None else value.decode())
                rest.append(None)
            except UnicodeDecodeError:
                texts.append(None)
                rest.append(value)
        return pl.Series(texts, dtype=pl.String), pl.Series(rest, dtype=pl.Binary)


def bounds(frame: pl.DataFrame) -> tuple[dict[int, int], dict[int, int], Counter[int]]:
    """First offset, last offset and number of messages of each range in a frame of `RangeReader.frames`.

    Messages come in runs of one partition, and each run is one step.
    """
    offsets = frame["offset"]
    first, last, counts = dict[int, int](), dict[int, int](), Counter[int]()
    start = 0
    for length, number in frame["range"].rle().struct.unnest().iter_rows():
        first.setdefault(number, offsets[start])
        start += length
        last[number] = offsets[start - 1]
        counts[number] += length
    return first, last, counts


def timestamp_types(kinds: Sequence[int]) -> pl.Series:
    """The names of timestamp types by librdkafka's numbers, which are nearly always the same."""
    import polars as pl

    if len(set(kinds)) == 1:
        return pl.Series([_TIMESTAMP_TYPES[kinds[0]]], dtype=pl.String).new_from_index(0, len(kinds))
    return pl.Series([_TIMESTAMP_TYPES[kind] for kind in kinds], dtype=pl.String)


def headers_of(messages: list[Message]) -> list[Headers | None]:
    """Read each message's headers once.

    A header key that is not UTF-8 makes the client raise, and a second call on that message crash; it gives no way to
    the bytes. Such a message is archived with the one header `_malformed` in their place.
    """
    from confluent_kafka import Message

    rows: list[Headers | None] = []
    left: Iterator[Any] = map(Message.headers, messages)
    while len(rows) < len(messages):
        try:
            rows.extend(left)  # An error leaves what came before it in the list.
        except (SystemError, UnicodeDecodeError):
            rows.append([(envelope.MALFORMED, None)])
    return rows


def header_bytes(rows: list[Headers | None]) -> int:
    """The size of all headers of some messages."""
    return sum(len(key) + len(value or b"") for row in rows if row for key, value in row) if any(rows) else 0


def header_series(rows: list[Headers | None]) -> pl.Series:
    """Return headers as a List of Struct (key String, value Binary), null where a message has none."""
    import polars as pl

    dtype = pl.List(pl.Struct({"key": pl.String, "value": pl.Binary}))
    if not any(rows):
        return pl.Series([None], dtype=dtype).new_from_index(0, len(rows))
    listed = [[{"key": key, "value": value} for key, value in row] if row else None for row in rows]
    return pl.Series(listed, dtype=dtype)
