"""The programs of `.venv/bin`, started by a process that has their libraries already: pages have many commands.

`python -m archiver_pipeline_tests.docs.forking SOCKET` serves; `launcher` is the text of a program that asks it. Each
command is a process of its own, with the caller's folder, variables, input and output.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
from pathlib import Path

_LIBRARIES = (
    "alembic.command",
    "archiver_pipeline.cli.main",
    "archiver_pipeline.defs.assets",
    "archiver_pipeline.defs.jobs",
    "confluent_kafka.admin",
    "dagster._cli.job",
    "dagster._core.instance.factory",
    "dagster._core.storage.sqlite_storage",
    "dagster._core.workspace.context",
    "deltalake",
    "duckdb",
    "polars",
    "pyarrow.parquet",
    "sqlalchemy.dialects.sqlite",
)
"""What takes a second or more to be imported, none of which asks the environment while it is."""

_LAUNCHER = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({path!r})
    asked = {{"name": {name!r}, "arguments": sys.argv[1:], "folder": os.getcwd(), "variables": dict(os.environ)}}
    socket.send_fds(server, [json.dumps(asked).encode() + b"\\0"], [0, 1, 2])
    sys.exit(int(server.recv(16) or b"70"))
"""


def launcher(name: str, path: Path) -> str:
    """The text of a program that has `name` run by the server at this socket, and ends with its exit code."""
    return _LAUNCHER.format(python=sys.executable, path=str(path), name=name)


def serve(path: Path) -> None:
    """Serve at this socket, until it is killed."""
    _load()
    # Who has asked is told by the child; nobody waits for that one.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        while True:
            caller, _ = server.accept()
            if os.fork() == 0:
                server.close()
                _answer(caller)
            caller.close()


def _load() -> None:
    for name in _LIBRARIES:
        importlib.import_module(name)


def _answer(caller: socket.socket) -> None:
    """Run what is asked for in a child, and tell how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    content, descriptors, _, _ = socket.recv_fds(caller, 1 << 20, 3)
    while not content.endswith(b"\0"):
        content += caller.recv(1 << 20)
    child = os.fork()
    if child == 0:
        caller.close()
        _become(json.loads(content[:-1]), descriptors)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    caller.sendall(str(code if code >= 0 else 128 - code).encode())
    os._exit(0)


def _become(asked: dict[str, object], descriptors: list[int]) -> None:
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    os.chdir(str(asked["folder"]))
    os.environ.clear()
    os.environ.update(asked["variables"])  # type: ignore[call-overload]
    sys.argv = [str(asked["name"]), *asked["arguments"]]  # type: ignore[misc]
    code = 0
    try:
        if asked["name"] == "archiver":
            from archiver_pipeline.cli.main import main
        else:
            from dagster._cli import main
        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
