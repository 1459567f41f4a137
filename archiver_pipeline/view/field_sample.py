"""A look at the messages of an hour: which outermost JSON fields a sample of them has, in bounded memory."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from archiver_pipeline import fields

if TYPE_CHECKING:
    import duckdb

log = logging.getLogger(__name__)

SAMPLE_MESSAGES, SAMPLE_BYTES = 200_000, 64 * 1024**2
"""About so many messages and bytes of an hour are looked at; beyond that an evenly spread sample."""

LARGEST_BYTES = 8 * 1024**2
"""A larger message is not looked at: taken apart it may fill thirty times its size in memory."""

LONGEST_NAME = 200
"""Characters of a field's name; longer ones are left out, as in the typed views."""

_SLICE_BYTES = 4 * 1024**2
"""So much is taken apart at a time, for the same reason."""

_CANDIDATES = 4 * fields.MAX_FIELDS
_TABLE = '"archiver fields sample"'

Count = tuple[str, str, int, int | None, int | None]
"""Field, kind, messages, first and last message time in microseconds since 1970 (None if unknown)."""


@dataclass(frozen=True)
class Sample:
    """What a look at some messages found.

    Attributes:
        messages: how many there are.
        looked_at: how many of them were looked at, whatever is in them.
        counts: the same field and kind more than once, in the order in which messages have the fields.
        complete: no field that was found had to be left out to stay within `fields.MAX_FIELDS`.
    """

    messages: int
    looked_at: int
    counts: tuple[Count, ...]
    complete: bool


def look(connection: duckdb.DuckDBPyConnection, select: str) -> Sample:
    """Look at the messages that a SELECT of `value` and `timestamp` gives.

    It is run twice, once for the number and size of the messages. At most about `SAMPLE_MESSAGES` and `SAMPLE_BYTES`
    of them are then looked at, drawn by chance but always the same, and none above `LARGEST_BYTES`. Where an object has
    a field twice, the first one counts, as in the typed views.

    Raises:
        duckdb.Error: the SELECT fails.
    """
    ((messages, size),) = connection.execute(f"SELECT count(*), sum(strlen(value)) FROM ({select})").fetchall()
    share = min(1.0, SAMPLE_MESSAGES / max(1, messages), SAMPLE_BYTES / max(1, int(size or 0)))
    # Not every n-th, which could go in step with what the producers do.
    drawn = f"USING SAMPLE {100 * share:.9f} PERCENT (bernoulli, 1)" if share < 1 else ""
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {_TABLE} AS SELECT value, us, "
        f"(sum(coalesce(strlen(value), 0)) OVER (ROWS UNBOUNDED PRECEDING) // {_SLICE_BYTES})::INTEGER AS slice "
        f'FROM (SELECT value, epoch_us("timestamp") AS us FROM ({select}) {drawn}) '
        f"WHERE value IS NULL OR strlen(value) <= {LARGEST_BYTES}"
    )
    try:
        return _taken_apart(connection, messages)
    finally:
        connection.execute(f"DROP TABLE {_TABLE}")


def _taken_apart(connection: duckdb.DuckDBPyConnection, messages: int) -> Sample:
    """Slice by slice: first which fields there are, then what is in them."""
    slices = [row[0] for row in connection.execute(f"SELECT DISTINCT slice FROM {_TABLE} ORDER BY 1").fetchall()]
    frequency: Counter[str] = Counter()
    for number in slices:
        frequency.update(dict(_ask(connection, _names_query(number))))
    names = [name for name, _ in frequency.most_common(fields.MAX_FIELDS)]
    pointers = [["", *(fields.pointer(name) for name in names)]] if names else []
    counts: list[tuple[int, Count]] = []
    looked_at = 0
    for number in slices:
        for index, kind, count, first, last in _ask(connection, _kinds_query(number, len(names)), *pointers):
            if index is None:
                looked_at += count
            else:
                counts.append((index, (names[index], fields.kind_of(kind), count, first, last)))
    counts.sort(key=lambda item: item[0])
    return Sample(messages, looked_at, tuple(count for _, count in counts), len(frequency) <= fields.MAX_FIELDS)


def _ask(connection: duckdb.DuckDBPyConnection, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Ask about one slice. Nothing in a message may keep its hour from being sealed: at worst it is not looked at."""
    import duckdb

    try:
        return connection.execute(query, parameters).fetchall()
    except duckdb.Error as error:
        log.warning("some messages are not looked at for fields: %s", str(error).split("\n")[0])
        return []


def _names_query(number: int) -> str:
    """The most frequent names of a slice, and how often each is there.

    What is no JSON is passed over by `try`: to test it first would hold large messages in memory twice, taken apart.
    """
    return (
        f"SELECT name, count(*) AS messages FROM (SELECT unnest(names) AS name, number, "
        f"generate_subscripts(names, 1) AS place FROM (SELECT try(json_keys(value)) AS names, rowid AS number "
        f"FROM {_TABLE} WHERE slice = {number})) WHERE length(name) <= {LONGEST_NAME} "
        f"GROUP BY name ORDER BY messages DESC, min(number), min(place) LIMIT {_CANDIDATES}"
    )


def _kinds_query(number: int, names: int) -> str:
    """Index of the name, kind, messages, first and last time; and a row without an index for all messages.

    Its parameter, with names, is a list of pointers: that to the message itself, then those to the fields.
    """
    counted = f"SELECT NULL, NULL, count(*), NULL, NULL FROM {_TABLE} WHERE slice = {number}"
    if not names:
        return counted
    return (
        f"SELECT index, kind, count(*), min(us), max(us) FROM (SELECT unnest(range({names})) AS index, "
        f"unnest(kinds[2:]) AS kind, us FROM (SELECT try(json_type(value, ?::VARCHAR[])) AS kinds, us "
        f"FROM {_TABLE} WHERE slice = {number}) WHERE kinds[1] = 'OBJECT') "
        f"WHERE kind IS NOT NULL GROUP BY index, kind UNION ALL {counted}"
    )
