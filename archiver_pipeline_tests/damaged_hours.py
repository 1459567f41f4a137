"""Hours that are sent, archived, damaged and backfilled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from archiver_pipeline.hours import Hour, hour_at
from archiver_pipeline.rewrites.backfill import Backfiller
from archiver_pipeline.rewrites.backfilled import Backfilled
from archiver_pipeline.rewrites.seal import Sealer
from archiver_pipeline.stored.verify import verify
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.kafka.produce import Sent, create_topic, produce

HOUR_MS = 3_600_000
FIRST_HOUR = 434_619
"""2019-08-01T03 in hours since 1970."""

HOURS = [hour_at(FIRST_HOUR + number) for number in range(3)]


def messages(hour: int, count: int = 60, partitions: int = 2, **fields: int) -> Iterator[Sent]:
    """Messages of three types, spread over an hour and the partitions."""
    for number in range(count):
        value = b'{"type": "t%d", "seq": %d}' % (number % 3, fields.get("first", 0) + number)
        stamp = (FIRST_HOUR + hour) * HOUR_MS + number * HOUR_MS // count
        yield Sent(value, b"k%d" % number, (("h", b"x"),), stamp, number % partitions)


def three_hours(bootstrap_servers: str, topic_name: str, folder: Path) -> Archived:
    """An archive of three hours of a topic of two partitions, each hour in two batches, with late messages."""
    create_topic(bootstrap_servers, topic_name, partitions=2)
    archive = Archived(folder, bootstrap_servers, topic_name, keep_replaced_hours=0)
    for hour in range(3):
        for half in range(2):
            produce(bootstrap_servers, topic_name, list(messages(hour, 30, first=30 * half)))
            archive.run()
    produce(bootstrap_servers, topic_name, list(messages(0, 4, first=1000)))  # Late by two hours.
    archive.run()
    return archive


def backfill(archived: Archived, hours: list[Hour], **options: Any) -> list[Backfilled]:
    """Backfill hours and bring the view up to date."""
    done = list(Backfiller(archived.settings, **options).run(hours))
    archived.run()
    Sealer(archived.settings).clean()
    return done


def files_of(archived: Archived, hour: Hour, kind: str = "") -> list[Path]:
    """The files that the table lists for an hour, or for one type of it."""
    folder = f"dt={hour.dt}/hr={hour.hr}/"
    return sorted(archived.path / name for name in archived.listed_files() if folder in name and f"type={kind}" in name)


def lose(archived: Archived, hour: Hour) -> None:
    """Remove all files that the table lists for an hour."""
    for path in files_of(archived, hour):
        path.unlink()


def oldest(archived: Archived, hour: Hour, kind: str) -> Path:
    """The first file that was archived of a type and hour."""
    return min(files_of(archived, hour, kind), key=lambda path: path.stat().st_mtime_ns)


def flip(path: Path) -> None:
    """Change one byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)


def assert_good(archived: Archived) -> None:
    """Assert that the archive is what Kafka has, in its own eyes and side by side."""
    report = verify(archived.settings, against_kafka=True)
    assert report.good, report.faults
    archived.assert_equal(*archived.settings.topics)
