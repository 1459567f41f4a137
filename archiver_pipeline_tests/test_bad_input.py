"""Rules for messages that nobody asked for: all are archived, byte for byte, under a type that is safe as a folder."""

from __future__ import annotations

import json
import logging
import time
from pathlib import Path
from urllib.parse import quote

import deltalake
import polars as pl
import pytest

from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.kafka.produce import FAR_TIMESTAMPS, Sent, create_topic, produce
from archiver_pipeline_tests.kafka.raw import RawRecord, produce_raw
from archiver_pipeline_tests.samples import FIRST_MS
from archiver_pipeline_tests.ugly_messages import HOUR_MS, PAYLOADS, TIMES, UGLY_TYPES, expected_type

HIVE = ("type", "dt", "hr")


def types_by_offset(archived: Archived, topic: str) -> list[str]:
    """The type of each message in the order of offsets, for a topic of one partition."""
    return [
        kind for (kind,) in archived.sql(f"""SELECT type FROM messages WHERE topic = '{topic}' ORDER BY "offset" """)
    ]


def types_by_reader(archived: Archived) -> dict[str, list[tuple[str, int]]]:
    """Type and count as each way to read the archive gives them."""
    files = f"{archived.path}/type=*/**/*.parquet"
    plain = archived.sql(
        f"SELECT type, count(*) FROM read_parquet('{files}', hive_partitioning = true, hive_types_autocast = false) "
        "GROUP BY type"
    )
    arrow = deltalake.DeltaTable(archived.path).to_pyarrow_table(columns=["type"])
    frames = {
        "Polars, Delta": pl.scan_delta(str(archived.path)).select("type").collect(),
        "Polars, Hive": pl.scan_parquet(
            f"{archived.path}/type=*/**/*.parquet", hive_partitioning=True, hive_schema=dict.fromkeys(HIVE, pl.String)
        )
        .select("type")
        .collect(),
        "deltalake": pl.DataFrame({"type": arrow.column("type").cast("string").to_pylist()}),
    }
    found = {name: sorted(frame.group_by("type").len().rows()) for name, frame in frames.items()}
    found["DuckDB, view"] = sorted(archived.sql("SELECT type, count(*) FROM messages GROUP BY type"))
    found["DuckDB, Hive"] = sorted(plain)
    return found


def files_below(folder: Path) -> set[str]:
    """Every file below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def test_every_payload_gets_its_type(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Whatever the payload is, it is archived as it came, under the type that the rules give it."""
    create_topic(bootstrap_servers, topic_name)
    sent = [Sent(payload, name.encode(), timestamp_ms=FIRST_MS) for name, (payload, _) in PAYLOADS.items()]
    produce(bootstrap_servers, topic_name, sent)
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    archived.run()
    found = dict(zip(PAYLOADS, types_by_offset(archived, topic_name), strict=True))
    assert found == {name: expected_type(kind, payload) for name, (payload, kind) in PAYLOADS.items()}
    archived.assert_equal(topic_name)


def test_one_payload_that_is_not_text_does_not_spoil_the_others(
    bootstrap_servers: str, topic_name: str, tmp_path: Path
) -> None:
    """In a batch with bytes that are no UTF-8, every other payload is still text and has its type."""
    create_topic(bootstrap_servers, topic_name)
    good = [Sent(b'{"type": "good", "seq": %d}' % n, timestamp_ms=FIRST_MS) for n in range(1000)]
    produce(bootstrap_servers, topic_name, [*good, Sent(b"\xff\xfe", timestamp_ms=FIRST_MS), *good])
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    archived.run()
    assert archived.sql("SELECT type, count(value), count(value_bytes) FROM messages GROUP BY type ORDER BY type") == [
        ("_malformed", 0, 1),
        ("good", 2000, 0),
    ]
    archived.assert_equal(topic_name)


def test_ugly_types_stay_inside_the_archive(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Types that are paths, wildcards, SQL or differ only in case: every reader gives them back, and no file lies
    outside the archive."""
    create_topic(bootstrap_servers, topic_name)
    payloads = [json.dumps({"type": kind}, ensure_ascii=False).encode() for kind in UGLY_TYPES]
    produce(bootstrap_servers, topic_name, [Sent(payload, timestamp_ms=FIRST_MS) for payload in payloads])
    here = files_below(Path("archiver_pipeline"))
    folder = tmp_path / "deep" / "deeper"
    archived = Archived(folder, bootstrap_servers, topic_name)
    archived.run()
    assert types_by_offset(archived, topic_name) == list(UGLY_TYPES)
    wanted = sorted((kind, 1) for kind in UGLY_TYPES)
    for reader, found in types_by_reader(archived).items():
        assert found == wanted, reader
    assert {path.split("/")[0] for path in archived.listed_files()} == {
        f"type={quote(kind, safe='-._~')}" for kind in UGLY_TYPES
    }
    outside = {path for path in files_below(tmp_path) if not path.startswith("deep/deeper/archive")}
    assert outside == set()
    assert files_below(Path("archiver_pipeline")) <= here
    archived.assert_equal(topic_name)


def test_every_ugly_type_has_a_view(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Each type has a view of its own that gives its messages, also where names collide or are SQL's own."""
    create_topic(bootstrap_servers, topic_name)
    payloads = [json.dumps({"type": kind, "n": n}).encode() for n, kind in enumerate(UGLY_TYPES)]
    produce(bootstrap_servers, topic_name, [Sent(payload, timestamp_ms=FIRST_MS) for payload in payloads])
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    archived.run()
    views = dict(archived.sql('SELECT type, "view" FROM types'))
    assert sorted(views) == sorted(UGLY_TYPES)
    assert len({name.lower() for name in views.values()}) == len(UGLY_TYPES)
    found = [archived.sql(f'SELECT type, n FROM "{views[kind]}"') for kind in UGLY_TYPES]
    assert found == [[(kind, n)] for n, kind in enumerate(UGLY_TYPES)]
    assert archived.sql("SELECT count(*) FROM messages") == [(len(UGLY_TYPES),)]


def test_large_messages(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Messages of 10 MB, text and bytes, with a large key and a large header, are archived like small ones."""
    create_topic(bootstrap_servers, topic_name, config={"max.message.bytes": 20 * 1024**2})
    text = b'{"type": "large", "fill": "' + b"x" * 10 * 1024**2 + b'"}'
    sent = [
        Sent(text, timestamp_ms=FIRST_MS),
        Sent(b"\xff" * 10 * 1024**2, timestamp_ms=FIRST_MS),
        Sent(b"{}", b"k" * 10 * 1024**2, timestamp_ms=FIRST_MS),
        Sent(b"{}", headers=(("h", b"v" * 10 * 1024**2), ("k" * 30_000, b"")), timestamp_ms=FIRST_MS),
        Sent(text, timestamp_ms=FIRST_MS),
    ]
    produce(bootstrap_servers, topic_name, sent)
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    archived.run()
    assert types_by_offset(archived, topic_name) == ["large", "_malformed", "_untyped", "_untyped", "large"]
    archived.assert_equal(topic_name)


def test_ten_thousand_headers(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Order, repeats, empty names and missing values are kept, however many headers a message has."""
    create_topic(bootstrap_servers, topic_name)
    headers = tuple((f"h{n % 100}" if n % 7 else "", None if n % 3 else b"%d" % n) for n in range(10_000))
    sent = [Sent(b"{}", headers=headers, timestamp_ms=FIRST_MS), Sent(b"{}", timestamp_ms=FIRST_MS)]
    produce(bootstrap_servers, topic_name, sent)
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    archived.run()
    archived.assert_equal(topic_name)
    assert [len(message.headers) for message in archived.messages(topic_name)[0]] == [10_000, 0]


def test_header_keys_that_are_not_text(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """A message whose header key is not UTF-8 is archived with a header that says so, and its neighbours whole."""
    create_topic(bootstrap_servers, topic_name)
    ugly = RawRecord(b'{"type": "ugly"}', FIRST_MS, b"k", ((b"a", b"0"), (b"\xff\xfe", b"1")))
    good = RawRecord(b'{"type": "good"}', FIRST_MS, None, ((b"a", None), (b"a", b"")))
    produce_raw(bootstrap_servers, topic_name, [good, ugly] * 500)
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    archived.run()
    assert types_by_offset(archived, topic_name) == ["good", "ugly"] * 500
    first, second = archived.messages(topic_name)[0][:2]
    assert (first.headers, second.headers) == ((("a", None), ("a", b"")), (("_malformed", None),))
    assert (second.key, second.value) == (b"k", b'{"type": "ugly"}')
    archived.assert_equal(topic_name)


def test_keys_are_bytes(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """No key, an empty key and a key of any bytes are three different things."""
    create_topic(bootstrap_servers, topic_name)
    keys = [None, b"", b"\xff\xfe", b"\0", "ключ".encode(), bytes(range(256))]
    produce(bootstrap_servers, topic_name, [Sent(b"{}", key, timestamp_ms=FIRST_MS) for key in keys])
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    archived.run()
    assert [message.key for message in archived.messages(topic_name)[0]] == keys
    archived.assert_equal(topic_name)


def test_any_timestamp(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Every time that Kafka can carry is archived: under its hour, or under `_unknown` where no calendar has it."""
    create_topic(bootstrap_servers, topic_name, config=FAR_TIMESTAMPS)
    for milliseconds in TIMES:
        produce_raw(bootstrap_servers, topic_name, [RawRecord(b'{"type": "time"}', milliseconds)])
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    archived.run()
    found = archived.sql('SELECT dt, hr FROM messages ORDER BY "offset"')
    assert dict(zip(TIMES, found, strict=True)) == TIMES
    assert archived.sql("SELECT count(\"timestamp\") FROM messages WHERE dt = '_unknown'") == [(3,)]
    archived.assert_equal(topic_name)
    # Such a file does not keep readers from finding the others by their time.
    (count,) = archived.sql("SELECT count(*) FROM messages WHERE \"timestamp\" < '1970-01-01 00:00:00+00'")
    assert count == (5,)
    since = pl.datetime(2019, 8, 1, time_zone="UTC")
    recent = pl.scan_delta(str(archived.path)).filter(pl.col("timestamp") >= since, pl.col("dt") != "_unknown")
    assert recent.select(pl.len()).collect().item() == 2


def test_an_hour_ahead(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """A message stamped an hour ahead, as far as Kafka allows, lies under that hour."""
    create_topic(bootstrap_servers, topic_name)
    ahead = time.time_ns() // 1_000_000 + HOUR_MS - 60_000
    produce(bootstrap_servers, topic_name, [Sent(b'{"type": "early"}', timestamp_ms=ahead)])
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    archived.run()
    moment = time.gmtime(ahead // 1000)
    assert archived.sql("SELECT dt, hr FROM messages") == [(time.strftime("%Y-%m-%d", moment), f"{moment.tm_hour:02}")]
    archived.assert_equal(topic_name)


@pytest.mark.slow
def test_no_more_types_than_the_limit(
    bootstrap_servers: str, topic_name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A type field that is really an id does not make a folder of each message: past the limit new types are `_other`,
    with a warning, and types that the archive has stay as they are."""
    create_topic(bootstrap_servers, topic_name)

    def send(first: int, last: int) -> None:
        payloads = [b'{"type": "id-%d"}' % number for number in range(first, last)]
        produce(bootstrap_servers, topic_name, [Sent(payload, timestamp_ms=FIRST_MS) for payload in payloads])

    archived = Archived(tmp_path, bootstrap_servers, topic_name, max_types=200)
    send(0, 600)
    with caplog.at_level(logging.WARNING, "archiver_pipeline"):
        first = archived.archiver().batch()
    assert first is not None
    assert (first.files, first.types["_other"], first.types["id-199"]) == (201, 400, 1)
    assert [record.getMessage() for record in caplog.records if "ARCHIVER_MAX_TYPES" in record.getMessage()] == [
        "400 new types were archived as _other, because the archive has as many as ARCHIVER_MAX_TYPES allows: a type "
        "field that is really an id? One of them: id-200"
    ]
    send(190, 210)
    (second,) = archived.run()
    assert (second.files, second.types["_other"], second.types["id-199"]) == (11, 10, 1)
    assert archived.sql("SELECT count(DISTINCT type) FROM messages") == [(201,)]
    archived.assert_equal(topic_name)


def test_every_fault_in_one_batch(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """All of it together, over several partitions and small batches, is archived byte for byte."""
    create_topic(bootstrap_servers, topic_name, partitions=3, config=FAR_TIMESTAMPS)
    payloads = [payload for payload, _ in PAYLOADS.values()]
    payloads += [json.dumps({"type": kind}, ensure_ascii=False).encode() for kind in UGLY_TYPES]
    times = list(TIMES)
    for partition in range(3):
        records = [
            RawRecord(payload, times[number % len(times)], payload, ((b"\xff" if number % 5 == 0 else b"h", payload),))
            for number, payload in enumerate(payloads[partition:] + payloads[:partition])
        ]
        for record in records:
            # The broker compares the times of one batch with each other: such far ones go one by one.
            produce_raw(bootstrap_servers, topic_name, [record], partition)
    archived = Archived(tmp_path, bootstrap_servers, topic_name, batch_messages=100)
    assert len(archived.run()) >= 3
    archived.assert_equal(topic_name)
    counts = {tuple(found) for found in types_by_reader(archived).values()}
    assert len(counts) == 1
