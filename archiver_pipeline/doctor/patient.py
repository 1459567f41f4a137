"""Whose health it is: the settings, and the clients that the checks share."""

from __future__ import annotations

from functools import cached_property

from archiver_pipeline.kafka.cluster import Cluster
from archiver_pipeline.kafka.look import Look
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.table.archive import Archive, archive_of
from archiver_pipeline.table.delta_log import LogState
from archiver_pipeline.table.ledger import Ledger

BROKER_SECONDS = 5.0
"""How long each question to the broker may take: shorter than for a batch, since somebody waits for the answer."""


class Patient:
    """What is looked at.

    Attributes:
        settings: its settings.
        look: what the broker shows of the topics, once it was asked.
        standing: what the archive's log says, once it was read; None where there is no archive yet.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.look: Look | None = None
        self.standing: tuple[LogState, Ledger] | None = None

    @cached_property
    def cluster(self) -> Cluster:
        """The topics in the Kafka cluster."""
        return Cluster(self.settings, BROKER_SECONDS)

    @cached_property
    def archive(self) -> Archive:
        """The archive, whose store is not waited for as long as a batch would."""
        found = archive_of(self.settings)
        found.storage = found.storage.hasty()
        return found

    @property
    def ledger(self) -> Ledger:
        """What is archived, empty where there is no archive yet."""
        return self.standing[1] if self.standing else Ledger(-1)
