"""The job `seal`: closed hours, each made one sorted file per type."""

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

import dagster as dg

from archiver_pipeline.amounts import counted
from archiver_pipeline.defs import hour_metadata, run_tags
from archiver_pipeline.defs.failing import failure
from archiver_pipeline.defs.hour_report import HourReport
from archiver_pipeline.defs.resources import settings
from archiver_pipeline.defs.runs import KIND_TAG, REWRITE, heartbeat, step_aside
from archiver_pipeline.errors import ArchiverError, KafkaError, StorageError
from archiver_pipeline.hours import Hour, parse_hour

if TYPE_CHECKING:
    from archiver_pipeline.rewrites.seal import Sealer

SEAL_OP = "seal_hours"
"""The step's name, under which run config has its place."""


class SealConfig(dg.Config):
    """What a run seals.

    Attributes:
        hours: names such as `2019-08-01T03`; none for all closed hours that have files to be sealed.
        limit: at most so many hours, the oldest first; 0 for no limit.
        limit_seconds: after this long no further hour is begun; 0 for no limit.
        patient: let late messages of sealed hours gather, as the sensor does, instead of sealing them at once.
    """

    hours: list[str] = []  # noqa: RUF012, pydantic copies it
    limit: int = 0
    limit_seconds: float = 0
    patient: bool = False


def seal_job(partitions: dg.HourlyPartitionsDefinition) -> dg.JobDefinition:
    """Seal closed hours: all of them, or those that the run config names."""

    @dg.op(name=SEAL_OP, description="Makes each closed hour one sorted file per type.")
    def seal_hours(context: dg.OpExecutionContext, config: SealConfig) -> None:
        from archiver_pipeline.rewrites.seal import Sealer

        step_aside()
        try:
            sealer = Sealer(settings(), context.run.run_id, heartbeat(context, "sealing"))
            with HourReport(context, sealer.archive, partitions) as report:
                _seal(context, config, sealer, report)
                report.add_unseen()
            removed = sealer.clean()
        except ArchiverError as error:
            raise failure(context, error) from None
        if removed:
            context.log.info(f"removed {counted(removed, 'file')} that nothing needs any more")
        report.raise_failure("Run `archiver verify` to see what is damaged, and `archiver backfill` to mend the hour")

    @dg.job(
        name="seal",
        executor_def=dg.in_process_executor,
        description="Seals all closed hours, or those that the run config names.",
        # Sealing a large archive for the first time takes as long as it takes; the sensor's runs set a limit.
        tags={KIND_TAG: REWRITE, "dagster/priority": "-1", "dagster/max_runtime": "0", **settings().tags_of("seal")},
    )
    def seal() -> None:
        seal_hours()

    return seal


def _seal(context: dg.OpExecutionContext, config: SealConfig, sealer: "Sealer", report: HourReport) -> None:
    """Seal hour after hour, the oldest first; one that fails keeps none of the others."""
    hours = _wanted(config, sealer)
    if hours:
        context.instance.add_run_tags(context.run.run_id, {run_tags.HOURS: run_tags.hours_tag(hours)})
    began = time.monotonic()
    for number, hour in enumerate(hours):
        if config.limit_seconds and time.monotonic() - began > config.limit_seconds:
            context.log.info(f"{counted(len(hours) - number, 'hour is', 'hours are')} left for another run")
            return
        try:
            what = sealer.seal(hour)
        except (KafkaError, StorageError):
            raise  # The next hour would fail in the same way.
        except ArchiverError as error:
            report.fail(hour, settings().mask(str(error)))
            continue
        if what is None:
            context.log.info(f"{hour}: nothing to seal")
        else:
            report.add(hour_metadata.sealed(what))
    if not hours:
        context.log.info("no closed hour has files to be sealed")


def _wanted(config: SealConfig, sealer: "Sealer") -> list[Hour]:
    hours = _parsed(config.hours) if config.hours else [due.hour for due in sealer.due(patient=config.patient)]
    return sorted(hours)[: config.limit or None]


def _parsed(names: Iterable[str]) -> list[Hour]:
    found = []
    for name in names:
        try:
            found.append(parse_hour(name))
        except ValueError:
            raise dg.Failure(
                f"hours has {name!r}, which is no hour. Write one as 2019-08-01T03, or _unknown", allow_retries=False
            ) from None
    return found
