"""Rules of the sensor: when it asks for a run and for which, and what it says when it asks for none."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from archiver_pipeline.defs.assets import OP, PASS_SECONDS
from archiver_pipeline.defs.runs import SILENT_SECONDS
from archiver_pipeline.defs.sensors import tick_seconds
from archiver_pipeline.formats.waits import Waits
from archiver_pipeline.plan import lane_of
from archiver_pipeline_tests.dagster_side.conftest import MakeDeployment
from archiver_pipeline_tests.dagster_side.deployment import Deployment
from archiver_pipeline_tests.dagster_side.ticks import MakeTicks
from archiver_pipeline_tests.kafka.produce import (
    Sent,
    add_partitions,
    create_topic,
    delete_records,
    delete_topic,
    produce,
)
from archiver_pipeline_tests.processes import Processes

IN_FLIGHT = ["NOT_STARTED", "STARTING", "STARTED", "CANCELING"]
OVER = ["SUCCESS", "FAILURE", "CANCELED"]


def messages(count: int, partition: int = 0) -> list[Sent]:
    """So many messages for a partition."""
    return [Sent(b'{"type": "object.one"}', partition=partition) for _ in range(count)]


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Assert that something takes no longer than that."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


def test_without_a_lag_it_skips_with_numbers(deploy: MakeDeployment, ticks: MakeTicks, topic_name: str) -> None:
    """A skip names how many partitions of how many topics were asked, and the lag of each lane."""
    deployment = deploy(topic_name)
    create_topic(deployment.bootstrap_servers, topic_name, partitions=3)
    produce(deployment.bootstrap_servers, topic_name, messages(5))
    deployment.archived.run()
    assert ticks(deployment).skips() == "3 partitions of 1 topic; lane 0: lag 0"


def test_what_waits_for_a_schema_is_in_the_reason(deploy: MakeDeployment, ticks: MakeTicks, topic_name: str) -> None:
    """While a run waits for the registry, and where nothing is left to do but that, a skip says for what."""
    deployment = deploy(topic_name)
    create_topic(deployment.bootstrap_servers, topic_name)
    produce(deployment.bootstrap_servers, topic_name, messages(5))
    deployment.archived.run()
    (at,) = deployment.archived.archiver().archive.ledger().committed
    waits = Waits(deployment.archived.settings)
    waits.note(at, 5, "4711", "http://registry:8081", "it does not answer")
    assert f"{topic_name}/0 waits since " in ticks(deployment).skips()
    assert "at offset 5 for schema 4711 of http://registry:8081: it does not answer" in ticks(deployment).skips()
    waits.note(at, 4, "4711", "http://registry:8081", "it does not answer")
    assert "4711" not in ticks(deployment).skips(), "that message was archived"


def test_behind_it_asks_for_one_run_that_makes_it_good(
    deploy: MakeDeployment, ticks: MakeTicks, topic_name: str
) -> None:
    """A request has no run key, tags that tell its lane and what is behind, and a config of lane and time limits."""
    deployment = deploy(topic_name, ARCHIVER_RUN_SECONDS=0)
    create_topic(deployment.bootstrap_servers, topic_name)
    produce(deployment.bootstrap_servers, topic_name, messages(5))
    sensor = ticks(deployment)
    (request,) = sensor.requests()
    assert request.run_key is None
    assert request.run_config == {
        "ops": {OP: {"config": {"lane": 0, "stay_seconds": 0, "limit_seconds": PASS_SECONDS}}}
    }
    assert {name: request.tags[name] for name in ("archiver/lane", "archiver/topics", "archiver/lag")} == {
        "archiver/lane": "0",
        "archiver/topics": topic_name,
        "archiver/lag": "5",
    }
    assert float(request.tags["dagster/max_runtime"]) > PASS_SECONDS
    sensor.run(request)
    assert "lane 0: lag 0" in sensor.skips()
    deployment.archived.assert_equal(topic_name)


def test_with_nothing_to_archive_the_view_is_said_to_be_up_to_date_now_and_then(
    deploy: MakeDeployment, ticks: MakeTicks, topic_name: str
) -> None:
    """An idle topic does not make the DuckDB file stale: it is told once per half hour, and never while work waits."""
    deployment = deploy(topic_name)
    create_topic(deployment.bootstrap_servers, topic_name)
    sensor = ticks(deployment)
    deployment.archived.run()
    for _ in range(3):
        sensor.skips()
    assert [each.asset_key.to_user_string() for each in sensor.events] == ["archive_view"]
    known = json.loads(sensor.cursor or "")
    sensor.cursor = json.dumps({"told": known["told"] - 1801})
    produce(deployment.bootstrap_servers, topic_name, messages(5))
    sensor.requests()
    assert len(sensor.events) == 1
    deployment.archived.run()
    sensor.skips()
    assert len(sensor.events) == 2


def test_a_view_that_lacks_a_commit_is_brought_up_to_date(
    deploy: MakeDeployment, ticks: MakeTicks, topic_name: str
) -> None:
    """A run was killed between its commit and the view: half a minute later another one makes it good. Minutes later
    one more is asked for, should that one have been lost, too."""
    deployment = deploy(topic_name)
    create_topic(deployment.bootstrap_servers, topic_name)
    produce(deployment.bootstrap_servers, topic_name, messages(5))
    archived = deployment.archived
    archived.run()
    produce(deployment.bootstrap_servers, topic_name, messages(3))
    archived.archiver().batch()
    sensor = ticks(deployment)
    assert "lag 0" in sensor.skips(), "the view of a run at work is a little behind"
    newest = max((archived.path / "_delta_log").glob("*.json"))
    for path, age in ((newest, 60), (archived.settings.view_path, 90)):
        os.utime(path, (time.time() - age,) * 2)
    (request,) = sensor.requests()
    assert request.run_key is None, "a key is spent even if its run fails"
    sensor.begin_run("CANCELED", request.tags)
    assert f"the DuckDB file lacks version {archived.version()}; a run was asked for " in sensor.skips()
    known = json.loads(sensor.cursor or "")
    version, at = known["view"]
    sensor.cursor = json.dumps({**known, "view": [version, at - 301]})
    (request,) = sensor.requests()
    sensor.run(request)
    assert archived.sql("SELECT count(*) FROM messages") == [(8,)]
    assert "lag 0" in sensor.skips()


def test_a_view_is_mended_only_where_it_is_kept(
    deploy: MakeDeployment, ticks: MakeTicks, topic_name: str, tmp_path: Path
) -> None:
    """The run that brings the view of this machine up to date has the tags of `[run_tags.view]`, by which it comes
    here; where `ARCHIVER_VIEW` is off, none is asked for, and a run that archives leaves no DuckDB file."""
    toml = tmp_path / "archiver.toml"
    toml.write_text('[run_tags]\narchive = {queue = "any", more = {a = 1}}\nview = {queue = "here"}\n')
    deployment = deploy(topic_name, ARCHIVER_CONFIG=toml, ARCHIVER_VIEW="off")
    create_topic(deployment.bootstrap_servers, topic_name)
    produce(deployment.bootstrap_servers, topic_name, messages(5))
    sensor = ticks(deployment)
    (request,) = sensor.requests()
    assert "queue" not in request.tags, "the job has it"
    sensor.run(request)
    archived = deployment.archived
    newest = max((archived.path / "_delta_log").glob("*.json"))
    os.utime(newest, (time.time() - 60,) * 2)
    assert "lag 0" in sensor.skips()
    assert not archived.settings.view_path.exists()
    deployment.settings["ARCHIVER_VIEW"] = "on"
    (request,) = ticks(deployment).requests()
    assert request.tags["queue"] == "here"


@pytest.mark.parametrize(("interval", "seconds"), [(10, 9), (5, 4), (60, 59), (2, 2), (0.2, 1), (7, 7)])
def test_a_tick_is_due_before_the_daemon_looks(interval: float, seconds: int) -> None:
    """Dagster looks every five seconds: a tick that is due just then would now and then come five seconds late."""
    assert tick_seconds(interval) == seconds


def test_a_run_that_is_to_stay_has_the_time_to(deploy: MakeDeployment, ticks: MakeTicks, topic_name: str) -> None:
    """`ARCHIVER_RUN_SECONDS` goes into the run's config, and run monitoring lets it live as long."""
    deployment = deploy(topic_name, ARCHIVER_RUN_SECONDS=7200)
    create_topic(deployment.bootstrap_servers, topic_name)
    (request,) = ticks(deployment).requests()
    assert request.run_config["ops"][OP]["config"]["stay_seconds"] == 7200
    assert float(request.tags["dagster/max_runtime"]) > 7200


def test_each_lane_behind_gets_a_run_of_its_own(deploy: MakeDeployment, ticks: MakeTicks, topic_name: str) -> None:
    """With two lanes, a tick asks for a run in each lane that is behind, and in no other."""
    deployment = deploy(topic_name, ARCHIVER_LANES=2)
    create_topic(deployment.bootstrap_servers, topic_name, partitions=2)
    sensor = ticks(deployment)
    for request in sensor.requests():
        sensor.run(request)
    produce(deployment.bootstrap_servers, topic_name, [*messages(5, 0), *messages(7, 1)])
    requests = sensor.requests()
    lags = {f"{lane_of(topic_name, 0, 2)}": "5", f"{lane_of(topic_name, 1, 2)}": "7"}
    assert {each.tags["archiver/lane"]: each.tags["archiver/lag"] for each in requests} == lags
    for each in requests:
        assert each.run_config["ops"][OP]["config"]["lane"] == int(each.tags["archiver/lane"])
    sensor.run(requests[0])
    (left,) = sensor.requests()
    assert left.tags["archiver/lane"] == requests[1].tags["archiver/lane"]


def test_too_few_messages_wait_until_they_have_waited_long_enough(
    deploy: MakeDeployment, ticks: MakeTicks, topic_name: str
) -> None:
    """Below `ARCHIVER_MIN_MESSAGES` it waits, for `ARCHIVER_MAX_DELAY_SECONDS` at most, counted from the first tick."""
    deployment = deploy(topic_name, ARCHIVER_MIN_MESSAGES=100, ARCHIVER_MAX_DELAY_SECONDS=60)
    create_topic(deployment.bootstrap_servers, topic_name)
    produce(deployment.bootstrap_servers, topic_name, messages(1))
    deployment.archived.run()
    produce(deployment.bootstrap_servers, topic_name, messages(10))
    sensor = ticks(deployment)
    assert "lane 0: 10 of at least 100 messages, for 0 of at most 60 s" in sensor.skips()
    first_seen = json.loads(sensor.cursor or "")["0"]
    assert first_seen == pytest.approx(time.time(), abs=5)
    sensor.skips()
    assert json.loads(sensor.cursor or "")["0"] == first_seen
    sensor.cursor = json.dumps({"0": first_seen - 40})
    assert "for 40 of at most 60 s" in sensor.skips()
    sensor.cursor = json.dumps({"0": first_seen - 61})
    (request,) = sensor.requests()
    sensor.run(request)
    assert "lane 0: lag 0" in sensor.skips()
    assert set(json.loads(sensor.cursor or "")) <= {"told"}


def test_enough_messages_wait_for_nothing(deploy: MakeDeployment, ticks: MakeTicks, topic_name: str) -> None:
    """At `ARCHIVER_MIN_MESSAGES` a run is asked for at once, however short the wait."""
    deployment = deploy(topic_name, ARCHIVER_MIN_MESSAGES=10, ARCHIVER_MAX_DELAY_SECONDS=3600)
    create_topic(deployment.bootstrap_servers, topic_name)
    produce(deployment.bootstrap_servers, topic_name, messages(1))
    deployment.archived.run()
    produce(deployment.bootstrap_servers, topic_name, messages(9))
    sensor = ticks(deployment)
    sensor.skips()
    produce(deployment.bootstrap_servers, topic_name, messages(1))
    (request,) = sensor.requests()
    assert request.tags["archiver/lag"] == "10"


@pytest.mark.parametrize("status", IN_FLIGHT)
def test_a_run_in_flight_holds_its_lane_back(
    deploy: MakeDeployment, ticks: MakeTicks, topic_name: str, status: str
) -> None:
    """While a run of the lane is under way, the reason names it and the lag; the other lane gets its own run."""
    deployment = deploy(topic_name, ARCHIVER_LANES=2)
    create_topic(deployment.bootstrap_servers, topic_name, partitions=2)
    produce(deployment.bootstrap_servers, topic_name, [*messages(5, 0), *messages(7, 1)])
    sensor = ticks(deployment)
    in_first = sensor.begin_run(status, {"archiver/lane": "0"})
    (request,) = sensor.requests()
    assert request.tags["archiver/lane"] == "1"
    in_second = sensor.begin_run(status, {"archiver/lane": "1"})
    reason = sensor.skips()
    lag = {lane_of(topic_name, 0, 2): 5, lane_of(topic_name, 1, 2): 7}
    assert f"lane 0: run {in_first[:8]} is at work, lag {lag[0]}" in reason
    assert f"lane 1: run {in_second[:8]} is at work, lag {lag[1]}" in reason


def test_a_run_by_hand_holds_every_lane_back(deploy: MakeDeployment, ticks: MakeTicks, topic_name: str) -> None:
    """`dagster job execute` archives all lanes, so none gets a run beside it."""
    deployment = deploy(topic_name, ARCHIVER_LANES=2)
    create_topic(deployment.bootstrap_servers, topic_name, partitions=2)
    produce(deployment.bootstrap_servers, topic_name, [*messages(5, 0), *messages(7, 1)])
    sensor = ticks(deployment)
    run_id = sensor.begin_run("STARTED", {})
    assert sensor.skips().count(f"run {run_id[:8]} is at work") == 2


@pytest.mark.parametrize("status", OVER)
def test_a_run_that_is_over_holds_nothing_back(
    deploy: MakeDeployment, ticks: MakeTicks, topic_name: str, status: str
) -> None:
    """What a run that ended left undone is asked for again, also after a failure."""
    deployment = deploy(topic_name)
    create_topic(deployment.bootstrap_servers, topic_name)
    produce(deployment.bootstrap_servers, topic_name, messages(5))
    sensor = ticks(deployment)
    sensor.begin_run(status, {"archiver/lane": "0"})
    assert len(sensor.requests()) == 1


def test_a_run_that_says_nothing_for_long_is_taken_for_dead(
    deploy: MakeDeployment, ticks: MakeTicks, topic_name: str
) -> None:
    """A run whose code server was killed stays "started" for ever: when silent for too long it holds nothing back."""
    deployment = deploy(topic_name)
    create_topic(deployment.bootstrap_servers, topic_name)
    produce(deployment.bootstrap_servers, topic_name, messages(5))
    sensor = ticks(deployment)
    sensor.begin_run("STARTED", {"archiver/lane": "0"}, silent_seconds=SILENT_SECONDS + 1)
    assert len(sensor.requests()) == 1
    sensor.begin_run("STARTED", {"archiver/lane": "0"}, silent_seconds=SILENT_SECONDS - 20)
    assert "is at work" in sensor.skips()


def test_without_a_broker_it_skips_and_says_why(tmp_path: Path, processes: Processes, ticks: MakeTicks) -> None:
    """A tick without a broker ends in time, with the address and what to check as its reason; the cursor is kept."""
    sensor = ticks(Deployment(tmp_path / "base", processes, "127.0.0.1:1", "orders", KAFKA_SASL_PASSWORD="hunter2"))
    sensor.cursor = json.dumps({"0": 1000.0})
    with at_most(30):
        reason = sensor.skips()
    assert reason.startswith("127.0.0.1:1 did not answer when the broker was asked for its topics: ")
    assert "Check KAFKA_BOOTSTRAP_SERVERS" in reason
    assert "hunter2" not in reason
    assert sensor.cursor == json.dumps({"0": 1000.0})


def test_without_a_topic_or_broker_in_the_settings_it_says_which(
    tmp_path: Path, processes: Processes, ticks: MakeTicks
) -> None:
    """A missing setting is named as the reason, with what it takes."""
    deployment = Deployment(tmp_path / "base", processes, "127.0.0.1:1", "orders")
    for name in ("ARCHIVER_TOPICS", "KAFKA_BOOTSTRAP_SERVERS"):
        deployment.settings[name] = ""
        assert f"{name} is not set: it takes " in ticks(deployment).skips()


def test_a_missing_topic_is_named_and_the_rest_goes_on(
    deploy: MakeDeployment, ticks: MakeTicks, topic_name: str
) -> None:
    """The reason names a topic that is not there; the others get their run, and it does as soon as it is made."""
    late = f"{topic_name}-late"
    deployment = deploy(topic_name, late)
    create_topic(deployment.bootstrap_servers, topic_name)
    sensor = ticks(deployment)
    (request,) = sensor.requests()
    sensor.run(request)
    assert f"topic {late} does not exist" in sensor.skips()
    create_topic(deployment.bootstrap_servers, late)
    produce(deployment.bootstrap_servers, late, messages(5))
    (request,) = sensor.requests()
    assert request.tags["archiver/topics"] == late
    sensor.run(request)
    deployment.archived.assert_equal(topic_name, late)


def test_a_regex_that_matches_nothing_is_named(deploy: MakeDeployment, ticks: MakeTicks, topic_name: str) -> None:
    """The reason names a regex without any topic."""
    assert f"no topic matches ^{topic_name}" in ticks(deploy(f"^{topic_name}")).skips()


def test_a_topic_that_begins_at_its_end_has_its_start_recorded_at_once(
    deploy: MakeDeployment, ticks: MakeTicks, topic_name: str
) -> None:
    """Under `latest` the end at first sight counts, so it gets a run with nothing to read; what comes later is lag."""
    deployment = deploy(topic_name, ARCHIVER_START="latest", ARCHIVER_MIN_MESSAGES=1000)
    create_topic(deployment.bootstrap_servers, topic_name)
    produce(deployment.bootstrap_servers, topic_name, messages(5))
    sensor = ticks(deployment)
    (request,) = sensor.requests()
    assert request.tags["archiver/lag"] == "0"
    sensor.run(request)
    assert deployment.archived.next_offsets(topic_name) == {0: 5}
    assert "lane 0: lag 0" in sensor.skips()
    produce(deployment.bootstrap_servers, topic_name, messages(3))
    assert "3 of at least 1,000 messages" in sensor.skips()


def test_a_partition_added_or_emptied_is_seen(deploy: MakeDeployment, ticks: MakeTicks, topic_name: str) -> None:
    """New partitions are read from their beginning, and offsets lost to retention get a run that records the gap."""
    deployment = deploy(topic_name, ARCHIVER_MIN_MESSAGES=1000)
    create_topic(deployment.bootstrap_servers, topic_name)
    produce(deployment.bootstrap_servers, topic_name, messages(5))
    deployment.archived.run()
    sensor = ticks(deployment)
    add_partitions(deployment.bootstrap_servers, topic_name, 2)
    produce(deployment.bootstrap_servers, topic_name, messages(4, 1))
    assert "lane 0: 4 of at least 1,000 messages" in sensor.skips()
    produce(deployment.bootstrap_servers, topic_name, messages(6, 0))
    delete_records(deployment.bootstrap_servers, topic_name, {0: 11})
    (request,) = sensor.requests()
    sensor.run(request)
    assert deployment.archived.gaps() == [(topic_name, 0, 5, 11, "retention")]
    assert "lane 0: lag 0" in sensor.skips()


def test_a_topic_made_again_gets_a_run_at_once(deploy: MakeDeployment, ticks: MakeTicks, topic_name: str) -> None:
    """Another life of a topic is to be recorded without waiting for messages."""
    deployment = deploy(topic_name, ARCHIVER_MIN_MESSAGES=1000)
    create_topic(deployment.bootstrap_servers, topic_name)
    produce(deployment.bootstrap_servers, topic_name, messages(5))
    deployment.archived.run()
    delete_topic(deployment.bootstrap_servers, topic_name)
    create_topic(deployment.bootstrap_servers, topic_name)
    sensor = ticks(deployment)
    (request,) = sensor.requests()
    sensor.run(request)
    assert deployment.archived.gaps() == [(topic_name, 0, 0, 0, "topic made again")]
    assert "lane 0: lag 0" in sensor.skips()


def test_a_damaged_archive_is_the_reason(deploy: MakeDeployment, ticks: MakeTicks, topic_name: str) -> None:
    """With a damaged log it skips with the file's path and what to do, and goes on when the file is restored."""
    deployment = deploy(topic_name)
    create_topic(deployment.bootstrap_servers, topic_name)
    produce(deployment.bootstrap_servers, topic_name, messages(5))
    deployment.archived.run()
    sensor = ticks(deployment)
    newest = max((deployment.archived.path / "_delta_log").glob("*.json"))
    good = newest.read_bytes()
    newest.write_bytes(good[:-20])
    reason = sensor.skips()
    assert str(newest) in reason
    assert "Restore this file from a copy" in reason
    newest.write_bytes(good)
    assert "lane 0: lag 0" in sensor.skips()


def test_a_cursor_that_somebody_else_wrote_does_no_harm(
    deploy: MakeDeployment, ticks: MakeTicks, topic_name: str
) -> None:
    """The cursor decides nothing but a wait: whatever it is, what is behind gets its run."""
    deployment = deploy(topic_name)
    create_topic(deployment.bootstrap_servers, topic_name)
    produce(deployment.bootstrap_servers, topic_name, messages(5))
    for cursor in ("", "{}", "not JSON", "[1]", '{"7": 1}', '{"a": "b"}', "null"):
        sensor = ticks(deployment)
        sensor.cursor = cursor
        assert len(sensor.requests()) == 1, cursor


def test_a_tick_is_cheap(deploy: MakeDeployment, ticks: MakeTicks, topic_name: str) -> None:
    """With 200 partitions behind, and then with none, a tick takes less than two seconds of the processor."""
    deployment = deploy(topic_name)
    create_topic(deployment.bootstrap_servers, topic_name, partitions=200)
    sensor = ticks(deployment)
    (request,) = sensor.requests()
    assert sensor.cpu_seconds < 2
    sensor.run(request)
    assert sensor.skips() == "200 partitions of 1 topic; lane 0: lag 0"
    assert sensor.cpu_seconds < 2
