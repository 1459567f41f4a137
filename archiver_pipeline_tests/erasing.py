"""Users whose messages are erased, and the search for what is left of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet

from archiver_pipeline.erasure import Erased, begun
from archiver_pipeline.rewrites.predicate import Predicate
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.steps import OnStep
from archiver_pipeline.stored.verify import verify
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.damaged_hours import FIRST_HOUR, HOUR_MS
from archiver_pipeline_tests.kafka.produce import Sent, create_topic, produce

SECRET = "u-7c1e5a"
"""The user who is erased: the name stands in key, value, header and the name of a field, and nowhere else."""

OF_SECRET = f"value LIKE '%{SECRET}%' OR key = '{SECRET}'::BLOB"
IDENTITY = ("topic", "topic_id", "partition", "offset")


def events(hour: int, count: int = 30, partitions: int = 2, first: int = 0) -> Iterator[Sent]:
    """Messages of three types and five users spread over an hour; every fifth is of `SECRET`, one is no JSON."""
    for number in range(first, first + count):
        user = SECRET if number % 5 == 0 else f"user-{number % 5}"
        value = b'{"type": "t%d", "uid": "%s", "seq": %d, "%s": 1}' % (number % 3, user.encode(), number, user.encode())
        stamp = (FIRST_HOUR + hour) * HOUR_MS + number % 1000 * 1000
        value = value if number % 30 != 7 else b'{"type": "t1", "uid": nonsense'
        yield Sent(value, user.encode(), (("user", user.encode()),), stamp, number % partitions)


def users(bootstrap_servers: str, topic_name: str, folder: Path, hours: int = 2, **more: Any) -> Archived:
    """An archive of some hours of a topic of two partitions, each in two batches, and some messages without a time."""
    create_topic(bootstrap_servers, topic_name, partitions=2)
    archive = Archived(folder, bootstrap_servers, topic_name, **{"results_topic": "", **more})
    for hour in range(hours):
        for half in range(2):
            produce(bootstrap_servers, topic_name, list(events(hour, first=1000 * hour + 30 * half)))
            archive.run()
    return archive


def erase(
    settings: Settings, where: str = OF_SECRET, on_step: OnStep = lambda _: None, patience_seconds: float = 60
) -> Erased:
    """Erase without asking."""
    with begun(settings, "test", on_step) as erasure:
        erasure.patience_seconds = patience_seconds
        predicate = Predicate(where)
        return erasure.do(erasure.confirm(predicate, erasure.look(predicate)))


def resume(settings: Settings) -> list[Erased]:
    """Finish what was left."""
    with begun(settings, "test") as erasure:
        return [erasure.do(plan) for plan in erasure.interrupted()]


def rows(path: Path) -> pl.DataFrame:
    """Every message of the table but for those that are erased, in order."""
    return pl.read_delta(str(path)).filter(pl.col("type") != "_erased").sort(IDENTITY)


def erased_rows(path: Path) -> pl.DataFrame:
    """Every erased one."""
    return pl.read_delta(str(path)).filter(pl.col("type") == "_erased").sort(IDENTITY)


def is_secret() -> pl.Expr:
    """Whether a row of the table is of `SECRET`."""
    of_value = pl.col("value").str.contains(SECRET).fill_null(value=False)
    return of_value | (pl.col("key") == SECRET.encode()).fill_null(value=False)


def traces(folder: Path, text: str = SECRET) -> list[str]:
    """The files below a folder that have a text: as their bytes are, or as their Parquet columns hold it."""
    wanted = text.encode()
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and (
            wanted in path.read_bytes() or (path.suffix == ".parquet" and _in_columns(path, wanted))
        ):
            found.append(str(path.relative_to(folder)))
    return found


def _in_columns(path: Path, wanted: bytes) -> bool:
    with pyarrow.parquet.ParquetFile(path) as parquet:
        names = [field.name for field in parquet.schema_arrow if not pa.types.is_temporal(field.type)]
        return any(wanted in repr(batch.to_pylist()).encode() for batch in parquet.iter_batches(columns=names))


def assert_erased(archived: Archived, before: pl.DataFrame) -> None:
    """Assert that `SECRET` is gone and nothing else is: by the table, the folders, Kafka, and the bytes on the disk.

    Args:
        archived: the archive.
        before: its `rows` before.
    """
    assert traces(archived.settings.base_dir) == []
    assert rows(archived.path).equals(before.filter(~is_secret()))
    gone = before.filter(is_secret())
    erased = erased_rows(archived.path)
    kept = [*IDENTITY, "timestamp", "timestamp_type", "dt", "hr"]
    assert erased.select(kept).equals(gone.select(kept))
    empty = erased.select("key", "value", "value_bytes", "headers").null_count().row(0)
    assert empty == (erased.height,) * 4
    report = verify(archived.settings, against_kafka=True)
    assert report.good, report.faults
    assert report.kafka is not None
    assert all(item.equal for item in report.kafka.partitions)
    assert archived.stray_files() == set()
    assert archived.sql("SELECT count(*) FILTER (type <> '_erased'), count(*) FROM messages") == [
        (before.height - gone.height, before.height)
    ]


def with_settings(archived: Archived, more: Mapping[str, Any]) -> Archived:
    """The same archive with other settings."""
    found = Archived(archived.settings.base_dir, archived.bootstrap_servers, *archived.settings.topics)
    found.settings = archived.settings.model_copy(update=dict(more))
    return found


def as_dict(done: Erased) -> dict[str, Any]:
    """What was done, hours by name."""
    return {item.hour.name: dataclasses.astuple(item)[1:] for item in done.hours}
