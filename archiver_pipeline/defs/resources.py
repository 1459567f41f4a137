"""What Dagster's assets and sensors work with."""

from __future__ import annotations

from functools import cache

import dagster as dg

from archiver_pipeline.batch.batch import Archiver
from archiver_pipeline.kafka.cluster import Cluster
from archiver_pipeline.settings.settings import Settings, load
from archiver_pipeline.steps import OnStep
from archiver_pipeline.table.archive import Archive, archive_of


@cache
def settings() -> Settings:
    """The settings, read once per process."""
    return load()


@cache
def cluster() -> Cluster:
    """The Kafka cluster; its connections outlive a tick of the sensor."""
    return Cluster(settings())


def archive() -> Archive:
    """The archive of the settings; what it has read of its log outlives a tick of a sensor."""
    return _archive(settings().archive_uri, settings().lanes)


@cache
def _archive(_uri: str, _lanes: int) -> Archive:
    return archive_of(settings())


class ArchiverResource(dg.ConfigurableResource[Archiver]):
    """Makes archivers from the settings. It has no configuration of its own, so none is stored with a run."""

    def archiver(self, lane: int, run_id: str, on_step: OnStep) -> Archiver:
        """An archiver of one lane."""
        return Archiver(settings(), lane, run_id, on_step)
