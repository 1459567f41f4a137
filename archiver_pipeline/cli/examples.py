"""Queries to begin with, of the types and the hours that an archive really has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from archiver_pipeline.fields import identifier, literal

if TYPE_CHECKING:
    import duckdb

_FORM = "%Y-%m-%d %H:%M"


@dataclass(frozen=True)
class Example:
    """A query, and in a few words what it answers."""

    what: str
    sql: str


@dataclass(frozen=True)
class Kind:
    """The type that examples are made of, its newest hour, and a field of text in it, if there is one."""

    type: str
    view: str
    dt: str
    hr: str
    field: str | None


def examples(connection: duckdb.DuckDBPyConnection) -> list[Example]:
    """The examples for the DuckDB file that is open; only its own tables are read, and no file of the archive."""
    return [*_of_all(), *(_of_kind(kind) if (kind := _newest(connection)) is not None else ())]


def banner_examples(found: Sequence[Example]) -> list[Example]:
    """The few that greet a user."""
    return [found[0], *found[4:7]] if len(found) > 4 else list(found[:3])


def _of_all() -> list[Example]:
    return [
        Example("messages by type", "SELECT type, sum(messages) AS messages FROM hours GROUP BY 1 ORDER BY 2 DESC;"),
        Example("the newest hours", "FROM hours ORDER BY dt DESC, hr DESC LIMIT 10;"),
        Example("how far each partition is archived", 'SELECT topic, "partition", "next", lag FROM offsets;'),
        Example("what Kafka no longer had", "FROM gaps;"),
    ]


def _of_kind(kind: Kind) -> list[Example]:
    begin = datetime.fromisoformat(f"{kind.dt}T{kind.hr}:00").replace(tzinfo=UTC)
    span = f"{literal(begin.strftime(_FORM))}, {literal((begin + timedelta(hours=1)).strftime(_FORM))}"
    view, of = identifier_if_needed(kind.view), literal(kind.view)
    found = [
        Example(
            f"the newest messages of type {kind.type}",
            f'SELECT "timestamp", value FROM latest({literal(kind.type)}, n := 5);',
        ),
        Example(
            "an hour of them, with their fields", f"FROM {view} WHERE dt = '{kind.dt}' AND hr = '{kind.hr}' LIMIT 5;"
        ),
        Example(
            "messages a minute of that hour, by type",
            'SELECT time_bucket(INTERVAL 1 MINUTE, "timestamp") AS minute, type, count(*) AS messages\n'
            f"  FROM messages_between({span}) GROUP BY ALL ORDER BY ALL;",
        ),
    ]
    if kind.field is not None:
        column = identifier_if_needed(kind.field)
        sql = (
            f"SELECT {column}, count(*) AS messages\n  FROM messages_between({span}, of := {of}) "
            "GROUP BY 1 ORDER BY 2 DESC LIMIT 10;"
        )
        found.append(Example(f"the most frequent values of {kind.field}", sql))
    return found


def identifier_if_needed(name: str) -> str:
    """A name, in quotes unless it is plain."""
    return name if name.isidentifier() and name.isascii() else identifier(name)


def _newest(connection: duckdb.DuckDBPyConnection) -> Kind | None:
    """The type with the most messages in the newest hour whose time is known."""
    rows = connection.execute(
        "SELECT type, \"view\", dt, hr FROM hours JOIN types USING (type) WHERE dt <> '_unknown' "
        "ORDER BY starts_with(type, '_'), dt DESC, hr DESC, messages DESC, type LIMIT 1"
    ).fetchall()
    if not rows:
        return None
    type_name, view, dt, hr = rows[0]
    texts = connection.execute(
        "SELECT \"column\" FROM meta.fields WHERE type = ? AND kind = 'VARCHAR' AND field NOT IN ('type', '') "
        "ORDER BY lower(field) NOT SIMILAR TO '.*(uid|user).*', rowid LIMIT 1",
        [type_name],
    ).fetchall()
    return Kind(type_name, view, dt, hr, texts[0][0] if texts else None)
