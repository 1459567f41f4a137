"""`make demo`: an embedded broker, a generator and Dagster, until micro-batches land; then rows by type and hour.

With `KAFKA_BOOTSTRAP_SERVERS` set it uses that broker and topics of its own. It stays up on a terminal; with `CI=true`
or `DEMO_SECONDS=n` it ends by itself, with exit 0 only if what was produced is what was archived.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from archiver_pipeline.dev import command, dagster_home
from archiver_pipeline.errors import ArchiverError
from archiver_pipeline.generator import Generator, Summary, generate
from archiver_pipeline.settings import Settings, load

TOPICS = ("archiver-demo.orders", "archiver-demo.clicks")
RATE = 200.0
BATCHES = 3
CI_SECONDS = 20.0
_START_LIMIT_SECONDS = 120.0
_END_LIMIT_SECONDS = 60.0
_STOP_LIMIT_SECONDS = 20.0

console = Console(highlight=False, soft_wrap=True)


class DemoFailed(ArchiverError):
    """The demo did not show what it was to show."""


def main() -> None:
    """Run the demo and exit with 0 if all went well, 1 if not, 2 if a setting is wrong."""
    seconds = float(os.environ["DEMO_SECONDS"]) if os.environ.get("DEMO_SECONDS") else None
    if seconds is None and (os.environ.get("CI") == "true" or not sys.stdout.isatty()):
        seconds = CI_SECONDS
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with _broker() as environment:
            _run(environment, seconds)
    except KeyboardInterrupt:
        console.print("\nStopped. The archive of the demo stays in its folder; make demo begins with an empty one.")
    except ArchiverError as error:
        console.print(f"[red]{error}[/]")
        sys.exit(1)


def _run(environment: dict[str, str], seconds: float | None) -> None:
    """Run generator and Dagster side by side, and watch the batches land."""
    os.environ.update(environment)
    settings = load()
    shutil.rmtree(settings.base_dir, ignore_errors=True)
    port = _free_port(3000)
    ui = f"http://127.0.0.1:{port}"
    log = settings.base_dir / "dagster.log"
    with _dagster(settings, port, log) as process, _generator(settings) as produced:
        console.print(f"Broker      {settings.kafka_properties['bootstrap.servers']}{_embedded(environment)}")
        console.print(f"Producer    {RATE:.0f} messages a second to {', '.join(TOPICS)}")
        console.print(f"Dagster UI  {ui}  (starting; its log is {log})")
        console.print("Waiting for micro-batches; the first takes about 20 seconds.")
        shown = _watch(settings, process, log, seconds)
        _print_rows(settings, ui)
        while seconds is None:
            shown = _print_batches(settings, shown)
            _check_alive(process, log)
            time.sleep(2)
        summary = produced.stop()
        _wait_for_all(settings, process, log, summary)
    _compare(settings, summary)


def _embedded(environment: Mapping[str, str]) -> str:
    return "  (embedded, kept in memory)" if environment.get("ARCHIVER_TOPIC_IDS") == "none" else ""


@contextmanager
def _broker() -> Iterator[dict[str, str]]:
    """Yield the environment of the demo: the given broker, or librdkafka's mock cluster, which lives while we do."""
    base = Path(os.environ.get("BASE_DIR") or "data").absolute() / "demo"
    for name in [name for name in os.environ if name.startswith("ARCHIVER_")]:
        del os.environ[name]
    environment = {
        "ARCHIVER_CONFIG": os.devnull,
        "ARCHIVER_TOPICS": ",".join(TOPICS),
        "ARCHIVER_INTERVAL_SECONDS": "5",
        "BASE_DIR": str(base),
        "DAGSTER_HOME": str(base / "dagster_home"),
    }
    if os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        yield environment
        return
    from confluent_kafka import Producer

    cluster = Producer({"bootstrap.servers": "none", "test.mock.num.brokers": 1, "log_level": 0})
    address = next(iter(cluster.list_topics(timeout=10).brokers.values()))
    # The mock cluster has no controller, and so no topic ids.
    yield {
        **environment,
        "KAFKA_BOOTSTRAP_SERVERS": f"{address.host}:{address.port}",
        "ARCHIVER_TOPIC_IDS": "none",
    }
    cluster.flush(1)


class _Producing:
    """The generator in a thread of its own."""

    def __init__(self, settings: Settings) -> None:
        self._ended = threading.Event()
        self._summary: Summary | None = None
        self._error: ArchiverError | None = None
        self._settings = Generator(kafka=settings.kafka_properties, topics=TOPICS, rate=RATE, headers=True)
        self._thread = threading.Thread(target=self._produce, name="generator", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Ask it to end."""
        self._ended.set()

    def stop(self) -> Summary:
        """End it and return what was delivered."""
        self.end()
        self._thread.join(_END_LIMIT_SECONDS)
        if self._error is not None:
            raise self._error
        if self._summary is None or self._summary.failed:
            raise DemoFailed(f"not every message was delivered: {self._summary}")
        return self._summary

    def _produce(self) -> None:
        try:
            self._summary = generate(self._settings, stop=self._ended.is_set)
        except ArchiverError as error:
            self._error = error


@contextmanager
def _generator(settings: Settings) -> Iterator[_Producing]:
    producing = _Producing(settings)
    try:
        yield producing
    finally:
        producing.end()


@contextmanager
def _dagster(settings: Settings, port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run `dagster dev` in a process group of its own, and end the whole group."""
    dagster_home(settings)
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command("127.0.0.1", port), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        _end_group(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    """Ask the group to end as Ctrl-C would, and kill what is left of it."""
    for number, limit in ((signal.SIGINT, _STOP_LIMIT_SECONDS), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline and _group_lives(process):
            time.sleep(0.2)


def _group_lives(process: subprocess.Popen[bytes]) -> bool:
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


def _watch(settings: Settings, process: subprocess.Popen[bytes], log: Path, seconds: float | None) -> int:
    """Print batches as they land, until there are enough and the time is over; return the last one's version."""
    began = time.monotonic()
    shown = -1
    landed = 0
    while landed < BATCHES or (seconds is not None and time.monotonic() - began < seconds):
        before, shown = shown, _print_batches(settings, shown)
        landed += shown != before
        _check_alive(process, log)
        if landed == 0 and time.monotonic() - began > _START_LIMIT_SECONDS:
            raise DemoFailed(f"no batch landed in {_START_LIMIT_SECONDS:.0f} s", path=str(log), hint=_tail(log))
        time.sleep(1)
    return shown


def _query(settings: Settings, sql: str) -> list[tuple[Any, ...]]:
    """Ask the DuckDB file; it is not there before the first batch."""
    import duckdb

    if not settings.view_path.exists():
        return []
    with duckdb.connect(str(settings.view_path), read_only=True) as connection:
        return connection.execute(sql).fetchall()


def _print_batches(settings: Settings, shown: int) -> int:
    """Print the batches since the version `shown`, and return the newest one's."""
    sql = (
        f"SELECT version, messages, files, bytes, seconds, len(ranges) FROM batches WHERE version > {shown} ORDER BY 1"
    )
    for version, messages, files, size, seconds, partitions in _query(settings, sql):
        console.print(
            f"  batch {version}: {messages:,} messages of {partitions} partitions, {size:,} bytes in {files} files, "
            f"{seconds:.1f} s"
        )
        shown = version
    return shown


def _print_rows(settings: Settings, ui: str) -> None:
    table = Table("type", "dt", "hr", "messages", "files", title="In the archive")
    for row in _query(settings, "SELECT type, dt, hr, messages, files FROM hours"):
        table.add_row(*map(str, row))
    console.print(table)
    console.print(f"Dagster UI  {ui}/assets/messages")
    console.print(f"Files       {settings.archive_uri}/type=…/dt=…/hr=…/")
    console.print(
        f"SQL         BASE_DIR={settings.base_dir} make sql ARGS='\"SELECT type, count(*) FROM messages GROUP BY 1\"'"
    )


def _wait_for_all(settings: Settings, process: subprocess.Popen[bytes], log: Path, summary: Summary) -> None:
    """Wait until the archive has as many messages as were delivered."""
    deadline = time.monotonic() + _END_LIMIT_SECONDS
    while (archived := _archived(settings)) < summary.delivered and time.monotonic() < deadline:
        _check_alive(process, log)
        time.sleep(1)
    console.print(f"Produced {summary.delivered:,} messages, archived {archived:,}.")


def _archived(settings: Settings) -> int:
    rows = _query(settings, "SELECT count(*) FROM messages")
    return int(rows[0][0]) if rows else 0


def _compare(settings: Settings, summary: Summary) -> None:
    """Compare count and content of what Kafka has with the archive."""
    from archiver_pipeline.verify import verify

    report = verify(settings, against_kafka=True)
    for fault in report.faults:
        console.print(f"[red]{fault}[/]")
    archived = _archived(settings)
    if report.faults or (archived != summary.delivered and not os.environ.get("KAFKA_BOOTSTRAP_SERVERS")):
        raise DemoFailed(f"produced {summary.delivered:,} messages, but archived {archived:,}")
    console.print("Every message is in the archive exactly once, byte for byte.")


def _check_alive(process: subprocess.Popen[bytes], log: Path) -> None:
    if process.poll() is not None:
        raise DemoFailed(f"Dagster ended with exit code {process.returncode}", path=str(log), hint=_tail(log))
    if b"Error loading repository location" in log.read_bytes():
        raise DemoFailed("Dagster cannot load the archiver", path=str(log), hint=_tail(log))


def _tail(log: Path) -> str:
    return "Its log ends with:\n" + "\n".join(log.read_text("utf-8", "replace").splitlines()[-15:])


def _free_port(wanted: int) -> int:
    """The wanted port if it is free, else any that is."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
            except OSError:
                continue
    raise DemoFailed("no free port")


if __name__ == "__main__":
    main()
