"""A MySQL or MariaDB server: its address, connections to it, and what its errors mean."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from archiver_pipeline.errors import ArchiverError, FollowerError, FollowerUnavailable, SettingsError, Superseded
from archiver_pipeline.visible import without_number

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

CONNECT_SECONDS = 5
ANSWER_SECONDS = 120
"""So long may one statement take. The longest writes a mebibyte, or deletes a minute of messages."""

LOCK_SECONDS = 30
"""So long is a lock waited for: about as long as another run may take for one step."""

_SESSION = (
    f"SET time_zone = '+00:00', sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', sql_notes = 0,"
    f" innodb_lock_wait_timeout = {LOCK_SECONDS}, lock_wait_timeout = {LOCK_SECONDS}"
)
"""What of a session the server's settings must not decide. Notes come with each payload that is not JSON."""

_FILES = ("ssl_ca", "ssl_cert", "ssl_key")
_SWITCHES = ("ssl_verify_cert", "ssl_verify_identity")
_OPTIONS = (*_FILES, *_SWITCHES, "unix_socket")
_OLDEST = {"MariaDB": (10, 6), "MySQL": (8, 0, 19)}

_WAIT = "Nothing of this step was done; the next run goes on from where it was"
_HINTS: Mapping[int, tuple[str, type[ArchiverError]]] = {
    1044: ("Grant the user SELECT, INSERT, DELETE and CREATE on the database", FollowerError),
    1045: ("Check user and password in ARCHIVER_MYSQL_URL, and from which hosts the user may come", FollowerError),
    1698: ("Check user and password in ARCHIVER_MYSQL_URL, and from which hosts the user may come", FollowerError),
    1142: ("Grant the user SELECT, INSERT, DELETE and CREATE on the database", FollowerError),
    1143: ("Grant the user SELECT, INSERT, DELETE and CREATE on the database", FollowerError),
    1227: ("Grant the user SELECT, INSERT, DELETE and CREATE on the database", FollowerError),
    1049: ("Make the database: CREATE DATABASE … CHARACTER SET utf8mb4", FollowerError),
    1021: ("Its disk is full: make room", FollowerError),
    1030: ("Its storage engine failed: look at its disk and its error log", FollowerError),
    1114: ("Its disk or tablespace is full: make room", FollowerError),
    1290: ("It is read-only: name the server that takes writes in ARCHIVER_MYSQL_URL", FollowerError),
    1792: ("It is read-only: name the server that takes writes in ARCHIVER_MYSQL_URL", FollowerError),
    1836: ("It is read-only: name the server that takes writes in ARCHIVER_MYSQL_URL", FollowerError),
    1153: ("Make its max_allowed_packet larger", FollowerError),
    1062: ("Something else writes to its table messages; only the archiver may", FollowerError),
    2026: ("Check TLS: ssl_ca, ssl_cert and ssl_key in ARCHIVER_MYSQL_URL", FollowerError),
    1205: (f"Something holds a lock on the tables for over {LOCK_SECONDS} s. {_WAIT}", FollowerUnavailable),
    1099: (f"Something has locked the tables. {_WAIT}", FollowerUnavailable),
    1100: (f"Something has locked the tables. {_WAIT}", FollowerUnavailable),
    1223: (f"Something has locked the tables. {_WAIT}", FollowerUnavailable),
    1040: (f"It has too many connections. {_WAIT}", FollowerUnavailable),
    1203: (f"It has too many connections. {_WAIT}", FollowerUnavailable),
    1020: (_WAIT, Superseded),
    1213: (_WAIT, Superseded),
}
"""What to do about an error of the server, by its number, and as what it is raised."""

_GONE = (
    0,
    1053,
    1077,
    1079,
    1129,
    1158,
    1159,
    1160,
    1161,
    1317,
    1927,
    1969,
    2002,
    2003,
    2006,
    2013,
    2014,
    2027,
    2055,
    3024,
    4031,
)
"""Errors that say of a connection that it was not made, or is no more."""


@dataclass(frozen=True)
class Address:
    """Where a database is, and who asks; as text without the password.

    Attributes:
        host, port, database, user: as in the URL.
        password: in clear, for the connection only.
        options: the URL's query.
    """

    host: str
    port: int
    database: str
    user: str
    password: str = field(repr=False)
    options: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        where = self.options.get("unix_socket") or f"{self.host}:{self.port}"
        return f"database {self.database} on {where}"


def parse_address(url: str) -> Address:
    """Read `mysql://user:password@host/database`.

    Raises:
        SettingsError: something is missing or unknown; the text has no password.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise _wrong("is no URL") from None
    if unknown := sorted(set(parsed.query) - set(_OPTIONS)):
        raise _wrong(f"has the parameter {unknown[0]!r}; known are {', '.join(_OPTIONS)}")
    options = {name: value if isinstance(value, str) else value[-1] for name, value in parsed.query.items()}
    for name in _SWITCHES:
        if options.get(name, "true") not in ("true", "false", "1", "0"):
            raise _wrong(f"has {name}={options[name]}, which takes true or false")
    return Address(
        parsed.host or "localhost",
        parsed.port or 3306,
        parsed.database or "",
        parsed.username or "",
        parsed.password or "",
        options,
    )


def _wrong(why: str) -> SettingsError:
    return SettingsError(f"ARCHIVER_MYSQL_URL {why}: allowed is a URL such as mysql://user:password@host/database")


def make_engine(address: Address) -> Engine:
    """An engine with one connection, which is made when it is needed, and made again when the server has closed it."""
    from sqlalchemy import create_engine

    return create_engine(
        "mysql+pymysql://",
        creator=lambda: _connect(address),
        isolation_level="READ COMMITTED",
        pool_size=1,
        max_overflow=0,
        pool_pre_ping=True,
    )


def check_server(connection: Connection) -> None:
    """Raise FollowerError where the server is too old."""
    name = "MariaDB" if connection.dialect.is_mariadb else "MySQL"  # type: ignore[attr-defined]
    found = connection.dialect.server_version_info or ()
    if found < _OLDEST[name]:
        version, oldest = (".".join(map(str, each)) for each in (found, _OLDEST[name]))
        hint = "Upgrade the server, or leave ARCHIVER_MYSQL_URL empty to do without it; the archive goes on"
        raise FollowerError(f"{name} {version} is too old: {oldest} or later is needed", hint=hint)


@contextmanager
def translated(address: Address) -> Iterator[None]:
    """Raise the server's errors as the archiver's, with its address and what to do, and without password or messages.

    Raises:
        FollowerUnavailable: it does not answer, or asks to wait.
        Superseded: another transaction got in the way.
        FollowerError: it refuses.
    """
    from sqlalchemy.exc import DBAPIError

    try:
        yield
    except DBAPIError as error:
        # The text of SQLAlchemy's own error is the statement, and so the messages in it.
        raise _translation(error.orig, address) from error.orig


def _translation(error: BaseException | None, address: Address) -> ArchiverError:
    arguments = error.args if error else ()
    number = arguments[0] if arguments and isinstance(arguments[0], int) else None
    said = " ".join(str(arguments[-1] if arguments else error).split())
    if len(address.password) > 3:  # A shorter one would be found in any text.
        said = said.replace(address.password, "***")
    said = said[:500]
    if "CERTIFICATE_VERIFY_FAILED" in said or "SSL is required" in said or "[SSL" in said:
        number = 2026
    if number is not None and number in _HINTS:
        hint, kind = _HINTS[number]
        return kind(f"MySQL refused ({address}): {said}", hint=hint)
    if number is None or number in _GONE:
        return FollowerUnavailable(f"MySQL does not answer ({address}): {said}", hint=_WAIT)
    return FollowerError(f"MySQL refused ({address}): error {number}, {said}", hint=_WAIT)


def _connect(address: Address) -> Any:
    """A connection of PyMySQL, greeted within seconds: its own time limit for that is the one for any answer."""
    import pymysql

    options = address.options
    switches = {name: options[name] in ("true", "1") for name in _SWITCHES if name in options}
    if "ssl_ca" in options:
        switches = {"ssl_verify_cert": True, **switches}
    connection = pymysql.connect(
        host=address.host,
        port=address.port,
        user=address.user,
        # PyMySQL would encode it as Latin-1.
        password=address.password.encode(),
        database=address.database,
        unix_socket=options.get("unix_socket"),
        charset="utf8mb4",
        connect_timeout=CONNECT_SECONDS,
        read_timeout=ANSWER_SECONDS,
        write_timeout=ANSWER_SECONDS,
        init_command=_SESSION,
        defer_connect=True,
        **{name: options[name] for name in _FILES if name in options},
        **switches,
    )
    try:
        connection.connect(None if "unix_socket" in options else _greeted(address))
    except RuntimeError as error:
        # A way to send the password needs a package that is not there, and over TLS it does not.
        raise pymysql.err.OperationalError(2026, str(error)) from error
    return connection


def _greeted(address: Address) -> socket.socket:
    """A socket on which the server has begun to speak, as a frozen one does not."""
    import pymysql

    try:
        found = socket.create_connection((address.host, address.port), CONNECT_SECONDS)
        try:
            found.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            found.recv(1, socket.MSG_PEEK)
        except BaseException:
            found.close()
            raise
    except OSError as error:
        raise pymysql.err.OperationalError(2003, f"no connection: {without_number(str(error))}") from error
    return found
