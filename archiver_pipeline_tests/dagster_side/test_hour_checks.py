"""Rules of the checks on `sealed_hours`: what each passes and fails, and that it says which field, and which hour."""

from __future__ import annotations

import dagster as dg

from archiver_pipeline.defs.hour_checks import WHOLE, TypeHour, every_hour_is_whole, failed_before, fields_are_stable
from archiver_pipeline.hours import parse_hour
from archiver_pipeline.view.hour_fields import FieldSeen, HourFields

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


def test_an_hour_that_failed_is_named_until_it_is_done() -> None:
    """Other hours that go well in a later run do not make it green; the hour itself does."""
    bad, good = HOUR, parse_hour("2019-08-01T04")
    first = every_hour_is_whole({}, [good], {bad.name: "its file is damaged"})
    assert not first.passed
    assert "1 hour is not whole: 2019-08-01T03: its file is damaged. Put right" in str(first.description)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.report_runless_asset_event(first)
        before = failed_before(instance)
        assert before == {bad.name: "its file is damaged"}
        assert not every_hour_is_whole(before, [good], {}).passed
        mended = every_hour_is_whole(before, [bad], {})
        assert mended.passed
        instance.report_runless_asset_event(mended)
        assert failed_before(instance) == {}
    assert WHOLE.name == first.check_name
