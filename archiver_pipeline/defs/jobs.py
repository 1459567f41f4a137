"""The jobs."""

from __future__ import annotations

import dagster as dg

from archiver_pipeline.defs.hour_metadata import SEALED_HOURS
from archiver_pipeline.defs.metadata import ARCHIVE_VIEW, MESSAGES
from archiver_pipeline.defs.resources import settings
from archiver_pipeline.defs.runs import KIND_TAG, REWRITE


def archive_job() -> dg.UnresolvedAssetJobDefinition:
    """One pass: from the committed offsets to the end offsets seen at start, in bounded batches."""
    return dg.define_asset_job(
        "archive",
        # Checks come with each batch. Were they planned for the run, one without a batch would show them as skipped.
        selection=dg.AssetSelection.assets(MESSAGES, ARCHIVE_VIEW).without_checks(),
        executor_def=dg.in_process_executor,
        description="Archives from the committed offsets to the end offsets seen at start, in bounded batches.",
        # A pass over a large backlog takes as long as it takes; the sensor's runs set a limit of their own.
        tags={"dagster/max_runtime": "0", **settings().tags_of("archive")},
    )


def backfill_job() -> dg.UnresolvedAssetJobDefinition:
    """The hours of a run, read from Kafka again."""
    return dg.define_asset_job(
        "backfill",
        # The check comes with the hours, as those of `messages` do with a batch.
        selection=dg.AssetSelection.assets(SEALED_HOURS).without_checks(),
        executor_def=dg.in_process_executor,
        description="Reads hours from Kafka again and mends what differs.",
        tags={KIND_TAG: REWRITE, "dagster/priority": "-2", **settings().tags_of("backfill")},
    )
