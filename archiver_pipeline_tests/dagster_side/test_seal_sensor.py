"""Rules of the seal sensor: which hours it asks for, when it holds back, and what it says then."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path

import deltalake
import pytest
from deltalake.transaction import AddAction, RemoveAction

from archiver_pipeline import envelope
from archiver_pipeline.defs import runs
from archiver_pipeline.defs.seal import SEAL_OP
from archiver_pipeline.defs.seal_sensor import (
    ASK_AGAIN_SECONDS,
    LIMIT_SECONDS,
    MOST_BYTES,
    MOST_HOURS,
    Asked,
    Memory,
    choose,
    far_behind,
    is_to_clean,
    recall,
)
from archiver_pipeline.defs.sensors import LaneState
from archiver_pipeline.hours import DueHour, hour_at
from archiver_pipeline.table.schema import delta_schema
from archiver_pipeline_tests.dagster_side.conftest import MakeDeployment
from archiver_pipeline_tests.dagster_side.deployment import Deployment
from archiver_pipeline_tests.dagster_side.filled import CONFIG, add, fill, key, messages, name
from archiver_pipeline_tests.dagster_side.ticks import MakeTicks
from archiver_pipeline_tests.kafka.produce import create_topic, produce
from archiver_pipeline_tests.processes import Processes

NOW = 1_000_000_000.0
FIRST = 434_619
"""2019-08-01T03, in hours since 1970."""


def due(count: int, files: int = 3, size: int = 1000) -> list[DueHour]:
    """So many hours that are due, the oldest first."""
    return [DueHour(hour_at(FIRST + n), files, size) for n in range(count)]


@pytest.mark.parametrize(
    ("hours", "chosen"),
    [
        (due(0), 0),
        (due(5), 5),
        (due(MOST_HOURS + 1), MOST_HOURS),
        (due(5, size=MOST_BYTES // 2), 2),
        (due(5, size=MOST_BYTES * 3), 1),
    ],
    ids=["none", "a few", "too many", "too large together", "too large alone"],
)
def test_a_run_is_asked_for_a_few_hours(hours: list[DueHour], chosen: int) -> None:
    """The oldest hours, up to a number and a size; one hour always, however large."""
    assert choose(hours, {}, NOW) == hours[:chosen]


@pytest.mark.parametrize(
    ("last", "again"),
    [
        (Asked(NOW - 60, 3), False),
        (Asked(NOW - 60, 2), True),
        (Asked(NOW - ASK_AGAIN_SECONDS + 1, 3), False),
        (Asked(NOW - ASK_AGAIN_SECONDS, 3), True),
    ],
    ids=["just now", "with other files", "within the hour", "an hour ago"],
)
def test_an_hour_is_asked_for_again_after_a_while_or_with_other_files(last: Asked, again: bool) -> None:
    """What was asked for and is still due has failed: it is left alone for an hour, and others get their turn."""
    first, second = due(2)
    assert choose([first, second], {first.hour.name: last}, NOW) == ([first, second] if again else [second])


@pytest.mark.parametrize(
    ("memory", "keep_hours", "worth_it"),
    [
        (Memory(at=NOW), 1, False),
        (Memory({}, NOW - 3599, (3, 4)), 1, False),
        (Memory({}, NOW - 3600, (3, 4)), 1, True),
        (Memory({}, NOW - 3600, (4, 5)), 1, True),
        (Memory({}, NOW - 3600, (5, 5)), 1, False),
        (Memory({}, NOW - 3600, (3, 4)), 2, False),
        (Memory({}, NOW - 7200, (3, 4)), 2, True),
        (Memory({}, NOW - 60, (3, 4)), 0, False),
    ],
    ids=["first tick", "just asked", "an hour ago", "once more", "nothing new", "kept longer", "kept", "not kept"],
)
def test_a_run_that_only_cleans_is_rare(memory: Memory, keep_hours: float, worth_it: bool) -> None:
    """Once per `ARCHIVER_KEEP_REPLACED_HOURS`, at most once an hour, and until nothing can be left."""
    assert is_to_clean(memory, 5, NOW, keep_hours) is worth_it


def test_what_was_replaced_goes_though_nothing_is_to_be_sealed(
    deploy: MakeDeployment, ticks: MakeTicks, topic_name: str
) -> None:
    """After a while a run without hours is asked for; afterwards only the sealed files are left."""
    deployment = deploy(topic_name)
    fill(deployment, topic_name, range(1))
    sensor = ticks(deployment, "seal")
    sensor.requests()
    assert deployment.seal().code == 0
    left = deployment.archived.stray_files()
    assert len(left) == 2
    assert sensor.skips() == "0 closed hours with 0 files to be sealed"
    deployment.settings["ARCHIVER_KEEP_REPLACED_HOURS"] = "0"
    sensor.cursor = json.dumps({**json.loads(sensor.cursor or ""), "at": time.time() - 3600})
    (request,) = sensor.requests()
    config = request.run_config["ops"][SEAL_OP]["config"]
    assert config["hours"] == []
    assert deployment.seal(**config).code == 0
    assert deployment.archived.stray_files() == set()


def test_lanes_more_than_a_batch_behind_are_named() -> None:
    """A lane that one batch brings up to date is not far behind."""
    states = [LaneState(0, 1000, False, ("a",)), LaneState(1, 1001, False, ("a",))]
    assert far_behind(states, 1000) == "lane 1 is 1,001 messages behind, more than a batch of 1,000"
    assert far_behind(states[:1], 1000) == ""


@pytest.mark.parametrize(
    "cursor", [None, "", "x", "[]", "3", '{"asked": 3}', '{"asked": {"a": {}}}', '{"asked": {"a": {"at": "x"}}}']
)
def test_a_cursor_that_cannot_be_read_counts_as_none(cursor: str | None) -> None:
    """Somebody may have edited it: the sensor then asks once too often."""
    assert recall(cursor, NOW) == Memory(at=NOW)


def test_a_time_in_the_future_counts_as_the_present() -> None:
    """A clock that was set back keeps no hour waiting for days."""
    cursor = json.dumps({"asked": {"a": {"at": NOW + 9999, "files": 2}}, "at": NOW + 9999, "versions": [6, 7]})
    assert recall(cursor, NOW) == Memory({"a": Asked(NOW, 2)}, NOW, (6, 7))


def test_closed_hours_get_one_run(deploy: MakeDeployment, ticks: MakeTicks, topic_name: str) -> None:
    """The request names the hours, limits and tags; a tick after the run skips with numbers."""
    deployment = deploy(topic_name, ARCHIVER_INTERVAL_SECONDS=5)
    fill(deployment, topic_name, range(3))
    sensor = ticks(deployment, "seal")
    (request,) = sensor.requests()
    assert request.run_key is None
    config = request.run_config["ops"][SEAL_OP]["config"]
    assert config == {
        "hours": [name(n) for n in range(3)],
        "limit": MOST_HOURS,
        "limit_seconds": LIMIT_SECONDS,
        "patient": True,
    }
    assert {label: request.tags[label] for label in ("archiver/hours", "archiver/files", "dagster/max_retries")} == {
        "archiver/hours": "3 from 2019-08-01T03",
        "archiver/files": "6",
        "dagster/max_retries": "0",
    }
    assert float(request.tags["dagster/max_runtime"]) > LIMIT_SECONDS
    ended = deployment.seal(**config)
    assert ended.code == 0, ended.said
    assert sensor.skips() == "0 closed hours with 0 files to be sealed"


def test_hours_that_the_ui_does_not_know_yet_are_told(
    deploy: MakeDeployment, ticks: MakeTicks, topic_name: str
) -> None:
    """Partitions are those of the moment when the definitions were loaded: the reason says how to see older hours."""
    deployment = deploy(topic_name)
    create_topic(deployment.bootstrap_servers, topic_name, config=CONFIG)
    sensor = ticks(deployment, "seal")
    add(deployment, topic_name, messages(0))
    assert deployment.seal().code == 0
    assert "; reload the code location in the UI to see hours before 2" in sensor.skips()
    assert list(deployment.hours()) == [key(0)]


def test_an_hour_that_failed_waits_and_the_others_go_on(
    deploy: MakeDeployment, ticks: MakeTicks, topic_name: str
) -> None:
    """A damaged hour is not asked for every minute; new hours are, and so is it when it has another file."""
    deployment = deploy(topic_name)
    fill(deployment, topic_name, range(2))
    sensor = ticks(deployment, "seal")
    damaged = next(deployment.archived.path / path for path in deployment.archived.listed_files() if "hr=03" in path)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    (request,) = sensor.requests()
    assert deployment.seal(**request.run_config["ops"][SEAL_OP]["config"]).code == 1
    assert sensor.skips() == "1 closed hour with 2 files to be sealed, 1 of them asked for within the hour before"
    add(deployment, topic_name, messages(5))
    (request,) = sensor.requests()
    assert request.run_config["ops"][SEAL_OP]["config"]["hours"] == [name(5)]
    add(deployment, topic_name, messages(0))
    (request,) = sensor.requests()
    assert request.run_config["ops"][SEAL_OP]["config"]["hours"] == [name(0)]


@pytest.mark.parametrize("status", ["QUEUED", "NOT_STARTED", "STARTING", "STARTED", "CANCELING"])
def test_one_run_at_a_time(deploy: MakeDeployment, ticks: MakeTicks, topic_name: str, status: str) -> None:
    """While a run is under way, the reason names it."""
    deployment = deploy(topic_name)
    fill(deployment, topic_name, range(1), batches=1)
    sensor = ticks(deployment, "seal")
    run_id = sensor.begin_run(status, {})
    assert sensor.skips() == f"run {run_id[:8]} is at work"


@pytest.mark.parametrize(("status", "is_dead"), [("STARTED", True), ("QUEUED", False)])
@pytest.mark.parametrize("job", ["seal", "follow", "archive"])
def test_a_dead_run_is_buried(
    deploy: MakeDeployment, ticks: MakeTicks, topic_name: str, status: str, is_dead: bool, job: str
) -> None:
    """A run that died with its machine counts as failed after a while, lest others wait for it, or somebody who looks
    take it for alive; a queued one waits."""
    deployment = deploy(topic_name)
    fill(deployment, topic_name, range(1), batches=1)
    sensor = ticks(deployment, "seal")
    tags = {runs.KIND_TAG: runs.REWRITE} if job == "seal" else {}
    run_id = sensor.begin_run(status, tags, silent_seconds=runs.DEAD_SECONDS + 1, job=job)
    requests, _ = sensor.tick()
    assert len(requests) == (is_dead or job != "seal")
    assert sensor.status(run_id) == ("FAILURE" if is_dead else status)


def test_sealing_waits_while_archiving_is_far_behind(deploy: MakeDeployment, ticks: MakeTicks, topic_name: str) -> None:
    """More than a batch to archive: no seal run is asked for, and the reason says how far behind it is."""
    deployment = deploy(topic_name, ARCHIVER_BATCH_MESSAGES=10)
    fill(deployment, topic_name, range(1))
    sensor = ticks(deployment, "seal")
    produce(deployment.bootstrap_servers, topic_name, messages(1, 11))
    reason = sensor.skips()
    assert reason == "lane 0 is 11 messages behind, more than a batch of 10: sealing waits"
    deployment.archived.run()
    assert len(sensor.requests()) == 1


def test_without_an_archive_or_a_broker_it_skips(
    deploy: MakeDeployment, tmp_path: Path, processes: Processes, ticks: MakeTicks, topic_name: str
) -> None:
    """Before the first batch there is nothing to seal; without a broker the reason says what to check."""
    deployment = deploy(topic_name)
    create_topic(deployment.bootstrap_servers, topic_name)
    assert ticks(deployment, "seal").skips() == "there is no archive yet"
    sensor = ticks(Deployment(tmp_path / "other", processes, "127.0.0.1:1", "orders"), "seal")
    sensor.cursor = "{}"
    assert "127.0.0.1:1 did not answer" in sensor.skips()
    assert sensor.cursor == "{}"


@pytest.mark.slow
def test_ten_thousand_hours_are_planned_within_a_second(
    deploy: MakeDeployment, ticks: MakeTicks, topic_name: str
) -> None:
    """A tick over an archive of 10,000 hours and 20,000 files takes less than a second of the processor."""
    deployment = deploy(topic_name)
    create_topic(deployment.bootstrap_servers, topic_name, config=CONFIG)
    add(deployment, topic_name, messages(0))
    list_files(deployment.archived.path, {name_of(n): 2 for n in range(10_000)})
    sensor = ticks(deployment, "seal")
    (request,) = sensor.requests()
    assert len(request.run_config["ops"][SEAL_OP]["config"]["hours"]) == MOST_HOURS
    sensor.requests()
    print(f"a tick took {sensor.cpu_seconds:.2f} s")
    assert sensor.cpu_seconds < 1


def name_of(number: int) -> tuple[str, str]:
    """`dt` and `hr` of an hour, counted from the first one."""
    hour = hour_at(FIRST - number)
    return hour.dt, hour.hr


def list_files(archive: Path, files: Mapping[tuple[str, str], int]) -> None:
    """List files in the table that are nowhere: so many for each hour."""
    now = int(time.time() * 1000) - 86_400_000
    actions: list[AddAction | RemoveAction] = []
    for (dt, hr), count in files.items():
        values = {"type": "object.one", "dt": dt, "hr": hr}
        for number in range(count):
            path = f"{envelope.folder(values)}/{envelope.file_name('lane0-000000000000', number, '0' * 64)}"
            actions.append(AddAction(path, 1000, values, now, True, json.dumps({"numRecords": 5})))
    table = deltalake.DeltaTable(archive)
    table.create_write_transaction(actions, mode="append", schema=delta_schema(), partition_by=["type", "dt", "hr"])
