"""The MySQL follower as the conformance suite sees it: its table in plain SQL, and the same from the archive's rows."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import polars as pl

from archiver_pipeline.settings.settings import Settings
from archiver_pipeline_tests.followers.kit import Kit
from archiver_pipeline_tests.mysql.server import MariaDbServer

ASKED = """
SELECT topic, topic_id, `partition`, `offset`, TIMESTAMPDIFF(MICROSECOND, '1970-01-01', `timestamp`), timestamp_type,
  `key`, `value`, value_text, value_bytes, headers, `type`, dt, hr FROM messages
"""
DEEPEST = 31
"""MariaDB takes JSON that is nested so deep."""

Rows = list[tuple[Any, ...]]


class MySqlKit(Kit):
    """The follower, with an empty database of a server that others use too.

    Attributes:
        server: the server.
        database: the name of the database.
    """

    name = "mysql_messages"

    def __init__(self, server: MariaDbServer) -> None:
        self.server = server
        self.database = server.new_database()
        self.settings: Mapping[str, str] = {"mysql_url": server.url(self.database), "results_topic": ""}

    def content(self, settings: Settings) -> Rows:
        """All rows of the table, by identity."""
        rows = self.server.ask(ASKED, self.database)
        return sorted((*row[:10], row[10] and json.loads(row[10]), *row[11:]) for row in rows)

    def expected(self, messages: pl.DataFrame) -> Rows:
        """All rows of the archive, by identity."""
        return sorted(map(_row, messages.iter_rows(named=True)))

    def down(self) -> bool:
        """Kill the server."""
        self.server.kill()
        return True

    def up(self) -> None:
        """Start it again."""
        self.server.start()

    def drop(self) -> None:
        """Remove the database."""
        self.server.ask(f"DROP DATABASE {self.database}")


def is_json(text: str | None) -> bool:
    """Whether MariaDB takes a text for JSON, as far as tests go."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    def depth(node: Any) -> int:
        if not isinstance(node, dict | list):
            return 0
        return 1 + max(map(depth, node.values() if isinstance(node, dict) else node), default=0)

    try:
        found = json.loads(text or "", parse_constant=refuse)
        # Half of a pair of escapes is no character, and has no encoding.
        json.dumps(found, ensure_ascii=False).encode()
        return depth(found) <= DEEPEST
    except (ValueError, RecursionError):
        return False


def _row(row: Mapping[str, Any]) -> tuple[Any, ...]:
    value = row["value"]
    text = (value, None) if is_json(value) else (None, value)
    headers = row["headers"] and [
        {"key": each["key"], "value": None if each["value"] is None else base64.b64encode(each["value"]).decode()}
        for each in row["headers"]
    ]
    place = (row["topic"], row["topic_id"], row["partition"], row["offset"])
    stamp = _microseconds(row["timestamp"])
    rest = (row["value_bytes"], headers, row["type"], row["dt"], row["hr"])
    return (*place, stamp, row["timestamp_type"], row["key"], *text, *rest)


def _microseconds(moment: datetime | None) -> int | None:
    if moment is None:
        return None
    past = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    return (past.days * 86_400 + past.seconds) * 1_000_000 + past.microseconds
