"""The archive in MySQL or MariaDB: one row a message, and the position in the same transaction."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from archiver_pipeline.followers.base import Follower, FollowerPosition, check_position
from archiver_pipeline.followers.mysql_load import Dialect, statements
from archiver_pipeline.followers.mysql_schema import (
    CHANGED_TABLE,
    OFFSETS_TABLE,
    SCHEMA_TABLE,
    TABLE,
    check_version,
    prepare,
)
from archiver_pipeline.followers.mysql_server import check_server, make_engine, parse_address, translated
from archiver_pipeline.hours import Hour
from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.settings.settings import Settings

if TYPE_CHECKING:
    import polars as pl
    from sqlalchemy import Connection, Engine

_MINUTES = 60
_DELETED_ROWS = 100_000


class MySqlFollower(Follower):
    """Keeps the table `messages` of a database as the archive is."""

    name = "mysql_messages"

    def __init__(self, settings: Settings) -> None:
        """Read the address; nothing is connected yet.

        Raises:
            SettingsError: `ARCHIVER_MYSQL_URL` is wrong.
        """
        self._address = parse_address(settings.mysql_url.get_secret_value())

    def position(self) -> FollowerPosition:
        """Read the position; the first time, make the tables."""
        with self._transaction() as connection:
            return _position(connection)

    def take(self, messages: Iterator[pl.DataFrame], before: FollowerPosition, after: FollowerPosition) -> None:
        """Insert messages and move the position, in one transaction."""
        with self._step(before, after) as connection:
            _insert(connection, messages)

    def replace(
        self, hour: Hour, messages: Iterator[pl.DataFrame], before: FollowerPosition, after: FollowerPosition
    ) -> None:
        """Delete the rows of an hour, insert messages and move the position, in one transaction."""
        with self._step(before, after) as connection:
            _delete(connection, hour)
            _insert(connection, messages)

    def close(self) -> None:
        """Close the connection."""
        if "_engine" in self.__dict__:
            self._engine.dispose()

    @cached_property
    def _engine(self) -> Engine:
        """The engine, with the tables made and brought up to date."""
        engine = make_engine(self._address)
        try:
            with engine.connect() as connection:
                check_server(connection)
                prepare(connection)
        except BaseException:
            engine.dispose()
            raise
        return engine

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        with translated(self._address), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _step(self, before: FollowerPosition, after: FollowerPosition) -> Iterator[Connection]:
        """A transaction that holds the lock of all steps, from `before` to `after`."""
        with self._transaction() as connection:
            locked = connection.exec_driver_sql(f"SELECT version FROM {SCHEMA_TABLE} WHERE id = 1 FOR UPDATE")
            check_version(locked.scalar())
            check_position(self.name, _position(connection), before)
            yield connection
            _move(connection, before, after)


def _position(connection: Connection) -> FollowerPosition:
    offsets = connection.exec_driver_sql(f"SELECT topic, topic_id, `partition`, next FROM {OFFSETS_TABLE}")
    changed = connection.exec_driver_sql(f"SELECT hour, changes FROM {CHANGED_TABLE}")
    return FollowerPosition(
        {TopicPartition(topic, topic_id, partition): end for topic, topic_id, partition, end in offsets},
        {str(hour): int(changes) for hour, changes in changed},
    )


def _move(connection: Connection, before: FollowerPosition, after: FollowerPosition) -> None:
    """Write what of the position is new."""
    offsets = [
        (at.topic, at.topic_id, at.partition, end) for at, end in after.offsets.items() if before.offsets.get(at) != end
    ]
    changed = [item for item in after.changed.items() if before.changed.get(item[0]) != item[1]]
    if offsets:
        place = "topic, topic_id, `partition`, next"
        connection.exec_driver_sql(f"REPLACE INTO {OFFSETS_TABLE} ({place}) VALUES (%s, %s, %s, %s)", offsets)
    if changed:
        connection.exec_driver_sql(f"REPLACE INTO {CHANGED_TABLE} (hour, changes) VALUES (%s, %s)", changed)


def _insert(connection: Connection, messages: Iterator[pl.DataFrame]) -> None:
    packet = connection.exec_driver_sql("SELECT @@max_allowed_packet").scalar()
    mariadb = bool(connection.dialect.is_mariadb)  # type: ignore[attr-defined]
    dialect = Dialect(mariadb, int(packet or 0))

    def send(statement: str) -> None:
        # Without this option the driver would take each % in a message for the place of a parameter.
        connection.exec_driver_sql(statement, execution_options={"no_parameters": True})

    # While the server works on one statement, the next one is written. Whatever happens, none is under way afterwards.
    with ThreadPoolExecutor(1, "mysql") as sender:
        under_way: Future[None] | None = None
        for statement in statements(messages, dialect):
            if under_way is not None:
                under_way.result()
            under_way = sender.submit(send, statement)
        if under_way is not None:
            under_way.result()


def _delete(connection: Connection, hour: Hour) -> None:
    """Delete an hour in small pieces: then the index is chosen, and no statement takes longer than one may."""
    if hour.number is None:
        _delete_where(connection, "`timestamp` IS NULL")
        return
    for minute in range(_MINUTES):
        first, last = (f"{hour.dt} {hour.hr}:{minute:02}:{second}" for second in ("00.000000", "59.999999"))
        _delete_where(connection, f"`timestamp` BETWEEN '{first}' AND '{last}'")


def _delete_where(connection: Connection, condition: str) -> None:
    statement = f"DELETE FROM {TABLE} WHERE {condition} LIMIT {_DELETED_ROWS}"
    while connection.exec_driver_sql(statement).rowcount == _DELETED_ROWS:
        pass
