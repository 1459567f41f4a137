"""Rules of the record of runs: old ones go with all they left, bit by bit; what the UI needs stays."""

import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterRunStatus, RunsFilter
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.runs import SqlRunStorage
from sqlalchemy import text

from archiver_pipeline.defs import checks, retention
from archiver_pipeline.defs.retention import DAY_SECONDS, KEPT_NEWEST, Place, purge
from archiver_pipeline_tests.dagster_side.conftest import MakeDeployment
from archiver_pipeline_tests.dagster_side.ticks import MakeTicks
from archiver_pipeline_tests.postgres.server import PostgresServer

OLD_DAYS = 40.0


@pytest.fixture(params=["sqlite", "postgres"])
def instance(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """Dagster's own record, in files and in PostgreSQL."""
    home = tmp_path / "home"
    home.mkdir()
    config: dict[str, Any] = {"telemetry": {"enabled": False}}
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres")
        config |= server.storage(server.new_database())
    (home / "dagster.yaml").write_text(json.dumps(config))
    with dg.DagsterInstance.from_config(str(home)) as found:
        yield found


HOURS = dg.HourlyPartitionsDefinition("2019-08-01-00:00", end_offset=0)


@dg.op
def nothing() -> None:
    """Do nothing."""


@dg.job
def idle() -> None:
    """A job that makes nothing."""
    nothing()


@dg.op
def make_hour(context: dg.OpExecutionContext) -> None:
    """Materialize an hour of an asset."""
    context.log_event(dg.AssetMaterialization("hours", partition=str(context.run.tags["hour"])))


@dg.job
def hourly() -> None:
    """A job that makes an hour."""
    make_hour()


CHECK = checks.SPECS[0].key


@dg.op
def answer(context: dg.OpExecutionContext) -> None:
    """Answer a check."""
    context.log_event(dg.AssetCheckEvaluation(asset_key=CHECK.asset_key, check_name=CHECK.name, passed=True))  # type: ignore[arg-type]


@dg.job
def checked() -> None:
    """A job that answers a check."""
    answer()


def run(instance: dg.DagsterInstance, job: dg.JobDefinition = idle, days: float = OLD_DAYS, **tags: str) -> str:
    """Run a job now, and have the record say that it was so many days ago."""
    done = job.execute_in_process(instance=instance, tags=tags)
    assert done.success
    backdate(instance, done.run_id, days)
    return done.run_id


def backdate(instance: dg.DagsterInstance, run_id: str, days: float) -> None:
    """Have the record say that a run was made, and ended if it has, so many days ago."""
    storage = instance.run_storage
    assert isinstance(storage, SqlRunStorage)
    seconds = time.time() - days * DAY_SECONDS
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds)) + ".000000"
    then = "create_timestamp = :at, update_timestamp = :at, end_time = CASE WHEN end_time > 0 THEN :seconds END"
    with storage.connect() as connection:
        connection.execute(
            text(f"UPDATE runs SET {then} WHERE run_id = :id"), {"at": moment, "seconds": seconds, "id": run_id}
        )


def left(instance: dg.DagsterInstance) -> set[str]:
    """The runs on record."""
    return {record.run_id for record in instance.get_runs()}


def events(instance: dg.DagsterInstance, run_id: str) -> int:
    """How many events of a run are on record in the table that the UI's assets are made from."""
    storage = instance.event_log_storage
    assert isinstance(storage, SqlEventLogStorage)
    with storage.index_connection() as connection:
        query = text("SELECT count(*) FROM event_logs WHERE run_id = :id")
        return int(connection.execute(query, {"id": run_id}).scalar_one())


def answers(instance: dg.DagsterInstance) -> int:
    """How many answers of checks are on record."""
    storage = instance.event_log_storage
    assert isinstance(storage, SqlEventLogStorage)
    with storage.index_connection() as connection:
        return int(connection.execute(text("SELECT count(*) FROM asset_check_executions")).scalar_one())


def test_old_runs_go_with_all_they_left(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that is old enough goes with its events and files; new ones stay, and one under way, and the newest of its
    job, and one by which an hour counts as made until another has made it anew."""
    monkeypatch.setattr(retention, "KEPT_NEWEST", 1)
    old = [run(instance, days=OLD_DAYS + n) for n in (2, 1)]
    new = run(instance, days=29.9)
    busy = instance.create_run_for_job(idle, status=DagsterRunStatus.STARTED).run_id
    backdate(instance, busy, OLD_DAYS)
    three, four, again = "2019-08-01-03:00", "2019-08-01-04:00", "2019-08-01-03:00"
    replaced, only, newest = (
        run(instance, hourly, days=OLD_DAYS - 3 - n, hour=h) for n, h in enumerate((three, four, again))
    )
    gone, place = purge(instance, 30, Place(), time.time())
    assert (gone, left(instance)) == (3, {new, busy, only, newest})
    assert [events(instance, each) for each in (*old, replaced)] == [0, 0, 0]
    root = Path(instance.root_directory)
    assert [path for each in (*old, replaced) for path in root.rglob(f"{each}*")] == []
    assert purge(instance, 30, place, time.time())[0] == 0
    key = dg.AssetKey("hours")
    assert instance.get_materialized_partitions(key) == {three, four}
    latest = instance.get_latest_materialization_event(key)
    assert latest is not None
    assert latest.run_id == newest


def test_what_checks_came_to_goes_with_its_run(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest answer of a check stays, whatever its age, for the UI shows it."""
    monkeypatch.setattr(retention, "KEPT_NEWEST", 1)
    for days in (3, 2, 1):
        run(instance, checked, days=OLD_DAYS + days)
    run(instance, idle, days=OLD_DAYS)
    assert answers(instance) == 3
    assert purge(instance, 30, Place(), time.time())[0] == 2
    assert answers(instance) == 1
    storage = instance.event_log_storage
    latest = storage.get_latest_asset_check_execution_by_key([CHECK])
    assert list(latest) == [CHECK]


def test_a_run_that_ended_lately_stays(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long ago it was made."""
    monkeypatch.setattr(retention, "KEPT_NEWEST", 1)
    made = run(instance, days=OLD_DAYS)
    run(instance, days=OLD_DAYS)
    storage = instance.run_storage
    assert isinstance(storage, SqlRunStorage)
    with storage.connect() as connection:
        connection.execute(
            text("UPDATE runs SET end_time = :at WHERE run_id = :id"), {"at": time.time() - 60, "id": made}
        )
    assert purge(instance, 30, Place(), time.time())[0] == 0


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """Dagster's own record in memory, of which the newest run of each job stays."""
    monkeypatch.setattr(retention, "KEPT_NEWEST", 1)
    with dg.DagsterInstance.ephemeral() as found:
        yield found


def ended(instance: dg.DagsterInstance, days: float) -> str:
    """Have the record say that a run ended so many days ago."""
    run_id = instance.create_run_for_job(idle, status=DagsterRunStatus.SUCCESS).run_id
    backdate(instance, run_id, days)
    return run_id


def test_a_tick_is_bounded_and_the_next_one_goes_on(plain: dg.DagsterInstance) -> None:
    """A tick stops when its time is up, the oldest runs are gone then, and the next ticks take the rest."""
    runs = [ended(plain, OLD_DAYS + 10 - n) for n in range(5)]
    # Each look at the clock is a second later.
    place, counts = Place(), []
    for _ in range(3):
        gone, place = purge(plain, 30, place, time.time(), itertools.count().__next__)
        counts.append(gone)
        assert left(plain) == set(runs[sum(counts) :])
    assert counts == [2, 2, 0]


def test_a_run_that_is_executed_again_stays(plain: dg.DagsterInstance) -> None:
    """As long as another run goes on for it, Dagster looks it up; it goes with the next round."""
    # The newest run of a job stays anyhow.
    first, _, newest = (ended(plain, OLD_DAYS + 2 - number) for number in range(3))
    again = plain.create_run_for_job(idle, parent_run_id=first, root_run_id=first, status=DagsterRunStatus.STARTED)
    assert purge(plain, 30, Place(), time.time())[0] == 1
    assert left(plain) == {first, newest, again.run_id}


def test_runs_that_stayed_are_looked_at_again(plain: dg.DagsterInstance) -> None:
    """What had to stay goes once a day has passed and it no longer has to."""
    only = ended(plain, OLD_DAYS)
    now = time.time()
    gone, place = purge(plain, 30, Place(), now)
    ended(plain, 1)
    assert (gone, purge(plain, 30, place, now + 60)[0]) == (0, 0)
    assert purge(plain, 30, place, now + DAY_SECONDS)[0] == 1
    assert only not in left(plain)


def test_the_sensor_forgets_and_says_so(deploy: MakeDeployment, ticks: MakeTicks, topic_name: str) -> None:
    """A tick starts no run, says how many are gone, and with 0 days nothing ever goes."""
    ticking = ticks(deploy(topic_name, ARCHIVER_KEEP_RUNS_DAYS="0.5"), "retention")
    for _ in range(KEPT_NEWEST + 1):
        ticking.instance.create_run_for_job(idle, status=DagsterRunStatus.SUCCESS)
    assert ticking.skips() == "no run older than 0.5 days is left to go"
    oldest = min(ticking.instance.get_run_records(RunsFilter()), key=lambda record: record.storage_id)
    backdate(ticking.instance, oldest.dagster_run.run_id, 1)
    ticking.cursor = "no cursor of ours"
    assert ticking.skips() == "1 run gone, older than 0.5 days"


def test_nothing_goes_where_runs_are_kept_for_ever(deploy: MakeDeployment, ticks: MakeTicks, topic_name: str) -> None:
    """`ARCHIVER_KEEP_RUNS_DAYS=0` switches it off."""
    ticking = ticks(deploy(topic_name, ARCHIVER_KEEP_RUNS_DAYS="0"), "retention")
    assert ticking.skips() == "ARCHIVER_KEEP_RUNS_DAYS is 0: runs are kept for ever"
