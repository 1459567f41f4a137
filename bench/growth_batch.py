"""The children of `bench.growth` for batches: an archive filled with small files, and batches in it when told to."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from typing import Any

from archiver_pipeline.batch.batch import Archiver
from archiver_pipeline.batch.follow import stay
from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.settings.settings import load
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.attempt import batch_of
from archiver_pipeline.view import view
from archiver_pipeline_tests.batches import AUGUST_FIRST_AT_THREE, HOUR_MS, commit, event, write
from bench.load import TYPES

AT = TopicPartition("old", "AAAAAAAAAAAAAAAAAAAAAQ", 0)
HOURS = 8_760


def fill(files: str, per_commit: str) -> dict[str, Any]:
    """Add files of one message each, as batches write them, until the archive has that many."""
    settings = load()
    archive = Archive(settings.archive_uri)
    there = archive.files().height
    while (count := min(int(files) - there, int(per_commit))) > 0:
        attempt = batch_of(archive, 0)
        known = attempt.ledger.committed.get(AT)
        first = known.next if known else 0
        hours = [(first + number) // len(TYPES) % HOURS for number in range(count)]
        payloads = [event(TYPES[(first + number) % len(TYPES)], uid="u1", seq=number) for number in range(count)]
        write(attempt, payloads, first, AT, milliseconds=[AUGUST_FIRST_AT_THREE + hour * HOUR_MS for hour in hours])
        attempt.staging.place()
        commit(attempt, first, first + count, AT, count)
        attempt.clean()
        there += len(attempt.files)
    view.refresh(settings.view_path, archive)
    return {"files": there}


def stay_for_batches() -> None:
    """Do a batch for each line of standard input, or as many as `TURNS` says, and print what each took."""
    import duckdb
    import polars

    del duckdb, polars  # loaded before the clock starts, as in a run that stays
    settings = load()
    archiver = Archiver(settings)
    batches = stay(archiver, float("inf"), 0.01)
    turns = int(os.environ.get("TURNS", "0"))
    for _ in range(turns) if turns else sys.stdin:
        began, cpu = time.monotonic(), _cpu()
        batch = next(batches)
        committed = time.monotonic()
        view.refresh(settings.view_path, archiver.archive, batch.look)
        ended = time.monotonic()
        report = {
            "seconds": ended - began,
            "cpu": _cpu() - cpu,
            "messages": batch.messages,
            "steps": {**batch.steps, "view": ended - committed},
            "view_bytes": settings.view_path.stat().st_size,
            "version": batch.version,
        }
        print(json.dumps(report), flush=True)


def check() -> dict[str, Any]:
    """How many of the new messages the views show, and what is left of them in Kafka."""
    import duckdb

    with duckdb.connect(str(load().view_path), read_only=True) as connection:
        query = 'SELECT count(*), count(DISTINCT ("partition", "offset")) FROM messages WHERE dt >= \'2024\''
        ((messages, distinct),) = connection.execute(query).fetchall()
        ((counted, lag),) = connection.execute(
            "SELECT sum(messages)::BIGINT, sum(lag)::BIGINT FROM offsets WHERE topic = 'bench'"
        ).fetchall()
    return {"messages": messages if messages == distinct == counted else -1, "lag": lag}


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    if sys.argv[1] == "stay":
        stay_for_batches()
    else:
        print(json.dumps(fill(*sys.argv[2:]) if sys.argv[1] == "fill" else check()))
