"""Rules of the check on `sealed_hours`: what it passes and fails, and that it says which field of which type."""

from __future__ import annotations

import dagster as dg

from archiver_pipeline.defs.hour_checks import TypeHour, fields_are_stable
from archiver_pipeline.hour_fields import FieldSeen, HourFields
from archiver_pipeline.hours import parse_hour

HOUR = parse_hour("2019-08-01T03")


def fields(**kinds: str) -> HourFields:
    """An hour of a hundred messages that all have these fields, each of one kind."""
    return HourFields(100, 100, tuple(FieldSeen(name, 100, {kind: 100}) for name, kind in kinds.items()))


def test_the_fields_of_the_hour_before_pass() -> None:
    """Nothing has changed, and the answer says how much was compared."""
    answer = fields_are_stable([TypeHour("a", HOUR, fields(x="VARCHAR"), fields(x="VARCHAR"))])
    assert answer.passed
    assert answer.description == "1 types and hours have the fields of the hour before"


def test_a_type_without_an_hour_before_passes() -> None:
    """The first hour of a type has nothing to be compared with."""
    answer = fields_are_stable([TypeHour("a", HOUR, fields(x="VARCHAR"))])
    assert answer.passed
    assert answer.metadata["compared"].value == 0


def test_a_change_in_any_hour_of_a_run_fails_with_its_name() -> None:
    """Dagster keeps one answer a run: it tells of every hour, also when the last one is as the one before it."""
    looked = [
        TypeHour("a", HOUR, fields(x="VARCHAR", y="BIGINT"), fields(x="VARCHAR")),
        TypeHour("b", HOUR, fields(x="VARCHAR"), fields(x="BIGINT")),
        TypeHour("c", HOUR, fields(), fields(x="BIGINT")),
        TypeHour("a", parse_hour("2019-08-01T04"), fields(x="VARCHAR"), fields(x="VARCHAR")),
    ]
    answer = fields_are_stable(looked)
    assert not answer.passed
    assert answer.severity is dg.AssetCheckSeverity.WARN
    assert answer.metadata["changes"].value == 3
    for told in ("2019-08-01T03: a: field 'y' appeared", "b: field 'x' changed type", "c: field 'x' disappeared"):
        assert told in (answer.description or "")
