"""An SQLite file on the disk: how it is written, what its errors mean, and that nothing stays of what was deleted."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from archiver_pipeline.errors import FollowerError, FollowerUnavailable


def set_up(connection: sqlite3.Connection) -> None:
    """Let readers never wait, let what is committed outlive a power cut, and overwrite what is deleted."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA secure_delete = ON")  # It may be somebody's name.


def cut_log(connection: sqlite3.Connection, name: str, path: Path) -> None:
    """Empty the write-ahead log, whose older pages have what was deleted.

    Raises:
        FollowerUnavailable: a reader holds the file.
    """
    ((busy, *_),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    if busy:
        raise FollowerUnavailable(
            f"the state of {name} is being read, and its log may keep what was deleted",
            path=str(path),
            hint="Its next run writes over it",
        )


@contextmanager
def refused(name: str, path: Path, busy_seconds: float) -> Iterator[None]:
    """Turn an error of SQLite into one that says what to do.

    Raises:
        FollowerUnavailable: another process holds the file.
        FollowerError: it cannot be read or written.
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
            raise FollowerUnavailable(
                f"another run has held the state of {name} for {busy_seconds:.0f} s",
                path=str(path),
                hint="Nothing was lost: the next run goes on",
            ) from error
        raise FollowerError(
            f"the state of {name} cannot be read or written: {error}",
            path=str(path),
            hint="Free space or make the folder writable; if the file is damaged remove it, and all is counted again "
            "from the archive",
        ) from error
