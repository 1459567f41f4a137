"""The contract of a source of metrics, and what the sources know of one another."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from archiver_pipeline.followers.lag import FollowerLag
from archiver_pipeline.kafka.look import Look
from archiver_pipeline.page.standing import ArchiveState, BrokerState, FilesState
from archiver_pipeline.run_history import History
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.table.archive import Archive

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

FRESH_SECONDS = 120.0
"""What one source found is good for another one for so long."""


@dataclass
class Health:
    """What health is judged by: the newest findings of the sources, each with its time (seconds since 1970).

    Attributes:
        look, looked: what the broker showed last.
        lag: offsets that are not archived.
        waited: how long the oldest of them has waited, in seconds.
        lags: the lag of the last minutes, as (time, offsets).
        last_batch: when the newest batch was committed.
    """

    look: Look | None = None
    looked: float = 0.0
    lag: int = 0
    waited: float = 0.0
    lags: list[tuple[float, int]] = field(default_factory=list)
    last_batch: float | None = None

    def recent_look(self) -> Look | None:
        """What the broker showed, unless that is too long ago."""
        return self.look if time.time() - self.looked <= FRESH_SECONDS else None


@dataclass
class Findings:
    """What each source found last, as the status page shows it; None where it never found anything."""

    archive: ArchiveState | None = None
    broker: BrokerState | None = None
    files: FilesState | None = None
    followers: tuple[FollowerLag, ...] | None = None
    history: History | None = None


@dataclass(frozen=True)
class Shared:
    """What the sources share: settings, the archive as it was read last, what they know of one another, and what they
    found."""

    settings: Settings
    archive: Archive
    health: Health = field(default_factory=Health)
    findings: Findings = field(default_factory=Findings)


class Source(ABC):
    """Something that metrics are taken from.

    Attributes:
        name: one word, by which `archiver_collector_up` names it.
        costly: whether a look takes so long that there have to be pauses between them.
    """

    name: str
    costly: bool = False

    @abstractmethod
    def look(self) -> tuple[Metric, ...]:
        """Find out what there is to tell; raises where it cannot be found out."""
