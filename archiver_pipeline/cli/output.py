"""What the commands share in showing things: numbers for people, JSON for programs."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from archiver_pipeline.errors import ArchiveError, FormatTooNew, WrongUsage
from archiver_pipeline.visible import visible

if TYPE_CHECKING:
    from archiver_pipeline.table.archive import Archive

log = logging.getLogger(__name__)


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
        WrongUsage: they make no sense; one line with the option, its value and what is allowed.
    """
    if every and (start or end):
        raise WrongUsage("--all is given with a time: allowed is --all alone, or --from, --to or both")
    if not every and not start and not end:
        raise WrongUsage("no time is given: allowed is --from, --to or both, or --all")
    first, last = _time("--from", start), _time("--to", end)
    if first is not None and last is not None and last <= first:
        raise WrongUsage(f"--to is {end!r}: it has to be after --from, {start!r}")
    return first, last


def _time(option: str, text: str) -> datetime | None:
    from archiver_pipeline.settings.types import parse_time

    if not text:
        return None
    try:
        moment = parse_time(text)
    except (ValueError, OverflowError):
        raise WrongUsage(f"{option} is {text!r}: allowed is an ISO time such as 2019-08-01T03:00") from None
    if option == "--to" and moment == datetime.min.replace(tzinfo=UTC):
        raise WrongUsage(f"{option} is {text!r}: there is no time before it")
    return moment
