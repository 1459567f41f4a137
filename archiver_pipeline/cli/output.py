"""What the commands share in showing things: numbers for people, JSON for programs, progress on standard error."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from archiver_pipeline.amounts import duration as duration
from archiver_pipeline.amounts import size as size
from archiver_pipeline.errors import ArchiveError, FormatTooNew, SettingsError
from archiver_pipeline.files import OnProgress
from archiver_pipeline.visible import visible

if TYPE_CHECKING:
    from archiver_pipeline.archive import Archive

log = logging.getLogger(__name__)

PLAIN_SECONDS = 10.0
"""How often progress is a line where there is no terminal."""


def say(*parts: object, file: TextIO | None = None, end: str = "\n", flush: bool = False) -> None:
    """Print as `print` does; what goes to a terminal cannot control it, whoever wrote it."""
    out = file or sys.stdout
    text = " ".join(map(str, parts)) + end
    print(visible(text) if out.isatty() else text, file=out, end="", flush=flush)


def print_json(content: Any) -> None:
    """Print one JSON document on standard output."""
    say(json.dumps(content, indent=2, ensure_ascii=False))


def check_format(archive: Archive) -> None:
    """Refuse an archive of a newer format; whatever else is wrong with its log is not the concern of those who ask.

    Raises:
        FormatTooNew: a newer archiver made it, or has upgraded it.
    """
    waiting, archive.storage = archive.storage, archive.storage.hasty()
    try:
        archive.ledger()
    except FormatTooNew:
        raise
    except ArchiveError as error:
        log.info("the format of the archive is not known: %s", error)
    finally:
        archive.storage = waiting


def times(start: str, end: str, *, every: bool) -> tuple[datetime | None, datetime | None]:
    """Read `--from` and `--to`, of which one may be open, or neither is given with `--all`.

    Raises:
        SettingsError: they make no sense; one line with the option, its value and what is allowed.
    """
    if every and (start or end):
        raise SettingsError("--all is given with a time: allowed is --all alone, or --from, --to or both")
    if not every and not start and not end:
        raise SettingsError("no time is given: allowed is --from, --to or both, or --all")
    first, last = _time("--from", start), _time("--to", end)
    if first is not None and last is not None and last <= first:
        raise SettingsError(f"--to is {end!r}: it has to be after --from, {start!r}")
    return first, last


def _time(option: str, text: str) -> datetime | None:
    from archiver_pipeline.setting_types import parse_time

    if not text:
        return None
    try:
        moment = parse_time(text)
    except (ValueError, OverflowError):
        raise SettingsError(f"{option} is {text!r}: allowed is an ISO time such as 2019-08-01T03:00") from None
    if option == "--to" and moment == datetime.min.replace(tzinfo=UTC):
        raise SettingsError(f"{option} is {text!r}: there is no time before it")
    return moment


@contextmanager
def progress(labels: dict[str, str]) -> Iterator[OnProgress]:
    """Show how far a task of several steps has come: bars on a terminal, a line now and then elsewhere.

    Args:
        labels: for each step a text such as "files checked".
    """
    if not sys.stderr.isatty():
        yield _Lines(labels)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()) as bars:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(labels[what])
            bars.update(tasks[what], completed=done, total=total)

        yield show


class _Lines:
    """Progress as lines of text, one every `PLAIN_SECONDS`."""

    def __init__(self, labels: dict[str, str]) -> None:
        self._labels = labels
        self._told = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Take what is being done, how much of it is done, and how much there is."""
        now = time.monotonic()
        if now - self._told >= PLAIN_SECONDS:
            self._told = now
            print(f"{done:,} of {total:,} {self._labels[what]}", file=sys.stderr, flush=True)
