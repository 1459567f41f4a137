"""`archiver tail`."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from archiver_pipeline.cli.output import say

if TYPE_CHECKING:
    from archiver_pipeline.settings.settings import Settings

_RATE_SECONDS = 5.0


def command(
    messages: Annotated[bool, typer.Option("--messages", help="Echo messages instead of finished minutes.")] = False,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Begin at the earliest offsets instead of at the end.")
    ] = False,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after so many lines.")] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Print whole lines, whatever the width of the terminal.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print each minute or message as a line of JSON.")] = False,
) -> None:
    """Follow finished minutes, or with --messages the messages of ARCHIVER_TOPICS, as they come.

    A line for each minute, topic and type: events and distinct users, and the revision where late events have corrected
    the minute. They come from ARCHIVER_RESULTS_TOPIC. On a terminal the rate of input is told every few seconds.

    With --messages a line each: time, topic/partition@offset, key and value, where - stands for none. Only committed
    messages are shown. Topics and partitions made later are not followed. It takes part in no consumer group and
    commits nothing.

    **JSON**: minute, topic, type, events, users, revision. With --messages: topic, partition, offset, time, timestamp
    (ms), timestamp_type, key, value, headers (key, value). What is not UTF-8 is key_base64 or value_base64 instead. A
    payload of a Schema Registry's format is shown as its JSON, and with --json is in value_base64, too, as it came.

    **Examples**

        archiver tail
        archiver tail --from-beginning --json | jq .users
        archiver tail --messages
        archiver tail --messages --from-beginning --count 10 --full
        archiver tail --messages --json | jq -r .value
    """
    from archiver_pipeline.settings.settings import load

    settings = load()
    width = None if full or as_json or not sys.stdout.isatty() else shutil.get_terminal_size().columns
    lines = _messages(settings, from_beginning, as_json) if messages else _minutes(settings, from_beginning, as_json)
    shown = 0
    for line in lines:
        if line is None:
            sys.stdout.flush()
            continue
        say(_cut(line, width), flush=sys.stdout.isatty())
        shown += 1
        if shown == count:
            return


def _messages(settings: Settings, from_beginning: bool, as_json: bool) -> Iterator[str | None]:
    from archiver_pipeline.tail import echoes

    meter = _Meter()
    for echo in echoes(settings, from_beginning):
        meter.tick(0 if echo is None else 1)
        yield None if echo is None else echo.to_json() if as_json else echo.line()


def _minutes(settings: Settings, from_beginning: bool, as_json: bool) -> Iterator[str | None]:
    from archiver_pipeline.minutes import InputRate, minutes

    rate = InputRate(settings) if sys.stderr.isatty() and settings.topics else None
    asked = 0.0
    for item in minutes(settings, from_beginning):
        if rate is not None and time.monotonic() - asked >= _RATE_SECONDS:
            found, asked = rate.measure(), time.monotonic()
            if found is not None:
                print(f"-- input {found:,.1f} messages/s", file=sys.stderr)
        yield None if item is None else json.dumps(asdict(item), ensure_ascii=False) if as_json else item.line()


def _cut(line: str, width: int | None) -> str:
    """Cut a line to so many columns of a terminal, in which some characters take two."""
    if width is None:
        return line
    from rich.cells import cell_len, set_cell_size

    return line if cell_len(line) <= width else set_cell_size(line, width - 1) + "…"


class _Meter:
    """Tells the rate of input on a terminal, every few seconds."""

    def __init__(self) -> None:
        self._wanted = sys.stderr.isatty()
        self._since = time.monotonic()
        self._count = 0

    def tick(self, count: int) -> None:
        """Count messages."""
        self._count += count
        seconds = time.monotonic() - self._since
        if self._wanted and seconds >= _RATE_SECONDS:
            print(f"-- {self._count / seconds:,.1f} messages/s", file=sys.stderr)
            self._since, self._count = time.monotonic(), 0
