"""`python -m bench.mysql`: the MySQL follower against plain `LOAD DATA INFILE` of the same rows; three questions."""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from archiver_pipeline.followers.catch_up import catch_up
from archiver_pipeline.followers.mysql import MySqlFollower
from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.table.archive import Archive
from archiver_pipeline_tests.batches import AUGUST_FIRST_AT_THREE, HOUR_MS, archive
from archiver_pipeline_tests.mysql.server import MariaDbServer

PARTITIONS, HOURS, BATCH = 4, 3, 100_000
OPTIONS: Mapping[str, str | int] = {
    "innodb-buffer-pool-size": "2G",
    "innodb-log-file-size": "1G",
    "innodb-flush-log-at-trx-commit": 1,
    "innodb-doublewrite": 1,
}
STORED = (
    "topic, topic_id, `partition`, `offset`, `timestamp`, timestamp_type, `key`, `value`, value_text, value_bytes,"
    " headers, `type`"
)
QUESTIONS = {
    "events and users of a type in ten minutes": (
        "SELECT COUNT(*), COUNT(DISTINCT JSON_VALUE(value, '$.uid')) FROM messages WHERE type = 'object.2'"
        " AND timestamp >= '2019-08-01 04:10' AND timestamp < '2019-08-01 04:20'"
    ),
    "all messages of one user, by a JSON field": (
        "SELECT COUNT(*), SUM(JSON_VALUE(value, '$.amount')) FROM messages WHERE JSON_VALUE(value, '$.uid') = 'u4711'"
    ),
    "messages per hour and type": "SELECT dt, hr, type, COUNT(*) FROM messages GROUP BY dt, hr, type",
}


def main() -> None:
    """Fill an archive, let the follower take it, load the same rows plainly, and ask."""
    parser = argparse.ArgumentParser(prog="python -m bench.mysql", description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--size", type=int, default=300, help="bytes of a message")
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="archiver-bench-") as folder, MariaDbServer(options=OPTIONS) as server:
        database = server.new_database()
        fields: dict[str, Any] = {"mysql_url": server.url(database), "BASE_DIR": Path(folder)}
        settings = Settings(**fields)
        console.print(f"Archiving {given.messages:,} messages of {given.size} bytes ...")
        fill(Archive(settings.archive_uri), given.messages, given.size)
        followed, loaded = [], []
        for turn in range(given.turns):
            followed.append(_timed(lambda: follow(settings, server, database)))
            loaded.append(_timed(load(server, database, Path(folder) / f"{turn}.tsv")))
        console.print(_rates(given.messages, followed, loaded))
        table = Table("", "rows", "seconds", title=f"questions to {given.messages:,} rows, medians of 5")
        for name, asked in QUESTIONS.items():
            rows = server.ask(asked, database)
            seconds = statistics.median(_timed(partial(server.ask, asked, database)) for _ in range(5))
            table.add_row(f"{name}\n{asked}", str(len(rows)), f"{seconds:.3f}")
        console.print(table)


def fill(target: Archive, messages: int, size: int) -> None:
    """Archive JSON messages of about `size` bytes, in batches, over partitions, types and hours, in time order."""
    draw = random.Random(1)
    letters = "".join(draw.choices("abcdefghijklmnopqrstuvwxyz0123456789", k=4096))

    def payloads(numbers: range) -> Iterator[bytes]:
        for number in numbers:
            uid, amount = f"u{draw.randrange(10_000)}", draw.randrange(100_000) / 100
            body = {"type": f"object.{number % 5}", "uid": uid, "amount": amount, "url": f"/p/{number % 977}"}
            text, at = json.dumps(body), draw.randrange(3_800)
            yield f'{text[:-1]}, "pad": "{letters[at : at + max(0, size - len(text) - 11)]}"}}'.encode()

    for start in range(0, messages, BATCH):
        numbers = range(start, min(messages, start + BATCH))
        stamps = [AUGUST_FIRST_AT_THREE + number * HOURS * HOUR_MS // messages for number in numbers]
        at = TopicPartition("orders", "AAAAAAAAAAAAAAAAAAAAAA", start // BATCH % PARTITIONS)
        archive(target, list(payloads(numbers)), at, milliseconds=stamps)


def follow(settings: Settings, server: MariaDbServer, database: str) -> None:
    """Let the follower take all from the beginning."""
    for table in server.ask("SHOW TABLES", database):
        server.ask(f"DROP TABLE {table[0]}", database)
    with closing(MySqlFollower(settings)) as follower:
        catch_up(follower, settings)


def load(server: MariaDbServer, database: str, file: Path) -> Callable[[], Any]:
    """Write the rows to a file, and return what loads it into an equal table."""
    server.ask(f"SELECT {STORED} INTO OUTFILE '{file}' FROM messages", database)
    server.ask("DROP TABLE IF EXISTS plain", database)
    server.ask("CREATE TABLE plain LIKE messages", database)
    return lambda: server.ask(f"LOAD DATA INFILE '{file}' INTO TABLE plain ({STORED})", database)


def _timed(work: Callable[[], Any]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def _rates(messages: int, followed: list[float], loaded: list[float]) -> Table:
    table = Table("", "seconds", "rows/s", title="medians; the follower reads the archive, checks and formats it, too")
    follower, plain = statistics.median(followed), statistics.median(loaded)
    table.add_row("follower", f"{follower:.1f}", f"{messages / follower:,.0f}")
    table.add_row("LOAD DATA INFILE", f"{plain:.1f}", f"{messages / plain:,.0f}")
    table.add_row("ratio", "", f"{plain / follower:.2f}")
    return table


if __name__ == "__main__":
    main()
