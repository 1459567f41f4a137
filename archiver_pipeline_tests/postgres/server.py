"""One PostgreSQL server, run as a process of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg2
import yaml

from archiver_pipeline_tests.debian import installed
from archiver_pipeline_tests.kafka.jars import last_lines
from archiver_pipeline_tests.processes import CHECKOUT, HOST, free_ports
from archiver_pipeline_tests.server import Server

PACKAGES = ("postgresql-15",)
USER, PASSWORD = "archiver", "s3cret/ü:@"
_ACCOUNT = "postgres"
"""PostgreSQL does not run as root; its package makes this account."""

OPTIONS: Mapping[str, str | int] = {
    "shared_buffers": "64MB",
    "max_connections": 100,
    # What a transaction has written is to outlive a killed server, but no power cut.
    "synchronous_commit": "off",
}
"""Options of a server for tests."""


class ServerError(RuntimeError):
    """The server could not be installed, started or stopped; the text has the last lines of its log."""


class PostgresServer(Server):
    """A server; it is installed where that can be done.

    Attributes:
        port: its port on this machine, the same over its whole life.
    """

    error = ServerError

    def __init__(self, data: Path | None = None, *, options: Mapping[str, str | int] | None = None) -> None:
        """Choose a port and a data folder; nothing runs until `start`.

        Args:
            data: where its data goes and stays; without it a temporary folder that `close` removes.
            options: options of the server over `OPTIONS`.
        """
        super().__init__(data, "postgres-", "server.log")
        (self.port,) = free_ports(1)
        # Its account cannot look into a test's folder, and the path of a Unix socket may have 107 bytes.
        self._run = Path(tempfile.mkdtemp(prefix="pg-"))
        self.what = f"PostgreSQL on port {self.port}"
        self._options = {**OPTIONS, **(options or {})}

    def new_database(self) -> str:
        """Make an empty database of a name that no other has."""
        name = f"t{uuid.uuid4().hex[:12]}"
        self.ask(f"CREATE DATABASE {name}")
        return name

    def ask(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement and return its rows, none where it has none."""
        with contextlib.closing(self.connect(database)) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    def connect(self, database: str = "postgres") -> Any:
        """A connection in which every statement is a transaction."""
        connection = psycopg2.connect(
            host=HOST, port=self.port, user=USER, password=PASSWORD, dbname=database, connect_timeout=5
        )
        connection.autocommit = True
        return connection

    def storage(self, database: str) -> dict[str, Any]:
        """The part of `dagster.yaml` that has Dagster keep everything in a database of this server."""
        access = {"hostname": HOST, "port": self.port, "username": USER, "password": PASSWORD, "db_name": database}
        return {"storage": {"postgres": {"postgres_db": {**access, "params": {"options": "-c TimeZone=UTC"}}}}}

    def write_settings(self, home: Path, database: str) -> None:
        """Write `deploy/dagster.yaml` to a DAGSTER_HOME, with a database of this server as Dagster's storage."""
        ours = yaml.safe_load((CHECKOUT / "deploy" / "dagster.yaml").read_text())
        (home / "dagster.yaml").write_text(yaml.safe_dump({**ours, **self.storage(database)}))

    def close(self) -> None:
        """Kill it and remove its data."""
        super().close()
        shutil.rmtree(self._run, ignore_errors=True)

    def _command(self) -> Sequence[str]:
        server = installed("postgres", *PACKAGES, folder="/usr/lib/postgresql/*/bin")
        folder = self._run / "data"
        if not folder.exists():
            self._make_data(folder)
        options = {**self._options, "port": self.port, "listen_addresses": HOST, "unix_socket_directories": self._run}
        return [*_as_account(), server, "-D", str(folder), *(f"--{name}={value}" for name, value in options.items())]

    def _make_data(self, folder: Path) -> None:
        password = self._run / "password"
        password.write_text(PASSWORD)
        if os.geteuid() == 0:
            for path in (self._run, password):
                shutil.chown(path, _ACCOUNT, _ACCOUNT)
        make = installed("initdb", *PACKAGES, folder="/usr/lib/postgresql/*/bin")
        options = ["--username", USER, f"--pwfile={password}", "--auth=scram-sha-256", "--encoding=UTF8", "--no-sync"]
        done = subprocess.run(
            [*_as_account(), make, "-D", str(folder), "--locale=C.UTF-8", *options],
            capture_output=True, text=True, cwd=self._run, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise ServerError(f"making {folder} failed:\n{last_lines(done.stdout + done.stderr)}")

    def _answers(self) -> bool:
        try:
            return self.ask("SELECT 1") == [(1,)]
        except psycopg2.OperationalError:
            return False


def _as_account() -> list[str]:
    """The start of a command that runs the rest as PostgreSQL's account, and ends it with whoever started it."""
    if os.geteuid() != 0:
        return []
    # The kernel forgets the signal for the death of a parent when a process changes its user, so it is set again.
    setpriv = shutil.which("setpriv") or "/usr/bin/setpriv"
    return [setpriv, f"--reuid={_ACCOUNT}", f"--regid={_ACCOUNT}", "--clear-groups", "--pdeathsig", "KILL"]
