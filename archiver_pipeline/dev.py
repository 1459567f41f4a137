"""`make dev`: Dagster's UI, daemon and sensor against the configured broker."""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from archiver_pipeline.errors import ArchiverError, SettingsError
from archiver_pipeline.logs import JSON, JsonFormatter, wanted_format
from archiver_pipeline.settings.settings import Settings, load

_CHECKOUT = Path(__file__).resolve().parents[1]
_STOP_LIMIT_SECONDS = 20.0
_SUPERSEDED = "ignore:Function `dev_command` is superseded:FutureWarning"
"""Dagster warns whoever starts `dagster dev`; that we do it is no news to who starts us. It is this warning alone."""


def dagster_home(settings: Settings) -> Path:
    """Make Dagster's folder, `DAGSTER_HOME` or `$BASE_DIR/dagster_home`, with our `dagster.yaml` unless it has one."""
    home = Path(os.environ.get("DAGSTER_HOME") or settings.base_dir.absolute() / "dagster_home")
    home.mkdir(parents=True, exist_ok=True)
    ours = _CHECKOUT / "deploy" / "dagster.yaml"
    if ours.exists() and not (home / "dagster.yaml").exists():
        shutil.copyfile(ours, home / "dagster.yaml")
    return home


def command(host: str, port: int) -> list[str]:
    """The command line of `dagster dev` with our definitions, and with logs in the format of ours."""
    code = ["-m", "archiver_pipeline.definitions"]
    logs = ["--log-format", JSON] if wanted_format() == JSON else []
    return [sys.executable, "-m", "dagster", "dev", *code, "--host", host, "--port", str(port), *logs]


def quiet(variables: Mapping[str, str]) -> dict[str, str]:
    """These variables, with one warning less in Dagster's output; warnings that are chosen there stay chosen."""
    chosen = variables.get("PYTHONWARNINGS")
    return {**variables, "PYTHONWARNINGS": f"{chosen},{_SUPERSEDED}" if chosen else _SUPERSEDED}


class DagsterFailed(ArchiverError):
    """Dagster ended, cannot load the definitions, or did not do its work; the hint has the end of its log."""


class DagsterDev:
    """`dagster dev` in a process group of its own, of which nothing is left at the end.

    Attributes:
        url: the address of the UI.
        log: the file with what it says.
    """

    def __init__(self, settings: Settings, log: Path) -> None:
        """Start it, on port 3000 if that is free, with the settings of the environment."""
        port = _free_port(3000)
        self.url = f"http://127.0.0.1:{port}"
        self.log = log
        dagster_home(settings)
        with open(log, "wb") as output:
            self._process = subprocess.Popen(
                command("127.0.0.1", port),
                env=quiet(os.environ), stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def check(self) -> None:
        """Raise DagsterFailed unless it runs and has loaded the definitions."""
        if self._process.poll() is not None:
            raise self.failed(f"Dagster ended with exit code {self._process.returncode}")
        if b"Error loading repository location" in self.log.read_bytes():
            raise self.failed("Dagster cannot load the archiver")

    def failed(self, what: str) -> DagsterFailed:
        """The error to raise, with the end of the log."""
        lines = self.log.read_text("utf-8", "replace").splitlines()[-15:]
        return DagsterFailed(what, path=str(self.log), hint="\n".join(["Its log ends with:", *lines]))

    def end(self) -> None:
        """Ask Dagster to end, and its runs with it, and kill what is left of its process group.

        Only the first process is asked: it takes a code server that ends by itself for a failure, and starts another.
        """
        try:
            self._process.send_signal(signal.SIGINT)
            deadline = time.monotonic() + _STOP_LIMIT_SECONDS
            while time.monotonic() < deadline and self._group_lives():
                time.sleep(0.2)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def _group_lives(self) -> bool:
        self._process.poll()
        try:
            os.killpg(self._process.pid, 0)
        except ProcessLookupError:
            return False
        return True


def _free_port(wanted: int) -> int:
    """The wanted port if it is free, else any that is."""
    if _is_free("127.0.0.1", wanted):
        return wanted
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(host: str, port: int) -> bool:
    """Tell whether the UI can have a port; with one that is in use Dagster would go on without a UI."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def main() -> None:
    """Check the settings, then become `dagster dev`."""
    parser = argparse.ArgumentParser(prog="python -m archiver_pipeline.dev", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address of the UI (default 127.0.0.1)")
    parser.add_argument("--port", type=int, default=3000, help="port of the UI (default 3000)")
    given = parser.parse_args()
    try:
        settings = load()
        settings.require_kafka()
    except SettingsError as error:
        sys.exit(_complain(error))
    if not _is_free(given.host, given.port):
        hint = f"make dev ARGS='--port {given.port + 1}'"
        sys.exit(_complain(f"port {given.port} of {given.host} is in use; name another one: {hint}"))
    os.environ["DAGSTER_HOME"] = str(dagster_home(settings))
    # A shell that starts us in the background has SIGINT ignored, and Dagster could then not be stopped by it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _announce(given.host, given.port)
    line = command(given.host, given.port)
    os.execve(line[0], line, quiet(os.environ))


def _announce(host: str, port: int) -> None:
    """Say at once where the UI will be: Dagster says nothing for ten seconds, and for a minute on a busy machine."""
    text = f"Dagster is starting: its UI will be at http://{host}:{port} in some seconds. Ctrl-C ends it."
    if wanted_format() == JSON:
        record = logging.LogRecord(__name__, logging.INFO, __file__, 0, text, None, None)
        text = JsonFormatter().format(record)
    print(text, file=sys.stderr, flush=True)


def _complain(error: SettingsError | str) -> int:
    print(error, file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
