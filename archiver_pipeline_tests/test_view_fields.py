"""The views `hours` and `fields`: which hours are sealed, and what their files say of the messages' fields."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from archiver_pipeline import envelope
from archiver_pipeline.fields import literal
from archiver_pipeline.hours import parse_hour
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.attempt import Replaced, rewrite_of
from archiver_pipeline.view import hour_fields, view
from archiver_pipeline.view.tables import LAYOUT
from archiver_pipeline_tests.batches import AUGUST_FIRST_AT_THREE, HOUR_MS, archive, event

THIRD = "2019-08-01T03"
_MESSAGES = 'SELECT topic, topic_id, partition, "offset", timestamp, timestamp_type, key, value, value_bytes, headers'


class Sealed:
    """An archive whose hours are sealed by hand, with its DuckDB file."""

    def __init__(self, folder: Path) -> None:
        self.archive = Archive(str(folder / "archive"))
        self.path = folder / "archive.duckdb"

    def add(self, *payloads: bytes | None, **kinds: Any) -> None:
        """Archive payloads."""
        archive(self.archive, payloads, **kinds)

    def refresh(self) -> int:
        """Bring the DuckDB file up to date."""
        return view.refresh(self.path, self.archive)

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        """Ask it."""
        with duckdb.connect(str(self.path), read_only=True) as connection:
            return connection.execute(query).fetchall()

    def files(self, hour: str, sealed: bool) -> dict[str, list[Path]]:
        """The listed files of an hour by type."""
        found: dict[str, list[Path]] = {}
        for path in self.archive.files()["path"]:
            values = envelope.partition_values(path)
            at = parse_hour(hour)
            if (values["dt"], values["hr"]) == (at.dt, at.hr) and envelope.is_sealed(path) is sealed:
                found.setdefault(values["type"], []).append(Path(self.archive.uri) / path)
        return found

    def seal(self, hour: str = THIRD, report: str | None = "") -> None:
        """Make one file of the unsealed ones of each type of an hour.

        Args:
            hour: its name.
            report: for the footer; None for none, empty for the one that belongs there.
        """
        attempt = rewrite_of(self.archive, "seal", hour)
        replaced: list[Replaced] = []
        at = parse_hour(hour)
        for type_name, paths in self.files(hour, sealed=False).items():
            values = {"type": type_name, "dt": at.dt, "hr": at.hr}
            scratch = attempt.staging.scratch / f"{len(replaced)}.parquet"
            with duckdb.connect() as connection:
                listed = [str(path) for path in paths]
                connection.execute(f"CREATE TABLE m AS {_MESSAGES} FROM read_parquet($paths)", {"paths": listed})
                options = "FORMAT parquet"
                if report is not None:
                    text = report or hour_fields.report(connection, "FROM m")
                    options += f", KV_METADATA {{{literal(hour_fields.KEY)}: {literal(text)}}}"
                connection.execute(f"COPY m TO '{scratch}' ({options})")
                ((count,),) = connection.execute("SELECT count(*) FROM m").fetchall()
            attempt.take(scratch, values, {"numRecords": count})
            replaced += [Replaced(str(p.relative_to(Path(self.archive.uri))), p.stat().st_size, values) for p in paths]
        attempt.staging.sync()
        attempt.staging.place()
        attempt.commit([], {}, replaced, data_change=False)
        attempt.clean()

    def remove(self, hour: str) -> None:
        """Take the sealed files of an hour off the list."""
        attempt = rewrite_of(self.archive, "seal", hour)
        at = parse_hour(hour)
        gone = [
            Replaced(str(path.relative_to(Path(self.archive.uri))), 1, {"type": type_name, "dt": at.dt, "hr": at.hr})
            for type_name, paths in self.files(hour, sealed=True).items()
            for path in paths
        ]
        attempt.commit([], {}, gone)
        attempt.clean()

    def typed(self, name: str = "object_one") -> dict[str, str]:
        """The columns of a typed view that come from its JSON, and their types."""
        return {row[0]: row[1] for row in self.sql(f"DESCRIBE {name}")[13:]}


@pytest.fixture
def sealed(tmp_path: Path) -> Sealed:
    """An archive in a folder of its own."""
    return Sealed(tmp_path)


def test_an_hour_is_sealed_where_all_its_files_are(sealed: Sealed) -> None:
    """By type and hour; a late message opens it again, until that is sealed, too."""
    third, fourth = AUGUST_FIRST_AT_THREE, AUGUST_FIRST_AT_THREE + HOUR_MS
    sealed.add(event("a"), event("b"), event("a"), milliseconds=[third, third, fourth])
    sealed.add(event("a"))
    sealed.seal()
    sealed.refresh()
    rows = "SELECT type, hr, files, messages, sealed FROM hours"
    assert sealed.sql(rows) == [("a", "03", 1, 2, True), ("a", "04", 1, 1, False), ("b", "03", 1, 1, True)]
    sealed.add(event("a"))
    sealed.refresh()
    assert sealed.sql(f"{rows} WHERE hr = '03'") == [("a", "03", 2, 3, False), ("b", "03", 1, 1, True)]
    sealed.seal()
    sealed.refresh()
    assert sealed.sql(f"{rows} WHERE hr = '03'") == [("a", "03", 2, 3, True), ("b", "03", 1, 1, True)]


def test_a_file_that_is_only_called_like_a_sealed_one_in_its_folder_is_none(sealed: Sealed) -> None:
    """A type may be called anything."""
    sealed.add(event("seal-2019-08-01T03"))
    sealed.refresh()
    assert sealed.sql("SELECT sealed FROM hours") == [(False,)]


def test_fields_of_a_sealed_hour(sealed: Sealed) -> None:
    """Kinds with the most frequent first, how many messages have the field, and the times of the first and the last."""
    stamps = [AUGUST_FIRST_AT_THREE + second * 1000 for second in range(4)]
    sealed.add(event(n=1), event(n=2.5), event(n=2, s=None), event(), milliseconds=stamps)
    sealed.seal()
    sealed.refresh()
    begin = datetime(2019, 8, 1, 3, tzinfo=UTC)
    hour = ("object.one", "2019-08-01", "03")
    assert sealed.sql("SELECT * FROM fields") == [
        (*hour, "type", ["VARCHAR"], 4, 4, 1.0, begin, begin.replace(second=3)),
        (*hour, "n", ["BIGINT", "DOUBLE"], 4, 3, 0.75, begin, begin.replace(second=2)),
        (*hour, "s", ["NULL"], 4, 1, 0.25, begin.replace(second=2), begin.replace(second=2)),
    ]


def test_only_sealed_hours_have_fields(sealed: Sealed) -> None:
    """One that is open has none yet."""
    sealed.add(event(n=1))
    sealed.refresh()
    assert sealed.sql("SELECT * FROM fields") == []


def test_several_sealed_files_of_an_hour_are_summed_up(sealed: Sealed) -> None:
    """A field that one of them has not is absent in its messages, and a large hour may be cut into files."""
    for payloads in ([event(a=1), event(a=2)], [event(a="x", b=1), event(), event()]):
        sealed.add(*payloads)
        sealed.seal()
        sealed.refresh()
    row = "SELECT field, types, messages, present, share FROM fields ORDER BY field"
    assert sealed.sql(row) == [
        ("a", ["BIGINT", "VARCHAR"], 5, 3, 0.6),
        ("b", ["BIGINT"], 5, 1, 0.2),
        ("type", ["VARCHAR"], 5, 5, 1.0),
    ]


def test_fields_go_with_their_files(sealed: Sealed) -> None:
    """An hour whose sealed files are off the list has no rows any more; the others keep theirs."""
    for number in range(3):
        sealed.add(event(n=1), milliseconds=AUGUST_FIRST_AT_THREE + number * HOUR_MS)
        sealed.seal(f"2019-08-01T0{3 + number}")
    sealed.refresh()
    hours = "SELECT DISTINCT hr FROM fields ORDER BY ALL"
    assert sealed.sql(hours) == [("03",), ("04",), ("05",)]
    sealed.remove("2019-08-01T04")
    sealed.refresh()
    assert sealed.sql(hours) == [("03",), ("05",)]


def test_only_new_footers_are_read(sealed: Sealed) -> None:
    """What is known of an hour needs its file no more: a refresh costs what is new, not what there is."""
    sealed.add(event(n=1))
    sealed.seal()
    sealed.refresh()
    (old,) = sealed.files(THIRD, sealed=True)["object.one"]
    content = old.read_bytes()
    # A footer that says something else, as long as the true one.
    old.write_bytes(content.replace(b'"field":"n"', b'"field":"m"'))
    sealed.add(event(n=1), milliseconds=AUGUST_FIRST_AT_THREE + HOUR_MS)
    sealed.seal("2019-08-01T04")
    sealed.refresh()
    assert sealed.sql("SELECT field FROM fields WHERE hr = '03' ORDER BY ALL") == [("n",), ("type",)]
    sealed.path.unlink()
    sealed.refresh()
    assert sealed.sql("SELECT field FROM fields WHERE hr = '03' ORDER BY ALL") == [("m",), ("type",)]


def test_a_file_made_anew_has_the_same_fields(sealed: Sealed) -> None:
    """They come from the sealed files, so the DuckDB file can be lost."""
    for number in range(3):
        sealed.add(event("a", n=number), event("b", s="x"), milliseconds=AUGUST_FIRST_AT_THREE + number * HOUR_MS)
        sealed.seal(f"2019-08-01T0{3 + number}")
        sealed.refresh()
    before = sealed.sql("SELECT * FROM fields ORDER BY ALL")
    assert len(before) == 12
    sealed.path.unlink()
    sealed.refresh()
    assert sealed.sql("SELECT * FROM fields ORDER BY ALL") == before


@pytest.mark.parametrize("report", [None, "no json", "{}", "[]", '{"fields": 7}', "null"])
def test_a_sealed_file_without_a_readable_report_is_passed_over(sealed: Sealed, report: str | None) -> None:
    """Another release, or another program, may have written it; its messages are there, and its type has its view."""
    sealed.add(event(n=1))
    sealed.seal(report=report)
    sealed.add(event(n=1), milliseconds=AUGUST_FIRST_AT_THREE + HOUR_MS)
    sealed.seal("2019-08-01T04")
    sealed.refresh()
    assert sealed.sql("SELECT DISTINCT hr FROM fields") == [("04",)]
    assert sealed.sql("SELECT n FROM object_one") == [(1,), (1,)]


def test_a_report_of_impossible_times_breaks_nothing(sealed: Sealed) -> None:
    """Times before all calendars, or none at all."""
    fields = [
        {"field": "far", "present": 1, "kinds": {"BIGINT": 1}, "first": -(2**62), "last": 2**63 - 1000},
        {"field": "none", "present": 1, "kinds": {}, "first": None, "last": 2**80},
    ]
    sealed.add(event(n=1))
    sealed.seal(report=json.dumps({"messages": 1, "looked_at": 1, "fields": fields}))
    sealed.refresh()
    rows = sealed.sql("SELECT field, types, epoch_us(first_seen), epoch_us(last_seen) FROM fields")
    assert rows == [("far", ["BIGINT"], -(2**62), 2**63 - 1000), ("none", [], None, None)]


def test_names_of_fields_may_be_anything(sealed: Sealed) -> None:
    """Quotes, zeros, emoji: the row has the very name."""
    names = {"a'b", 'a"b', "", "🎉", "a\0b", "\u202e", "a/b~", "$.x", "--", "x" * 200}
    sealed.add(event(**dict.fromkeys(names, 1)))
    sealed.seal()
    sealed.refresh()
    assert {name for (name,) in sealed.sql("SELECT field FROM fields")} == names | {"type"}


def test_a_typed_view_has_the_fields_of_the_report(sealed: Sealed) -> None:
    """Also a rare one, which the sample of a new file may miss; none is lost when the DuckDB file is made anew."""
    rare = [event(n=1)] * 5000
    rare[2500] = event(n=1, rare=True)
    sealed.add(*rare)
    sealed.seal()
    sealed.refresh()
    assert sealed.typed() == {"type_1": "VARCHAR", "n": "BIGINT", "rare": "BOOLEAN"}
    sealed.path.unlink()
    sealed.refresh()
    assert sealed.typed() == {"type_1": "VARCHAR", "n": "BIGINT", "rare": "BOOLEAN"}


def test_sealing_changes_no_column_of_a_typed_view(sealed: Sealed) -> None:
    """Names, places and values stay as they were."""
    sealed.add(event(z=1, a="x"), event(m=None, a="y"))
    sealed.refresh()
    before, rows = sealed.typed(), sealed.sql("SELECT * FROM object_one ORDER BY ALL")
    sealed.seal()
    sealed.refresh()
    assert list(sealed.typed().items()) == list(before.items())
    assert sealed.sql("SELECT * FROM object_one ORDER BY ALL") == rows


def test_a_column_only_widens_and_stays_in_its_place(sealed: Sealed) -> None:
    """Whatever comes after it, whether its hour is sealed, or what had made it wide is there no more, as after a
    backfill or an erasure; new fields are new columns at the end."""
    later = AUGUST_FIRST_AT_THREE + HOUR_MS
    for payload, kind in ((event(n=1, z=1), "BIGINT"), (event(n=2.5), "DOUBLE"), (event(n="x", a=1), "VARCHAR")):
        sealed.add(payload)
        sealed.refresh()
        assert sealed.typed()["n"] == kind
    wide = [("type_1", "VARCHAR"), ("n", "VARCHAR"), ("z", "BIGINT"), ("a", "BIGINT")]
    sealed.add(event(b=True, n=1), milliseconds=later)
    sealed.refresh()
    sealed.seal()
    sealed.refresh()
    assert list(sealed.typed().items()) == [*wide, ("b", "BOOLEAN")]
    sealed.remove(THIRD)
    sealed.seal("2019-08-01T04")
    sealed.refresh()
    assert list(sealed.typed().items()) == [*wide, ("b", "BOOLEAN")]
    assert sealed.sql("SELECT n FROM object_one") == [("1",)]


def test_an_upgrade_narrows_no_column(sealed: Sealed) -> None:
    """A file of an older format gives its columns to the one that is made in its place, and nothing else."""
    sealed.add(event(z=1, n="x"), event("gone", n=1))
    sealed.seal()
    sealed.add(event(n=1), milliseconds=AUGUST_FIRST_AT_THREE + HOUR_MS)
    sealed.refresh()
    before = list(sealed.typed().items())
    sealed.remove(THIRD)
    with duckdb.connect(str(sealed.path)) as connection:
        connection.execute("UPDATE meta.state SET format = format - 1")
    sealed.refresh()
    assert list(sealed.typed().items()) == before == [("type_1", "VARCHAR"), ("z", "BIGINT"), ("n", "VARCHAR")]
    assert sealed.sql("SELECT type FROM types") == [("object.one",)]


def test_a_file_made_anew_has_columns_as_wide(sealed: Sealed) -> None:
    """What sealed hours report of their messages is enough for it, also where a sample would miss what is rare."""
    rare = [event(n=1)] * 5000
    rare[2500] = event(n=2.5)
    sealed.add(*rare)
    sealed.seal()
    sealed.refresh()
    before = sealed.typed()
    sealed.path.unlink()
    sealed.refresh()
    assert sealed.typed() == before == {"type_1": "VARCHAR", "n": "DOUBLE"}


def test_a_type_may_be_called_fields(sealed: Sealed) -> None:
    """Its view takes another name, and `fields` stays what it is."""
    sealed.add(event("fields", n=1), event("events_per_minute", n=2), event("page_views", n=3))
    sealed.seal()
    sealed.refresh()
    views = dict(sealed.sql('SELECT type, "view" FROM types'))
    assert set(views.values()) == {"fields_2", "events_per_minute_2", "page_views_2"}
    assert sealed.sql("SELECT n FROM fields_2") == [(1,)]
    assert sealed.sql("SELECT count(DISTINCT type) FROM fields") == [(3,)]


def test_a_file_of_an_older_release_is_made_anew(sealed: Sealed) -> None:
    """Nobody has to do anything after an upgrade to have the new views."""
    sealed.add(event(n=1))
    sealed.seal()
    sealed.refresh()
    with duckdb.connect(str(sealed.path)) as connection:
        connection.execute("UPDATE meta.state SET format = format - 1; DROP TABLE fields")
    sealed.add(event(n=1), milliseconds=AUGUST_FIRST_AT_THREE + HOUR_MS)
    sealed.refresh()
    assert sealed.sql("SELECT count(*) FROM fields") == [(2,)]


@pytest.mark.parametrize("how", ["missing", "cut"])
def test_a_lost_sealed_file_has_no_fields_until_it_is_back(
    sealed: Sealed, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The other hours have theirs, the log names it, and its own come with it."""
    for number in range(2):
        sealed.add(event(n=1), milliseconds=AUGUST_FIRST_AT_THREE + number * HOUR_MS)
        sealed.seal(f"2019-08-01T0{3 + number}")
    (lost,) = sealed.files(THIRD, sealed=True)["object.one"]
    content = lost.read_bytes()
    if how == "missing":
        lost.unlink()
    else:
        lost.write_bytes(content[:100])
    sealed.refresh()
    assert any(str(lost) in record.message and "archiver verify" in record.message for record in caplog.records)
    assert sealed.sql("SELECT DISTINCT hr FROM fields") == [("04",)]
    assert sealed.sql("SELECT hr, sealed FROM hours") == [("03", True), ("04", True)]
    lost.write_bytes(content)
    sealed.refresh()
    assert sealed.sql("SELECT DISTINCT hr FROM fields ORDER BY ALL") == [("03",), ("04",)]


def test_the_layout_has_every_table_once() -> None:
    """It is one script for an empty database."""
    with duckdb.connect() as connection:
        connection.execute(LAYOUT)
        made = connection.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'main'")
        assert {name for (name,) in made.fetchall()} == {*view.PUBLIC} - {"messages", "events_per_minute", "page_views"}
