"""What Dagster loads: wiring only."""

from __future__ import annotations

import dagster as dg

from archiver_pipeline.defs.assets import archive_assets, topic_assets
from archiver_pipeline.defs.jobs import archive_job
from archiver_pipeline.defs.resources import ArchiverResource
from archiver_pipeline.defs.sensors import archive_sensor

topics = topic_assets()
archive = archive_job()

defs = dg.Definitions(
    assets=[*topics, archive_assets(topics)],
    jobs=[archive],
    sensors=[archive_sensor(archive)],
    resources={"archiver": ArchiverResource()},
)
