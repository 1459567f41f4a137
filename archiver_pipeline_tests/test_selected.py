"""Rules of what goes out: all that was selected, once, in the order of offsets, whatever is rewritten meanwhile."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from archiver_pipeline.errors import ArchiveDamaged
from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.stored import survey as surveys
from archiver_pipeline.stored.files import quietly
from archiver_pipeline.stored.selected import Selected, Stretch
from archiver_pipeline.stored.selection import Selection
from archiver_pipeline.table.archive import Archive
from archiver_pipeline_tests.batches import AUGUST_FIRST_AT_THREE, HOUR_MS, archive, event
from archiver_pipeline_tests.sealable import THREE, Sealable

FIRST, SECOND = TopicPartition("orders", "A", 0), TopicPartition("orders", "A", 1)
AGAIN = TopicPartition("orders", "B", 0)


def stretches(target: Archive, selection: Selection | None = None) -> list[Stretch]:
    """All stretches of a selection."""
    selected = Selected(target, selection or Selection())
    return list(selected.stretches(selected.survey(selected.ranges, quietly)))


def offsets(found: list[Stretch]) -> dict[TopicPartition, list[int]]:
    """The offsets of each topic partition as they go out."""
    out: dict[TopicPartition, list[int]] = {}
    for stretch in found:
        for *place, offset in stretch.frame.select("topic", "topic_id", "partition", "offset").iter_rows():
            out.setdefault(TopicPartition(*place), []).append(offset)
    return out


def test_all_comes_once_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However small the stretches are: each message once, each partition in the order of offsets, late ones, too."""
    monkeypatch.setattr(surveys, "STRETCH_MESSAGES", 700)
    target = Archive(str(tmp_path / "archive"))
    for number in range(6):
        for at in (FIRST, SECOND):
            stamps = [AUGUST_FIRST_AT_THREE + (number * 300 + n) * 20_000 - HOUR_MS * (n % 7 == 0) for n in range(300)]
            archive(target, [event(f"object.{n % 3}", n=n) for n in range(300)], at, milliseconds=stamps)
    found = stretches(target)
    assert len(found) > 4
    assert offsets(found) == {FIRST: list(range(1800)), SECOND: list(range(1800))}
    assert all(set(stretch.ranges) == {FIRST, SECOND} for stretch in found[:-1]), "side by side"


def test_large_messages_come_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stretch has about as many bytes as it may have, also where a bucket of offsets is larger."""
    monkeypatch.setattr(surveys, "STRETCH_BYTES", 1_000_000)
    target = Archive(str(tmp_path / "archive"))
    archive(target, [event(fill="x" * 100_000) for _ in range(60)])
    found = stretches(target)
    assert offsets(found) == {FIRST: list(range(60))}
    assert max(stretch.frame.height for stretch in found) <= 12


def test_large_messages_between_small_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do large ones come all at once that lie close together among many small ones."""
    monkeypatch.setattr(surveys, "STRETCH_BYTES", 1_000_000)
    target = Archive(str(tmp_path / "archive"))
    archive(target, [event(fill="x" * (100_000 if 100 <= n < 130 else 10)) for n in range(250)])
    found = stretches(target)
    assert offsets(found) == {FIRST: list(range(250))}
    assert max(stretch.frame["value"].str.len_bytes().sum() for stretch in found) <= 1_200_000


def test_what_is_selected_comes(tmp_path: Path) -> None:
    """Times, topics and types choose messages; the end of a time is not included, whatever hour it lies in."""
    target = Archive(str(tmp_path / "archive"))
    stamps = [AUGUST_FIRST_AT_THREE + n * 600_000 for n in range(12)]
    archive(target, [event(f"object.{n % 2}") for n in range(12)], milliseconds=stamps)
    archive(target, [event("object.0")], TopicPartition("clicks", "C", 0), milliseconds=stamps[3])
    archive(target, [event("object.0")], SECOND, milliseconds=2**62)
    start, end = datetime(2019, 8, 1, 3, 20, tzinfo=UTC), datetime(2019, 8, 1, 4, 10, tzinfo=UTC)
    assert offsets(stretches(target, Selection(start, end, ("orders",)))) == {FIRST: [2, 3, 4, 5, 6]}
    assert offsets(stretches(target, Selection(start, end, (), ("object.0",)))) == {
        TopicPartition("clicks", "C", 0): [0],
        FIRST: [2, 4, 6],
    }
    assert offsets(stretches(target, Selection(topics=("orders",))))[SECOND] == [0], "without a time, too"
    assert SECOND not in offsets(stretches(target, Selection(start)))


def test_an_earlier_life_comes_first(tmp_path: Path) -> None:
    """Of a topic that was made again all of the earlier life comes before the later one."""
    target = Archive(str(tmp_path / "archive"))
    archive(target, [event() for _ in range(3)], TopicPartition("orders", "Z", 0), milliseconds=AUGUST_FIRST_AT_THREE)
    archive(target, [event() for _ in range(3)], AGAIN, milliseconds=AUGUST_FIRST_AT_THREE - HOUR_MS)
    (found,) = stretches(target)[:1]
    lives = pl.concat([stretch.frame for stretch in stretches(target)])["topic_id"].to_list()
    assert lives == ["Z"] * 3 + ["B"] * 3, found


def test_an_hour_that_is_sealed_meanwhile(tmp_path: Path) -> None:
    """What has been counted goes out whole, although its files are replaced and removed, and no more than that."""
    sealable = Sealable(tmp_path)
    target = Archive(str(sealable.path))
    for _ in range(3):
        archive(target, [event(n=n) for n in range(100)])
    selected = Selected(target, Selection())
    survey = selected.survey(selected.ranges, quietly)
    assert survey.messages == 300
    archive(target, [event() for _ in range(10)])
    sealable.sealer().seal(THREE)
    for path in target.removed():
        (Path(target.uri) / path).unlink()
    assert offsets(list(selected.stretches(survey))) == {FIRST: list(range(300))}


def test_a_damaged_file_goes_nowhere(tmp_path: Path) -> None:
    """A file whose content is not what its name claims is named, and nothing of it goes out."""
    target = Archive(str(tmp_path / "archive"))
    archive(target, [event() for _ in range(10)])
    (path,) = target.files()["path"]
    content = bytearray((Path(target.uri) / path).read_bytes())
    content[20] ^= 1
    (Path(target.uri) / path).write_bytes(content)
    with pytest.raises(ArchiveDamaged, match="hash of its content"):
        stretches(target)
