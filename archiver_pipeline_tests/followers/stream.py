"""A stream with a known answer, and followers that are killed again and again: minutes, topic and MySQL are right.

`python -m archiver_pipeline_tests.followers.stream --messages 500000 --kills 30` sends messages to three topics, some
late and some ugly, archives them in between, and kills followers at chance moments. In the end the minutes are those of
SQL over the messages as a plain consumer reads them, each version of a minute is once in the topic, and MySQL has the
rows of the archive. Exit code 1 where anything is not so.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from zlib import crc32

import duckdb
import polars as pl

from archiver_pipeline.batch.message_types import type_of
from archiver_pipeline.envelope import MALFORMED, TOMBSTONE, parse_type_rule
from archiver_pipeline.generator import Generator, generate
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.followers.aggregate_kit import Counted, minutes_in, user_of
from archiver_pipeline_tests.followers.minutes import assert_each_once, versions
from archiver_pipeline_tests.followers.mysql_kit import MySqlKit
from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.produce import create_topic, read_all
from archiver_pipeline_tests.mysql.server import MariaDbServer
from archiver_pipeline_tests.processes import Processes, environment

TOPICS = ("orders", "clicks", "views")
FOLLOWERS = ("events_per_minute", "mysql_messages")
ROUNDS = 12
_SUM = """
SELECT COUNT(*), CAST(SUM(CRC32(CONCAT(topic, '/', `partition`, '/', `offset`, '/', `type`, '/', COALESCE(
  CAST(`value` AS BINARY), CAST(value_text AS BINARY), value_bytes, '')))) AS SIGNED) FROM messages
"""
_RULE = parse_type_rule("$.type")


def main() -> None:
    """Send, archive, follow, kill, and compare."""
    parser = argparse.ArgumentParser(prog=f"python -m {__spec__.name}", description=__doc__)
    parser.add_argument("--messages", type=int, default=500_000)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="archiver-stream-") as folder,
        KafkaBroker(heap="1g") as broker,
        closing(MariaDbServer(Path(folder) / "mariadb")) as server,
        Processes() as processes,
    ):
        server.start()
        kit = MySqlKit(server)
        for topic in TOPICS:
            create_topic(broker.bootstrap_servers, topic, partitions=4)
        archived = Archived(
            Path(folder) / "base", broker.bootstrap_servers, *TOPICS, mysql_url=kit.settings["mysql_url"]
        )
        kills = _stream(archived, processes, given.messages, given.kills, random.Random(given.seed))
        right = _compare(archived, kit)
    print(f"{kills} kills, {time.monotonic() - began:.0f} s in all")
    sys.exit(not right)


def _stream(archived: Archived, processes: Processes, messages: int, wanted: int, chance: random.Random) -> int:
    """Send and archive in rounds; followers run in between, until so many of them were killed and all came through."""
    variables = environment({**archived.environment(), "ARCHIVER_MYSQL_URL": _url(archived)})
    kafka = {"bootstrap.servers": archived.bootstrap_servers}
    kills = 0
    for number in range(ROUNDS):
        each = messages // ROUNDS + (messages % ROUNDS if number == 0 else 0)
        generate(Generator(kafka, TOPICS, rate=0, count=each, late_share=0.02, ugly_share=0.01, seed=number))
        archived.run()
        while kills < wanted * (number + 1) // ROUNDS:
            name = FOLLOWERS[kills % len(FOLLOWERS)]
            trap = [chance.choice(("take", "frame", "frame", "settle")), str(chance.randint(1, 2))]
            child = ["-m", "archiver_pipeline_tests.followers.child", name, "5000"]
            ended = processes.run([*child, *trap, str(chance.random() * 0.5)], variables)
            assert ended.code in (0, -9), ended.said
            kills += ended.code == -9
            if ended.code == 0:  # Nothing was left to be killed in.
                generate(Generator(kafka, TOPICS, rate=0, count=500, late_share=0.02, ugly_share=0.01, seed=kills))
                archived.run()
    for name in FOLLOWERS:
        ended = processes.run(["-m", "archiver_pipeline_tests.followers.child", name, "250000"], variables)
        assert ended.code == 0, ended.said
    return kills


def _url(archived: Archived) -> str:
    return archived.settings.mysql_url.get_secret_value()


def _compare(archived: Archived, kit: MySqlKit) -> bool:
    produced = _produced(archived.bootstrap_servers)
    final = _by_sql(produced)
    found = minutes_in(archived.settings.aggregates_path / "events_per_minute")
    wrong = [key for key in found if found[key] != final.get(key)]
    # What came in the last minutes is not final yet.
    newest = max((minute for minute, *_ in found), default=datetime.max.replace(tzinfo=UTC))
    missing = [key for key in final if key not in found and key[0] <= newest]
    sent = assert_each_once(versions(archived.bootstrap_servers, archived.settings.results_topic))
    in_topic: Counted = {
        (datetime.fromisoformat(minute), topic, kind): (record["events"], record["users"])
        for (minute, topic, kind), record in sent.items()
    }
    ((rows, checksum),) = kit.server.ask(_SUM, kit.database)
    expected = _checksum(pl.read_delta(str(archived.path)))
    print(f"{produced.height:,} messages, {len(found):,} final minutes of {len(final):,}; {len(sent):,} in the topic")
    print(f"wrong {len(wrong)}, missing {len(missing)}, topic equal {in_topic == found}")
    print(f"MySQL: {rows:,} rows, checksum {checksum}; archive: {expected[0]:,} rows, checksum {expected[1]}")
    return not wrong and not missing and in_topic == found and (rows, checksum) == expected


def _produced(servers: str) -> pl.DataFrame:
    """Every message as a plain consumer reads it: topic, time (ms), type by the rule in its plainest form, user."""

    def rows() -> Iterator[tuple[str, int, str, str | None]]:
        for topic in TOPICS:
            for messages in read_all(servers, topic).values():
                for message in messages:
                    kind, user = _read(message.value)
                    yield topic, message.timestamp, kind, user

    schema = {"topic": pl.String, "ms": pl.Int64, "type": pl.String, "uid": pl.String}
    return pl.DataFrame(list(rows()), schema=schema, orient="row")


def _read(value: bytes | None) -> tuple[str, str | None]:
    if value is None:
        return TOMBSTONE, None
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return MALFORMED, None
    kind = type_of(text, _RULE)
    return kind, None if kind == MALFORMED else user_of(text)


def _by_sql(produced: pl.DataFrame) -> Counted:
    """Events and users per minute, topic and type, by SQL over what was produced."""
    with duckdb.connect() as connection:
        connection.register("produced", produced.to_arrow())
        rows = connection.execute(
            "SELECT ms // 60000, topic, type, count(*), count(DISTINCT uid) FROM produced GROUP BY ALL"
        ).fetchall()
    return {
        (datetime.fromtimestamp(minute * 60, UTC), topic, kind): (events, users)
        for minute, topic, kind, events, users in rows
    }


def _checksum(messages: pl.DataFrame) -> tuple[int, int]:
    """Number and sum of CRC-32 of the archive's rows."""
    total = 0
    for topic, partition, offset, kind, value, raw in messages.select(
        "topic", "partition", "offset", "type", "value", "value_bytes"
    ).iter_rows():
        content = (value or "").encode() if raw is None else raw
        total += crc32(f"{topic}/{partition}/{offset}/{kind}/".encode() + content)
    return messages.height, total


if __name__ == "__main__":
    main()
