"""Logs as lines of JSON: where ARCHIVER_LOG_FORMAT says so, each record is one, in commands and under Dagster alike."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import tomllib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from archiver_pipeline.errors import ArchiverError

JSON = "json"

_KNOWN = ("lane", "topic", "partition", "ranges", "start", "end", "messages", "version")
"""What a record may have in its `extra`, or an error that goes with it."""
OF_DAGSTER = "dagster_meta"
"""The attribute under which Dagster gives a record the run that it is of."""


def wanted_format() -> str:
    """The format that environment or file ask for: it is needed before the settings are read."""
    if given := os.environ.get("ARCHIVER_LOG_FORMAT"):
        return given.lower()
    try:
        path = Path(os.environ.get("ARCHIVER_CONFIG") or "archiver.toml")
        return str(tomllib.loads(path.read_text("utf-8")).get("log_format", "text"))
    except (OSError, ValueError):
        return "text"


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON: time (ISO, UTC), level, logger, message, and what else is known of it.

    That is run_id, job and step of a run of Dagster, its event, and lane, topic, partition, ranges, messages and error.
    """

    def __init__(self, mask: Callable[[str], str] = lambda text: text) -> None:
        """Begin; `mask` takes secrets out of a text."""
        super().__init__()
        self._mask = mask

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        meta = getattr(record, OF_DAGSTER, None) or {}
        message = meta["orig_message"] if "orig_message" in meta else record.getMessage()
        line: dict[str, Any] = {"time": moment, "level": record.levelname, "logger": record.name, "message": message}
        line |= _of_run(meta)
        error = record.exc_info[1] if record.exc_info else None
        line |= {name: value for name in _KNOWN if (value := getattr(error, name, None)) is not None}
        line |= {name: value for name in _KNOWN if (value := getattr(record, name, None)) is not None}
        if record.exc_info:
            line["error"] = str(error) if isinstance(error, ArchiverError) else self.formatException(record.exc_info)
        known = {name: self._masked(value) for name, value in line.items() if value not in (None, "")}
        return json.dumps(known, ensure_ascii=False, default=str)

    def _masked(self, value: Any) -> Any:
        # Before it becomes JSON: a secret may be a letter of it.
        if isinstance(value, list | tuple):
            return [self._masked(each) for each in value]
        return self._mask(value) if isinstance(value, str) else value


def _of_run(meta: dict[str, Any]) -> dict[str, Any]:
    """What Dagster says of a record: the run, and the event and its error if it is one."""
    found = {"run_id": meta.get("run_id"), "job": meta.get("job_name"), "step": meta.get("step_key")}
    event = meta.get("dagster_event")
    if event is not None:
        found["event"] = event.event_type_value
        problem = getattr(event.event_specific_data, "error", None)
        if problem is not None:
            # The cause is the error that the archiver raised; what is around it is Dagster's.
            found["error"] = (problem.cause or problem).message.strip()
    return found


class _Masked:
    """Masks texts by the settings, which are read when the first line is written; until then nothing is secret."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._reading = False
        self._mask: Callable[[str], str] | None = None

    def __call__(self, text: str) -> str:
        with self._lock:
            if self._mask is None and not self._reading:
                self._reading = True
                self._mask = self._read()
                self._reading = False
            return self._mask(text) if self._mask is not None else text

    def _read(self) -> Callable[[str], str]:
        from archiver_pipeline.settings import settings

        # What it warns of it has said, or will say when the command reads the settings.
        settings.log.disabled, before = True, settings.log.disabled
        try:
            return settings.load().mask
        except ArchiverError:
            return lambda text: text
        finally:
            settings.log.disabled = before


def handler() -> logging.Handler:
    """A handler that writes lines of JSON to standard error, without secrets."""
    made = logging.StreamHandler(sys.stderr)
    made.setFormatter(JsonFormatter(_Masked()))
    return made
