"""`archiver generate`."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archiver_pipeline.amounts import counted
from archiver_pipeline.cli.output import say

if TYPE_CHECKING:
    from archiver_pipeline.generator import Generator, Summary
    from archiver_pipeline.settings.settings import Settings

_TOPICS = ("orders", "clicks")
_TYPES = "object.one,object.two,object.three"


def command(
    rate: Annotated[float, typer.Option(help="Messages per second in all; 0 is as fast as possible.")] = 1000,
    topics: Annotated[
        str, typer.Option(help="Comma-separated names; by default those of ARCHIVER_TOPICS, else orders,clicks.")
    ] = "",
    types: Annotated[str, typer.Option(help="Comma-separated values of the field type.")] = _TYPES,
    count: Annotated[int | None, typer.Option(help="Stop after so many messages.")] = None,
    seconds: Annotated[float | None, typer.Option(help="Stop after so long.")] = None,
    keys: Annotated[bool, typer.Option("--keys/--no-keys", help="Whether messages have their user as key.")] = True,
    headers: Annotated[bool, typer.Option("--headers", help="Give messages headers.")] = False,
    late: Annotated[str, typer.Option(metavar="SHARE", help="Share stamped up to 3 hours ago: 0.1 or 10%.")] = "0",
    ugly: Annotated[
        str, typer.Option(metavar="SHARE", help="Share that is cut short, untyped, not UTF-8 or a tombstone.")
    ] = "0",
    file: Annotated[
        Path | None, typer.Option(help="Send the lines of this file instead, gzip or not; - is standard input.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same messages but for their times.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON document.")] = False,
) -> None:
    """Produce JSON events at a steady rate, until a limit or Ctrl-C; or the lines of a file, until its end.

    A line of a file is a message without key, sent as it is and stamped with the present time; `--rate`, `--count` and
    `--seconds` apply to a file, too, all else is about events that are made up. Empty lines are passed over.

    Topics that are missing are made with 4 partitions. The broker is that of KAFKA_BOOTSTRAP_SERVERS; other KAFKA_*
    properties are handed on.

    **JSON**: sent, delivered, failed, seconds, rate (delivered messages per second), topics (delivered by topic),
    bytes, error.

    **Examples**

        archiver generate
        archiver generate --rate 5000 --topics orders --seconds 60 --headers
        archiver generate --rate 0 --topics frames --file stream.jsonl.gz
        archiver generate --rate 0 --count 1000000 --late 5% --ugly 1% --seed 1 --json
    """
    from archiver_pipeline.cli.output import print_json
    from archiver_pipeline.cli.progress import progress
    from archiver_pipeline.settings.settings import load

    settings = load()
    settings.require_broker()
    from archiver_pipeline.errors import WrongUsage
    from archiver_pipeline.event_file import events_of
    from archiver_pipeline.generator import Generator, generate

    wanted = Generator(
        settings.kafka_properties,
        _names(topics) if topics else _default_topics(settings),
        _names(types),
        rate=rate,
        count=count,
        seconds=seconds,
        keys=keys,
        headers=headers,
        late_share=_share("--late", late),
        ugly_share=_share("--ugly", ugly),
        seed=seed,
    )
    if file is not None and len(wanted.topics) != 1:
        raise WrongUsage("--file is given, and its lines go to one topic: name it with --topics")
    lines = None if file is None else events_of(file, wanted.topics[0])
    limit = 0 if lines is not None and count is None else _limit(wanted)
    with _stopped_by_signals() as stopped, progress({"messages": "messages sent"}) as on_progress:
        summary = generate(wanted, lambda sent, _: on_progress("messages", sent, limit), lambda: bool(stopped), lines)
    if as_json:
        print_json({**asdict(summary), "seconds": round(summary.seconds, 3), "rate": round(summary.rate, 1)})
    else:
        _print(summary)
    if stopped:
        raise typer.Exit(128 + stopped[0])
    if summary.failed:
        raise typer.Exit(1)


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _default_topics(settings: Settings) -> tuple[str, ...]:
    return tuple(name for name in settings.topics if not name.startswith("^")) or _TOPICS


def _share(option: str, text: str) -> float:
    from archiver_pipeline.errors import WrongUsage

    try:
        return float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        raise WrongUsage(f"{option} is {text!r}: allowed is a share such as 0.1 or 10%") from None


@contextmanager
def _stopped_by_signals() -> Iterator[list[int]]:
    """Take SIGINT and SIGTERM for a request to stop, told by the list; a second one ends the process at once."""
    stopped: list[int] = []

    def stop(number: int, _frame: Any) -> None:
        stopped.append(number)
        signal.signal(number, before[number])

    before: dict[int, Any] = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _limit(wanted: Generator) -> int:
    """How many messages it will be, 0 where nobody knows."""
    by_time = round(wanted.rate * wanted.seconds) if wanted.seconds is not None and wanted.rate else None
    return min((limit for limit in (wanted.count, by_time) if limit is not None), default=0)


def _print(summary: Summary) -> None:
    from archiver_pipeline.amounts import size

    topics = ", ".join(f"{topic} {count:,}" for topic, count in summary.topics.items())
    say(
        f"{counted(summary.delivered, 'message')} delivered ({topics}), {size(summary.bytes)} in "
        f"{summary.seconds:.1f} s, "
        f"{summary.rate:,.0f} a second"
    )
    if summary.failed:
        say(f"{counted(summary.failed, 'message')} failed: {summary.error}", file=sys.stderr)
