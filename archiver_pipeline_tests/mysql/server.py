"""One MariaDB server, run as a process of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pymysql

from archiver_pipeline_tests.debian import installed
from archiver_pipeline_tests.kafka.jars import BrokerError, last_lines
from archiver_pipeline_tests.processes import HOST, free_ports
from archiver_pipeline_tests.server import Server

PACKAGES = ("mariadb-server-core", "mariadb-client-core")
USER, PASSWORD = "archiver", "s3cret/ü:@"
URL_PASSWORD = "s3cret%2F%C3%BC%3A%40"

OPTIONS: Mapping[str, str | int] = {
    "bind-address": HOST,
    "skip-name-resolve": 1,
    "innodb-buffer-pool-size": "128M",
    "innodb-log-file-size": "64M",
    # What a transaction has written is to outlive a killed server, but no power cut.
    "innodb-flush-log-at-trx-commit": 2,
    "innodb-doublewrite": 0,
    "performance-schema": 0,
}
"""Options of a server for tests."""


class ServerError(BrokerError):
    """The server could not be installed, started or stopped; the text has the last lines of its log."""


class MariaDbServer(Server):
    """A server; it is installed where that can be done.

    Attributes:
        port: its port on this machine, the same over its whole life.
        socket: the path of its Unix socket.
    """

    error = ServerError

    def __init__(self, data: Path | None = None, *, options: Mapping[str, str | int] | None = None) -> None:
        """Choose a port and a data folder; nothing runs until `start`.

        Args:
            data: where its data goes and stays; without it a temporary folder that `close` removes.
            options: options of the server over `OPTIONS`.
        """
        super().__init__(data, "mariadb-", "server.log")
        (self.port,) = free_ports(1)
        # The path of a Unix socket may have 107 bytes, and that of a test's folder has more.
        self._run = Path(tempfile.mkdtemp(prefix="my-"))
        self.socket = str(self._run / "s")
        self.what = f"MariaDB on port {self.port}"
        self._options = {**OPTIONS, **(options or {})}
        self._fresh = False

    def url(self, database: str, query: str = "") -> str:
        """The URL of a database, as settings take it."""
        return f"mysql://{USER}:{URL_PASSWORD}@{HOST}:{self.port}/{database}{query and '?' + query}"

    def new_database(self) -> str:
        """Make an empty database of a name that no other has."""
        name = f"t{uuid.uuid4().hex[:12]}"
        self.ask(f"CREATE DATABASE {name}")
        return name

    def ask(self, statement: str, database: str | None = None) -> list[tuple[Any, ...]]:
        """Run a statement as its administrator and return the rows."""
        with contextlib.closing(self.connect(database)) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def connect(self, database: str | None = None) -> Any:
        """A connection of its administrator."""
        return pymysql.connect(
            unix_socket=self.socket, user="root", database=database, charset="utf8mb4", autocommit=True,
            max_allowed_packet=1024**3,
        )  # fmt: skip

    def close(self) -> None:
        """Kill it and remove its data if the folder was temporary."""
        super().close()
        shutil.rmtree(self._run, ignore_errors=True)

    def _command(self) -> list[str]:
        server = _installed("mariadbd")
        self._fresh = not (self.data / "mysql").exists()
        if self._fresh:
            self._make_data()
        options = {"datadir": self.data / "mysql", "socket": self.socket, "port": self.port, **self._options}
        options |= {"pid-file": self._run / "pid", "tmpdir": self._run, "log-error": self._log, **self._tls()}
        return [server, "--no-defaults", *_as_user(), *(f"--{name}={value}" for name, value in options.items())]

    def _started(self) -> None:
        if self._fresh:
            self.ask(f"CREATE USER '{USER}'@'%' IDENTIFIED BY '{PASSWORD}'")
            self.ask(f"GRANT ALL ON *.* TO '{USER}'@'%'")

    def _make_data(self) -> None:
        options = [f"--datadir={self.data / 'mysql'}", "--auth-root-authentication-method=normal", "--skip-test-db"]
        done = subprocess.run(
            [_installed("mariadb-install-db"), "--no-defaults", *_as_user(), *options],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise ServerError(f"making {self.data} failed:\n{last_lines(done.stdout + done.stderr)}")
        if shutil.which("openssl"):
            make_certificates(self.data)

    def _tls(self) -> dict[str, Path]:
        if not (self.data / "server.pem").exists():
            return {}
        return {
            "ssl-ca": self.data / "ca.pem",
            "ssl-cert": self.data / "server.pem",
            "ssl-key": self.data / "server.key",
        }

    def _answers(self) -> bool:
        try:
            # A plain connection first: PyMySQL does not close a socket that is refused.
            with socket.socket(socket.AF_UNIX) as plain:
                plain.connect(self.socket)
            return self.ask("SELECT 1") == [(1,)]
        except (OSError, pymysql.err.OperationalError):
            return False


def make_certificates(folder: Path) -> None:
    """Make `ca.pem`, and `server.pem` with `server.key`, signed by it, for 127.0.0.1."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, check=True)

    new = ("req", "-newkey", "rsa:2048", "-nodes", "-days", "2")
    openssl(*new, "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=tests")
    openssl(*new, "-keyout", "server.key", "-out", "server.csr", "-subj", f"/CN={HOST}")
    (folder / "server.ext").write_text(f"subjectAltName=IP:{HOST}\n")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-extfile", "server.ext")
    openssl("x509", "-req", "-in", "server.csr", *signed, "-days", "2", "-out", "server.pem")


def _as_user() -> list[str]:
    """MariaDB runs as root only where it is told so."""
    return ["--user=root"] if os.geteuid() == 0 else []


def _installed(program: str) -> str:
    return installed(program, *PACKAGES)
