"""The tables of the MySQL follower: how they are made, brought up to date, and refused where they are newer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from archiver_pipeline.errors import FollowerError, FollowerUnavailable

if TYPE_CHECKING:
    from sqlalchemy import Connection

log = logging.getLogger(__name__)

TABLE = "messages"
SCHEMA_TABLE, OFFSETS_TABLE, CHANGED_TABLE = f"{TABLE}_schema", f"{TABLE}_offsets", f"{TABLE}_changed"
TABLES = (TABLE, OFFSETS_TABLE, CHANGED_TABLE, SCHEMA_TABLE)

_ASCII = "CHARACTER SET ascii COLLATE ascii_bin"
_ANY = "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
_PLACE = f"topic VARCHAR(249) {_ASCII} NOT NULL, topic_id VARCHAR(64) {_ASCII} NOT NULL, `partition` INT NOT NULL"
_END = "ENGINE = InnoDB ROW_FORMAT = DYNAMIC DEFAULT CHARACTER SET utf8mb4"

_MESSAGES = f"""
CREATE TABLE IF NOT EXISTS {TABLE} (
  {_PLACE},
  `offset` BIGINT NOT NULL,
  `timestamp` DATETIME(6) COMMENT 'UTC; null where it is unknown, or no calendar holds it',
  timestamp_type VARCHAR(16) {_ASCII} NOT NULL,
  `key` LONGBLOB,
  `value` JSON COMMENT 'the payload, where the database takes it as JSON',
  value_text LONGTEXT {_ANY} COMMENT 'the payload as it came, where it is text and value is not it',
  value_bytes LONGBLOB COMMENT 'the payload as it came, where it is no text',
  headers JSON COMMENT 'list of key and value; values in base64',
  `type` VARCHAR(255) {_ANY} NOT NULL,
  dt VARCHAR(10) {_ASCII}
    GENERATED ALWAYS AS (COALESCE(CAST(CAST(`timestamp` AS DATE) AS CHAR(10)), '_unknown')) VIRTUAL,
  hr VARCHAR(8) {_ASCII} GENERATED ALWAYS AS (COALESCE(LPAD(HOUR(`timestamp`), 2, '0'), '_unknown')) VIRTUAL,
  PRIMARY KEY (topic, topic_id, `partition`, `offset`),
  KEY by_type (`type`, `timestamp`),
  KEY by_time (`timestamp`)
) {_END}
"""

Migration = tuple[str, ...]

MIGRATIONS: Sequence[Migration] = (
    (
        # `messages` comes last: alone, without the tables of the position, it is somebody else's.
        f"CREATE TABLE IF NOT EXISTS {OFFSETS_TABLE} ({_PLACE}, next BIGINT NOT NULL,"
        f" PRIMARY KEY (topic, topic_id, `partition`)) {_END}",
        f"CREATE TABLE IF NOT EXISTS {CHANGED_TABLE}"
        f" (hour VARCHAR(16) {_ASCII} NOT NULL PRIMARY KEY, changes BIGINT NOT NULL) {_END}",
        _MESSAGES,
    ),
)
"""What makes each version out of the one before it. Only ever add to this list."""

_MAKE_SCHEMA = f"CREATE TABLE IF NOT EXISTS {SCHEMA_TABLE} (id INT NOT NULL PRIMARY KEY, version INT NOT NULL) {_END}"

_DONE_ALREADY = (1050, 1060, 1061, 1091)
"""Errors that say of a step of a migration that it was done: the table, column or key is there, or is gone."""

_LOCK_SECONDS = 30


def prepare(connection: Connection, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Make the tables, or bring them up to date; of two that start at once, one waits.

    Raises:
        FollowerError: the tables are newer than this program, or not the archiver's.
        FollowerUnavailable: another run is at it for long.
    """
    if _version(connection) == len(migrations):
        return
    # Its name may have 64 characters, and locks are the server's, not the database's.
    name = "CONCAT('archiver/', SHA1(DATABASE()))"
    if connection.exec_driver_sql(f"SELECT GET_LOCK({name}, {_LOCK_SECONDS})").scalar() != 1:
        raise FollowerUnavailable(
            f"another run has been making the tables in MySQL for over {_LOCK_SECONDS} s",
            hint="The next run tries again",
        )
    try:
        _upgrade(connection, migrations)
    finally:
        connection.exec_driver_sql(f"DO RELEASE_LOCK({name})")


def check_version(version: object, wanted: int = len(MIGRATIONS)) -> None:
    """Raise FollowerError unless the version under the lock is the one that this program writes."""
    if version != wanted:
        raise FollowerError(
            f"the tables in MySQL have version {version}, and this program knows version {wanted}",
            hint="Run the archiver that made them, or a newer one",
        )


def _upgrade(connection: Connection, migrations: Sequence[Migration]) -> None:
    version = _version(connection)
    if version > len(migrations):
        check_version(version, len(migrations))
    if version == 0:
        _refuse_a_strange_table(connection)
    connection.exec_driver_sql(_MAKE_SCHEMA)
    for number, migration in enumerate(migrations[version:], version + 1):
        log.info("bringing the tables in MySQL to version %d", number)
        for statement in migration:
            _do(connection, statement)
        connection.exec_driver_sql(f"REPLACE INTO {SCHEMA_TABLE} (id, version) VALUES (1, {number})")
        connection.commit()


def _do(connection: Connection, statement: str) -> None:
    """Do a step of a migration; one that a killed run has done is passed over, since DDL commits at once."""
    from sqlalchemy.exc import DBAPIError

    try:
        connection.exec_driver_sql(statement)
    except DBAPIError as error:
        if not error.orig or error.orig.args[:1][0] not in _DONE_ALREADY:
            raise


def _version(connection: Connection) -> int:
    """The version of the tables; 0 where there are none."""
    if SCHEMA_TABLE not in _tables(connection):
        return 0
    return int(connection.exec_driver_sql(f"SELECT COALESCE(MAX(version), 0) FROM {SCHEMA_TABLE}").scalar() or 0)


def _refuse_a_strange_table(connection: Connection) -> None:
    there = _tables(connection)
    if TABLE in there and OFFSETS_TABLE not in there:
        raise FollowerError(
            f"the database already has a table {TABLE}, which is not the archiver's",
            hint="Give it a database of its own in ARCHIVER_MYSQL_URL",
        )


def _tables(connection: Connection) -> set[str]:
    names = ", ".join(f"'{name}'" for name in TABLES)
    asked = (
        f"SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name IN ({names})"
    )
    return set(connection.exec_driver_sql(asked).scalars())
