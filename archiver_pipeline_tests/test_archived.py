"""Rules of the comparison itself: a proof by it is worth as much as its eye for faults."""

from __future__ import annotations

from pathlib import Path

import pytest

from archiver_pipeline_tests.against_kafka import NO_TIME, Comparison, as_archived, compare
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.kafka.produce import Message, create_topic, produce
from archiver_pipeline_tests.samples import numbered

KAFKA = [Message(offset, b"k", b"v%d" % offset, (("h", None),), 1000 + offset, "create") for offset in (0, 1, 4, 5)]


@pytest.mark.parametrize(
    ("archive", "fault"),
    [
        (KAFKA, None),
        (KAFKA[1:], "lost"),
        (KAFKA[:-1], "lost"),
        ([*KAFKA[:2], *KAFKA[1:]], "doubled"),
        ([*KAFKA, KAFKA[-1]], "doubled"),
        ([*KAFKA[:2], KAFKA[0]._replace(offset=2), *KAFKA[2:]], "extra"),
        ([*KAFKA, KAFKA[0]._replace(offset=6)], "extra"),
        ([*KAFKA[:3], KAFKA[3]._replace(value=b"V5")], "differing"),
        ([KAFKA[0]._replace(key=None), *KAFKA[1:]], "differing"),
        ([KAFKA[0]._replace(headers=()), *KAFKA[1:]], "differing"),
        ([KAFKA[0]._replace(timestamp=1), *KAFKA[1:]], "differing"),
        ([KAFKA[0]._replace(timestamp_type="append"), *KAFKA[1:]], "differing"),
    ],
)
def test_each_fault_is_counted_once(archive: list[Message], fault: str | None) -> None:
    """One message lost, doubled, changed in any field, or not Kafka's, is one fault of that kind and no other."""
    found = Comparison()
    compare(KAFKA, iter(archive), found, ("t", 0))
    counts = {name: getattr(found, name) for name in ("lost", "doubled", "extra", "differing") if getattr(found, name)}
    assert counts == ({fault: 1} if fault else {})
    assert found.equal == (fault is None)


def test_times_that_no_column_holds_are_compared_as_null() -> None:
    """A time past what microseconds hold is null in the archive; one of year 10000 is kept."""
    message = KAFKA[0]
    assert as_archived(message._replace(timestamp=2**63 - 1)).timestamp == NO_TIME
    assert as_archived(message._replace(timestamp=253_402_300_800_000)).timestamp == 253_402_300_800_000
    assert as_archived(message._replace(timestamp=-1)).timestamp_type == "none"


def test_a_file_that_nobody_lists_is_found(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """A stray file, an empty folder and a lost file each fail the assertion that archive and Kafka are equal."""
    create_topic(bootstrap_servers, topic_name)
    produce(bootstrap_servers, topic_name, numbered(range(10)))
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    archived.run()
    archived.assert_equal(topic_name)
    stray = archived.path / "type=object.one" / "dt=2019-08-01" / "hr=03" / "stray.parquet"
    stray.write_bytes(b"")
    (archived.path / "type=empty").mkdir()
    assert archived.stray_files() == {str(stray.relative_to(archived.path)), "type=empty"}
    with pytest.raises(AssertionError):
        archived.assert_equal(topic_name)
