"""The DuckDB file: always whole, always openable, whatever is in the messages."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import deltalake
import duckdb
import pytest
from deltalake.transaction import AddAction

from archiver_pipeline import fields
from archiver_pipeline.errors import StorageError
from archiver_pipeline.kafka.look import Look
from archiver_pipeline.plan import RETENTION, Committed, Gap, TopicPartition, TopicState, Watermarks
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.attempt import Replaced, batch_of, rewrite_of
from archiver_pipeline.table.delta_log import LogState
from archiver_pipeline.table.ledger import Ledger, offset_transactions
from archiver_pipeline.view import view
from archiver_pipeline_tests.batches import AUGUST_FIRST_AT_THREE, HOUR_MS, ORDERS, archive, commit, event, place
from archiver_pipeline_tests.processes import CHECKOUT
from archiver_pipeline_tests.waiting import LIMIT_SECONDS

MESSAGE_COLUMNS = [
    ("topic", "VARCHAR"),
    ("topic_id", "VARCHAR"),
    ("partition", "INTEGER"),
    ("offset", "BIGINT"),
    ("timestamp", "TIMESTAMP WITH TIME ZONE"),
    ("timestamp_type", "VARCHAR"),
    ("key", "BLOB"),
    ("value", "VARCHAR"),
    ("value_bytes", "BLOB"),
    ("headers", 'STRUCT("key" VARCHAR, "value" BLOB)[]'),
    ("type", "VARCHAR"),
    ("dt", "VARCHAR"),
    ("hr", "VARCHAR"),
]
COLUMNS = {
    "messages": [name for name, _ in MESSAGE_COLUMNS],
    "offsets": ["topic", "topic_id", "partition", "first", "next", "messages", "end", "lag"],
    "batches": ["version", "time", "run_id", "lane", "ranges", "messages", "bytes", "files", "seconds"],
    "gaps": ["time", "topic", "topic_id", "partition", "start", "end", "reason"],
    "replays": ["time", "topic", "topic_id", "partition", "start", "end"],
    "losses": ["dt", "hr", "messages"],
    "erasures": ["time", "predicate_hash", "messages"],
    "hours": ["type", "dt", "hr", "files", "messages", "bytes", "sealed"],
    "fields": [
        *("type", "dt", "hr", "field", "types", "messages", "present", "share", "first_seen", "last_seen"),
    ],
    "types": ["type", "view"],
}


class Viewed:
    """An archive with its DuckDB file."""

    def __init__(self, folder: Path) -> None:
        self.archive = Archive(str(folder / "archive"))
        self.path = folder / "archive.duckdb"

    def add(self, *payloads: bytes | None, **kinds: Any) -> None:
        """Archive payloads and bring the file up to date."""
        archive(self.archive, payloads, **kinds)
        self.refresh()

    def refresh(self, look: Look | None = None, look_seconds: float = view.LOOK_SECONDS) -> int:
        """Bring the file up to date and return its version."""
        return view.refresh(self.path, self.archive, look, look_seconds)

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        """Ask the file."""
        with duckdb.connect(str(self.path), read_only=True) as connection:
            return connection.execute(query).fetchall()

    def columns(self, name: str) -> list[tuple[str, str]]:
        """The columns of a view and their types."""
        return [(row[0], row[1]) for row in self.sql(f'DESCRIBE "{name}"')]

    def fields(self, name: str = "object_one") -> dict[str, str]:
        """The columns of a typed view that come from its JSON, and their types."""
        return dict(self.columns(name)[len(MESSAGE_COLUMNS) :])

    def column(self, column: str, name: str = "object_one") -> list[Any]:
        """A column of a typed view in the order of offsets."""
        quoted = column.replace('"', '""')
        return [value for (value,) in self.sql(f'SELECT "{quoted}" FROM "{name}" ORDER BY "offset"')]

    def views(self) -> dict[str, str]:
        """Type to view."""
        return dict(self.sql('SELECT type, "view" FROM types'))

    def files(self) -> set[str]:
        """What lies beside the archive."""
        return {path.name for path in self.path.parent.iterdir()} - {"archive"}


@pytest.fixture
def viewed(tmp_path: Path) -> Viewed:
    """An archive in a folder of its own."""
    return Viewed(tmp_path)


def test_the_names_of_the_contract_are_taken() -> None:
    """Also of those views that come with what follows the archive, so that no type's view has to make way later."""
    assert set(view.PUBLIC) == {*COLUMNS, "events_per_minute", "page_views"}


def test_an_empty_archive_has_every_view_with_its_columns(viewed: Viewed) -> None:
    """A dashboard made before the first message works; what is added later has the same columns."""
    assert viewed.refresh() == 0
    for name, columns in COLUMNS.items():
        assert [column for column, _ in viewed.columns(name)] == columns
        assert viewed.sql(f"SELECT * FROM {name}") == []
    before = {name: viewed.columns(name) for name in COLUMNS}
    viewed.add(event(), headers=[("h", b"\x00")])
    assert {name: viewed.columns(name) for name in COLUMNS} == before
    assert viewed.columns("messages") == MESSAGE_COLUMNS
    assert viewed.files() == {"archive.duckdb", "archive.duckdb.lock"}


def test_messages_are_as_they_were_archived(viewed: Viewed) -> None:
    """Every column of the contract, text, bytes and null told apart."""
    text = event("a/b ü🎉", n=1)
    viewed.add(text, b"\xff", None, headers=[("h", b"\x00"), ("h", None)])
    headers = [{"key": "h", "value": b"\x00"}, {"key": "h", "value": None}]
    rows = viewed.sql('SELECT * REPLACE (epoch_ms("timestamp") AS "timestamp") FROM messages ORDER BY "offset"')
    common = (AUGUST_FIRST_AT_THREE, "create", b"key")
    assert rows == [
        ("orders", "A", 0, 0, *common, text.decode(), None, headers, "a/b ü🎉", "2019-08-01", "03"),
        ("orders", "A", 0, 1, *common, None, b"\xff", headers, "_malformed", "2019-08-01", "03"),
        ("orders", "A", 0, 2, *common, None, None, headers, "_tombstone", "2019-08-01", "03"),
    ]


def test_a_type_has_a_view_with_its_fields_as_typed_columns(viewed: Viewed) -> None:
    """Whole numbers, numbers, truth values, texts, and JSON for what is nested; a missing field is null."""
    full = {"n": 2**62, "x": 1.5, "b": True, "s": "ü", "o": {"a": 1}, "l": [1], "z": None}
    viewed.add(event(**full), event())
    kinds = {"type_1": "VARCHAR", "n": "BIGINT", "x": "DOUBLE", "b": "BOOLEAN", "s": "VARCHAR"}
    assert viewed.fields() == {**kinds, "o": "JSON", "l": "JSON", "z": "VARCHAR"}
    assert viewed.sql('SELECT n, x, b, s, o, l, z FROM object_one ORDER BY "offset"') == [
        (2**62, 1.5, True, "ü", '{"a":1}', "[1]", None),
        (None,) * 7,
    ]


def test_names_of_types_never_collide(viewed: Viewed) -> None:
    """Each type has a view of its own, whatever it is called, and the archive's own views stay."""
    types = [
        "a.b",
        "a-b",
        "A.B",
        "a_b_2",
        "messages",
        "Messages",
        "offsets",
        "hours",
        "fields",
        "events_per_minute",
        "page_views",
        "types",
        "select",
        "sqlite_master",
    ]
    types += ["__x", '"; DROP VIEW messages; --', "é", "🎉", "1", "meta.files", "main"]
    viewed.add(*(event(name, n=number) for number, name in enumerate(types)))
    viewed.add(event("late.a.b"), event("A_B"))
    views = viewed.views()
    archived = {"_" + name if name.startswith("_") else name for name in types} | {"late.a.b", "A_B"}
    assert set(views) == archived
    assert len({name.lower() for name in views.values()} - set(view.PUBLIC)) == len(archived)
    for number, (type_name,) in enumerate(viewed.sql('SELECT type FROM messages ORDER BY "offset"')[: len(types)]):
        assert viewed.column("n", views[type_name]) == [number]
    assert viewed.sql("SELECT count(*) FROM messages") == [(len(types) + 2,)]


def test_a_view_keeps_its_name_and_columns_for_ever(viewed: Viewed) -> None:
    """What comes later takes another name, in the same refresh or in another."""
    viewed.add(event("b.c", first=1))
    viewed.add(event("b-c"), event("b.c", second=1))
    assert viewed.views() == {"b.c": "b_c", "b-c": "b_c_2"}
    assert list(viewed.fields("b_c")) == ["type_1", "first", "second"]


def test_a_field_that_changes_its_kind_is_widened(viewed: Viewed) -> None:
    """Number, then text, then object: no refresh fails, no value is lost, and older rows are still there."""
    viewed.add(event(f=1))
    assert (viewed.fields()["f"], viewed.column("f")) == ("BIGINT", [1])
    viewed.add(event(f=1.5))
    assert (viewed.fields()["f"], viewed.column("f")) == ("DOUBLE", [1.0, 1.5])
    viewed.add(event(f="text"))
    assert (viewed.fields()["f"], viewed.column("f")) == ("VARCHAR", ["1", "1.5", "text"])
    viewed.add(event(f={"a": 1}))
    assert (viewed.fields()["f"], viewed.column("f")) == ("JSON", ["1", "1.5", '"text"', '{"a":1}'])
    viewed.add(event(f=2))
    assert (viewed.fields()["f"], viewed.column("f")[-1]) == ("JSON", "2")


def test_fields_never_hide_a_column_of_the_message(viewed: Viewed) -> None:
    """A field that is called like a column, in whatever case, gets a number."""
    viewed.add(b'{"type": "t", "Offset": 7, "VALUE": "v", "value": "w", "topic": "x", "Topic_1": "y", "n": 1, "N": 2}')
    assert viewed.fields("t") == {
        "type_1": "VARCHAR",
        "Offset_1": "BIGINT",
        "VALUE_1": "VARCHAR",
        "value_2": "VARCHAR",
        "topic_1": "VARCHAR",
        "Topic_1_1": "VARCHAR",
        "n": "BIGINT",
        "N_1": "BIGINT",
    }
    names = '"offset", Offset_1, VALUE_1, value_2, topic, topic_1, Topic_1_1, n, N_1'
    assert viewed.sql(f"SELECT {names} FROM t") == [(0, 7, "v", "w", "orders", "x", "y", 1, 2)]


def test_a_message_with_very_many_fields_makes_no_endless_view(viewed: Viewed) -> None:
    """The first 500 fields are columns, the rest is in `value`; later fields make no more."""
    viewed.add(event(**{f"f{number}": number for number in range(600)}))
    assert len(viewed.fields()) == 500
    viewed.add(event(**{f"g{number}": number for number in range(600)}))
    assert len(viewed.fields()) == 500
    assert viewed.column("f498") == [498, None]
    assert viewed.sql("""SELECT value->>'f599' FROM object_one ORDER BY "offset" """) == [("599",), (None,)]


def test_a_field_may_have_any_name(viewed: Viewed) -> None:
    """Quotes, slashes and all: the column gives that very field; only an empty name is shown as `_`."""
    names = ["a'b", 'a"b', "a/b", "a~1b", "a~b", "a/b~", "🎉", "a.b", "$.x", "*", "[0]", "a\\b", "select", "ä b", "0"]
    names += ["/", "~", "--", "%s", "{}", "x" * 200, ""]
    viewed.add(event(**{name: number for number, name in enumerate(names)}))
    for number, name in enumerate(names):
        assert viewed.column(name or "_") == [number]


def test_a_field_without_a_decent_name_is_left_in_the_value(viewed: Viewed) -> None:
    """A control character or more than 200 characters make no column, and break nothing."""
    viewed.add(event(**{"a\nb": 1, "\0": 2, "\u202e": 3, "x" * 201: 4, "other": 6}))
    assert viewed.fields() == {"type_1": "VARCHAR", "other": "BIGINT"}
    assert viewed.column("other") == [6]
    assert json.loads(viewed.column("value")[0])["\u202e"] == 3


@pytest.mark.parametrize("rule", ["header:kind", "constant:{}"])
def test_a_payload_that_is_no_object_breaks_no_view(viewed: Viewed, rule: str) -> None:
    """Where the type is not in the payload, the payload may be anything: the other messages have their fields."""
    payloads = [b"no json", b'{"cut": ', b"\xff\xfe", b"", b" ", b"[1, 2]", b"3", b'"text"', b"null", b'{"m": NaN}']
    payloads += [b'{"m": "\\ud800"}', b'{"m": "\\u0000"}', b"[" * 5000, b'{"m":' * 2000 + b"1" + b"}" * 2000]
    payloads += [b'{"m": 1, "m": "x"}', b'{"\\ud800": 1}', b"\xef\xbb\xbf{}", b"{}{}"]
    for number, payload in enumerate(payloads):
        kinds: dict[str, Any] = {"rule": rule.format(f"t{number}"), "headers": [("kind", b"t%d" % number)]}
        archive(viewed.archive, [b'{"n": 1}', payload, b'{"n": 2}'], **kinds)
    viewed.refresh()
    rows = " UNION ALL ".join(f'SELECT {number}, "offset", n FROM t{number}' for number in range(len(payloads)))
    expected = [(number, 3 * number + k, n) for number in range(len(payloads)) for k, n in enumerate([1, None, 2])]
    assert viewed.sql(f'{rows} ORDER BY "offset"') == expected
    query = 'SELECT coalesce(encode(value), value_bytes) FROM messages WHERE "offset" % 3 = 1 ORDER BY ALL'
    contents = viewed.sql(query)
    assert contents == [(payload,) for payload in sorted(payloads)]


def test_whole_numbers_that_no_bigint_holds_are_still_in_the_value(viewed: Viewed) -> None:
    """Beyond 64 bits the column is null or nearly right, never an error."""
    viewed.add(event(n=1), event(n=2**64), event(n=10**40), event(n=-(2**63)))
    assert len(viewed.column("n")) == 4
    assert viewed.column("n")[0] == 1
    assert json.loads(viewed.column("value")[2])["n"] == 10**40


def test_hours_count_files_and_messages(viewed: Viewed) -> None:
    """A row for each type and hour, over all batches."""
    third, fourth = AUGUST_FIRST_AT_THREE, AUGUST_FIRST_AT_THREE + HOUR_MS
    viewed.add(event("a"), event("a"), event("a"), event("b"), milliseconds=[third, third, fourth, third])
    viewed.add(event("a"), milliseconds=third)
    rows = viewed.sql("SELECT type, dt, hr, files, messages, sealed FROM hours")
    assert rows == [
        ("a", "2019-08-01", "03", 2, 3, False),
        ("a", "2019-08-01", "04", 1, 1, False),
        ("b", "2019-08-01", "03", 1, 1, False),
    ]
    on_disk = sum(path.stat().st_size for path in Path(viewed.archive.uri).glob("type=*/**/*.parquet"))
    assert viewed.sql("SELECT sum(bytes)::BIGINT FROM hours") == [(on_disk,)]


def test_batches_tell_what_each_commit_did(viewed: Viewed) -> None:
    """Run, lane, ranges, counts and time of each, also of those between two refreshes."""
    before = datetime.now(UTC)
    archive(viewed.archive, [event("a"), event("b")])
    archive(viewed.archive, [event("a")], TopicPartition("clicks", "B", 3), lane=2)
    viewed.refresh()
    viewed.add(event("a"))
    rows = viewed.sql("SELECT version, run_id, lane, ranges, messages, bytes, files, seconds FROM batches ORDER BY 1")
    orders = {"topic": "orders", "topic_id": "A", "partition": 0}
    clicks = {"topic": "clicks", "topic_id": "B", "partition": 3, "start": 0, "end": 1}
    assert rows == [
        (1, "run", 0, [{**orders, "start": 0, "end": 2}], 2, 10, 2, 0.25),
        (2, "run", 2, [clicks], 1, 10, 1, 0.25),
        (3, "run", 0, [{**orders, "start": 2, "end": 3}], 1, 10, 1, 0.25),
    ]
    times = [time for (time,) in viewed.sql('SELECT epoch("time") FROM batches ORDER BY version')]
    assert before.timestamp() - 1 <= times[0] <= times[1] <= times[2] <= datetime.now(UTC).timestamp() + 1


def test_offsets_have_the_end_seen_last_and_the_lag(viewed: Viewed) -> None:
    """A refresh that did not ask the broker keeps the end of the last that did; a lag is never below 0."""
    archive(viewed.archive, [event()] * 3)
    archive(viewed.archive, [event()], TopicPartition("orders", "A", 1))
    look = Look((TopicState("orders", "A", {0: Watermarks(0, 10), 7: Watermarks(0, 5)}),))
    viewed.refresh(look)
    row = ("orders", "A", 0, 0, 3, 3, 10, 7)
    assert viewed.sql("SELECT * FROM offsets") == [row, ("orders", "A", 1, 0, 1, 1, None, None)]
    viewed.add(event())
    assert viewed.sql("SELECT * FROM offsets")[0] == ("orders", "A", 0, 0, 4, 4, 10, 6)
    viewed.add(*[event()] * 9)
    assert viewed.sql("SELECT * FROM offsets")[0] == ("orders", "A", 0, 0, 13, 13, 10, 0)


def test_the_end_of_a_topic_made_again_is_not_that_of_the_old_one(viewed: Viewed) -> None:
    """Each life has its own row; the broker speaks of the present one."""
    archive(viewed.archive, [event()] * 3)
    archive(viewed.archive, [event()], TopicPartition("orders", "B", 0))
    viewed.refresh(Look((TopicState("orders", "B", {0: Watermarks(0, 10)}),)))
    assert viewed.sql('SELECT topic_id, next, "end", lag FROM offsets') == [("A", 3, None, None), ("B", 1, 10, 9)]


def test_gaps_are_named_with_place_and_reason(viewed: Viewed) -> None:
    """They stay, and their time is that of the commit that found them."""
    attempt = batch_of(viewed.archive, 0)
    place(attempt, [event()], 5)
    commit(attempt, 5, 6, messages=1, gaps=[Gap(ORDERS, 2, 5, RETENTION)])
    viewed.refresh()
    viewed.add(event())
    assert viewed.sql("SELECT * EXCLUDE time FROM gaps") == [("orders", "A", 0, 2, 5, "retention")]
    ((age,),) = viewed.sql("SELECT epoch(now()) - epoch(time) FROM gaps")
    assert 0 <= age < LIMIT_SECONDS


def test_a_file_that_lacks_a_commit_is_known_by_it(viewed: Viewed) -> None:
    """Also where the commit came while the file was brought up to the one before; a patient look waits for it."""

    def behind(seconds: float) -> bool:
        return view.behind(viewed.path, viewed.archive, viewed.archive.standing()[0], seconds)

    assert not behind(0), "there is no archive"
    archive(viewed.archive, [event()])
    assert behind(0), "there is no file"
    viewed.refresh()
    assert not behind(0)

    class Late(Archive):
        """Lets a batch commit just after the refresh has looked at the table."""

        def made(self) -> tuple[LogState, Ledger]:
            found = super().made()
            time.sleep(0.02)  # More than the grain of a file's time.
            archive(viewed.archive, [event()])
            return found

    archive(viewed.archive, [event()])
    view.refresh(viewed.path, Late(viewed.archive.uri))
    assert behind(0)
    assert not behind(60)
    viewed.refresh()
    assert not behind(0)


@pytest.mark.parametrize("note", ["{table} {version}", "{table} {version} 9"])
def test_a_file_of_another_release_is_behind(viewed: Viewed, note: str) -> None:
    """An archive to which nothing comes any more has its file made anew after an upgrade, too."""
    archive(viewed.archive, [event()])
    viewed.refresh()
    state, _ = viewed.archive.standing()
    note_of(viewed).write_text(note.format(table=state.metadata["id"], version=state.version))
    with duckdb.connect(str(viewed.path)) as connection:
        connection.execute("UPDATE meta.state SET format = 9; DROP MACRO TABLE latest")
    assert view.behind(viewed.path, viewed.archive, state, 0)
    viewed.refresh()
    assert not view.behind(viewed.path, viewed.archive, state, 0)
    assert len(viewed.sql("FROM latest('object.one')")) == 1


def note_of(viewed: Viewed) -> Path:
    """Where the refresh notes what the file shows."""
    return viewed.path.with_name(viewed.path.name + ".lock")


@contextmanager
def reader(path: Path, read_only: bool) -> Iterator[subprocess.Popen[str]]:
    """Another process that has the file open; it answers the count of messages to each line it gets."""
    program = (
        "import duckdb, sys\n"
        f"connection = duckdb.connect({str(path)!r}, read_only={read_only})\n"
        "print('open', flush=True)\n"
        "for line in sys.stdin:\n"
        "    print(connection.execute('SELECT count(*) FROM messages').fetchone()[0], flush=True)\n"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "open\n"
            yield process
        finally:
            process.kill()


def ask(process: subprocess.Popen[str]) -> int:
    """How many messages that process sees."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return int(process.stdout.readline())


@pytest.mark.parametrize("read_only", [True, False], ids=["read-only", "read-write"])
def test_an_open_reader_neither_blocks_nor_is_blocked(viewed: Viewed, read_only: bool) -> None:
    """It goes on seeing the state it opened; whoever opens the file afterwards sees the new one."""
    viewed.add(event())
    with reader(viewed.path, read_only) as process:
        assert ask(process) == 1
        viewed.add(event())
        assert ask(process) == 1
        assert viewed.sql("SELECT count(*) FROM messages") == [(2,)]
        viewed.add(event())
        assert viewed.sql("SELECT count(*) FROM messages") == [(3,)]
    viewed.add(event())
    assert viewed.sql("SELECT count(*) FROM messages") == [(4,)]


def test_the_file_is_never_replaced_by_one_of_an_older_version(viewed: Viewed, tmp_path: Path) -> None:
    """A refresh from an older state of the table, as of a run that was slow, changes nothing."""
    viewed.add(event())
    viewed.add(event())
    newest = viewed.path.read_bytes()
    (Path(viewed.archive.uri) / "_delta_log" / f"{2:020}.json").rename(tmp_path / "aside")
    assert viewed.refresh() == 2
    assert viewed.path.read_bytes() == newest
    (tmp_path / "aside").rename(Path(viewed.archive.uri) / "_delta_log" / f"{2:020}.json")
    assert viewed.refresh() == 2
    assert viewed.path.read_bytes() == newest


def test_a_refresh_without_news_leaves_the_file_alone(viewed: Viewed) -> None:
    """The same file, byte for byte, and not another one of the same content."""
    viewed.add(event())
    before = viewed.path.stat()
    assert viewed.refresh() == 1
    assert (viewed.path.stat().st_ino, viewed.path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("damage", [b"", b"no database", b"\0" * 8192], ids=["empty", "text", "zeros"])
def test_a_damaged_file_is_made_anew(viewed: Viewed, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Everything in it comes from the table, so nothing is lost but a second; a warning says so."""
    viewed.add(event(n=1))
    viewed.path.write_bytes(damage)
    viewed.add(event(n=2))
    assert viewed.column("n") == [1, 2]
    assert len(viewed.sql("SELECT * FROM batches")) == 2
    assert any("is made anew" in record.message for record in caplog.records)


def test_a_file_that_was_cut_or_scribbled_on_is_made_anew(viewed: Viewed) -> None:
    """Whatever part of it is damaged, the next batch's refresh mends it."""
    viewed.add(event(n=1))
    whole = viewed.path.read_bytes()
    for number, position in enumerate(range(0, len(whole), max(4096, len(whole) // 6))):
        viewed.path.write_bytes(whole[:position] + b"\xa5" * 512 + whole[position + 512 :])
        viewed.add(event(n=number))
        assert len(viewed.column("n")) == number + 2
    viewed.path.write_bytes(whole[: len(whole) // 2])
    viewed.add(event(n=99))
    assert viewed.column("n")[-1] == 99


def test_a_file_of_another_table_is_made_anew(viewed: Viewed, tmp_path: Path) -> None:
    """An archive that was deleted and begun again is not mixed with what the file had of the old one."""
    viewed.add(event("old"))
    Path(viewed.archive.uri).rename(tmp_path / "archive-of-before")
    viewed.add(event("new"))
    assert viewed.views() == {"new": "new"}
    assert len(viewed.sql("SELECT * FROM batches")) == 1


def test_what_a_user_adds_to_the_file_does_no_harm(viewed: Viewed) -> None:
    """Things of one's own may be made in it; a type of that name gets its view all the same."""
    viewed.add(event("a", n=1))
    with duckdb.connect(str(viewed.path)) as connection:
        connection.execute("CREATE VIEW mine AS SELECT count(*) AS c FROM messages; CREATE TABLE t2 AS SELECT 1 AS x")
    viewed.add(event("a"), event("mine"), event("t2"))
    assert viewed.sql("SELECT count(*) FROM messages") == [(4,)]
    assert set(viewed.views()) == {"a", "mine", "t2"}


@pytest.mark.parametrize("folder", ["it's a b", "[x]*y", "100%", "ü🎉{b,c}", 'q"q;$HOME'])
def test_the_folder_may_have_any_name(tmp_path: Path, folder: str) -> None:
    """A quote, a space or what elsewhere is a wildcard is just a name."""
    (tmp_path / folder).mkdir()
    viewed = Viewed(tmp_path / folder)
    viewed.add(event("a/b*c[d]", n=1), event("it's", n=2))
    views = viewed.views()
    assert viewed.sql("SELECT count(*) FROM messages") == [(2,)]
    assert viewed.column("n", views["a/b*c[d]"]) == [1]
    assert viewed.column("n", views["it's"]) == [2]


_KILLED = """
import os, signal, sys
from pathlib import Path
from archiver_pipeline.view import view
from archiver_pipeline.table.archive import Archive

def die(event, arguments, left=[int(sys.argv[3])]):
    if event in ("open", "os.rename", "shutil.copyfile", "os.remove") and "archive.duckdb" in str(arguments):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(die)
view.refresh(Path(sys.argv[1]), Archive(sys.argv[2]))
print("refreshed")
"""


def test_a_kill_in_mid_refresh_leaves_the_old_file_whole(viewed: Viewed) -> None:
    """Whichever access to a file it strikes, the old state or the new one is there, and what is left does not grow."""
    viewed.add(event(n=1))
    archive(viewed.archive, [event(n=2)])
    for step in range(50):
        command = [sys.executable, "-c", _KILLED, str(viewed.path), viewed.archive.uri, str(step)]
        done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=LIMIT_SECONDS)
        assert viewed.column("n") in ([1], [1, 2])
        assert len(viewed.files()) <= 4
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
    else:
        pytest.fail("the refresh never came to its end")
    assert step > 2
    viewed.add(event(n=3))
    assert viewed.column("n") == [1, 2, 3]
    assert viewed.files() == {"archive.duckdb", "archive.duckdb.lock"}


def test_what_a_killed_refresh_left_is_used_by_nobody(viewed: Viewed) -> None:
    """Neither half a file nor its write-ahead log ends up in the next one."""
    viewed.add(event(n=1))
    for name in (".archive.duckdb.new", ".archive.duckdb.new.wal", "archive.duckdb.wal"):
        viewed.path.with_name(name).write_bytes(b"half of it")
    viewed.add(event(n=2))
    assert viewed.column("n") == [1, 2]
    assert viewed.files() == {"archive.duckdb", "archive.duckdb.lock"}


def broken_by(viewed: Viewed, caplog: pytest.LogCaptureFixture) -> str:
    """Look for all files and return what the log says of those that cannot be read."""
    caplog.clear()
    viewed.refresh(look_seconds=0)
    return "\n".join(record.message for record in caplog.records if "cannot be read" in record.message)


def refused(viewed: Viewed, query: str) -> str:
    """The error that a query meets with."""
    with pytest.raises(duckdb.Error) as refusal:
        viewed.sql(query)
    return str(refusal.value)


@pytest.fixture
def two_hours(viewed: Viewed) -> dict[str, Path]:
    """A type with a file in hour 03 and one in hour 04; the files by hour."""
    hours = [AUGUST_FIRST_AT_THREE, AUGUST_FIRST_AT_THREE + HOUR_MS]
    viewed.add(event(n=3), event(n=4), milliseconds=hours)
    return {path.parent.name.removeprefix("hr="): path for path in Path(viewed.archive.uri).glob("type=*/**/*.parquet")}


def damage(path: Path, how: str) -> None:
    """Take a file away, or make it unreadable from its start or from its end."""
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.write_bytes(b"PAR1" + b"\xa5" * (len(content) - 500) + content[4 - 500 :])


DAMAGES = ("missing", "empty", "cut", "scribbled on")


@pytest.mark.parametrize("hour", ["03", "04"])
def test_a_lost_file_keeps_nobody_from_all_the_others(
    viewed: Viewed, two_hours: dict[str, Path], hour: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Runs go on, the log names the file and who knows more, and only queries that need the file fail and name it."""
    kept, lost = two_hours[hour].read_bytes(), two_hours[hour]
    lost.unlink()
    archive(viewed.archive, [event("other", n=1), event(n=7, m="x")], milliseconds=AUGUST_FIRST_AT_THREE + 2 * HOUR_MS)
    said = broken_by(viewed, caplog)
    assert str(lost) in said
    assert "archiver verify" in said
    for name in ("messages", "object_one"):
        for what in ("count(*)", "*", 'max("offset")', "hr", "1"):
            assert len(viewed.sql(f"SELECT {what} FROM {name} WHERE hr <> '{hour}'")) >= 1
            for part in ("", f"WHERE hr = '{hour}'", 'WHERE "offset" = 3', "WHERE key IS NULL", "GROUP BY ALL"):
                if what != 'max("offset")' or "GROUP" not in part:
                    error = refused(viewed, f"SELECT {what} FROM {name} {part}")
                    assert f"{lost} is missing or damaged. Run `archiver verify`" in error
    assert viewed.sql("SELECT n FROM other") == [(1,)]
    assert viewed.sql("SELECT n, m FROM object_one WHERE hr = '05'") == [(7, "x")]
    assert viewed.sql("SELECT sum(messages)::BIGINT FROM hours") == [(4,)]
    lost.write_bytes(kept)
    assert broken_by(viewed, caplog) == ""
    assert sorted(viewed.sql("SELECT n FROM object_one")) == [(3,), (4,), (7,)]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_file_that_is_damaged_later_is_named_by_the_query(
    viewed: Viewed, two_hours: dict[str, Path], how: str
) -> None:
    """Whether a refresh noticed it or not: no query gives less than there is, and other hours are there."""
    damage(two_hours["03"], how)
    assert refused(viewed, "SELECT max(value) FROM messages")
    archive(viewed.archive, [event(n=5)], milliseconds=AUGUST_FIRST_AT_THREE + 2 * HOUR_MS)
    viewed.refresh(look_seconds=0)
    for name in ("messages", "object_one"):
        error = refused(viewed, f"SELECT max(value) FROM {name}")
        assert two_hours["03"].name in error or how == "scribbled on"  # Of which DuckDB does not say where it is.
        assert viewed.sql(f"SELECT count(value) FROM {name} WHERE hr > '03'") == [(2,)]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_new_file_that_is_lost_before_it_was_seen(
    viewed: Viewed, two_hours: dict[str, Path], how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its type has a view all the same, and its fields come with the file."""
    archive(viewed.archive, [event("new", f=1), event(g=2)], milliseconds=AUGUST_FIRST_AT_THREE + 2 * HOUR_MS)
    (path,) = Path(viewed.archive.uri).glob("type=new/**/*.parquet")
    kept = path.read_bytes()
    damage(path, how)
    said = broken_by(viewed, caplog)
    assert str(path) in said
    assert viewed.columns("new") == MESSAGE_COLUMNS
    assert path.name in refused(viewed, "SELECT count(*) FROM new")
    assert path.name in refused(viewed, "FROM new WHERE hr = '05' AND \"offset\" = 0")
    assert path.name in refused(viewed, "SELECT count(*) FROM messages")
    assert viewed.sql("SELECT count(*) FROM messages WHERE type = 'object.one'") == [(3,)]
    assert viewed.column("g") == [None, None, 2]
    assert str(path) in broken_by(viewed, caplog) or viewed.refresh() == 2
    path.write_bytes(kept)
    assert broken_by(viewed, caplog) == ""
    assert viewed.column("f", "new") == [1]
    assert viewed.sql("SELECT count(*) FROM messages") == [(4,)]


def test_a_file_that_is_lost_for_good_goes_with_its_commit(
    viewed: Viewed, two_hours: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    """Once the table lists another one in its place, nothing speaks of it any more."""
    two_hours["03"].unlink()
    archive(viewed.archive, [event(n=5)], milliseconds=AUGUST_FIRST_AT_THREE)
    assert str(two_hours["03"]) in broken_by(viewed, caplog)
    attempt = rewrite_of(viewed.archive, "mend", "2019-08-01T03")
    values = {"type": "object.one", "dt": "2019-08-01", "hr": "03"}
    lost = Replaced(str(two_hours["03"].relative_to(Path(viewed.archive.uri))), 1, values)
    attempt.commit([], {}, [lost])
    attempt.clean()
    assert broken_by(viewed, caplog) == ""
    assert viewed.column("n") == [4, 5]


def test_many_lost_files_are_said_in_one_line(viewed: Viewed, caplog: pytest.LogCaptureFixture) -> None:
    """With a few names and their number: `archiver verify` has them all."""
    stamps = [AUGUST_FIRST_AT_THREE + number * HOUR_MS for number in range(9)]
    archive(viewed.archive, [event(n=number) for number in range(9)], milliseconds=stamps)
    for path in Path(viewed.archive.uri).glob("type=*/**/*.parquet"):
        path.unlink()
    said = broken_by(viewed, caplog)
    assert said.count(".parquet") == 3
    assert "and 6 more" in said
    assert "\n" not in said
    assert viewed.sql("SELECT sum(messages)::BIGINT FROM hours") == [(9,)]


def test_a_file_that_cannot_be_written_is_an_error_with_path_and_remedy(viewed: Viewed) -> None:
    """The archive itself is complete, and the error says so."""
    archive(viewed.archive, [event()])
    viewed.path.mkdir()
    (viewed.path / "in the way").touch()
    with pytest.raises(StorageError) as refusal:
        viewed.refresh()
    assert str(viewed.path) in str(refusal.value)
    assert "run again" in str(refusal.value)


def test_a_commit_without_files_moves_the_offsets_on(viewed: Viewed) -> None:
    """A range of transaction markers alone has offsets and no message."""
    viewed.add(event())
    attempt = batch_of(viewed.archive, 0)
    attempt.commit(offset_transactions(ORDERS, Committed(9, 0, 1)), {"lane": "0"})
    attempt.clean()
    assert viewed.refresh() == 2
    assert viewed.sql("SELECT next, messages FROM offsets") == [(9, 1)]
    assert len(viewed.sql("SELECT * FROM batches")) == 1


def test_only_some_files_are_looked_at_for_fields() -> None:
    """Of thousands of small files, or of large ones, some are looked at; they are spread over all of them."""
    paths = [str(number) for number in range(1000)]
    assert fields.spread(paths[:3], 30) == ["0", "1", "2"]
    chosen: Sequence[str] = fields.spread(paths, 10_000)
    assert 32 <= len(chosen) <= fields.SAMPLE_FILES
    assert chosen[0] == "0"
    assert int(chosen[-1]) >= 1000 - 2 * 1000 // 64
    assert fields.spread(paths[:10], 250_000) == ["0", "5"]
    assert fields.spread(["0"], 10_000_000) == ["0"]
    assert fields.spread([], 0) == []


def test_two_refreshes_at_once_leave_the_newer_state(viewed: Viewed) -> None:
    """They take turns; each process reports a version and the file has the newest."""
    viewed.add(event(n=1))
    archive(viewed.archive, [event(n=2)])
    command = [sys.executable, "-c", _KILLED, str(viewed.path), viewed.archive.uri, "1000000"]
    running = [subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, env=dict(os.environ)) for _ in range(2)]
    assert [process.communicate(timeout=LIMIT_SECONDS)[0] for process in running] == [b"refreshed\n"] * 2
    assert viewed.column("n") == [1, 2]


SHOWN = (
    "FROM messages ORDER BY ALL",
    "FROM hours",
    "SELECT * EXCLUDE (run_id) FROM batches ORDER BY ALL",
    "FROM offsets ORDER BY ALL",
    'SELECT type, "view" FROM types ORDER BY ALL',
    'SELECT "offset", dt, hr, n, m FROM object_one ORDER BY ALL',
    'SELECT "offset", dt, hr, k FROM other ORDER BY ALL',
)


def test_what_is_added_bit_by_bit_is_what_a_file_made_anew_shows(viewed: Viewed) -> None:
    """Whether only commits are looked at or all files, after every batch the file shows the same."""
    for number in range(6):
        stamps = [AUGUST_FIRST_AT_THREE + hour * HOUR_MS for hour in (0, number, number % 2)]
        fields = {"n": number} if number < 4 else {"m": str(number)}
        name = "it's [new]" if number % 2 else "other"
        viewed.add(event(**fields), event(name, k=1), event("other", k=number), milliseconds=stamps)
    bit_by_bit = [viewed.sql(query) for query in SHOWN]
    archive(viewed.archive, [event(n=7)])
    viewed.refresh(look_seconds=0)
    looked_at = [viewed.sql(query) for query in SHOWN]
    assert [len(rows) for rows in bit_by_bit[:3]] == [18, 8, 6]
    viewed.path.unlink()
    viewed.refresh()
    assert [viewed.sql(query) for query in SHOWN] == looked_at


def test_a_log_that_is_put_back_shows_what_it_has(viewed: Viewed, tmp_path: Path) -> None:
    """After a restore versions are used anew: the file shows their messages, not those that it had before."""
    viewed.add(*[event(n=1)] * 10)
    log, copy = Path(viewed.archive.uri) / "_delta_log", tmp_path / "copy"
    shutil.copytree(log, copy)
    viewed.add(*[event(n=2)] * 10)
    shutil.rmtree(log)
    shutil.copytree(copy, log)
    for messages in (15, 25):
        viewed.add(*[event(n=3)] * (5 if messages == 15 else 10))
        assert viewed.sql('SELECT count(*), count(DISTINCT "offset") FROM messages') == [(messages, messages)]


def test_a_file_that_another_program_adds_again_is_shown_once(viewed: Viewed) -> None:
    """A newer add of a path takes the place of the older one (Delta protocol, "Add File")."""
    viewed.add(*[event(n=1)] * 10)
    row = viewed.archive.files().row(0, named=True)
    table = deltalake.DeltaTable(Path(viewed.archive.uri))
    values = {name: row[name] for name in ("type", "dt", "hr")}
    again = AddAction(row["path"], row["bytes"], values, 0, False, '{"numRecords":10}')
    table.create_write_transaction([again], "append", table.schema(), list(values))
    viewed.refresh()
    assert viewed.sql("SELECT count(*) FROM messages") == [(10,)]
    assert viewed.sql("SELECT sum(messages) FROM hours") == [(10,)]


def test_a_file_that_is_attached_shows_the_same(viewed: Viewed) -> None:
    """Views find what they are made of beside them, not in the database that is asked."""
    viewed.add(event(n=1), event("other", n=2))
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{viewed.path}' AS theirs (READ_ONLY)")
        assert connection.execute("SELECT count(*) FROM theirs.messages").fetchall() == [(2,)]
        assert connection.execute("SELECT n FROM theirs.object_one").fetchall() == [(1,)]


def test_a_file_made_anew_has_the_same_names(viewed: Viewed) -> None:
    """Types whose names collide keep their views when the DuckDB file is lost: the first to come has the plain name."""
    for number, name in enumerate(("object.one", "Object.One", "object-one")):
        viewed.add(event(name, n=number))
    before = viewed.views()
    viewed.path.unlink()
    viewed.refresh()
    assert before["object.one"] == "object_one"
    assert viewed.views() == before
