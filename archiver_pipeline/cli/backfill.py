"""`archiver backfill`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archiver_pipeline.amounts import counted
from archiver_pipeline.cli.output import say
from archiver_pipeline.errors import WrongUsage

if TYPE_CHECKING:
    from archiver_pipeline.hours import Hour
    from archiver_pipeline.rewrites.backfilled import Backfilled

_STEPS = {"hours": "hours done", "Kafka": "offsets read from Kafka"}
_GOING_ON = "an hour is mended whole or not at all: run the same command again for the others"


def command(
    start: Annotated[str, typer.Option("--from", metavar="TIME", help="Start of the first hour, ISO time; UTC.")] = "",
    end: Annotated[str, typer.Option("--to", metavar="TIME", help="End of the last hour, not included.")] = "",
    unknown: Annotated[
        bool, typer.Option("--unknown-time", help="The messages without a usable time, which have no hour.")
    ] = False,
    accept_loss: Annotated[
        bool,
        typer.Option("--accept-loss", help="Give up messages of damaged or missing files that Kafka no longer has."),
    ] = False,
    from_archive: Annotated[
        bool, typer.Option("--from-archive", help="Do not ask Kafka; only apply the present type rules to the archive.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Read hours from Kafka again and mend what differs: damaged or deleted files, types by the present rules, hours
    from before the archive began.

    Each hour is compared message by message with what Kafka still has, and changed in one commit or not at all. What
    Kafka no longer has is kept from the archive. A damaged or missing file whose messages are not all in Kafka any
    more leaves its hour as it is, unless --accept-loss is given; the exit code is then 1. Batches go on meanwhile, and
    nothing that is still to be archived is touched.

    **JSON**: good, hours (hour, read, added, changed, retyped, kept, lost, mended, messages, files_before,
    files_after, seconds, version, fault).

    **Examples**

        archiver backfill --from 2019-08-01T03:00 --to 2019-08-01T04:00
        archiver backfill --from 2019-08-01 --to 2019-08-02 --json | jq '.hours[] | select(.added > 0)'
        archiver verify || archiver backfill --from 2019-08-01T03:00Z --to 2019-08-01T05:00Z
    """
    from archiver_pipeline.cli.output import print_json
    from archiver_pipeline.cli.progress import progress
    from archiver_pipeline.rewrites.backfill import Backfiller
    from archiver_pipeline.rewrites.seal import Sealer
    from archiver_pipeline.settings.settings import load
    from archiver_pipeline.view import view

    if accept_loss and from_archive:
        raise WrongUsage("--accept-loss is given with --from-archive: without asking Kafka nobody knows what is lost")
    hours = _hours(start, end, unknown=unknown)
    settings = load()
    done: list[Backfilled] = []
    with progress(_STEPS, _GOING_ON) as on_progress:
        on_progress("hours", 0, len(hours))
        backfiller = Backfiller(
            settings, "", on_progress=on_progress, accept_loss=accept_loss, from_kafka=not from_archive
        )
        try:
            for item in backfiller.run(hours):
                done.append(item)
                on_progress("hours", len(done), len(hours))
                if not as_json and not item.empty:
                    say(item.sentence(), flush=True)
        finally:
            if done:
                if settings.kept_view is not None:
                    view.refresh(settings.kept_view, backfiller.archive)
                Sealer(settings).clean()
    faults = sum(item.fault is not None for item in done)
    if as_json:
        print_json({"good": not faults, "hours": [_row(item) for item in done]})
    else:
        _sum_up(done, faults)
    if faults:
        raise typer.Exit(1)


def _hours(start: str, end: str, *, unknown: bool) -> list[Hour]:
    from archiver_pipeline.hours import hour_at, hours_between
    from archiver_pipeline.settings.types import parse_time

    if unknown and not start and not end:
        return [hour_at(None)]
    if unknown or not start or not end:
        given = "--unknown-time is given with a time" if unknown else "--from and --to are not both given"
        raise WrongUsage(f"{given}: give both times, or --unknown-time alone")
    times = []
    for option, text in (("--from", start), ("--to", end)):
        try:
            times.append(parse_time(text))
        except (ValueError, OverflowError):
            raise WrongUsage(f"{option} is {text!r}: allowed is an ISO time such as 2019-08-01T03:00") from None
    try:
        return hours_between(*times)
    except ValueError as error:
        raise WrongUsage(f"--from is {start!r} and --to is {end!r}: {error}") from None


def _row(item: Backfilled) -> dict[str, Any]:
    return {**asdict(item), "hour": item.hour.name, "seconds": round(item.seconds, 3)}


def _sum_up(done: list[Backfilled], faults: int) -> None:
    changed = sum(item.version is not None for item in done)
    empty = sum(item.empty for item in done)
    hours = f"{counted(len(done), 'hour')} read again, {changed:,} changed"
    counts = f", {empty:,} without any message" * (empty > 0) + f", {faults:,} left with a fault" * (faults > 0)
    say(hours + counts, file=sys.stderr)
