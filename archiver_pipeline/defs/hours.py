"""The asset `sealed_hours`: its partitions are the hours, and to materialize one reads it from Kafka again."""

from collections.abc import Iterator
from enum import Enum

import dagster as dg

from archiver_pipeline.defs import descriptions, hour_checks, hour_metadata, run_tags
from archiver_pipeline.defs.failing import failure
from archiver_pipeline.defs.hour_metadata import SEALED_HOURS
from archiver_pipeline.defs.hour_report import HourReport
from archiver_pipeline.defs.metadata import MESSAGES
from archiver_pipeline.defs.partitions import hour_of_key
from archiver_pipeline.defs.resources import settings
from archiver_pipeline.defs.runs import heartbeat, step_aside
from archiver_pipeline.errors import ArchiverError

BACKFILL_OP = "backfill_hours"
"""The step's name, under which run config has its place."""

HOURS_PER_RUN = 24
"""Neighbouring hours share a run: one start-up, and one look at Kafka for all of them."""


class Source(Enum):
    """Where a backfill takes the messages from."""

    kafka = "kafka"
    archive = "archive"


class BackfillConfig(dg.Config):
    """How hours are mended.

    Attributes:
        source: `kafka` compares an hour with what Kafka still has of it; `archive` leaves Kafka alone
            and applies the present type rules to what the archive has.
        accept_loss: replace a damaged file even if some of its messages are in Kafka no more.
    """

    source: Source = Source.kafka
    accept_loss: bool = False


def sealed_hours(partitions: dg.HourlyPartitionsDefinition) -> dg.AssetsDefinition:
    """The asset `sealed_hours` with its check."""

    @dg.multi_asset(
        name=BACKFILL_OP,
        specs=[
            dg.AssetSpec(
                SEALED_HOURS,
                deps=[MESSAGES],
                partitions_def=partitions,
                skippable=True,
                **descriptions.hours(settings()),
            )
        ],
        check_specs=hour_checks.SPECS,
        # Makes every output optional: each hour is reported by itself, as it is done.
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=HOURS_PER_RUN),
    )
    def backfill_hours(context: dg.AssetExecutionContext, config: BackfillConfig) -> Iterator[dg.Output[None]]:
        step_aside()
        try:
            _backfill(context, config, partitions)
        except ArchiverError as error:
            raise failure(context, error) from None
        yield from ()

    return backfill_hours


def _backfill(
    context: dg.AssetExecutionContext, config: BackfillConfig, partitions: dg.HourlyPartitionsDefinition
) -> None:
    """Mend the hours of the run's partitions; one that cannot be mended keeps none of the others."""
    from archiver_pipeline.rewrites.backfill import Backfiller

    backfiller = Backfiller(
        settings(),
        context.run.run_id,
        heartbeat(context, "backfill"),
        accept_loss=config.accept_loss,
        from_kafka=config.source is Source.kafka,
    )
    hours = [hour_of_key(key) for key in context.partition_keys]
    context.instance.add_run_tags(context.run.run_id, {run_tags.HOURS: run_tags.hours_tag(hours)})
    with HourReport(context, backfiller.archive, partitions) as report:
        for what in backfiller.run(hours):
            if what.fault is None:
                report.add(hour_metadata.backfilled(what))
            else:
                report.fail(what.hour, settings().mask(what.fault))
    report.raise_failure("Put right what each of them needs, then run the failed hours again")
