"""An archive that is to be rewritten, and the proof that it is right afterwards, to every reader."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import polars as pl

from archiver_pipeline.hours import Hour, parse_hour
from archiver_pipeline.rewrites.backfill import Backfiller
from archiver_pipeline.rewrites.seal import Sealer
from archiver_pipeline.stored.verify import verify
from archiver_pipeline.view import view
from archiver_pipeline_tests.archived import Archived, wait_until_stable
from archiver_pipeline_tests.kafka.produce import create_topic, produce_transactions

HOUR = parse_hour("2019-08-01T03")
"""The hour in which `produce_transactions` lets all its messages lie."""

BATCHES = 3
PER_BATCH = 120


def fill(bootstrap_servers: str, topic: str, seed: int, count: int = PER_BATCH) -> None:
    """Send messages of the hour in transactions, 30 % of which are aborted."""
    produce_transactions(bootstrap_servers, [topic], count, abort_share=0.3, seed=seed, per_transaction=20)
    wait_until_stable(bootstrap_servers, topic)


def new_archive(folder: Path, bootstrap_servers: str, topic: str) -> Archived:
    """Archive a new topic of four partitions in a few batches; all messages are of one hour, of six types."""
    create_topic(bootstrap_servers, topic, partitions=4)
    archived = Archived(folder, bootstrap_servers, topic, keep_replaced_hours=0)
    for number in range(BATCHES):
        fill(bootstrap_servers, topic, seed=number)
        archived.run()
    return archived


def copy_of(archived: Archived, folder: Path, **more: Any) -> Archived:
    """A copy of an archive in a folder of its own, its view left out: that names the files of the first."""
    shutil.copytree(archived.settings.base_dir, folder, ignore=shutil.ignore_patterns("archive.duckdb*"))
    return Archived(folder, archived.bootstrap_servers, *archived.settings.topics, **{"keep_replaced_hours": 0, **more})


def environment(archived: Archived) -> dict[str, str]:
    """The settings of an archive for a process that rewrites it."""
    settings = archived.settings
    return {
        **archived.environment(),
        "ARCHIVER_KEEP_REPLACED_HOURS": str(settings.keep_replaced_hours),
        "ARCHIVER_TYPE_PATH": settings.type_path,
    }


def seal(archived: Archived, hour: Hour = HOUR) -> None:
    """Seal an hour and clean up, as a run does."""
    Sealer(archived.settings).seal(hour)
    clean(archived)


def backfill(archived: Archived, hour: Hour = HOUR) -> None:
    """Backfill an hour and clean up, as a run does; it must not find a fault that it cannot mend."""
    for done in Backfiller(archived.settings).run([hour]):
        assert done.fault is None, done.fault
    clean(archived)


def clean(archived: Archived) -> None:
    """Bring the view up to date and remove what is no longer needed."""
    view.refresh(archived.settings.view_path, archived.archiver().archive)
    Sealer(archived.settings).clean()


def assert_good(archived: Archived) -> None:
    """Assert that the archive is what Kafka has: side by side, in its own eyes, and as plain Hive Parquet."""
    topics = archived.settings.topics
    archived.assert_equal(*topics)
    report = verify(archived.settings, against_kafka=True)
    assert report.good, report.faults
    table = Counter(_identities(pl.scan_delta(str(archived.path))))
    files = Counter(_identities(pl.scan_parquet(f"{archived.path}/type=*/**/*.parquet", hive_partitioning=False)))
    assert table == files
    assert max(files.values()) == 1


def assert_sealed(archived: Archived, hour: Hour = HOUR) -> None:
    """Assert that each type of the hour is one file, and sealed."""
    query = f"SELECT type FROM hours WHERE dt = '{hour.dt}' AND hr = '{hour.hr}' AND (files > 1 OR NOT sealed)"
    assert archived.sql(query) == []


def _identities(frame: pl.LazyFrame) -> list[tuple[Any, ...]]:
    return frame.select("topic", "topic_id", "partition", "offset").collect().rows()
