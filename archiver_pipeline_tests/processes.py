"""Programs run as a user runs them: in processes of their own, of which none is left behind."""

from __future__ import annotations

import os
import random
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from archiver_pipeline_tests.waiting import wait_for

HOST = "127.0.0.1"
CHECKOUT = Path(__file__).resolve().parents[1]
_MARK = "TEST_PROCESSES"
_PREFIXES = ("ARCHIVER_", "KAFKA_", "DAGSTER_", "AWS_", "DEMO_")

# Linux ends the child when the thread that started it ends, however that happens. Set in the child after exec and not
# in `preexec_fn`, which is unsafe in a process with threads (librdkafka, Polars).
DIE_WITH_PARENT = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Program for `python -c`: its arguments are the id of its parent, and the command that it becomes."""


@dataclass(frozen=True)
class Ended:
    """How a program ended: its exit code, and what it said on standard output and standard error."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """Everything that it said."""
        return self.out + self.err


def is_taken(name: str) -> bool:
    """Tell whether the archiver, Dagster or the demo goes by an environment variable."""
    return name.startswith(_PREFIXES) or name in ("BASE_DIR", "CI")


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """The environment of this process with these variables, and without any other that would count."""
    kept = {name: value for name, value in os.environ.items() if not is_taken(name)}
    return {**kept, "ARCHIVER_CONFIG": os.devnull, "PYTHONUNBUFFERED": "1", **variables}


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, for servers that will be stopped and started on them."""
    # Below the ephemeral range: while a server is down, a client that keeps connecting to a port in that range
    # can be given the very port as its own end, and the server does not get it back.
    held: list[socket.socket] = []
    try:
        while len(held) < count:
            candidate = socket.socket()
            try:
                candidate.bind((HOST, random.SystemRandom().randrange(20_000, 32_000)))
                held.append(candidate)
            except OSError:
                candidate.close()
        return [each.getsockname()[1] for each in held]
    finally:
        for each in held:
            each.close()


@contextmanager
def forwarded(port: int, address: str) -> Iterator[None]:
    """Hand every connection to a port on to an address, until the block ends."""
    host, _, target = address.partition(":")

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while content := source.recv(65536):
                sink.sendall(content)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with socket.create_connection((host, int(target))) as behind:
                back = threading.Thread(target=pump, args=(behind, self.request), daemon=True)
                back.start()
                pump(self.request, behind)
                back.join()

    class Forwarder(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    with Forwarder((HOST, port), Handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        serving.start()
        yield
        server.shutdown()
        serving.join()


class Processes:
    """Starts programs, knows every process that came of them, and kills those on the way out."""

    def __init__(self) -> None:
        self._mark = uuid.uuid4().hex

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self, arguments: list[str], variables: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
        """Start Python with these arguments in a session of its own; `log` gets what it says."""
        with log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, *arguments],
                cwd=CHECKOUT,
                env={**variables, _MARK: self._mark},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def run(self, arguments: list[str], variables: Mapping[str, str], seconds: float = 240) -> Ended:
        """Run Python with these arguments to its end. Raises subprocess.TimeoutExpired."""
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=CHECKOUT,
            env={**variables, _MARK: self._mark},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            start_new_session=True,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def living(self) -> list[psutil.Process]:
        """Every process that lives and was started here, or by one that was; whatever session it is in."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def wait_until_none_lives(self, seconds: float) -> None:
        """Wait for all of them to end. Raises TimeoutError."""
        wait_for("the end of every process", lambda: not self.living(), seconds, pause=0.2)

    def kill(self) -> None:
        """Kill whatever is left, at once."""
        while found := self.living():
            for process in found:
                _kill(process)
            psutil.wait_procs(found, 5)

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return bool(process.status() != psutil.STATUS_ZOMBIE and process.environ().get(_MARK) == self._mark)
        except (psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            return False


def _kill(process: psutil.Process) -> None:
    try:
        process.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return
