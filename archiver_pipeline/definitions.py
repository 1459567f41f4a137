"""What Dagster loads: wiring only."""

from __future__ import annotations

import dagster as dg

from archiver_pipeline.defs.assets import archive_assets, topic_assets
from archiver_pipeline.defs.code_server import keep_clearing
from archiver_pipeline.defs.follow import follow_job, follow_sensor
from archiver_pipeline.defs.followers import follower_assets, results_topic
from archiver_pipeline.defs.hours import sealed_hours
from archiver_pipeline.defs.jobs import archive_job, backfill_job
from archiver_pipeline.defs.partitions import hour_partitions
from archiver_pipeline.defs.resources import ArchiverResource
from archiver_pipeline.defs.retention import retention_sensor
from archiver_pipeline.defs.run_logs import use_log_format
from archiver_pipeline.defs.seal import seal_job
from archiver_pipeline.defs.seal_sensor import seal_sensor
from archiver_pipeline.defs.sensors import archive_sensor

keep_clearing()
use_log_format()
topics = topic_assets()
hours = hour_partitions()
archive = archive_job()
seal = seal_job(hours)
follow = follow_job()

defs = dg.Definitions(
    assets=[*topics, archive_assets(topics), sealed_hours(hours), *follower_assets(hours), *results_topic(topics)],
    jobs=[archive, seal, backfill_job(), follow],
    sensors=[archive_sensor(archive), seal_sensor(seal, hours), follow_sensor(follow), retention_sensor()],
    resources={"archiver": ArchiverResource()},
    # What is materialized in the UI runs in one process, too: another one is three seconds of imports.
    executor=dg.in_process_executor,
)
