"""How a run fails: with one sentence, and the way to it in the run's log."""

from __future__ import annotations

import traceback
from pathlib import Path

import dagster as dg

from archiver_pipeline.defs.resources import settings
from archiver_pipeline.errors import AccessDenied, ArchiverError


def may_retry(error: ArchiverError) -> bool:
    """Whether to try the same again in some seconds may help.

    Without one topic that is forbidden the others go on, so that is tried; where all are refused, nothing is.
    """
    return not error.lasting or (isinstance(error, AccessDenied) and error.topic is not None)


def failure(
    context: dg.OpExecutionContext | dg.AssetExecutionContext, error: ArchiverError, *, retries: bool = False
) -> dg.Failure:
    """What a run fails with, to be raised `from None`: Dagster prints each cause with its traceback, twice.

    Where it came from goes to the run's log in a line, and with `python_log_level: DEBUG` in full; without secrets.

    Args:
        context: of the step.
        error: what went wrong; its text says all that somebody needs who puts it right.
        retries: the step has a policy of retries, which is to be kept to where it may help.
    """
    mask = settings().mask
    context.log.info(mask(f"{type(error).__name__} in {came_from(error)}"))
    context.log.debug(mask("".join(traceback.format_exception(error))))
    return dg.Failure(settings().mask(str(error)), allow_retries=retries and may_retry(error))


def trying_again(error: BaseException, seconds: float, number: int, most: int) -> str:
    """What is logged where a step that failed is tried again in some seconds, for the `number`th time of `most`."""
    text = str(error) if isinstance(error, ArchiverError) else f"{type(error).__name__}: {error}"
    line = " ".join(settings().mask(text).split()).rstrip(".")
    return f"{line}; trying again in {seconds:.0f} s, {number} of {most}"


def came_from(error: BaseException) -> str:
    """Where an error was raised, and by whom that was called, innermost first; then the same of each of its causes."""
    chain: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        places = [f"{Path(at.filename).name}:{at.lineno}" for at in traceback.extract_tb(cause.__traceback__)]
        name = "" if cause is error else f"{type(cause).__name__} in "
        chain.append(name + " < ".join(reversed(places)))
        cause = cause.__cause__
    return ", from ".join(chain)
