"""The macros of the DuckDB file, and which files a query reads: few, where it says which hours it wants."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from archiver_pipeline.table.archive import Archive
from archiver_pipeline.view import view
from archiver_pipeline_tests.asked import END_OF_TIME_MS, HOURS, PER_HOUR, asked
from archiver_pipeline_tests.batches import AUGUST_FIRST_AT_THREE, HOUR_MS, archive, event
from archiver_pipeline_tests.ugly_messages import UGLY_TYPES

TEN, ELEVEN = "2026-11-20 10:00", "2026-11-20 11:00"


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The DuckDB file of an archive of three hours."""
    return asked(tmp_path_factory.mktemp("asked"))


@pytest.fixture
def opened(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """The file as any DuckDB client opens it, with times in UTC."""
    with duckdb.connect(str(path), read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection


def count(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    """How many rows a query has."""
    ((found,),) = connection.execute(f"SELECT count(*) FROM ({query})").fetchall()
    return int(found)


def files_read(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    """How many files a query opens, as its plan says; of one that reads a table twice, the time with more of them."""
    ((_, plan),) = connection.execute(f"EXPLAIN ANALYZE {query}").fetchall()
    return max(map(int, re.findall(r"Total Files Read: (\d+)", plan)))


@pytest.mark.parametrize(
    ("query", "files"),
    [
        ("SELECT count(*), max(value) FROM messages WHERE dt = '2026-11-20' AND hr = '10'", 2),
        ("SELECT type, count(*) FROM messages WHERE dt || hr >= '2026-11-2010' AND type = 'page.view' GROUP BY 1", 2),
        ("SELECT sum(total) FROM order_created WHERE dt = '2026-11-20' AND hr = '10'", 1),
        (f"SELECT count(value) FROM messages_between('{TEN}', '{ELEVEN}')", 2),
        (f"SELECT count(value) FROM messages_between('{TEN}', TIMESTAMPTZ '{ELEVEN}+00' + INTERVAL 1 SECOND)", 6),
        (f"SELECT sum(total) FROM messages_between('{TEN}', '{ELEVEN}', of := 'order_created')", 1),
        ("SELECT value FROM latest('page.view')", 1),
        ("SELECT value FROM latest('page.view', n := 2)", 2),
        ("SELECT count(value) FROM json('$.uid') WHERE dt = '2026-11-20' AND hr = '10'", 2),
        ("SELECT count(field(value, '$.uid')) FROM messages WHERE dt = '2026-11-20' AND hr = '10'", 2),
    ],
)  # fmt: skip
def test_a_query_for_some_hours_opens_their_files_alone(
    opened: duckdb.DuckDBPyConnection, query: str, files: int
) -> None:
    """By `dt` and `hr` in `messages`, a type's view, an aggregate, and by the macros, whatever zone the session has."""
    assert files_read(opened, query) == files
    opened.execute("SET TimeZone = 'Asia/Kathmandu'")
    assert files_read(opened, query.replace(":00'", ":00+00'")) == files


@pytest.mark.parametrize("calendar", ["buddhist", "japanese"])
def test_messages_between_two_times_in_any_calendar(opened: duckdb.DuckDBPyConnection, calendar: str) -> None:
    """A session may have another calendar: times that are no text are the same times in it, at both ends, too."""
    opened.execute(f"SET Calendar = '{calendar}'")
    span = ", ".join(f"make_timestamptz(epoch_us(TIMESTAMP '{moment}'))" for moment in (TEN, ELEVEN))
    assert count(opened, f"FROM messages_between({span}, of := 'page_view')") == PER_HOUR
    assert files_read(opened, f"SELECT count(value) FROM messages_between({span})") == 2
    ((every,),) = opened.execute("SELECT count(*) FROM messages").fetchall()
    assert count(opened, "FROM messages_between('-infinity', 'infinity')") == every


def test_a_condition_on_the_time_alone_opens_every_file(opened: duckdb.DuckDBPyConnection) -> None:
    """What the guide warns of; were it to change with a release of DuckDB, the guide could be shorter."""
    query = f"SELECT count(value) FROM messages WHERE \"timestamp\" >= '{TEN}' AND \"timestamp\" < '{ELEVEN}'"
    ((every,),) = opened.execute("SELECT sum(files)::INT FROM hours").fetchall()
    assert files_read(opened, query) == every > 2


def test_messages_between_two_times(opened: duckdb.DuckDBPyConnection) -> None:
    """From the first time up to the second and without it; times or text, and as the session's zone has them."""
    views = f"SELECT * FROM messages_between('{TEN}', '{ELEVEN}', of := 'page_view')"
    assert count(opened, views) == PER_HOUR
    assert count(opened, f"FROM messages_between(TIMESTAMP '{TEN}', '{TEN}:30')") == 1
    assert count(opened, f"FROM messages_between('{TEN}', '{TEN}')") == 0
    assert opened.execute(f"SELECT min(uid), max(uid) FROM ({views})").fetchall() == [("u0", "u9")]
    opened.execute("SET TimeZone = 'Asia/Kathmandu'")
    assert count(opened, "FROM messages_between('2026-11-20 15:45', '2026-11-20 16:45', of := 'page_view')") == PER_HOUR


@pytest.mark.parametrize(
    ("start", "end", "has_far"),
    [("-infinity", "infinity", True), ("2026-01-01", "20000-01-01", True), ("2026-01-01", "9999-12-31", False)],
)
def test_messages_past_all_calendars_are_between_times_past_them(
    opened: duckdb.DuckDBPyConnection, start: str, end: str, has_far: bool
) -> None:
    """No folder has their hour, but they have a time: it counts."""
    far = count(opened, f"FROM messages_between('{start}', '{end}') WHERE type = 'far'")
    assert far == has_far
    ((every,),) = opened.execute("SELECT count(*) FROM messages").fetchall()
    assert count(opened, f"FROM messages_between('{start}', '{end}')") == every - (not has_far)
    assert END_OF_TIME_MS > 253_402_300_799_999


def test_the_latest_messages_of_a_type(opened: duckdb.DuckDBPyConnection) -> None:
    """Newest first, one unless more are wanted, and no more than there are."""
    newest = opened.execute('SELECT "timestamp" FROM page_view ORDER BY 1 DESC LIMIT 150').fetchall()
    assert opened.execute("SELECT \"timestamp\" FROM latest('page.view')").fetchall() == newest[:1]
    assert opened.execute("SELECT \"timestamp\" FROM latest('page.view', 150)").fetchall() == newest
    assert count(opened, "FROM latest('page.view', n := 100000)") == HOURS * PER_HOUR + 1
    assert count(opened, "FROM latest('nobody')") == count(opened, "FROM latest('far')") == 0
    assert opened.execute("SELECT type FROM latest($1)", ["order.created"]).fetchall() == [("order.created",)]


def test_the_latest_message_of_a_type_with_any_name(tmp_path: Path) -> None:
    """A name is a parameter, and never SQL or a pattern."""
    target = Archive(str(tmp_path / "archive"))
    for hour in range(2):
        archive(
            target, [event(name, n=hour) for name in UGLY_TYPES], milliseconds=AUGUST_FIRST_AT_THREE + hour * HOUR_MS
        )
    view.refresh(tmp_path / "archive.duckdb", target)
    with duckdb.connect(str(tmp_path / "archive.duckdb"), read_only=True) as connection:
        types = [name for (name,) in connection.execute("SELECT type FROM types").fetchall()]
        assert len(types) == len(set(UGLY_TYPES))
        for name in types:
            rows = connection.execute("SELECT type, hr, field(value, '$.n') FROM latest($1)", [name]).fetchall()
            assert rows == [(name, "04", "1")]


def test_json_is_null_where_there_is_none(opened: duckdb.DuckDBPyConnection) -> None:
    """Neither macro fails at a payload that is no JSON, and DuckDB's own `json` and `JSON` stay what they are."""
    found = opened.execute("SELECT count(*), count(value) FROM json('$.uid')").fetchall()
    assert found == opened.execute("SELECT count(*), count(field(value, '$.uid')) FROM messages").fetchall()
    ((every, have_it),) = found
    assert every - have_it == 2
    assert opened.execute("SELECT json('[1, 2]'), '{\"a\": 1}'::JSON->>'a', field('x', 'y')").fetchall() == [
        ("[1,2]", "1", None)
    ]


def test_macros_of_an_attached_file(path: Path) -> None:
    """They are there once the file is the one in use."""
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{path}' AS a (READ_ONLY)")
        connection.execute("USE a")
        assert count(connection, "FROM latest('page.view', n := 3)") == 3


def test_macros_see_what_comes_later(tmp_path: Path) -> None:
    """They are made with the file and for ever: a batch, and a file that was made anew, change nothing of them."""
    target, path = Archive(str(tmp_path / "archive")), tmp_path / "archive.duckdb"
    for number in range(3):
        archive(target, [event("a", n=number)], milliseconds=AUGUST_FIRST_AT_THREE + number * HOUR_MS)
        if number == 2:
            path.unlink()
        view.refresh(path, target)
        with duckdb.connect(str(path), read_only=True) as connection:
            assert connection.execute("SELECT field(value, '$.n') FROM latest('a')").fetchall() == [(str(number),)]


def test_a_broken_file_is_no_reason_to_give_less(tmp_path: Path) -> None:
    """Who asks for the newest messages hears that the newest file is missing, and gets no older ones in their place."""
    target, path = Archive(str(tmp_path / "archive")), tmp_path / "archive.duckdb"
    for number in range(2):
        archive(target, [event("a", n=number)], milliseconds=AUGUST_FIRST_AT_THREE + number * HOUR_MS)
    (newest,) = (tmp_path / "archive" / "type=a").glob("dt=*/hr=04/*.parquet")
    newest.unlink()
    view.refresh(path, target)
    with (
        duckdb.connect(str(path), read_only=True) as connection,
        pytest.raises(duckdb.Error, match="missing or damaged"),
    ):
        connection.execute("FROM latest('a')").fetchall()
