"""An archive to ask: three hours of page views and orders, with a late message, a gap, and what is no JSON."""

from __future__ import annotations

import json
import random
from datetime import UTC, datetime
from pathlib import Path

from archiver_pipeline.plan import RETENTION, Gap, TopicPartition
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.attempt import batch_of
from archiver_pipeline.view import view
from archiver_pipeline_tests.batches import HOUR_MS, archive, commit

SHOP = TopicPartition("shop", "A", 0)
NINE = int(datetime(2026, 11, 20, 9, tzinfo=UTC).timestamp()) * 1000
HOURS, PER_HOUR = 3, 120
END_OF_TIME_MS = int(datetime(9999, 12, 31, 23, tzinfo=UTC).timestamp()) * 1000 + 2 * HOUR_MS


def fill(target: Archive) -> None:
    """Archive the messages: a page view every 30 seconds, an order by the same user every fifth of them."""
    chance = random.Random(7)
    payloads: list[bytes] = []
    stamps: list[int] = []
    for number in range(HOURS * PER_HOUR):
        at, uid = NINE + number * HOUR_MS // PER_HOUR, f"u{number % 20}"
        payloads.append(_event("page.view", uid=uid, url=chance.choice(["/", "/hats", "/shoes"])))
        stamps.append(at)
        if number % 5 == 2:
            payloads.append(_event("order.created", uid=uid, order_id=number, total=chance.randrange(10_000) / 100))
            stamps.append(at + 1000)
    payloads += [b"no json", b"{}", _event("page.view", uid="u7", url="/late"), _event("far", uid="u7")]
    stamps += [stamps[-1], stamps[-1], NINE + 60_000, END_OF_TIME_MS]
    archive(target, payloads, SHOP, milliseconds=stamps)
    attempt = batch_of(target, 0)
    end = len(payloads)
    commit(attempt, end, end + 10, SHOP, gaps=[Gap(SHOP, end, end + 10, RETENTION)])


def asked(folder: Path) -> Path:
    """Fill `folder/data/archive`, and return the DuckDB file beside it."""
    base = folder / "data"
    base.mkdir()
    target = Archive(str(base / "archive"))
    fill(target)
    view.refresh(base / "archive.duckdb", target)
    return base / "archive.duckdb"


def _event(name: str, **fields: object) -> bytes:
    return json.dumps({"type": name, **fields}).encode()
