"""One MariaDB server, run as a process of its own."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pymysql

from archiver_pipeline_tests.kafka.jars import BrokerError, ToolMissing, last_lines
from archiver_pipeline_tests.processes import DIE_WITH_PARENT, HOST, free_ports

START_LIMIT_SECONDS = 60.0
STOP_LIMIT_SECONDS = 20.0
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


class MariaDbServer:
    """A server with its own port, socket and data, which dies with the process (on Linux: the thread) that started it.

    Attributes:
        port: its port on this machine, the same over its whole life.
        socket: the path of its Unix socket.
        data: the folder with its log file `server.log`, its certificates and its data.
        process: the server, or None while it does not run.
    """

    def __init__(self, data: Path | None = None, *, options: Mapping[str, str | int] | None = None) -> None:
        """Choose a port and a data folder; nothing runs until `start`.

        Args:
            data: where its data goes and stays; without it a temporary folder that `close` removes.
            options: options of the server over `OPTIONS`.
        """
        self._own_data = data is None
        self.data = (data or Path(tempfile.mkdtemp(prefix="mariadb-"))).absolute()
        self.data.mkdir(parents=True, exist_ok=True)
        (self.port,) = free_ports(1)
        # The path of a Unix socket may have 107 bytes, and that of a test's folder has more.
        self._run = Path(tempfile.mkdtemp(prefix="my-"))
        self.socket = str(self._run / "s")
        self.process: subprocess.Popen[bytes] | None = None
        self._options = {**OPTIONS, **(options or {})}
        self._log = self.data / "server.log"

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

    def start(self) -> None:
        """Start the server and wait until it answers.

        Raises:
            ToolMissing: it is not installed, and cannot be.
            ServerError: it ended or did not answer in `START_LIMIT_SECONDS`.
        """
        if self.process is not None:
            raise ServerError(f"the server on port {self.port} runs already")
        server = _installed("mariadbd")
        fresh = not (self.data / "mysql").exists()
        if fresh:
            self._make_data()
        options = {"datadir": self.data / "mysql", "socket": self.socket, "port": self.port, **self._options}
        options |= {"pid-file": self._run / "pid", "tmpdir": self._run, "log-error": self._log, **self._tls()}
        command = [server, "--no-defaults", *_as_user(), *(f"--{name}={value}" for name, value in options.items())]
        launcher = [sys.executable, "-I", "-S", "-c", DIE_WITH_PARENT, str(os.getpid()), *command]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                launcher, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self._wait_until_it_answers()
            if fresh:
                self.ask(f"CREATE USER '{USER}'@'%' IDENTIFIED BY '{PASSWORD}'")
                self.ask(f"GRANT ALL ON *.* TO '{USER}'@'%'")
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End the server in order (SIGTERM), by SIGKILL where that takes over `STOP_LIMIT_SECONDS`."""
        if self.process is None:
            return
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_LIMIT_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End the server at once (SIGKILL to its process group), as a power cut would."""
        if self.process is None:
            return
        self._signal(signal.SIGKILL)
        self.process.wait()
        self.process = None

    def restart(self) -> None:
        """End the server in order if it runs, and start it on the same port and data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze the server (SIGSTOP): connections stay open, and nobody answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen server go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill the server and remove its data if the folder was temporary."""
        self.kill()
        shutil.rmtree(self._run, ignore_errors=True)
        if self._own_data:
            shutil.rmtree(self.data, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

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

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_LIMIT_SECONDS
        assert self.process is not None
        while not self._answers():
            code = self.process.poll()
            if code is None and time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            what = f"did not answer in {START_LIMIT_SECONDS:.0f} s" if code is None else f"ended with code {code}"
            log = last_lines(self._log.read_text(errors="replace"))
            raise ServerError(f"MariaDB on port {self.port} {what}; the end of {self._log}:\n{log}")

    def _answers(self) -> bool:
        try:
            # A plain connection first: PyMySQL does not close a socket that is refused.
            with socket.socket(socket.AF_UNIX) as plain:
                plain.connect(self.socket)
            return self.ask("SELECT 1") == [(1,)]
        except (OSError, pymysql.err.OperationalError):
            return False

    def _signal(self, number: signal.Signals) -> None:
        if self.process is None:
            raise ServerError(f"the server on port {self.port} does not run")
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)


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
    """The path of a program of MariaDB, installed with apt-get where that can be done.

    Raises:
        ToolMissing: it is not there, and cannot be installed.
    """
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    if shutil.which(program, path=path) is None and os.geteuid() == 0 and shutil.which("apt-get"):
        with Path(tempfile.gettempdir(), "mariadb-install.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two test processes that start together install once
            _install(program, path)
    found = shutil.which(program, path=path)
    if found is None:
        raise ToolMissing(f"MariaDB is missing: the tests on MySQL need {program} ({', '.join(PACKAGES)}) on the PATH")
    return found


def _install(program: str, path: str) -> None:
    variables = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (("update",), ("install", "-y", "--no-install-recommends", *PACKAGES)):
        if shutil.which(program, path=path) is None:
            subprocess.run(["apt-get", "-q", *command], env=variables, capture_output=True, check=False, timeout=240)
