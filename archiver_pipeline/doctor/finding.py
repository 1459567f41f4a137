"""A finding: what was looked at, how it is, and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from archiver_pipeline.errors import ArchiverError

Mark = Literal["ok", "warning", "fault", "skipped"]


@dataclass(frozen=True)
class Finding:
    """One line of the doctor.

    Attributes:
        mark: `ok`, `warning` (it works, for now), `fault`, or `skipped` (it could not be looked at).
        check: what was looked at.
        what: how it is, one sentence without a full stop.
        remedy: what to do, empty where nothing is to be done.
    """

    mark: Mark
    check: str
    what: str
    remedy: str = ""


def good(check: str, what: str) -> Finding:
    """Nothing is to be done."""
    return Finding("ok", check, what)


def warning(check: str, what: str, remedy: str) -> Finding:
    """It works, and will not for ever."""
    return Finding("warning", check, what, remedy)


def fault(check: str, what: str, remedy: str) -> Finding:
    """It does not work."""
    return Finding("fault", check, what, remedy)


def skipped(check: str, why: str) -> Finding:
    """It could not be looked at."""
    return Finding("skipped", check, why)


def of_error(check: str, error: ArchiverError, default: str = "") -> Finding:
    """The fault that an error tells of; its hint is what to do."""
    hint = error.hint or default
    bare = type(error)(
        error.what,
        topic=error.topic,
        partition=error.partition,
        start=error.start,
        end=error.end,
        path=error.path,
    )
    return fault(check, str(bare), hint)
