"""What follows the archive as assets: hours of aggregates, and the archive in other stores."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import dagster as dg

from archiver_pipeline.amounts import counted
from archiver_pipeline.defs import descriptions
from archiver_pipeline.defs.failing import failure
from archiver_pipeline.defs.metadata import MESSAGES, topic_key, view_made
from archiver_pipeline.defs.partitions import hour_of_key, key_text
from archiver_pipeline.defs.resources import archive, settings
from archiver_pipeline.defs.runs import heartbeat
from archiver_pipeline.errors import ArchiverError
from archiver_pipeline.followers.base import Follower
from archiver_pipeline.followers.registry import followers
from archiver_pipeline.settings.aggregates import EVENTS_PER_MINUTE, Aggregate
from archiver_pipeline.steps import OnStep
from archiver_pipeline.view import view
from archiver_pipeline.view.aggregates import has_new_columns

if TYPE_CHECKING:
    from archiver_pipeline.followers.aggregator import Aggregator
    from archiver_pipeline.followers.catch_up import CaughtUp

Context = dg.OpExecutionContext | dg.AssetExecutionContext

_HOURS_PER_RUN = 24
_MOST_EVENTS = 200
"""So many hours one run shows as materialized, the newest ones: each takes some milliseconds."""


def follower_assets(partitions: dg.HourlyPartitionsDefinition) -> list[dg.AssetsDefinition]:
    """An asset for each follower: of an aggregate with the hours as partitions, of another store without any."""
    aggregates = {item.name: item for item in settings().every_aggregate}
    others = [name for name in followers(settings()) if name not in aggregates]
    return [*(_aggregate(item, partitions) for item in aggregates.values()), *map(_store, others)]


def results_topic(archived: Sequence[dg.AssetSpec]) -> list[dg.AssetSpec]:
    """The external asset of the topic that finished minutes are sent to; none where that topic is archived itself."""
    name = settings().results_topic
    if not name or topic_key(name) in {each.key for each in archived}:
        return []
    return [dg.AssetSpec(topic_key(name), deps=[EVENTS_PER_MINUTE], **descriptions.results(settings()))]


def _aggregate(aggregate: Aggregate, partitions: dg.HourlyPartitionsDefinition) -> dg.AssetsDefinition:
    shown = descriptions.aggregate(settings(), aggregate)

    @dg.multi_asset(
        name=f"count_{aggregate.name}",
        # An output of a name of its own: `type` or `config` is a good name for an aggregate, and for an output none.
        outs={"hours": dg.AssetOut(key=aggregate.name, is_required=False, **shown)},
        deps=[MESSAGES],
        partitions_def=partitions,
        can_subset=True,
        backfill_policy=dg.BackfillPolicy.multi_run(max_partitions_per_run=_HOURS_PER_RUN),
    )
    def count(context: dg.AssetExecutionContext) -> Iterator[dg.Output[None]]:
        from archiver_pipeline.followers.catch_up import replace_hour

        on_step = heartbeat(context, aggregate.name)
        hours = [hour_of_key(key) for key in context.partition_keys]
        try:
            with closing(followers(settings())[aggregate.name]()) as follower:
                for hour in hours:
                    messages = replace_hour(follower, settings(), hour, on_step)
                    context.log.info(f"{aggregate.name}: hour {hour} counted anew, {counted(messages, 'message')}")
                shown = follow(context, follower, on_step)
        except ArchiverError as error:
            raise failure(context, error) from None
        for key in context.partition_keys:
            if key not in shown:
                context.log_event(dg.AssetMaterialization(aggregate.name, partition=key))
        yield from ()

    return count


def _store(name: str) -> dg.AssetsDefinition:
    @dg.multi_asset(
        name=f"follow_{name}",
        specs=[dg.AssetSpec(name, deps=[MESSAGES], skippable=True, **descriptions.store(settings(), name))],
        can_subset=True,
    )
    def take(context: dg.AssetExecutionContext) -> Iterator[dg.Output[None]]:
        try:
            with closing(followers(settings())[name]()) as follower:
                follow(context, follower, heartbeat(context, name))
        except ArchiverError as error:
            raise failure(context, error) from None
        yield from ()

    return take


def follow(context: Context, follower: Follower, on_step: OnStep) -> Sequence[str]:
    """Let a follower catch up, and log what it did: its materializations, and that of the DuckDB file's views.

    Returns:
        The partition keys that were shown as materialized.
    """
    from archiver_pipeline.followers.aggregator import Aggregator
    from archiver_pipeline.followers.catch_up import catch_up

    try:
        done = catch_up(follower, settings(), on_step)
    except BaseException:
        # Hours that were written before something went wrong are to be seen, too; but it is that error that counts.
        with suppress(ArchiverError):
            if isinstance(follower, Aggregator):
                _tell_hours(context, follower)
        raise
    context.log.info(
        f"{follower.name}: {counted(done.messages, 'message')} in {done.steps:,} steps and {done.seconds:.1f} s, "
        f"{counted(len(done.hours), 'hour')} replaced, lag {done.lag:,}"
    )
    if isinstance(follower, Aggregator):
        return _tell_hours(context, follower, _numbers(done))
    if done.steps:
        text = f"{counted(done.messages, 'message')} taken in {done.seconds:.1f} s, {done.lag:,} left"
        context.log_event(dg.AssetMaterialization(follower.name, description=text, metadata=_numbers(done)))
    return ()


def _tell_hours(
    context: Context, follower: "Aggregator", numbers: Mapping[str, dg.MetadataValue] | None = None
) -> Sequence[str]:
    """Show the hours whose files were written, and bring the views up to date; return their partition keys."""
    keys = [key_text(hour) for hour in follower.published[-_MOST_EVENTS:]]
    for key in keys:
        context.log_event(dg.AssetMaterialization(follower.name, partition=key, metadata=numbers))
    path = settings().kept_view
    if path is not None and (keys or has_new_columns(path, follower.folder)):
        context.log_event(view_made(path, view.refresh(path, archive())))
    return keys


def _numbers(done: "CaughtUp") -> dict[str, dg.MetadataValue]:
    return {
        "messages": dg.MetadataValue.int(done.messages),
        "hours replaced": dg.MetadataValue.int(len(done.hours)),
        "lag": dg.MetadataValue.int(done.lag),
        "seconds": dg.MetadataValue.float(round(done.seconds, 3)),
        "messages per second": dg.MetadataValue.float(round(done.messages / done.seconds, 1) if done.seconds else 0.0),
    }
