"""`archiver verify`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from archiver_pipeline.amounts import counted
from archiver_pipeline.cli.output import say

if TYPE_CHECKING:
    from archiver_pipeline.stored.verify import Report

_STEPS = {
    "files": "files checked",
    "rows": "messages counted",
    "Kafka": "offsets read from Kafka",
    "archive": "messages read from the archive",
}


def command(
    against_kafka: Annotated[
        bool, typer.Option("--against-kafka", help="Compare count and digest with what the broker still has, too.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check the archive: every file there and unchanged, every message once, none too few.

    Each fault is a line on standard output, and the exit code is then 1: **missing**, **changed**,
    **unlisted**, **doubled** or **unerased**, the whole path, and what is wrong. Files of a run in flight and files
    waiting for their removal are no fault. Nothing is changed, and batches may go on meanwhile.

    With --against-kafka, the messages that the broker still has are compared with the archive: their number, and a
    digest over partition, offset, key, headers, timestamp and original bytes. Where they differ, offsets and files are
    named. What a backfill put in from before the start of archiving is not compared, nor what was erased.

    **JSON**: good, archive, version, files, bytes, messages, partitions, given_up, seconds, faults (kind, path, what,
    hint), kafka (null, or partitions (topic, topic_id, partition, start, end, equal, kafka and archive with messages
    and digest) and notes), kafka_error.

    **Examples**

        archiver verify
        archiver verify --against-kafka
        archiver verify --json | jq '.faults[].path'
    """
    from archiver_pipeline.cli.output import print_json
    from archiver_pipeline.cli.progress import progress
    from archiver_pipeline.settings.settings import load
    from archiver_pipeline.stored.verify import verify

    settings = load()
    with progress(_STEPS, "nothing is changed by it: run it again for the whole") as on_progress:
        report = verify(settings, against_kafka, on_progress)
    if as_json:
        print_json(report.to_json())
    else:
        _print(report)
    if report.kafka_error is not None:
        raise report.kafka_error
    if not report.good:
        raise typer.Exit(1)


def _print(report: Report) -> None:
    from archiver_pipeline.amounts import size

    for fault in report.faults:
        say(fault)
    if report.kafka is not None:
        for note in report.kafka.notes:
            say(f"not compared: {note}", file=sys.stderr)
    given_up = f" ({report.given_up:,} more were given up)" if report.given_up else ""
    found = f"{counted(len(report.faults), 'fault')} in " if report.faults else "good: "
    summary = (
        f"{found}{counted(report.files, 'file')}, {size(report.bytes)}, "
        f"{counted(report.messages, 'message')}{given_up} of "
        f"{counted(report.partitions, 'partition')}, table version {report.version}, {report.seconds:.1f} s"
    )
    # With faults, standard output is theirs alone: a line each.
    say(summary, file=sys.stderr if report.faults else sys.stdout)
    if report.kafka is not None:
        same = sum(item.in_kafka for item in report.kafka.partitions)
        count = len(report.kafka.partitions)
        text = f"Kafka still has {same:,} of the archived messages, in {counted(count, 'partition')}"
        say(text + ("" if report.faults else ": all the same"), file=sys.stderr if report.faults else sys.stdout)
