"""Rules of the MySQL follower, beside those that hold for every follower."""

from __future__ import annotations

import re
import shutil
import time
import uuid
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import sqlalchemy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archiver_pipeline.envelope import HOUR_MS, hour_name
from archiver_pipeline.errors import ArchiverError, FollowerError, FollowerUnavailable, SettingsError, Superseded
from archiver_pipeline.followers import mysql, mysql_load, mysql_server
from archiver_pipeline.followers.base import FollowerPosition
from archiver_pipeline.followers.catch_up import catch_up
from archiver_pipeline.followers.mysql import MySqlFollower
from archiver_pipeline.followers.mysql_schema import MIGRATIONS, prepare
from archiver_pipeline.followers.mysql_server import make_engine, parse_address, translated
from archiver_pipeline.hours import Hour
from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline_tests.followers.mysql_kit import MySqlKit
from archiver_pipeline_tests.followers.workload import Filled
from archiver_pipeline_tests.mysql.server import PASSWORD, USER, make_certificates
from archiver_pipeline_tests.processes import CHECKOUT
from archiver_pipeline_tests.waiting import wait_for

AT = TopicPartition("orders", "AAAAAAAAAAAAAAAAAAAAAA", 0)
MIDDAY = datetime(2019, 8, 1, 12, tzinfo=UTC)
MIDDAY_HOUR = Hour("2019-08-01", "12")
HEADERS = pl.List(pl.Struct({"key": pl.String, "value": pl.Binary}))

UGLY_TEXTS = (
    *("", " ", "NULL", "\\N", "null", "'", "\\", "\\'", "%", "%s %(a)s", "x'); DROP TABLE messages; -- ", "\0a\0"),
    *('"\0"', '{"nul": "\\u0000"}', "\x1a\b\r\n\t", '{"a": "😀 é"}', "😀" * 1000, '{"lone": "\\ud800"}', "\ufeff{}"),
    *('{"a": 1, "a": 2}', '{"b": 1, "a": 1.10}', "12345678901234567890123456789012345678901234567890", "1e400", "-0"),
    *("[" * 31 + "]" * 31, "[" * 32 + "]" * 32, "[" * 5000 + "]" * 5000, '{"a":' * 99 + "1" + "}" * 99, " [1 , 2] "),
    *("NaN", "tru", "'{}'", "{'a': 1}", '{"a": "line\nbreak"}', '{"a\\\\": "\\"\\\\\\/\\b"}', "{}\n", "01", '"\x7f"'),
)


def frame(
    values: Sequence[str | None],
    first: int = 0,
    stamps: Sequence[datetime | None] | None = None,
    kind: str | Sequence[str] = "a.type",
    **columns: Any,
) -> pl.DataFrame:
    """Messages as a follower is given them, at offsets from `first` on."""
    count = len(values)
    moments = pl.Series(stamps or [MIDDAY] * count, dtype=pl.Datetime("us", "UTC"))
    names = [hour_name(None if ms is None else ms // HOUR_MS) for ms in moments.dt.epoch("us") // 1000]
    given = {"key": [b"key"] * count, "value_bytes": [None] * count, "headers": [None] * count, **columns}
    return pl.DataFrame(
        {
            "topic": [AT.topic] * count,
            "topic_id": [AT.topic_id] * count,
            "partition": pl.Series([AT.partition] * count, dtype=pl.Int32),
            "offset": pl.Series(range(first, first + count), dtype=pl.Int64),
            "timestamp": moments,
            "timestamp_type": [("none" if moment is None else "create") for moment in moments],
            "key": pl.Series(given["key"], dtype=pl.Binary),
            "value": pl.Series(values, dtype=pl.String),
            "value_bytes": pl.Series(given["value_bytes"], dtype=pl.Binary),
            "headers": pl.Series(given["headers"], dtype=HEADERS),
            "type": [kind] * count if isinstance(kind, str) else list(kind),
            "dt": [dt for dt, _ in names],
            "hr": [hr for _, hr in names],
        }
    )


def take(follower: MySqlFollower, *frames: pl.DataFrame) -> None:
    """Let it take frames as one step, from where it is."""
    before = follower.position()
    end = max(int(str(each["offset"].max())) for each in frames) + 1
    follower.take(iter(frames), before, FollowerPosition({**before.offsets, AT: end}, before.changed))


@pytest.fixture
def database(mysql_kit: MySqlKit, tmp_path: Path) -> Settings:
    """Settings with an empty database."""
    return settings_of(mysql_kit.settings["mysql_url"], tmp_path)


def settings_of(url: str, folder: Path) -> Settings:
    """Settings with the URL of a database."""
    fields: dict[str, Any] = {"mysql_url": url, "BASE_DIR": folder}
    return Settings(**fields)


@pytest.fixture
def follower(database: Settings) -> Iterator[MySqlFollower]:
    """The follower, of an empty database."""
    with closing(MySqlFollower(database)) as opened:
        yield opened


def assert_has(kit: MySqlKit, database: Settings, *frames: pl.DataFrame) -> None:
    """Assert that the table has these messages and no other."""
    assert kit.content(database) == kit.expected(pl.concat(frames))


def test_ugly_texts(mysql_kit: MySqlKit, database: Settings, follower: MySqlFollower) -> None:
    """Whatever text a payload is, it comes back as it was: in `value` if the database takes it as JSON."""
    given = frame([*UGLY_TEXTS, None])
    take(follower, given)
    assert_has(mysql_kit, database, given)
    filled = mysql_kit.server.ask("SELECT COUNT(value), COUNT(value_text) FROM messages", mysql_kit.database)
    assert min(filled[0]) >= 10


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.none() | st.text(), st.none() | st.binary(), st.text(max_size=20)), min_size=1))
def test_any_text_any_bytes(
    mysql_kit: MySqlKit, follower: MySqlFollower, rows: list[tuple[str | None, bytes | None, str]]
) -> None:
    """Text, keys, bytes, types and headers of any kind come back as they were."""
    texts, blobs, names = (list(column) for column in zip(*rows, strict=True))
    first = follower.position().offsets.get(AT, 0)
    headers = [[{"key": name, "value": blob}] for _, blob, name in rows]
    take(follower, frame(texts, first, kind=names, key=blobs, value_bytes=blobs, headers=headers))
    columns = "COALESCE(value, value_text), `key`, value_bytes, `type`, JSON_VALUE(headers, '$[0].key')"
    asked = f"SELECT {columns} FROM messages WHERE `offset` >= {first} ORDER BY `offset`"
    expected = [(text, blob, blob, name, name) for text, blob, name in rows]
    assert mysql_kit.server.ask(asked, mysql_kit.database) == expected


def test_ugly_keys_bytes_headers_and_types(mysql_kit: MySqlKit, database: Settings, follower: MySqlFollower) -> None:
    """Keys and bytes of any length and content, headers in their order, and every type name are kept."""
    blobs = [None, b"", b"\0", b"\xff\xfe", b"'\\\"", b"k" * 300_000, bytes(range(256))]
    headers = [
        None,
        [{"key": "trace", "value": b"\0\xff"}, {"key": "trace", "value": None}, {"key": "", "value": b""}],
        [{"key": "a\"\\\n\t\0\x1f\x7f'😀é%s", "value": b"'"}],
        *([None] * 4),
    ]
    kinds = ["_tombstone", "__x", "a/b ' \" \\ \n", "😀" * 16, "é", "e", "~" * 200]
    given = frame([None] * 7, kind=kinds, key=blobs, value_bytes=blobs[::-1], headers=headers)
    take(follower, given)
    assert_has(mysql_kit, database, given)
    (found,) = mysql_kit.server.ask("SELECT COUNT(*) FROM messages WHERE `type` = 'e'", mysql_kit.database)
    assert found == (1,)


def test_every_time(mysql_kit: MySqlKit, database: Settings, follower: MySqlFollower) -> None:
    """Times from the year 1 to 9999 are kept to the microsecond; `dt` and `hr` are those of the archive."""
    stamps = [
        *(datetime(1, 1, 1, tzinfo=UTC), datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC), datetime(999, 5, 6, 7, tzinfo=UTC)),
        *(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), datetime(1970, 1, 1, tzinfo=UTC), None),
        *(datetime(2019, 3, 31, 1, 30, tzinfo=UTC), datetime(2019, 3, 31, 2, 30, tzinfo=UTC)),
        *(datetime(2040, 2, 29, 23, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)),
    ]
    given = frame(["{}"] * len(stamps), stamps=stamps)
    take(follower, given)
    assert_has(mysql_kit, database, given)
    # A time that no calendar holds has no DATETIME, but its message has a row.
    far = given.head(1).with_columns(
        pl.lit(2**60).cast(pl.Datetime("us", "UTC")).alias("timestamp"),
        *(pl.lit("_unknown").alias(name) for name in ("dt", "hr")),
        offset=pl.lit(100, pl.Int64),
    )
    take(follower, far)
    asked = "SELECT `timestamp`, dt, hr FROM messages WHERE `offset` = 100"
    assert mysql_kit.server.ask(asked, mysql_kit.database) == [(None, "_unknown", "_unknown")]


def test_an_hour_to_its_last_microsecond(
    mysql_kit: MySqlKit, database: Settings, follower: MySqlFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replacing an hour takes out what lies in it, to the microsecond, and nothing beside it; also the unknown one."""
    monkeypatch.setattr(mysql, "_DELETED_ROWS", 1)
    edge = timedelta(microseconds=1)
    stamps = [MIDDAY - edge, MIDDAY, MIDDAY + timedelta(hours=1) - edge, MIDDAY + timedelta(hours=1), None]
    given = frame(["{}"] * 5, stamps=stamps)
    take(follower, given)
    now = follower.position()
    then = FollowerPosition(now.offsets, {MIDDAY_HOUR.name: 1})
    erased = given[1:2].with_columns(
        pl.lit(None, pl.Binary).alias("key"), pl.lit(None, pl.String).alias("value"), pl.lit("_erased").alias("type")
    )
    follower.replace(MIDDAY_HOUR, iter([erased]), now, then)
    assert follower.position() == then
    assert_has(mysql_kit, database, given[0:1], erased, given[3:])
    follower.replace(Hour("_unknown", "_unknown"), iter([]), then, then)
    assert_has(mysql_kit, database, given[0:1], erased, given[3:4])


def test_messages_of_five_megabytes(mysql_kit: MySqlKit, database: Settings, follower: MySqlFollower) -> None:
    """Large messages, as JSON, text and bytes, go in beside small ones."""
    size = 5 * 1024**2
    large = '{"a": "' + "x'\\\\" * (size // 4) + '"}'
    given = frame(["{}", large, "y" * size, None, "{}"], value_bytes=[None, None, None, b"\xff" * size, None])
    take(follower, given)
    assert_has(mysql_kit, database, given)


def test_a_small_packet(mysql_kit: MySqlKit, database: Settings) -> None:
    """A small `max_allowed_packet` makes smaller statements; a message that cannot fit is named, and goes in later."""
    server = mysql_kit.server
    given = frame([f'{{"n": {n}, "text": "{"x" * 300}"}}' for n in range(2000)])
    large = frame(["z" * 100_000], first=2000)
    (usual,) = server.ask("SELECT @@GLOBAL.max_allowed_packet")[0]
    server.ask("SET GLOBAL max_allowed_packet = 65536")
    try:
        with closing(MySqlFollower(database)) as follower:
            take(follower, given)
            with pytest.raises(FollowerError, match=r"max_allowed_packet is 65,536.*partition 0.*\[2000, 2001\)"):
                take(follower, large)
            assert follower.position().offsets == {AT: 2000}
    finally:
        server.ask(f"SET GLOBAL max_allowed_packet = {usual}")
    with closing(MySqlFollower(database)) as follower:
        take(follower, large)
    assert_has(mysql_kit, database, given, large)


def test_local_infile_off(mysql_kit: MySqlKit, database: Settings, follower: MySqlFollower) -> None:
    """The server need not take files of its clients."""
    mysql_kit.server.ask("SET GLOBAL local_infile = 0")
    try:
        take(follower, frame(["{}"]))
    finally:
        mysql_kit.server.ask("SET GLOBAL local_infile = 1")
    assert_has(mysql_kit, database, frame(["{}"]))


def test_tables_are_made_once(mysql_kit: MySqlKit, database: Settings) -> None:
    """Several that start at once make the tables once, and all of them go on."""

    def run() -> FollowerPosition:
        with closing(MySqlFollower(database)) as follower:
            return follower.position()

    with ThreadPoolExecutor(6) as pool:
        found = [each.result() for each in [pool.submit(run) for _ in range(6)]]
    assert found == [FollowerPosition()] * 6
    assert mysql_kit.server.ask("SELECT id, version FROM messages_schema", mysql_kit.database) == [(1, 1)]


def test_tables_are_brought_up_to_date(mysql_kit: MySqlKit, database: Settings, follower: MySqlFollower) -> None:
    """Older tables get what they lack, with their rows, also if a killed run has done half of it; newer are refused."""
    take(follower, frame(["{}"]))
    later = (*MIGRATIONS, ("ALTER TABLE messages ADD COLUMN extra INT", "CREATE INDEX by_extra ON messages (extra)"))
    mysql_kit.server.ask("ALTER TABLE messages ADD COLUMN extra INT", mysql_kit.database)
    engine = make_engine(parse_address(database.mysql_url.get_secret_value()))
    for _ in range(2):
        with engine.connect() as connection:
            prepare(connection, later)
    engine.dispose()
    assert mysql_kit.server.ask("SELECT version, extra FROM messages_schema, messages", mysql_kit.database) == [
        (2, None)
    ]
    with pytest.raises(FollowerError, match=r"version 2, and this program knows version 1"):
        take(follower, frame(["{}"], first=1))
    with closing(MySqlFollower(database)) as another, pytest.raises(FollowerError, match=r"version 2"):
        another.position()


def test_the_table_of_somebody_else(mysql_kit: MySqlKit, follower: MySqlFollower) -> None:
    """A table `messages` that was there before is left alone."""
    mysql_kit.server.ask("CREATE TABLE messages (id INT)", mysql_kit.database)
    with pytest.raises(FollowerError, match="not the archiver's"):
        follower.position()
    assert mysql_kit.server.ask("SHOW TABLES", mysql_kit.database) == [("messages",)]


def test_tls(mysql_kit: MySqlKit, tmp_path: Path) -> None:
    """A server with a certificate of the right authority is spoken to over TLS; another authority's is refused."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is missing")
    server, database = mysql_kit.server, mysql_kit.database
    trusted = settings_of(server.url(database, f"ssl_ca={server.data}/ca.pem&ssl_verify_identity=true"), tmp_path)
    with closing(MySqlFollower(trusted)) as follower:
        assert follower.position() == FollowerPosition()
    engine = make_engine(parse_address(trusted.mysql_url.get_secret_value()))
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SHOW STATUS LIKE 'Ssl_version'").one()[1].startswith("TLS")
    engine.dispose()
    make_certificates(tmp_path)
    wrong = settings_of(server.url(database, f"ssl_ca={tmp_path}/ca.pem"), tmp_path)
    with closing(MySqlFollower(wrong)) as follower, pytest.raises(FollowerError, match=r"(?i)certificate.*ssl_ca"):
        follower.position()


def test_over_a_unix_socket(mysql_kit: MySqlKit, tmp_path: Path) -> None:
    """A server on this machine may be spoken to without a network."""
    server = mysql_kit.server
    url = f"mariadb+pymysql://root@/{mysql_kit.database}?unix_socket={server.socket}"
    # A URL has something where the host stands.
    found = settings_of(url.replace("@/", "@localhost/"), tmp_path)
    with closing(MySqlFollower(found)) as follower:
        take(follower, frame(["{}"]))
    assert_has(mysql_kit, found, frame(["{}"]))


def test_what_the_server_refuses_is_named(mysql_kit: MySqlKit, tmp_path: Path) -> None:
    """A wrong password and an unknown database are said with host and what to do, and never with the password."""
    url = mysql_kit.server.url(mysql_kit.database)
    wrong = settings_of(url.replace("s3cret", "s3cretly"), tmp_path)
    with closing(MySqlFollower(wrong)) as follower, pytest.raises(FollowerError) as refused:
        follower.position()
    assert not isinstance(refused.value, FollowerUnavailable)
    assert f"127.0.0.1:{mysql_kit.server.port}" in str(refused.value)
    assert "Check user and password" in str(refused.value)
    nothing = settings_of(mysql_kit.server.url("nothing"), tmp_path)
    with closing(MySqlFollower(nothing)) as follower, pytest.raises(FollowerError, match="CREATE DATABASE") as unknown:
        follower.position()
    assert "s3cret" not in str(refused.value) + str(unknown.value) + repr(parse_address(url))


def test_after_a_restart_of_the_server(mysql_kit: MySqlKit, tmp_path: Path) -> None:
    """One follower goes on, with a new connection, when its server was restarted between two passes."""
    filled = Filled(tmp_path, mysql_kit.settings)
    filled.add(3)
    with closing(MySqlFollower(filled.settings)) as follower:
        catch_up(follower, filled.settings)
        mysql_kit.server.restart()
        filled.add(3)
        assert catch_up(follower, filled.settings).lag == 0
    assert mysql_kit.content(filled.settings) == mysql_kit.expected(filled.messages())


def test_a_connection_killed_in_mid_step(mysql_kit: MySqlKit, database: Settings, follower: MySqlFollower) -> None:
    """A connection that ends within a step leaves nothing of it, and the same follower does it again."""
    given = [frame(["{}"] * 10), frame(["{}"] * 10, first=10)]

    def cut() -> Iterator[pl.DataFrame]:
        yield given[0]
        mysql_kit.server.ask(f"KILL USER {USER}")
        yield given[1]

    before = follower.position()
    after = FollowerPosition({AT: 20})
    with pytest.raises(FollowerUnavailable):
        follower.take(cut(), before, after)
    assert (follower.position(), mysql_kit.content(database)) == (before, [])
    follower.take(iter(given), before, after)
    assert_has(mysql_kit, database, *given)


def test_a_frozen_server(mysql_kit: MySqlKit, database: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that takes connections and says nothing is given up after the time limit."""
    monkeypatch.setattr(mysql_server, "CONNECT_SECONDS", 0.5)
    monkeypatch.setattr(mysql_server, "ANSWER_SECONDS", 1)
    with closing(MySqlFollower(database)) as connected, closing(MySqlFollower(database)) as new:
        before = connected.position()
        mysql_kit.server.pause()
        try:
            began = time.monotonic()
            for each in (connected, new):
                with pytest.raises(FollowerUnavailable, match=r"does not answer.*the next run goes on"):
                    each.position()
            assert time.monotonic() - began < 60
        finally:
            mysql_kit.server.resume()
        assert connected.position() == before


def test_a_lock_that_is_held(
    mysql_kit: MySqlKit, database: Settings, follower: MySqlFollower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step waits for another one's lock, but not for ever; then nothing of it was done."""
    monkeypatch.setattr(mysql_server, "_SESSION", mysql_server._SESSION.replace("30", "1"))
    before = follower.position()
    with closing(mysql_kit.server.connect(mysql_kit.database)) as other, other.cursor() as cursor:
        cursor.execute("BEGIN")
        cursor.execute("SELECT * FROM messages_schema FOR UPDATE")
        with pytest.raises(FollowerUnavailable, match="holds a lock"):
            take(follower, frame(["{}"]))
    assert follower.position() == before
    wait_for("the end of the other transaction", lambda: _taken(follower))
    assert_has(mysql_kit, database, frame(["{}"]))


def _taken(follower: MySqlFollower) -> bool:
    try:
        take(follower, frame(["{}"]))
    except FollowerUnavailable:
        return False
    return True


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        *((1021, FollowerError), (1114, FollowerError), (1290, FollowerError), (1142, FollowerError)),
        *((1153, FollowerError), (1366, FollowerError), (1205, FollowerUnavailable), (1040, FollowerUnavailable)),
        *((1213, Superseded), (2013, FollowerUnavailable), (1053, FollowerUnavailable), (1099, FollowerUnavailable)),
    ],
)
def test_errors_by_their_number(number: int, kind: type[ArchiverError]) -> None:
    """What may pass is told from what somebody has to mend, and neither password nor statement is in the text."""
    import pymysql

    address = parse_address("mysql://me:s3cret@db.example/archive")
    original = pymysql.err.OperationalError(number, "so it is, s3cret")
    with pytest.raises(kind) as raised, translated(address):
        raise sqlalchemy.exc.OperationalError("INSERT INTO messages of a message", None, original)
    assert type(raised.value) is kind
    assert "db.example:3306" in str(raised.value)
    assert "s3cret" not in str(raised.value)
    assert "INTO" not in str(raised.value)
    assert raised.value.hint


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("mysql://me:s3cret@host/db?ssl=1", "parameter 'ssl'"),
        ("mysql://me:s3cret@host/db?ssl_verify_cert=perhaps", "takes true or false"),
    ],
)
def test_a_wrong_url(url: str, why: str, tmp_path: Path) -> None:
    """A wrong address is said at once, with the setting's name and without the password."""
    with pytest.raises(SettingsError, match=why) as wrong:
        MySqlFollower(settings_of(url, tmp_path))
    assert "ARCHIVER_MYSQL_URL" in str(wrong.value)
    assert "s3cret" not in str(wrong.value)


def test_questions_find_an_index(mysql_kit: MySqlKit, follower: MySqlFollower) -> None:
    """What is asked most, by type and time, by time, and by place, reads no whole table; nor does deleting an hour."""
    stamps = [MIDDAY + timedelta(seconds=7 * n) for n in range(20_000)]
    take(follower, frame(["{}"] * 20_000, stamps=stamps, kind=[f"object.{n % 5}" for n in range(20_000)]))
    ask = mysql_kit.server.ask
    ask("ANALYZE TABLE messages", mysql_kit.database)
    minute = "`timestamp` BETWEEN '2019-08-01 12:30:00.000000' AND '2019-08-01 12:30:59.999999'"
    hour = "`timestamp` >= '2019-08-01 12:00' AND `timestamp` < '2019-08-01 13:00'"
    for statement, key in (
        (f"SELECT COUNT(*) FROM messages WHERE `type` = 'object.1' AND {hour}", "by_type"),
        (f"SELECT COUNT(*) FROM messages WHERE {hour}", "by_time"),
        ("SELECT value FROM messages WHERE topic = 'orders' AND `partition` = 0 AND `offset` = 7", "PRIMARY"),
        (f"DELETE FROM messages WHERE {minute} LIMIT 100000", "by_time"),
        ("DELETE FROM messages WHERE `timestamp` IS NULL LIMIT 100000", "by_time"),
    ):
        (plan,) = ask(f"EXPLAIN {statement}", mysql_kit.database)
        assert (plan[5], plan[3] != "ALL") == (key, True), (statement, plan)


def test_count_and_checksum(mysql_kit: MySqlKit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count and checksum of all payloads, as SQL computes them, are those of the archive, however they are cut."""
    monkeypatch.setattr(mysql_load, "_SORTED_BYTES", 100_000)
    monkeypatch.setattr(mysql_load, "_PART_BYTES", 10_000)
    monkeypatch.setattr(mysql_load, "_STATEMENT_BYTES", 5_000)
    filled = Filled(tmp_path, mysql_kit.settings)
    filled.add(6, count=400)
    with closing(MySqlFollower(filled.settings)) as follower:
        done = catch_up(follower, filled.settings)
    rows = filled.messages()
    assert done.messages == rows.height
    payload = "COALESCE(value, value_text, value_bytes)"
    asked = f"SELECT COUNT(*), SUM(`offset`), SUM(CRC32({payload})) FROM messages"
    found = mysql_kit.server.ask(asked, mysql_kit.database)
    payloads = [text.encode() if text is not None else blob for text, blob in rows["value", "value_bytes"].iter_rows()]
    sums = sum(zlib.crc32(each) for each in payloads if each is not None)
    assert [tuple(map(int, row)) for row in found] == [(rows.height, rows["offset"].sum(), sums)]
    assert PASSWORD not in repr(filled.settings)


def test_an_old_server_is_refused() -> None:
    """A version that lacks what is needed is named, and the oldest that will do."""

    class Old:
        class dialect:
            is_mariadb = False
            server_version_info = (5, 7, 44)

    with pytest.raises(FollowerError, match=r"MySQL 5\.7\.44 is too old: 8\.0\.19 or later"):
        mysql_server.check_server(Old())  # type: ignore[arg-type]


def test_statements_for_mysql() -> None:
    """MySQL wants ROW before each row, and keeps the text wherever its own JSON is another."""
    (statement,) = mysql_load.statements(iter([frame(["{}", None])]), mysql_load.Dialect(False, 1024**2))
    assert "(`offset`, `payload`) AS (VALUES ROW(0,'{}'),ROW(1,NULL)) SELECT 'orders'," in statement
    assert "WHEN CAST(CAST(CAST(payload AS JSON) AS CHAR" in statement


@pytest.mark.parametrize("without", ["", "SELECT", "INSERT", "DELETE", "CREATE"])
def test_the_privileges_that_are_documented_are_enough_and_needed(
    mysql_kit: MySqlKit, tmp_path: Path, without: str
) -> None:
    """A user with exactly what docs/security.md grants makes the tables, brings them up to date and replaces an hour;
    without any one of the privileges the error says what to grant, and nothing is written."""
    granted = documented_privileges()
    assert granted
    user = f"u{uuid.uuid4().hex[:12]}"
    kept = ", ".join(name for name in granted if name != without)
    mysql_kit.server.ask(f"CREATE USER '{user}'@'%' IDENTIFIED BY 'pw'")
    mysql_kit.server.ask(f"GRANT {kept} ON {mysql_kit.database}.* TO '{user}'@'%'")
    url = f"mysql://{user}:pw@127.0.0.1:{mysql_kit.server.port}/{mysql_kit.database}"
    settings = settings_of(url, tmp_path)

    def use() -> None:
        with closing(MySqlFollower(settings)) as follower:
            take(follower, frame(["1", "2"]))
            follower.replace(MIDDAY_HOUR, iter([frame(["3"])]), follower.position(), follower.position())

    if without:
        assert without in granted
        with pytest.raises(FollowerError, match="Grant the user SELECT, INSERT, DELETE and CREATE on"):
            use()
    else:
        use()
        assert_has(mysql_kit, settings, frame(["3"]))
    mysql_kit.server.ask(f"DROP USER '{user}'@'%'")


def documented_privileges() -> list[str]:
    """The privileges that docs/security.md grants to the follower's user."""
    found = re.search(r"GRANT ([A-Z, ]+) ON archive\.\*", (CHECKOUT / "docs" / "security.md").read_text("utf-8"))
    return found.group(1).split(", ") if found else []
