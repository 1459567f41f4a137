"""How everything stands for the status page: what the sources found last, and how they are."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping

from archiver_pipeline.metrics.exporter import UNKNOWN, Exporter, version
from archiver_pipeline.metrics.health import reasons
from archiver_pipeline.metrics.source import Shared
from archiver_pipeline.metrics.sources import sources_of
from archiver_pipeline.page.standing import SourceState, Standing
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.table.archive import archive_of

_LIBRARIES = ("dagster", "deltalake", "duckdb", "polars", "confluent-kafka")

_ONCE_SECONDS = 60.0
_ONCE_COMMITS = 200


def look_once(settings: Settings) -> Standing:
    """Look at every source once, side by side; one that does not answer in time is told of as one that nobody knows.

    Raises:
        SettingsError: topics are named, and no broker.
    """
    shared = Shared(settings, archive_of(settings))
    sources = sources_of(shared, once=True, ask=bool(settings.topics), commits=_ONCE_COMMITS)
    exporter = Exporter(sources, _ONCE_SECONDS, settings.mask)
    exporter.look_once(_ONCE_SECONDS)
    return Board(exporter, shared, once=True).standing()


class Board:
    """Puts together what the sources found; to ask it costs nothing that grows with the archive's messages."""

    def __init__(
        self, exporter: Exporter, shared: Shared, max_lag_seconds: float = 900.0, *, once: bool = False
    ) -> None:
        """Look at nothing yet.

        Args:
            exporter: what looks at the sources.
            shared: what they share.
            max_lag_seconds: how long a message may wait before something is wrong.
            once: whether each is looked at once only.
        """
        self._exporter, self._shared, self._max_lag_seconds = exporter, shared, max_lag_seconds
        self._once, self._began = once, time.time()
        self._settings, self._versions = told_settings(shared.settings), _versions()

    def standing(self) -> Standing:
        """How everything stands now."""
        now, found, mask = time.time(), self._shared.findings, self._shared.settings.mask
        needed = {name: fault for name, fault in self._exporter.faults().items() if fault is None}
        sources = {
            watch.name: SourceState(watch.found.fault, watch.found.error == UNKNOWN, watch.found.success)
            for watch in self._exporter.watches
        }
        late = reasons(needed, self._shared.health, now, self._max_lag_seconds) if "broker" in needed else []
        return Standing(
            now=now,
            began=self._began,
            address=mask(self._shared.archive.uri),
            sources=sources,
            reasons=tuple(late),
            archive=found.archive,
            broker=found.broker,
            files=found.files,
            followers=found.followers,
            history=found.history,
            settings=self._settings,
            versions=self._versions,
            once=self._once,
        )


def told_settings(settings: Settings) -> Mapping[str, str]:
    """The settings by which one understands the page, as text without secrets."""
    told = {
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_properties.get("bootstrap.servers", "not set"),
        "ARCHIVER_TOPICS": ", ".join(settings.topics) or "not set",
        "ARCHIVER_START": settings.start,
        "ARCHIVER_INTERVAL_SECONDS": f"{settings.interval_seconds:g}",
        "ARCHIVER_LANES": f"{settings.lanes}",
        "ARCHIVER_RUN_SECONDS": f"{settings.run_seconds:g}",
        "ARCHIVER_BATCH_MESSAGES": f"{settings.batch_messages:,}",
        "ARCHIVER_BATCH_BYTES": settings.batch_bytes.human_readable(),
        "ARCHIVER_SEAL_GRACE_MINUTES": f"{settings.seal_grace_minutes:g}",
        "ARCHIVER_KEEP_REPLACED_HOURS": f"{settings.keep_replaced_hours:g}",
    }
    return {name: settings.mask(value) for name, value in told.items()}


def _versions() -> Mapping[str, str]:
    libraries = {f"{name}": version(name) for name in _LIBRARIES}
    return {"archiver": version(), "Python": platform.python_version(), **libraries}
