"""The state of an aggregate, looked at by others than its follower: nothing is made, and nothing changes."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from archiver_pipeline.errors import FollowerError
from archiver_pipeline.followers.base import FollowerPosition
from archiver_pipeline.plan import TopicPartition

_BUSY_SECONDS = 5.0


def has_waiting(path: Path, until: float) -> bool:
    """Tell whether a state has windows that began before `until` (seconds since 1970) and may become final."""
    if not path.exists():
        return False
    try:
        with _read_only(path) as connection:
            query = "SELECT EXISTS (SELECT 1 FROM groups WHERE dirty = 1 AND start <= ?)"
            return bool(connection.execute(query, [until]).fetchone()[0])
    except sqlite3.Error:
        return True  # A run will say what is wrong with it.


def read_position(path: Path, definition: str) -> FollowerPosition:
    """Read the position of a state and change nothing; an empty one without a state, or where it counts by another
    definition, as the next run begins again.

    Raises:
        FollowerError: it cannot be read.
    """
    if not path.exists():
        return FollowerPosition()
    try:
        with _read_only(path) as connection:
            (found,) = connection.execute("SELECT value FROM meta WHERE name = 'definition'").fetchone() or ("",)
            return position_in(connection) if found == definition else FollowerPosition()
    except sqlite3.Error as error:
        raise FollowerError(
            f"the state of an aggregate cannot be read: {error}",
            path=str(path),
            hint="Make it readable for this user; if it is damaged remove it: all is counted again from the archive",
        ) from error


def position_in(connection: sqlite3.Connection) -> FollowerPosition:
    """Read the position over an open connection."""
    offsets = connection.execute("SELECT topic, topic_id, partition, next FROM offsets").fetchall()
    changed = dict(connection.execute("SELECT hour, count FROM changed").fetchall())
    return FollowerPosition({TopicPartition(*at): following for *at, following in offsets}, changed)


@contextmanager
def _read_only(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=_BUSY_SECONDS)) as connection:
        yield connection
