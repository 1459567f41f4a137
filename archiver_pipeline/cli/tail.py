"""`archiver tail`."""

from __future__ import annotations

import shutil
import sys
import time
from typing import Annotated

import typer

_RATE_SECONDS = 5.0


def command(
    messages: Annotated[bool, typer.Option("--messages", help="Echo messages as they come.")] = False,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Begin at the earliest offsets instead of at the end.")
    ] = False,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after so many messages.")] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Print whole lines, whatever the width of the terminal.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print each message as a line of JSON.")] = False,
) -> None:
    """Echo the messages of ARCHIVER_TOPICS as they come.

    A line each: time, topic/partition@offset, key and value, where - stands for none. Only committed messages are
    shown. Topics and partitions made later are not followed. It takes part in no consumer group and commits nothing.

    **JSON**: topic, partition, offset, time, timestamp (ms), timestamp_type, key, value, headers (key, value). What is
    not UTF-8 is key_base64 or value_base64 instead.

    **Examples**

        archiver tail --messages
        archiver tail --messages --from-beginning --count 10 --full
        archiver tail --messages --json | jq -r .value
    """
    if not messages:
        raise typer.BadParameter(
            "finished minutes cannot be followed yet, only messages can: archiver tail --messages",
            param_hint="--messages",
        )
    from archiver_pipeline.settings import load
    from archiver_pipeline.tail import echoes

    width = None if full or as_json or not sys.stdout.isatty() else shutil.get_terminal_size().columns
    meter = _Meter()
    shown = 0
    for echo in echoes(load(), from_beginning):
        meter.tick(0 if echo is None else 1)
        if echo is None:
            sys.stdout.flush()
            continue
        print(echo.to_json() if as_json else _cut(echo.line(), width), flush=sys.stdout.isatty())
        shown += 1
        if shown == count:
            return


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
