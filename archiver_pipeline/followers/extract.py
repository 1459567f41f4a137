"""What an aggregate needs of messages: the time, the groups and the values, found by DuckDB column by column."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from archiver_pipeline.envelope import ERASED, FIRST_MS, LAST_MS, MALFORMED, TypeRule, parse_type_rule
from archiver_pipeline.errors import FollowerError
from archiver_pipeline.fields import literal
from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.settings.aggregates import COLUMNS, NUMBERS, Aggregate

if TYPE_CHECKING:
    import polars as pl

REGISTERS = 1 << 14
"""Registers of an approximate count (HyperLogLog, Flajolet et al. 2007): a standard error of 1.04/√16384, 0.8 %."""

_HASH_BITS = 64 - 14
_GROUP_CHARACTERS = 1000
"""A group stands twice in a record of the results topic, and brokers take about a megabyte (`message.max.bytes`)."""

_SLICE_BYTES = 4 * 1024**2
"""So many bytes of messages are taken apart at a time: their JSON may take a hundred times as much."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Partial:
    """What a frame adds to an aggregate.

    Attributes:
        counts: rows of source hour, window's start (seconds since 1970), groups, number of messages, and a number or
            None for each `sum`, `min` and `max`, in order.
        members: rows of source hour, start, groups, number of the measure, member, rank; a member of `distinct` is the
            text itself with rank 0, one of `approx_distinct` is a register.
        latest_ms: the latest time of an event, not past the clock, per topic partition; of the messages themselves
            where none of them has the time that counts, so that such a partition holds up nothing.
        uncounted: how many messages have no time, or nothing to be grouped by.
    """

    counts: list[tuple[Any, ...]]
    members: list[tuple[Any, ...]]
    latest_ms: dict[TopicPartition, int]
    uncounted: int


class Extractor:
    """Finds in frames what an aggregate needs; one connection of an in-memory DuckDB of its own."""

    def __init__(self, aggregate: Aggregate) -> None:
        import duckdb

        self._aggregate = aggregate
        self._groups = [f"g{number}" for number in range(len(aggregate.group_by))]
        self._connection = duckdb.connect()
        self._connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false; SET memory_limit = '512MB'")
        self.columns = _columns(aggregate)

    def close(self) -> None:
        """Let go of the memory."""
        self._connection.close()

    def partials(self, frame: pl.DataFrame, now_ms: int) -> Iterator[Partial]:
        """Sum up a frame, which has `columns`, in pieces that fit into memory.

        Raises:
            FollowerError: DuckDB fails for another reason.
        """
        rows = max(1, frame.height * _SLICE_BYTES // max(1, int(frame.estimated_size())))
        for part in frame.iter_slices(rows):
            yield from self._bounded(part, now_ms)

    def _bounded(self, frame: pl.DataFrame, now_ms: int) -> Iterator[Partial]:
        """Sum up a frame, in halves where its JSON takes too much memory; one message that does so has no fields."""
        import duckdb
        import polars as pl

        try:
            yield self._partial(frame, now_ms)
            return
        except duckdb.OutOfMemoryException:
            pass
        except duckdb.Error as error:
            raise FollowerError(
                f"{self._aggregate.name}: messages cannot be counted: {error}",
                hint="This is a defect of the archiver: please report it; nothing was lost",
            ) from error
        if frame.height == 1:
            (topic, partition), name = frame.select("topic", "partition").row(0), self._aggregate.name
            log.warning("%s: the JSON of a message of %s/%d is too large to be taken apart", name, topic, partition)
            yield self._partial(frame.with_columns(value=pl.lit(None, pl.String)), now_ms)
            return
        half = frame.height // 2
        yield from self._bounded(frame[:half], now_ms)
        yield from self._bounded(frame[half:], now_ms)

    def _partial(self, frame: pl.DataFrame, now_ms: int) -> Partial:
        import polars as pl

        with closing(self._connection.cursor()) as cursor:
            cursor.register("frame", frame.to_arrow(compat_level=pl.CompatLevel.oldest()))
            cursor.execute(f"CREATE OR REPLACE TEMP TABLE found AS {self._select()}")
            cursor.unregister("frame")
            latest = cursor.execute(
                'SELECT topic, topic_id, "partition", coalesce(max(at_ms) FILTER (at_ms <= $now), '
                "max(sent_ms) FILTER (sent_ms <= $now)) AS latest FROM found GROUP BY ALL HAVING latest IS NOT NULL",
                {"now": now_ms},
            ).fetchall()
            query = f"SELECT count(*) FROM found WHERE NOT ({self._counted()})"
            ((uncounted,),) = cursor.execute(query).fetchall()
            counts = cursor.execute(self._counts()).fetchall()
            members = [row for query in self._members() for row in cursor.execute(query).fetchall()]
        return Partial(counts, members, {TopicPartition(*at): ms for *at, ms in latest}, uncounted)

    def _select(self) -> str:
        """Every message with its source hour, its time in milliseconds, its groups and its values as text."""
        aggregate = self._aggregate
        groups = [f"{_source(text)} AS g{number}" for number, text in enumerate(aggregate.group_by.values())]
        values = [
            f"{_text(rule)} AS v{number}" for number, (_, rule) in enumerate(aggregate.parsed()) if rule is not None
        ]
        time = _time(parse_type_rule(aggregate.time)) if aggregate.time else 'epoch_ms("timestamp")'
        sent = 'epoch_ms("timestamp") AS sent_ms'
        columns = ", ".join(["topic", "topic_id", '"partition"', sent, *groups, *values])
        # A time that no calendar holds is none: the Parquet files and folders could not have it.
        known = f"CASE WHEN at_ms BETWEEN {FIRST_MS} AND {LAST_MS} THEN at_ms END AS at_ms"
        replaced = ", ".join([known, *(f"{_cut(name)} AS {name}" for name in self._groups)])
        return (
            f"SELECT * REPLACE ({replaced}), "
            f"(floor(at_ms / {aggregate.seconds * 1000}) * {aggregate.seconds})::BIGINT AS start FROM ("
            f"SELECT CASE WHEN dt = '_unknown' THEN dt ELSE dt || 'T' || hr END AS source, {time} AS at_ms, {columns} "
            f"FROM frame WHERE type <> {literal(ERASED)})"
        )

    def _keys(self) -> str:
        return ", ".join(["source", "start", *self._groups])

    def _counted(self) -> str:
        return " AND ".join(["at_ms IS NOT NULL", *(f"{name} IS NOT NULL" for name in self._groups)])

    def _counts(self) -> str:
        numbers = [
            f"{kind}(CASE WHEN isfinite(TRY_CAST(v{number} AS DOUBLE)) THEN TRY_CAST(v{number} AS DOUBLE) END)"
            for number, (kind, _) in enumerate(self._aggregate.parsed())
            if kind in NUMBERS
        ]
        every = ", ".join([self._keys(), "count(*)", *numbers])
        return f"SELECT {every} FROM found WHERE {self._counted()} GROUP BY {self._keys()}"

    def _members(self) -> Iterator[str]:
        for number, (kind, _) in enumerate(self._aggregate.parsed()):
            where = f"FROM found WHERE {self._counted()} AND v{number} IS NOT NULL"
            if kind == "distinct":
                yield f"SELECT DISTINCT {self._keys()}, {number}, v{number}, 0 {where}"
            elif kind == "approx_distinct":
                rank = f"CASE WHEN rest = 0 THEN {_HASH_BITS + 1} ELSE {_HASH_BITS} - floor(log2(rest))::INTEGER END"
                yield (
                    f"SELECT {self._keys()}, {number}, register, max({rank}) FROM (SELECT {self._keys()}, "
                    f"hash & {REGISTERS - 1} AS register, hash // {REGISTERS} AS rest FROM "
                    f"(SELECT *, md5_number_lower(v{number}) AS hash {where})) GROUP BY {self._keys()}, register"
                )


def _columns(aggregate: Aggregate) -> tuple[str, ...]:
    """The columns of the archive that an aggregate reads."""
    rules = [rule for _, rule in aggregate.parsed() if rule is not None]
    rules += [parse_type_rule(text) for text in (*aggregate.group_by.values(), aggregate.time) if _is_rule(text)]
    wanted = ["topic", "topic_id", "partition", "timestamp", "type", "dt", "hr"]
    wanted += [text for text in aggregate.group_by.values() if text in COLUMNS]
    wanted += ["value" for rule in rules if rule.kind == "path"]
    wanted += ["headers" for rule in rules if rule.kind == "header"]
    return tuple(dict.fromkeys(wanted))


def _is_rule(text: str) -> bool:
    return bool(text) and text not in COLUMNS


def _source(text: str) -> str:
    if text == "key":
        return "try(decode(key))"
    return f'"{text}"::VARCHAR' if text in COLUMNS else _text(parse_type_rule(text))


def _text(rule: TypeRule) -> str:
    """A value as text: of JSON a string, number or boolean; null where there is none. What is malformed has none."""
    if rule.kind == "constant":
        return literal(rule.name)
    if rule.kind == "header":
        return f"try(decode(list_filter(headers, lambda h: h.key = {literal(rule.name)})[-1].value))"
    sound = f"CASE WHEN type <> {literal(MALFORMED)} THEN value END"
    token = f"try(json_extract({sound}, {literal(rule.json_path)}))"
    return f"CASE WHEN json_type({token}) NOT IN ('OBJECT', 'ARRAY', 'NULL') THEN {token} ->> '$' END"


def _cut(group: str) -> str:
    """A group's text; of a long one the beginning and the MD5 of the whole, so that two stay two."""
    short = f"left({group}, {_GROUP_CHARACTERS - 33}) || '…' || md5({group})"
    return f"CASE WHEN length({group}) > {_GROUP_CHARACTERS} THEN {short} ELSE {group} END"


def _time(rule: TypeRule) -> str:
    """A time in milliseconds: ISO text, UTC where it has no zone, or seconds, milliseconds or microseconds as a number.

    A number of seconds has up to eleven digits, which is the year 5138; one of milliseconds has up to fourteen.
    """
    text = _text(rule)
    number = f"TRY_CAST({text} AS DOUBLE)"
    unit = f"CASE WHEN abs({number}) < 1e11 THEN 1000.0 WHEN abs({number}) < 1e14 THEN 1.0 ELSE 0.001 END"
    scaled = f"CASE WHEN abs({number}) < 1e17 THEN floor({number} * {unit})::BIGINT END"
    return f"coalesce({scaled}, epoch_ms(TRY_CAST({text} AS TIMESTAMPTZ)))"


def estimate(used: int, total: float) -> int:
    """The HyperLogLog estimate for registers of which `used` are not empty, with the sum of 2^-rank over those."""
    empty = REGISTERS - used
    raw = 0.7213 / (1 + 1.079 / REGISTERS) * REGISTERS**2 / (empty + total)
    if empty and raw <= 2.5 * REGISTERS:
        raw = REGISTERS * math.log(REGISTERS / empty)
    return round(raw)
