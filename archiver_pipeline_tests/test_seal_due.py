"""Which hours are due to be sealed, as broker and ledger tell it."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import pytest

from archiver_pipeline.plan import lane_of
from archiver_pipeline.rewrites.seal import Sealer
from archiver_pipeline.table.archive import Archive
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.batches import (
    AUGUST_FIRST_AT_THREE,
    HOUR_MS,
)
from archiver_pipeline_tests.kafka.produce import Sent, create_topic, produce
from archiver_pipeline_tests.processes import free_port
from archiver_pipeline_tests.samples import numbered
from archiver_pipeline_tests.waiting import wait_for


def grace_until(milliseconds: float) -> dict[str, float]:
    """The setting by which the grace of `THREE` ends at that time."""
    return {"seal_grace_minutes": (milliseconds - AUGUST_FIRST_AT_THREE - HOUR_MS) / 60_000}


def old_messages(first: int, count: int = 5, partition: int = 0) -> list[Sent]:
    """Messages of `THREE`."""
    return numbered(range(first, first + count), partition)


def sealer_of(archived: Archived, **more: Any) -> Sealer:
    """A sealer with the archive's settings and others."""
    return Sealer(archived.settings.model_copy(update=more))


def due_hours(archived: Archived, **more: Any) -> list[str]:
    """The names of the hours that are due."""
    return [item.hour.name for item in sealer_of(archived, **more).due()]


def test_an_idle_topic_closes_its_hours(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """With all that Kafka has archived, hours close by the clock, and without a new batch; the present one is open."""
    create_topic(bootstrap_servers, topic_name)
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    assert due_hours(archived) == []
    produce(bootstrap_servers, topic_name, [*old_messages(0), Sent(b'{"type": "x"}')])
    archived.run()
    assert due_hours(archived, seal_grace_minutes=1e9) == []
    assert due_hours(archived, **grace_until(time.time() * 1000 + 60_000)) == []
    grace = grace_until(time.time() * 1000 + 500)
    wait_for("the end of the grace", lambda: due_hours(archived, **grace) == ["2019-08-01T03"])
    assert archived.version() == 1
    sealer = sealer_of(archived)
    (item,) = sealer.due()
    assert (item.files, item.bytes > 0) == (1, True)
    sealer.seal(item.hour)
    assert sealer.due() == []


def test_a_busy_archive_closes_its_hours(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Where something new is always there, what counts is when a batch last had all that there was."""
    create_topic(bootstrap_servers, topic_name)
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    produce(bootstrap_servers, topic_name, old_messages(0))
    archived.run()
    (caught_up,) = Archive(str(archived.path)).ledger().caught_up.values()
    assert abs(time.time() * 1000 - caught_up) < 30_000
    produce(bootstrap_servers, topic_name, old_messages(5))
    assert due_hours(archived, **grace_until(caught_up)) == ["2019-08-01T03"]
    after = grace_until(caught_up + 1)
    assert due_hours(archived, **after) == [], "messages of the hour may be among those that are new"
    archived.run()
    produce(bootstrap_servers, topic_name, old_messages(10))
    assert due_hours(archived, **after) == ["2019-08-01T03"]


def test_a_batch_that_is_not_the_last_has_not_caught_up(
    bootstrap_servers: str, topic_name: str, tmp_path: Path
) -> None:
    """A long backlog archived in many batches closes nothing until its end is reached."""
    create_topic(bootstrap_servers, topic_name)
    produce(bootstrap_servers, topic_name, old_messages(0, 30))
    archived = Archived(tmp_path, bootstrap_servers, topic_name, batch_messages=10)
    archiver = archived.archiver()
    for _ in range(2):
        archiver.batch()
        assert archived_caught_up(archived) == {}
        assert due_hours(archived) == []
    archiver.batch()
    assert set(archived_caught_up(archived)) == {0}
    assert due_hours(archived) == ["2019-08-01T03"]


def archived_caught_up(archived: Archived) -> dict[int, int]:
    """When each lane had all that Kafka had, as the table says."""
    return dict(Archive(str(archived.path)).ledger().caught_up)


def test_a_lane_that_is_behind_keeps_hours_open(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Of two lanes one never ran: its messages may belong to any hour."""
    create_topic(bootstrap_servers, topic_name, partitions=2)
    archived = Archived(tmp_path, bootstrap_servers, topic_name, lanes=2)
    produce(bootstrap_servers, topic_name, [*old_messages(0), *old_messages(5, partition=1)])
    archived.run(lane=0)
    assert due_hours(archived) == []
    archived.run(lane=1)
    assert due_hours(archived) == ["2019-08-01T03"]


def test_a_lane_without_news_keeps_nothing_open(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """Lanes that have no partition, and one that has had nothing new for long, do not hold up a busy one's hours."""
    create_topic(bootstrap_servers, topic_name, partitions=2)
    archived = Archived(tmp_path, bootstrap_servers, topic_name, lanes=4)
    busy, idle = lane_of(topic_name, 0, 4), lane_of(topic_name, 1, 4)
    produce(bootstrap_servers, topic_name, [*old_messages(0), *old_messages(5, partition=1)])
    archived.run(lane=idle)
    archived.run(lane=busy)
    produce(bootstrap_servers, topic_name, old_messages(10))
    archived.run(lane=busy)
    produce(bootstrap_servers, topic_name, old_messages(15))
    told = archived_caught_up(archived)
    assert told[idle] < told[busy]
    assert due_hours(archived, **grace_until(told[busy])) == ["2019-08-01T03"]
    assert due_hours(archived, **grace_until(told[busy] + 1)) == []


@pytest.mark.slow
def test_without_a_broker_the_ledger_closes_hours(
    bootstrap_servers: str, topic_name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A dead broker holds nothing up that was complete before it died, and closes nothing after that."""
    create_topic(bootstrap_servers, topic_name)
    produce(bootstrap_servers, topic_name, old_messages(0))
    archived = Archived(tmp_path, bootstrap_servers, topic_name, lanes=2)
    for lane in range(2):
        archived.run(lane=lane)
    caught_up = archived_caught_up(archived)[lane_of(topic_name, 0, 2)]
    dead = Archived(tmp_path, f"127.0.0.1:{free_port()}", topic_name, lanes=2)
    with caplog.at_level(logging.WARNING):
        assert sealer_of(dead).caught_up_ms(Archive(str(archived.path)).ledger()) == caught_up
    assert "hours are closed by what the archive knows, because the broker did not tell" in caplog.text
