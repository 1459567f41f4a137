"""The macros of the DuckDB file: common questions, for every DuckDB client that opens it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from archiver_pipeline.view.files import COLUMNS, nothing

if TYPE_CHECKING:
    import duckdb

MACROS = {
    "messages_between(from_time, to_time, of := 'messages')": (
        "messages of [from_time, to_time), read from the files of these hours alone; of: a type's view instead"
    ),
    "latest(type_name, n := 1)": "the newest n messages of a type whose time is known, from its n newest hours alone",
    "json(path)": "a JSON field of every message, with topic, partition, offset, timestamp, type, dt and hr",
    "field(value, path)": "a JSON field as text, null where the payload is no JSON: TRY(value->>path)",
}
"""What there is, as it is called, and a sentence on each."""

NAMES = tuple(call.partition("(")[0] for call in MACROS)
"""The names of the macros."""

FIELD = "field(payload, path) AS TRY(payload->>path)"
"""The macro that needs nothing but its arguments, so that any connection may have it."""

# A session may have another calendar: TIMESTAMPTZ is read and shown by that, but its microseconds are the same.
_FIRST = "make_timestamptz(epoch_us(TIMESTAMP '0001-01-01 00:00:00'))"
_LAST = "make_timestamptz(epoch_us(TIMESTAMP '9999-12-31 23:59:59.999999'))"

# Files are left out by what is known of them without a look: conditions on nothing but dt, hr and constants. The names
# of parameters are unlike those of the columns of `messages`, which DuckDB would take for a conflict.
_SCALAR = (
    # Of an infinite time only the text is known.
    """meta.hour(moment) AS coalesce(strftime(make_timestamp(epoch_us(moment)), '%Y-%m-%d %H'), moment::VARCHAR)""",
    f"""meta.is_within(day, hour_of_day, since, until) AS CASE WHEN day = '_unknown'
        THEN since < {_FIRST} OR until > {_LAST}
        ELSE day || ' ' || hour_of_day >= meta.hour(since)
            AND day || ' ' || hour_of_day <= meta.hour(least(until - INTERVAL 1 MICROSECOND, {_LAST})) END""",
    """meta.hours_of(type_name) AS list_distinct(list_transform(list_filter(list_concat(meta.cold(), meta.fresh()),
        lambda f : starts_with(f, 'type=' || url_encode(type_name) || '/dt=') AND NOT contains(f, '/dt=_')),
        lambda f : replace(split_part(f, '/dt=', 2)[:16], '/hr=', ' ')))""",
    FIELD,
)
_TABLE = (
    """messages_between(from_time, to_time, of := 'messages') AS TABLE FROM query_table(of)
        WHERE "timestamp" >= from_time::TIMESTAMPTZ AND "timestamp" < to_time::TIMESTAMPTZ
        AND meta.is_within(dt, hr, from_time::TIMESTAMPTZ, to_time::TIMESTAMPTZ)""",
    # Every hour that has files has a message, so that the newest n hours have the newest n messages.
    """latest(type_name, n := 1) AS TABLE FROM messages WHERE type = type_name AND dt <> '_unknown'
        AND dt || ' ' || hr >= coalesce(list_min(list_sort(meta.hours_of(type_name), 'DESC')[:n]), '')
        ORDER BY "timestamp" DESC, topic, "partition", "offset" DESC LIMIT n""",
    """json(path) AS TABLE SELECT topic, "partition", "offset", "timestamp", type, dt, hr, TRY("value"->>path) AS value
        FROM messages""",
)


def make_macros(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the macros in a new file, over a view `messages` without files, which the first refresh replaces.

    A macro is text that is looked up when it is used: no later refresh has anything to do with them.
    """
    connection.execute(f"CREATE VIEW messages AS {nothing(COLUMNS)}")
    for macro in (*_SCALAR, *_TABLE):
        connection.execute(f"CREATE OR REPLACE MACRO {macro}")
