"""Rules of followers in Dagster: when runs of them are started, and what they show."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import dagster as dg
import duckdb
import pytest

from archiver_pipeline.defs.follow import AGGREGATES, FOLLOW_OP, FOLLOWERS_TAG, LONGEST_PAUSE_SECONDS, pause_seconds
from archiver_pipeline_tests.dagster_side.conftest import MakeDeployment
from archiver_pipeline_tests.dagster_side.deployment import Deployment
from archiver_pipeline_tests.dagster_side.test_definitions import NO_BROKER
from archiver_pipeline_tests.dagster_side.ticks import MakeTicks
from archiver_pipeline_tests.followers.minutes import sent
from archiver_pipeline_tests.kafka.produce import create_topic, produce
from archiver_pipeline_tests.waiting import wait_for

MINUTES = dg.AssetKey("events_per_minute")
HOUR = "2019-08-01-03:00"
GROUP = {FOLLOWERS_TAG: AGGREGATES}


def request(follower: str) -> dg.RunRequest:
    """The request of a run of one follower."""
    return dg.RunRequest(run_config={"ops": {FOLLOW_OP: {"config": {"followers": [follower]}}}})


@pytest.fixture
def following(deploy: MakeDeployment, topic_name: str) -> Deployment:
    """A deployment whose followers are started by the sensor, with a few messages archived."""
    deployment = deploy(topic_name, ARCHIVER_FOLLOW_SECONDS=30, ARCHIVER_RESULTS_TOPIC=f"{topic_name[-40:]}-results")
    create_topic(deployment.bootstrap_servers, topic_name, partitions=1)
    produce(deployment.bootstrap_servers, topic_name, [sent(n, n) for n in range(5)])
    deployment.archived.run()
    return deployment


def test_a_run_comes_with_new_commits_and_shows_its_hours(following: Deployment, ticks: MakeTicks) -> None:
    """The first commits start one run for all aggregates; once it is done nothing is new, until there are more."""
    sensor = ticks(following, job="follow")
    (request,) = sensor.requests()
    assert request.tags == GROUP
    assert "is at work" in sensor.skips() or "nothing is new" in sensor.skips()
    sensor.run(request)
    assert sensor.skips().startswith("aggregates: nothing is new since table version ")
    shown = sensor.instance.get_materialized_partitions(MINUTES)
    assert shown == {HOUR}
    assert following.archived.sql("SELECT sum(events) FROM events_per_minute") == [(5,)]
    produce(following.bootstrap_servers, following.archived.settings.topics[0], [sent(5)])
    following.archived.run()
    assert "the next run is due in" in sensor.skips()


@pytest.mark.parametrize(("follow_seconds", "stay_seconds"), [(30, 7200), (3600, 0)])
def test_runs_of_followers_stay_as_long_as_those_that_archive(
    following: Deployment, ticks: MakeTicks, follow_seconds: int, stay_seconds: int
) -> None:
    """So that start-up is paid once; where they would rest for long, they end instead."""
    following.settings |= {"ARCHIVER_RUN_SECONDS": "7200", "ARCHIVER_FOLLOW_SECONDS": str(follow_seconds)}
    (request,) = ticks(following, job="follow").requests()
    assert request.run_config["ops"][FOLLOW_OP]["config"]["stay_seconds"] == stay_seconds


def test_a_run_that_stays_takes_what_comes_meanwhile(following: Deployment, ticks: MakeTicks) -> None:
    """What is archived while it stays is counted by it, and no other run is needed."""
    following.settings |= {"ARCHIVER_RUN_SECONDS": "6", "ARCHIVER_FOLLOW_SECONDS": "1"}
    sensor = ticks(following, job="follow")
    (asked,) = sensor.requests()

    def archive_more() -> None:
        wait_for("the first messages", lambda: _counted(following) == 5)
        produce(following.bootstrap_servers, following.archived.settings.topics[0], [sent(5)])
        following.archived.run()

    with ThreadPoolExecutor(1) as aside:
        more = aside.submit(archive_more)
        sensor.run(asked)
        more.result()
    assert _counted(following) == 6


def _counted(deployment: Deployment) -> int:
    try:
        return int(deployment.archived.sql("SELECT sum(events) FROM events_per_minute")[0][0] or 0)
    except duckdb.CatalogException:  # The view comes with the first run.
        return 0


def test_one_run_at_a_time(following: Deployment, ticks: MakeTicks) -> None:
    """While a run of a group is under way, no other is started."""
    sensor = ticks(following, job="follow")
    run = sensor.begin_run("STARTED", GROUP)
    assert f"aggregates: run {run[:8]} is at work" in sensor.skips()


def test_failed_runs_are_tried_again_after_ever_longer_pauses(following: Deployment, ticks: MakeTicks) -> None:
    """A follower that is down is asked again and again, but not every few seconds."""
    sensor = ticks(following, job="follow")
    sensor.requests()
    sensor.begin_run("FAILURE", GROUP)
    sensor.begin_run("FAILURE", GROUP)
    assert "2 runs in a row have failed" in sensor.skips()
    assert [pause_seconds(n, 30) for n in range(4)] == [30, 60, 120, 240]
    assert pause_seconds(20, 30) == LONGEST_PAUSE_SECONDS
    assert pause_seconds(3, 3600) == 3600


def test_an_hour_is_counted_anew_from_the_ui(following: Deployment) -> None:
    """To materialize an hour of an aggregate counts it again from the archive, and nothing twice; each run shows it."""
    for _ in range(2):
        ended = following.dagster(
            *["asset", "materialize", "-m", "archiver_pipeline.definitions"],
            *["--select", "events_per_minute", "--partition", HOUR],
        )
        assert ended.code == 0, ended.said
    following.archived.run()
    assert following.archived.sql("SELECT count(*), sum(events) FROM events_per_minute") == [(5, 5)]
    with following.instance() as instance:
        shown = instance.fetch_materializations(MINUTES, limit=10).records
    # The first run has written the hour's file, the second one has found it right.
    assert [record.partition_key for record in shown] == [HOUR, HOUR]


@pytest.mark.slow
def test_hours_are_shown_though_they_cannot_be_sent(following: Deployment, ticks: MakeTicks) -> None:
    """Kafka is down: the run fails, and what it has written is in Dagster and in the view all the same."""
    following.settings["KAFKA_BOOTSTRAP_SERVERS"] = NO_BROKER
    sensor = ticks(following, job="follow")
    with pytest.raises(dg.Failure, match=NO_BROKER):
        sensor.run(request("events_per_minute"))
    assert sensor.instance.get_materialized_partitions(MINUTES) == {HOUR}
    assert following.archived.sql("SELECT sum(events) FROM events_per_minute") == [(5,)]


def test_a_run_brings_the_view_of_other_columns(following: Deployment, ticks: MakeTicks) -> None:
    """Also where no hour is published, and the archive has nothing new."""
    config = following.base / "archiver.toml"
    following.settings["ARCHIVER_CONFIG"] = str(config)
    for measure, rule in (("n", "$.uid"), ("m", "$.nothing")):
        aggregate = f"name = 'a'\nwindow = 'day'\nmeasures = {{{measure} = 'count'}}\ntime = '{rule}'\n"
        config.write_text(f"[[aggregates]]\n{aggregate}")
        ticks(following, job="follow").run(request("a"))
        columns = "SELECT list(column_name) FROM information_schema.columns WHERE table_name = 'a'"
        assert following.archived.sql(columns) == [(["day", measure, "revision"],)]


def test_another_definition_starts_a_run_in_a_quiet_archive(following: Deployment, ticks: MakeTicks) -> None:
    """What is to be counted has changed, and the archive has nothing new: a run is due all the same."""
    sensor = ticks(following, job="follow")
    (asked,) = sensor.requests()
    sensor.run(asked)
    assert "nothing is new" in sensor.skips()
    config = following.base / "archiver.toml"
    config.write_text("[[aggregates]]\nname = 'a'\nwindow = 'day'\nmeasures = {n = 'count'}\n")
    following.settings["ARCHIVER_CONFIG"] = str(config)
    changed = ticks(following, job="follow")
    changed.cursor = sensor.cursor
    assert "the next run is due in" in changed.skips()


def test_without_an_archive_or_switched_off_nothing_is_started(
    deploy: MakeDeployment, topic_name: str, ticks: MakeTicks
) -> None:
    """The reason says which of the two it is."""
    off = deploy(topic_name)
    assert ticks(off, job="follow").skips().startswith("ARCHIVER_FOLLOW_SECONDS is 0")
    off.settings["ARCHIVER_FOLLOW_SECONDS"] = "30"
    assert ticks(off, job="follow").skips() == "there is no archive yet"
