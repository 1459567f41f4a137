"""`make demo`: an embedded broker, a generator and Dagster, until micro-batches land; then rows by type and hour.

With `KAFKA_BOOTSTRAP_SERVERS` set it uses that broker and topics of its own. It stays up on a terminal; with `CI=true`
or `DEMO_SECONDS=n` it ends by itself, with exit 0 only if what was produced is what was archived.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from archiver_pipeline.amounts import counted
from archiver_pipeline.batch.batch import Archiver
from archiver_pipeline.dev import DagsterDev
from archiver_pipeline.errors import ArchiverError, SettingsError
from archiver_pipeline.generator import Generator, Summary, generate
from archiver_pipeline.settings.settings import Settings, load

TOPICS = ("archiver-demo.orders", "archiver-demo.clicks")
RATE = 200.0
BATCHES = 3
CI_SECONDS = 20.0
_BATCH_LIMIT_SECONDS = 120.0
_END_LIMIT_SECONDS = 60.0

console = Console(highlight=False, soft_wrap=True)


_REPORT = "The faults are named above; this is a defect of the archiver: please report it"


class DemoFailed(ArchiverError):
    """The demo did not show what it was to show."""


def main() -> None:
    """Run the demo and exit with 0 if all went well, 1 if not, 2 if a setting is wrong."""
    # A shell that starts us in the background has SIGINT ignored, here and in every process that we start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        seconds = _seconds(os.environ)
        with _broker() as environment:
            _run(environment, seconds)
    except KeyboardInterrupt:
        console.print("\nStopped. The archive of the demo stays in its folder; make demo begins with an empty one.")
    except ArchiverError as error:
        console.print(str(error), style="red", markup=False)
        sys.exit(2 if isinstance(error, SettingsError) else 1)


def _seconds(environment: Mapping[str, str]) -> float | None:
    """How long the demo lasts at least; None on a terminal, where it stays up."""
    given = environment.get("DEMO_SECONDS")
    if not given:
        return CI_SECONDS if environment.get("CI") == "true" or not sys.stdout.isatty() else None
    if not given.isdigit():
        raise SettingsError(f"DEMO_SECONDS is {given!r}: allowed is a whole number of seconds")
    return float(given)


def _run(environment: dict[str, str], seconds: float | None) -> None:
    """Run generator and Dagster side by side, and watch the batches land."""
    os.environ.update(environment)
    settings = load()
    shutil.rmtree(settings.base_dir, ignore_errors=True)
    with DagsterDev(settings, settings.base_dir / "dagster.log") as dagster, _generator(settings) as produced:
        console.print(f"Broker      {settings.kafka_properties['bootstrap.servers']}{_embedded(environment)}")
        console.print(f"Producer    {RATE:.0f} messages a second to {', '.join(TOPICS)}")
        console.print(f"Dagster UI  {dagster.url}  (starting; its log is {dagster.log})")
        console.print("Waiting for micro-batches; the first takes about 20 seconds.")
        shown = _watch(settings, dagster, produced, seconds)
        if seconds is None:
            _print_rows(settings, dagster.url)
            console.print("It goes on until you press Ctrl-C.")
        while seconds is None:
            shown = _print_batches(settings, shown)
            produced.check()
            dagster.check()
            time.sleep(2)
        summary = produced.stop()
        _wait_for_all(settings, dagster, summary)
        _print_batches(settings, shown)
        _print_rows(settings, dagster.url)
        console.print("Stopping Dagster ...")
    _compare(settings, summary)


def _embedded(environment: Mapping[str, str]) -> str:
    if environment.get("ARCHIVER_TOPIC_IDS") == "none":
        return "  (embedded, kept in memory)"
    return "  (yours, from KAFKA_BOOTSTRAP_SERVERS; the topics of the demo stay there)"


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

    def check(self) -> None:
        """Raise what made it fail, if anything did."""
        if self._error is not None:
            raise self._error

    def stop(self) -> Summary:
        """End it and return what was delivered."""
        self.end()
        self._thread.join(_END_LIMIT_SECONDS)
        self.check()
        if self._summary is None or self._summary.failed:
            done = self._summary
            told = (
                f"{done.failed:,} of {done.sent:,} failed, the first with: {done.error}" if done else "it does not end"
            )
            raise DemoFailed(f"not every message was delivered to the broker: {told}", hint="Look at the broker")
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


def _watch(settings: Settings, dagster: DagsterDev, produced: _Producing, seconds: float | None) -> int:
    """Print batches as they land, until there are enough and the time is over; return the last one's version."""
    began = last = time.monotonic()
    shown = -1
    landed = 0
    while landed < BATCHES or (seconds is not None and time.monotonic() - began < seconds):
        before, shown = shown, _print_batches(settings, shown)
        if shown != before:
            landed, last = landed + 1, time.monotonic()
        produced.check()
        dagster.check()
        if time.monotonic() - last > _BATCH_LIMIT_SECONDS:
            raise dagster.failed(f"no batch landed in {_BATCH_LIMIT_SECONDS:.0f} s")
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
            f"  batch {version}: {counted(messages, 'message')} of {counted(partitions, 'partition')}, "
            f"{counted(size, 'byte')} in {counted(files, 'file')}, "
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


def _wait_for_all(settings: Settings, dagster: DagsterDev, summary: Summary) -> None:
    """Wait until the archive has all that the broker has, and the view shows it."""
    deadline = time.monotonic() + _END_LIMIT_SECONDS
    archiver = Archiver(settings)
    while time.monotonic() < deadline:
        left = archiver.lag()
        archived = _archived(settings)
        if left == 0 and archived >= summary.delivered:
            console.print(f"Produced {counted(summary.delivered, 'message')}, archived {archived:,}.")
            return
        dagster.check()
        time.sleep(1)
    raise dagster.failed(
        f"{counted(left, 'message was', 'messages were')} not archived in {_END_LIMIT_SECONDS:.0f} s after the last "
        "one came"
    )


def _archived(settings: Settings) -> int:
    rows = _query(settings, "SELECT count(*) FROM messages")
    return int(rows[0][0]) if rows else 0


def _compare(settings: Settings, summary: Summary) -> None:
    """Compare count and content of what Kafka has with the archive."""
    from archiver_pipeline.stored.verify import verify

    report = verify(settings, against_kafka=True)
    for fault in report.faults:
        console.print(str(fault), style="red", markup=False)
    if not report.good:
        raise DemoFailed(
            f"the archive is not what Kafka has: {report.kafka_error or counted(len(report.faults), 'fault')}",
            hint=_REPORT,
        )
    # A broker of one's own may have messages of an earlier demo, too; the embedded one has not.
    if report.messages != summary.delivered and settings.topic_ids == "none":
        raise DemoFailed(
            f"produced {counted(summary.delivered, 'message')}, but archived {report.messages:,}", hint=_REPORT
        )
    console.print("Every message is in the archive exactly once, byte for byte.")


if __name__ == "__main__":
    main()
