"""`archiver metrics`."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from archiver_pipeline.metrics.exporter import Exporter
    from archiver_pipeline.metrics.server import Application
    from archiver_pipeline.metrics.source import Shared

log = logging.getLogger(__name__)

_ONCE_SECONDS = 60.0
_LEAST_REFRESH_SECONDS = 2.0
_SLICE_SECONDS = 0.2
_PATHS = (
    ("/metrics", "for Prometheus"),
    ("/readyz", "whether archiving goes on"),
    ("/healthz", "whether this answers"),
)


def command(
    listen: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port to listen on; 0 for any that is free.")] = 9464,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks at each source.")] = 10.0,
    max_lag_seconds: Annotated[
        float, typer.Option(min=0, help="/readyz: how long a message may wait before something is wrong.")
    ] = 900.0,
    once: Annotated[bool, typer.Option("--once", help="Print the metrics on standard output, and end.")] = False,
) -> None:
    """Serve metrics for Prometheus, and a status page: lag, throughput, gaps, files, followers, runs.

    The page at / says in a browser, on a desk or a phone, what is wrong, since when, and what to do. /metrics has all
    of it as Prometheus text or OpenMetrics, /healthz answers as long as the process does, and /readyz says with 200 or
    503, and reasons as JSON, whether archiving goes on. Neither a page nor a scrape asks anybody: archive, broker,
    files, followers and Dagster's history (DAGSTER_HOME, else that of make dev) are looked at in the background. One
    that does not answer has archiver_collector_up 0, and its metrics are not shown until it does.

    With --once, counters of commits are over the newest 1,000 of them and runs over the last day; the exit code is 1
    where a source did not answer. SIGTERM ends the exporter with exit code 0.

    **Examples**

        archiver metrics
        archiver metrics --listen 0.0.0.0 --port 9464
        archiver metrics --once | grep ^archiver_lag
        curl -s localhost:9464/readyz
    """
    from prometheus_client import CollectorRegistry
    from prometheus_client.process_collector import ProcessCollector

    from archiver_pipeline.metrics.exporter import Exporter
    from archiver_pipeline.metrics.source import Shared
    from archiver_pipeline.metrics.sources import sources_of
    from archiver_pipeline.settings.settings import load
    from archiver_pipeline.table.archive import archive_of

    settings = load()
    shared = Shared(settings, archive_of(settings))
    exporter = Exporter(sources_of(shared, once=once), interval, settings.mask)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(exporter)
    if once:
        _print(exporter, registry)
    ProcessCollector(registry=registry)
    _serve(exporter, _application(exporter, registry, shared, interval, max_lag_seconds), listen, port)


def _application(
    exporter: Exporter, registry: Any, shared: Shared, interval: float, max_lag_seconds: float
) -> Application:
    from archiver_pipeline.metrics.board import Board
    from archiver_pipeline.metrics.health import report
    from archiver_pipeline.metrics.server import Application, Response, json_route, metrics_route, page_route
    from archiver_pipeline.page.document import HEADER_POLICY, Links, document

    def ready() -> tuple[bool, Any]:
        found = report(exporter.faults(), shared.health, time.time(), max_lag_seconds)
        return found["ready"], found

    board = Board(exporter, shared, max_lag_seconds)
    links = Links(_PATHS, max(_LEAST_REFRESH_SECONDS, interval))
    return Application(
        {
            "/": page_route(lambda: document(board.standing(), links), HEADER_POLICY),
            "/metrics": metrics_route(registry),
            "/healthz": lambda _: Response(b"ok\n"),
            "/readyz": json_route(ready),
        }
    )


def _print(exporter: Exporter, registry: Any) -> NoReturn:
    from prometheus_client import generate_latest

    from archiver_pipeline.metrics.exporter import UNKNOWN

    exporter.look_once(_ONCE_SECONDS)
    sys.stdout.write(generate_latest(registry).decode())
    faults = {name: why for name, why in exporter.faults().items() if why is not None}
    for name, why in faults.items():
        if why == UNKNOWN:  # Any other has been logged.
            log.warning("%s does not answer: %s", name, why)
    _end(1 if faults else 0)


def _serve(exporter: Exporter, application: Application, host: str, port: int) -> NoReturn:
    from archiver_pipeline.metrics.server import serve

    ended: list[int] = []
    wanted = threading.Event()

    def end(number: int, _: Any) -> None:
        ended.append(number)
        wanted.set()

    # Before anything is started: a signal that comes early is not to be lost.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    server = serve(application, host, port)
    exporter.start()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
    # Where it listens is to be seen without --verbose, too.
    log.setLevel(logging.INFO)
    log.info("metrics at http://%s:%d/metrics, status page at /", host, server.server_port)
    # Never without a limit: polars takes SIGINT over when it is loaded, and then no signal ends a wait for a lock.
    while not wanted.wait(_SLICE_SECONDS):
        pass
    exporter.stop()
    server.shutdown()
    _end(130 if ended[0] == signal.SIGINT else 0)


def _end(code: int) -> NoReturn:
    """End at once: a look that hangs at a dead server would be waited for until its time is over."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
