"""The assets: topics, the archive and its DuckDB file. One run, one step, one process: a batch costs no start-up."""

import time
from collections.abc import Iterator
from datetime import timedelta

import dagster as dg

from archiver_pipeline.batch.batch import Archiver, Batch
from archiver_pipeline.batch.follow import drain, stay
from archiver_pipeline.batch.planner import Targets
from archiver_pipeline.defs import checks, descriptions, metadata
from archiver_pipeline.defs.failing import failure, trying_again
from archiver_pipeline.defs.resources import ArchiverResource, archive, settings
from archiver_pipeline.defs.run_tags import RunTags
from archiver_pipeline.defs.runs import heartbeat
from archiver_pipeline.errors import ArchiveError, ArchiverError
from archiver_pipeline.plan import OffsetRange, TopicPartition
from archiver_pipeline.view import view
from archiver_pipeline.view.run_view import RunView

OP = "archive_batches"
"""The step's name, under which run config has its place; a job and a step cannot share one."""

_RETRIES = dg.RetryPolicy(max_retries=3, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.FULL)
PASS_SECONDS = 600.0
"""After this long a run of the sensor begins no further batch; the next tick starts another."""

FRESH = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=2), warn_window=timedelta(hours=1))
"""Of the DuckDB file, which batches and, with nothing to archive, the sensor say to be up to date.

A policy goes by materializations alone. `messages` has one per batch and none while its topics are idle, so that there
it would turn red for no reason."""


class Range(dg.Config):
    """An explicit range: the offsets `[start, end)` of a topic partition."""

    topic: str
    partition: int
    start: int
    end: int


class ArchiveConfig(dg.Config):
    """What a run archives.

    Attributes:
        lane: the lane, or -1 for all of them one after the other.
        stay_seconds: how long to stay, archiving a batch each interval; 0 for one pass to the end offsets at its start.
        limit_seconds: after this long a pass begins no further batch; 0 for no limit.
        ranges: archive exactly these, as far as they follow on from what is archived; none for all there is.
    """

    lane: int = -1
    stay_seconds: float = 0
    limit_seconds: float = 0
    ranges: list[Range] = []  # noqa: RUF012, pydantic copies it


def topic_assets() -> list[dg.AssetSpec]:
    """The external assets: topics named in the settings, and those that the archive has already met."""
    named = {topic for topic in settings().topics if not topic.startswith("^")}
    try:
        met = {at.topic for at in archive().ledger().committed}
    except ArchiveError:
        met = set()  # Without definitions no run and no sensor could say what is wrong with it.
    return [
        dg.AssetSpec(metadata.topic_key(topic), **descriptions.topic(settings(), topic))
        for topic in sorted(named | met)
    ]


def _again(context: dg.AssetExecutionContext, error: Exception) -> dg.RetryRequested:
    """Ask for another try. A policy of the asset would try again, too, after the run was asked to end."""
    seconds = _RETRIES.calculate_delay(context.retry_number + 1)
    if context.retry_number < _RETRIES.max_retries:
        context.log.warning(trying_again(error, seconds, context.retry_number + 1, _RETRIES.max_retries))
    return dg.RetryRequested(max_retries=_RETRIES.max_retries, seconds_to_wait=seconds)


def archive_assets(topics: list[dg.AssetSpec]) -> dg.AssetsDefinition:
    """The assets `messages` and `archive_view` with the checks on `messages`."""

    @dg.multi_asset(
        name=OP,
        specs=[
            dg.AssetSpec(metadata.MESSAGES, deps=topics, skippable=True, **descriptions.messages(settings())),
            dg.AssetSpec(
                metadata.ARCHIVE_VIEW,
                deps=[metadata.MESSAGES],
                skippable=True,
                freshness_policy=FRESH if settings().kept_view else None,
                **descriptions.view(settings()),
            ),
        ],
        check_specs=checks.SPECS,
        # Makes every output optional: a run with nothing to archive reports nothing.
        can_subset=True,
    )
    def archive_messages(
        context: dg.AssetExecutionContext, config: ArchiveConfig, archiver: ArchiverResource
    ) -> Iterator[dg.Output[None]]:
        lanes = range(settings().lanes) if config.lane < 0 else (config.lane,)
        try:
            tags = RunTags(context)
            for lane in lanes:
                on_step = heartbeat(context, f"lane {lane}")
                _run_lane(context, config, archiver.archiver(lane, context.run.run_id, on_step), tags)
        except ArchiverError as error:
            found = failure(context, error, retries=True)
            if found.allow_retries:
                raise _again(context, error) from found
            raise found from None
        except Exception as error:
            raise _again(context, error) from error
        yield from ()

    return archive_messages


def _run_lane(context: dg.AssetExecutionContext, config: ArchiveConfig, archiver: Archiver, tags: RunTags) -> None:
    """Archive the batches of one lane, and report each as it is committed."""
    path = settings().kept_view
    total, began = 0, time.monotonic()
    answers = checks.Answers(context.log_event, checks.PAUSE_SECONDS if config.stay_seconds > 0 else 0.0)
    shown = RunView(path, archiver.archive)
    try:
        for batch in _batches(config, archiver, shown):
            total += batch.messages
            version = shown.show(batch)
            ledger = archiver.archive.ledger()
            for event in metadata.events(batch, sum(each.messages for each in ledger.committed.values())):
                context.log_event(event)
            answers.add(
                list(checks.evaluations(batch, ledger, settings().batch_messages)),
                None if path is None or version is None else metadata.view_made(path, version),
            )
            tags.add(batch)
            context.log.info(
                metadata.standing(batch, total, time.monotonic() - began),
                extra={
                    "lane": batch.lane,
                    "ranges": list(map(str, batch.ranges)),
                    "messages": batch.messages,
                    "version": batch.version,
                },
            )
    finally:
        version = shown.finish()
        if path is not None and version is not None:
            context.log_event(metadata.view_made(path, version))
        tags.tell()
    answers.tell()
    if total == 0:
        context.log.info(f"lane {archiver.lane}: nothing to archive")
        if path is not None:
            # A run that was killed between its commit and the view left it behind.
            view.refresh(path, archiver.archive)


def _batches(config: ArchiveConfig, archiver: Archiver, shown: RunView) -> Iterator[Batch]:
    if config.stay_seconds > 0 and not config.ranges:
        return stay(archiver, config.stay_seconds, settings().interval_seconds, idle=shown.finish)
    targets: Targets | None = None
    if config.ranges:
        # The topic id is that of the topic's present life, whatever it is.
        wanted = [OffsetRange(TopicPartition(r.topic, "", r.partition), r.start, r.end) for r in config.ranges]
        targets = archiver.targets_of(wanted)
    return drain(archiver, targets, config.limit_seconds or float("inf"))
