"""Rules of how a run fails: what is worth another try, and what is told of where it came from."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import dagster as dg
import pytest

from archiver_pipeline import errors
from archiver_pipeline.defs.failing import came_from, failure, may_retry, trying_again
from archiver_pipeline.defs.run_logs import BriefFormatter
from archiver_pipeline.logs import OF_DAGSTER


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (errors.BrokerUnavailable("w"), True),
        (errors.KafkaError("w"), True),
        (errors.TopicChanged("w"), True),
        (errors.Superseded("w"), True),
        (errors.AccessDenied("w", topic="t"), True),
        (errors.AccessDenied("w"), False),
        (errors.BatchUnreadable("w", topic="t"), False),
        (errors.RegistryUnavailable("w"), False),
        (errors.SchemaUnknown("w"), False),
        (errors.StorageError("w"), False),
        (errors.ArchiveDamaged("w"), False),
        (errors.RangeRefused("w"), False),
        (errors.SettingsError("w"), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_only_what_may_pass_is_tried_again(error: errors.ArchiverError, again: bool) -> None:
    """What stays until somebody does something, or was waited for in the run itself, is not tried again at once."""
    assert may_retry(error) is again


def test_the_end_that_somebody_asked_for_is_a_line_without_a_trace() -> None:
    """The console says of an interrupted step or run that it was asked to end; of any other error all there is."""

    def said(name: str) -> str:
        data = SimpleNamespace(error=SimpleNamespace(cls_name=name))
        event = SimpleNamespace(job_name="archive", event_type_value="STEP_FAILURE", event_specific_data=data)
        record = logging.LogRecord("dagster", logging.ERROR, "", 0, "failed\nStack Trace:\n…", None, None)
        setattr(record, OF_DAGSTER, {"run_id": "0123456789", "dagster_event": event})
        return BriefFormatter(logging.Formatter("%(levelname)s %(message)s")).format(record)

    told = said("DagsterExecutionInterruptedError")
    assert told == "ERROR archive - 01234567 - STEP_FAILURE: it was asked to end"
    assert "Stack Trace" in said("ValueError")


def test_a_failure_has_one_sentence_and_a_line_says_where() -> None:
    """Dagster is given no cause, which it would print with its traceback; the log has the way to it in a line."""
    try:
        try:
            raise TimeoutError
        except TimeoutError as cause:
            raise errors.BrokerUnavailable("nothing came", topic="t") from cause
    except errors.ArchiverError as error:
        line = came_from(error)
        with dg.build_op_context() as context:
            failed = failure(context, error, retries=True)
    assert (failed.description, failed.allow_retries) == ("nothing came (topic t)", True)
    assert failed.__cause__ is None
    here = "test_failing.py:"
    assert line.startswith(here)
    assert f", from TimeoutError in {here}" in line
    assert "\n" not in line


def test_each_try_says_why_and_when_the_next_one_comes() -> None:
    """A run whose broker is down is not silent until its last try: the sentence is in its log at once."""
    error = errors.BrokerUnavailable("nobody answers", topic="t", hint="Check the broker")
    told = trying_again(error, 4.7, 1, 3)
    assert told == "nobody answers (topic t). Check the broker; trying again in 5 s, 1 of 3"
    assert trying_again(ValueError("odd\nindeed."), 4.7, 3, 3) == "ValueError: odd indeed; trying again in 5 s, 3 of 3"
