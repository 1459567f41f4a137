"""`archiver status`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from archiver_pipeline.amounts import counted
from archiver_pipeline.cli.output import say
from archiver_pipeline.errors import ArchiverError, WrongUsage

if TYPE_CHECKING:
    from archiver_pipeline.status import PartitionStatus, Status

_COLUMNS = ("topic", "partition", "next", "end", "lag", "messages")


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    html: Annotated[
        str | None, typer.Option("--html", metavar="FILE", help="Write the status page, - for standard output.")
    ] = None,
) -> None:
    """Show how far the archive is, and how far Kafka has run ahead of it.

    Without ARCHIVER_TOPICS it shows what the archive has, and asks no broker.

    For each topic partition: the next offset to archive, the end offset (the last stable one), the lag between them and
    the messages archived. Then the newest batch, the rates of the last minutes, gaps, files and types, and how far what
    follows the archive is behind it, and which messages wait for a schema of the registry. Where the broker or a
    follower does not answer, a message waits, or no wanted topic can be read, all else is shown all the same, and the
    exit code is 1.

    **JSON**: archive, time, version, format, messages, files, bytes, types, hours, sealed_hours, lag, partitions
    (topic, topic_id, partition, first, next, end, lag, messages), last_batch (version, time, messages, bytes, files,
    seconds, run_id, messages_per_second), age_seconds, rates (minutes, batches, messages_per_second,
    bytes_per_second), gaps (time, topic, topic_id, partition, start, end, reason), given_up, interrupted_erasures,
    followers (name, lag, hours, error), waits (topic, topic_id, partition, offset, schema, registry, why, since),
    warnings, broker_error. What is not known is null.

    **Page**: --html writes the page that `archiver metrics` serves at /, as one file that asks for nothing more: what
    is wrong, since when, and what to do; lag, throughput, hours, gaps, followers and failed runs. How the lag was
    before, only the exporter knows.

    **Examples**

        archiver status
        archiver status --json | jq .lag
        archiver status --html status.html
        archiver status --html - | ssh web 'cat > /srv/www/archiver.html'
        watch archiver status
    """
    from archiver_pipeline.cli.output import print_json
    from archiver_pipeline.cli.progress import looking
    from archiver_pipeline.settings.settings import load
    from archiver_pipeline.status import status

    if html is not None and as_json:
        raise WrongUsage("--html is given with --json: allowed is one of them")
    if html is not None and (not html or Path(html).is_dir()):
        raise WrongUsage(f"--html is {html!r}: allowed is a file, or - for standard output")
    settings = load()
    if html is not None:
        _write_page(html)
    with looking("asking archive, broker and followers"):
        found = status(settings)
    if as_json:
        print_json(found.to_json())
    else:
        _print(found)
    if found.broker_error is not None:
        raise found.broker_error
    if found.blind:
        hint = "Make the topic, or check ARCHIVER_TOPICS"
        raise ArchiverError("none of the wanted topics can be read", hint=hint)
    if found.waits or any(follower.error for follower in found.followers):
        raise typer.Exit(1)


def _write_page(file: str) -> NoReturn:
    """Write the page, which takes its place whole or not at all, and end with 1 where not all could be asked."""
    from archiver_pipeline.metrics.board import look_once
    from archiver_pipeline.page.document import document
    from archiver_pipeline.settings.settings import load

    standing = look_once(load())
    content = document(standing).encode("utf-8", "replace")
    if file == "-":
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
    else:
        _put(Path(file), content)
    code = 0 if standing.complete else 1
    if standing.pending:
        sys.stderr.flush()
        os._exit(code)  # A look that hangs at a dead server would be waited for.
    raise typer.Exit(code)


def _put(path: Path, content: bytes) -> None:
    # A link stays one, and so does a pipe or a device: there is no place of theirs to be taken.
    is_special = path.exists() and not path.is_file()
    target = Path(os.path.realpath(path))
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        (path if is_special else aside).write_bytes(content)
        if not is_special:
            aside.replace(target)
    except OSError as error:
        aside.unlink(missing_ok=True)
        hint = "Name a file in a folder that can be written, or - for standard output"
        raise ArchiverError(f"the page cannot be written: {error.strerror}", path=str(path), hint=hint) from None


def _print(found: Status) -> None:
    from archiver_pipeline.amounts import duration, size

    for warning in found.warnings:
        say(f"warning: {warning}", file=sys.stderr)
    if found.version is None:
        say(f"no archive yet at {found.archive}: the first run makes it")
    else:
        say(
            f"archive {found.archive}: table version {found.version}, format {found.format}, "
            f"{counted(found.messages, 'message')} "
            f"in {counted(found.files, 'file')} of {counted(found.types, 'type')}, {size(found.bytes)}; "
            f"{counted(found.hours, 'hour')}, "
            f"{found.sealed_hours:,} sealed"
        )
    _print_partitions(found.partitions)
    if found.lag is not None:
        say(f"total lag {found.lag:,}")
    batch = found.last_batch
    if batch is not None and found.age_seconds is not None:
        say(
            f"last batch {batch.time:%Y-%m-%d %H:%M:%S} UTC, {duration(found.age_seconds)} ago: {batch.messages:,} "
            f"messages, {size(batch.bytes)} in {batch.seconds:.1f} s ({batch.rate:,.0f} messages/s), "
            f"run {batch.run_id or '-'}"
        )
        for rate in found.rates:
            say(
                f"last {rate.minutes} min: {counted(rate.batches, 'batch', 'batches')}, "
                f"{rate.messages_per_second:,.1f} messages/s, "
                f"{size(rate.bytes_per_second)}/s"
            )
    for recorded in found.gaps:
        gap = recorded.gap
        when = f", found {recorded.time:%Y-%m-%d %H:%M:%S} UTC" if recorded.time else ""
        say(f"gap: {gap.at.topic}/{gap.at.partition} offsets [{gap.start}, {gap.end}): {gap.reason}{when}")
    if found.version is not None and not found.gaps:
        say("no gaps")
    begun = any(item.first is not None for item in found.partitions)
    for follower in found.followers:
        hours = f", {follower.hours:,} changed hours" if follower.hours else ""
        lag = f"lag {follower.lag or 0:,}{hours}" if begun else "nothing is archived yet"
        say(f"follower {follower.name}: {follower.error or lag}")
    for wait in found.waits:
        say(f"waiting: {wait}")
    for moment in found.interrupted_erasures:
        say(f"an erasure of {moment:%Y-%m-%d %H:%M:%S} UTC was interrupted: `archiver erase --resume` finishes it")
    if found.given_up:
        say(
            f"{counted(found.given_up, 'message was', 'messages were')} lost with their files and given up: the view "
            "losses has their hours"
        )


def _print_partitions(partitions: tuple[PartitionStatus, ...]) -> None:
    """Print a table on a terminal, a line for each partition elsewhere."""

    def shown(number: int | None) -> str:
        return "-" if number is None else f"{number:,}"

    if not partitions:
        return
    if not sys.stdout.isatty():
        for item in partitions:
            say(
                f"{item.topic}/{item.partition}: next {shown(item.next)}, end {shown(item.end)}, "
                f"lag {shown(item.lag)}, messages {shown(item.messages)}"
            )
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in _COLUMNS:
        table.add_column(column, justify="left" if column == "topic" else "right")
    for item in partitions:
        numbers = map(shown, (item.partition, item.next, item.end, item.lag, item.messages))
        table.add_row(item.topic, *numbers, style="yellow" if item.lag else None)
    Console().print(table)
