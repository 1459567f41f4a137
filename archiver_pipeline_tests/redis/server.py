"""One Redis server, run as a process of its own."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from pathlib import Path

from archiver_pipeline_tests.debian import installed
from archiver_pipeline_tests.processes import HOST, free_ports
from archiver_pipeline_tests.server import Server


class ServerError(RuntimeError):
    """The server could not be installed, started or stopped; the text has the last lines of its log."""


class RedisServer(Server):
    """A server without persistence; it is installed where that can be done.

    Attributes:
        port: its port on this machine, the same over its whole life.
    """

    error = ServerError

    def __init__(self, data: Path | None = None) -> None:
        """Choose a port and a data folder; nothing runs until `start`."""
        super().__init__(data, "redis-", "server.log")
        (self.port,) = free_ports(1)
        self.what = f"Redis on port {self.port}"

    def url(self, database: int) -> str:
        """The URL of one of its databases."""
        return f"redis://{HOST}:{self.port}/{database}"

    def _command(self) -> Sequence[str]:
        program = installed("redis-server", "redis-server")
        return [program, "--port", str(self.port), "--bind", HOST, "--save", "", "--dir", str(self.data)]

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((HOST, self.port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        return False
