"""The logs of runs and sensors as lines of JSON, where ARCHIVER_LOG_FORMAT says so."""

from __future__ import annotations

import logging

import dagster as dg

from archiver_pipeline.logs import JSON, OF_DAGSTER, JsonFormatter, handler, wanted_format


def use_log_format() -> None:
    """Have Dagster write the log of a run as lines of JSON if they are wanted, and what a sensor's code logs, too.

    Dagster makes its console logger itself, and takes another one by the run config only, which everybody who starts a
    run would have to know of: so the function that makes it is replaced.
    """
    if wanted_format() != JSON:
        return
    dg.colored_console_logger._logger_fn = _console
    root = logging.getLogger()
    if not any(isinstance(each.formatter, JsonFormatter) for each in root.handlers):
        plain = handler()
        plain.addFilter(_is_of_no_run)
        root.addHandler(plain)


def _console(context: dg.InitLoggerContext) -> logging.Logger:
    made = logging.getLoggerClass()("dagster", level=context.logger_config["log_level"])
    made.addHandler(handler())
    return made


def _is_of_no_run(record: logging.LogRecord) -> bool:
    """What belongs to a run comes through its own logger, and has its metadata by now."""
    return record.name.startswith("archiver_pipeline") and not hasattr(record, OF_DAGSTER)
