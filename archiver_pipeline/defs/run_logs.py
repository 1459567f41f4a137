"""The logs of runs and sensors: as lines of JSON where ARCHIVER_LOG_FORMAT says so, and brief where a run was ended."""

from __future__ import annotations

import copy
import logging

import dagster as dg

from archiver_pipeline.logs import JSON, OF_DAGSTER, JsonFormatter, handler, wanted_format


def use_log_format() -> None:
    """Have Dagster write the log of a run as lines of JSON if they are wanted, and what a sensor's code logs, too.

    Dagster makes its console logger itself, and takes another one by the run config only, which everybody who starts a
    run would have to know of: so the function that makes it is replaced.
    """
    if wanted_format() != JSON:
        if dg.colored_console_logger._logger_fn is _dagsters:
            dg.colored_console_logger._logger_fn = _brief_console
        return
    dg.colored_console_logger._logger_fn = _console
    root = logging.getLogger()
    if not any(isinstance(each.formatter, JsonFormatter) for each in root.handlers):
        plain = handler()
        plain.addFilter(_is_of_no_run)
        root.addHandler(plain)


_dagsters = dg.colored_console_logger._logger_fn
_INTERRUPTED = ("DagsterExecutionInterruptedError", "KeyboardInterrupt")


class BriefFormatter(logging.Formatter):
    """Writes that a run was asked to end in a line, without the trace of where it was; all else as another does."""

    def __init__(self, other: logging.Formatter | None) -> None:
        super().__init__()
        self._other = other or logging.Formatter()

    def format(self, record: logging.LogRecord) -> str:
        """The text of a record."""
        meta = getattr(record, OF_DAGSTER, None) or {}
        event = meta.get("dagster_event")
        error = getattr(event and event.event_specific_data, "error", None)
        if event is None or error is None or error.cls_name not in _INTERRUPTED:
            return self._other.format(record)
        brief = copy.copy(record)
        run = str(meta.get("run_id"))[:8]
        brief.msg, brief.args = f"{event.job_name} - {run} - {event.event_type_value}: it was asked to end", ()
        return self._other.format(brief)


def _brief_console(context: dg.InitLoggerContext) -> logging.Logger:
    made = _dagsters(context)
    for each in made.handlers:
        each.setFormatter(BriefFormatter(each.formatter))
    return made


def _console(context: dg.InitLoggerContext) -> logging.Logger:
    made = logging.getLoggerClass()("dagster", level=context.logger_config["log_level"])
    made.addHandler(handler())
    return made


def _is_of_no_run(record: logging.LogRecord) -> bool:
    """What belongs to a run comes through its own logger, and has its metadata by now."""
    return record.name.startswith("archiver_pipeline") and not hasattr(record, OF_DAGSTER)
