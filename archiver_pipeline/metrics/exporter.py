"""The exporter: a thread looks at each source again and again, and a scrape shows what they found last."""

from __future__ import annotations

import logging
import platform
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from archiver_pipeline.errors import ArchiverError
from archiver_pipeline.metrics.catalogue import Families
from archiver_pipeline.metrics.source import Source

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

log = logging.getLogger(__name__)

UNKNOWN = "the first look at it has not ended"

_PATIENCE_SECONDS = 30.0
"""A look that is overdue by three intervals and this: what was found before is no longer shown."""

_SHARE, _LONGEST_SECONDS = 20, 300.0
"""A costly look is made again after so many times its own time, but for the first one, which loads libraries."""


@dataclass(frozen=True)
class Found:
    """What a look at a source came to.

    Attributes:
        metrics: what it told.
        error: why it told nothing, without secrets.
        seconds: how long it took.
        success: when it last told something, in seconds since 1970; None for never.
        good_until: until when it is shown, by the monotonic clock.
    """

    metrics: tuple[Metric, ...] = ()
    error: str | None = UNKNOWN
    seconds: float = 0.0
    success: float | None = None
    good_until: float = 0.0

    @property
    def fault(self) -> str | None:
        """Why it is not to be shown, None where it is."""
        if self.error is None and time.monotonic() > self.good_until:
            return "the newest look at it does not end"
        return self.error


def parts(error: str) -> frozenset[str]:
    """What an error says, in whatever order: a client tells of each of its brokers as it comes to it."""
    return frozenset(re.split(r"[;.:] ", error))


class Watch:
    """A source under watch: one that hangs holds up none of the others, and no scrape."""

    def __init__(self, source: Source, interval: float, mask: Callable[[str], str]) -> None:
        """Look at nothing yet.

        Args:
            source: what to look at.
            interval: seconds between two looks.
            mask: takes secrets out of a text.
        """
        self.name = source.name
        self.found = Found()
        self._source, self._interval, self._mask = source, interval, mask

    def look(self) -> float:
        """Look once, whatever goes wrong; return how many seconds to wait before the next look."""
        began, success = time.monotonic(), self.found.success
        try:
            metrics, error = self._source.look(), None
            success = time.time()
        except Exception as problem:
            # Whatever a library raises: an exporter that ends tells of nothing any more.
            kind = "" if isinstance(problem, ArchiverError) else f"{type(problem).__name__}: "
            metrics, error = (), kind + " ".join(self._mask(str(problem)).split())
            if parts(error) != parts(self.found.error or ""):
                log.warning("%s does not answer: %s", self.name, error)
        if error is None and success is not None and self.found.error and self.found.success:
            log.warning("%s answers again", self.name)
        seconds = time.monotonic() - began
        costs = _SHARE * seconds if self._source.costly and self.found.success else 0.0
        pause = max(self._interval, min(costs, _LONGEST_SECONDS))
        good_until = time.monotonic() + pause + 2 * self._interval + _PATIENCE_SECONDS
        self.found = Found(metrics, error, seconds, success, good_until)
        return pause

    def run(self, stopped: threading.Event) -> None:
        """Look until it is stopped."""
        while not stopped.wait(self.look()):
            pass


class Exporter:
    """Everything that there is to tell, as prometheus-client collects it.

    Attributes:
        watches: the sources.
    """

    def __init__(self, sources: Sequence[Source], interval: float, mask: Callable[[str], str]) -> None:
        self.watches = [Watch(source, interval, mask) for source in sources]
        self._stopped = threading.Event()

    def start(self) -> None:
        """Look at every source by a thread of its own, until `stop`."""
        for watch in self.watches:
            # They die with the process: one that hangs in a library cannot be asked to end.
            threading.Thread(target=watch.run, args=(self._stopped,), name=watch.name, daemon=True).start()

    def stop(self) -> None:
        """Begin no further look."""
        self._stopped.set()

    def look_once(self, limit_seconds: float) -> None:
        """Look at every source once, all at the same time, and wait for that long at most."""
        threads = [threading.Thread(target=watch.look, name=watch.name, daemon=True) for watch in self.watches]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + limit_seconds
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def faults(self) -> dict[str, str | None]:
        """By source why it tells nothing now, None where it does."""
        return {watch.name: watch.found.fault for watch in self.watches}

    def describe(self) -> list[Metric]:
        """Nothing: prometheus-client would collect everything to find the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield what the sources found last; what is out of date or comes from a source that is down is left out."""
        families = Families()
        families.info("archiver_build", version=version(), python=platform.python_version())
        every = [(watch.name, watch.found) for watch in self.watches]
        for name, found in every:
            if found.error != UNKNOWN:
                # Before the first look has ended nobody knows, and an alert would go off at each start.
                families.add("archiver_collector_up", found.fault is None, name)
                families.add("archiver_collector_duration_seconds", found.seconds, name)
            if found.success is not None:
                families.add("archiver_collector_last_success_timestamp_seconds", found.success, name)
        yield from families.all()
        for _, found in every:
            if found.fault is None:
                yield from found.metrics


def version(package: str = "archiver-pipeline") -> str:
    """The version of an installed package, by default the archiver's own; `unknown` without one."""
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"
