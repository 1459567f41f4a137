"""Rules of the UI: a new user finds lag, the last batch, a gap and a failed hour, and no page has an error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from archiver_pipeline_tests.browser import browser
from archiver_pipeline_tests.dagster_side import story
from archiver_pipeline_tests.dagster_side.deployment import Deployment
from archiver_pipeline_tests.dagster_side.filled import key, name
from archiver_pipeline_tests.dagster_side.pages import Pages
from archiver_pipeline_tests.dagster_side.running import RunningDagster
from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.jars import ToolMissing
from archiver_pipeline_tests.kafka.produce import produce
from archiver_pipeline_tests.processes import Processes
from archiver_pipeline_tests.server import IN_CI

BATCH_MESSAGES = 400
COUNT = 1000
SENSOR = "/locations/archiver_pipeline.definitions/sensors/archive_sensor"

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Told:
    """Dagster after the story, in a browser.

    Attributes:
        pages: its UI.
        topics: the names of the topics.
        backfill: the id of the backfill, in which an hour failed.
    """

    pages: Pages
    topics: story.Topics
    backfill: str


@pytest.fixture(scope="module")
def told(kafka: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """One Dagster and one browser for all pages."""
    folder = tmp_path_factory.mktemp("ui")
    topics = story.Topics(f"orders-{folder.name}", f"clicks-{folder.name}")
    with Processes() as processes:
        deployment = Deployment(
            folder / "base", processes, kafka.bootstrap_servers, topics.orders, topics.clicks,
            ARCHIVER_INTERVAL_SECONDS=2, ARCHIVER_BATCH_MESSAGES=BATCH_MESSAGES,
        )  # fmt: skip
        dagster = RunningDagster(deployment, processes)
        story.prepare(deployment, topics)
        produce(kafka.bootstrap_servers, topics.orders, story.orders(range(COUNT)))
        try:
            dagster.start()
            dagster.wait_until_archived(topics.orders, COUNT)
            story.damage(deployment)
            backfill = story.backfill(dagster)
            with browser(folder / "chromium") as driver:
                assert story.wait_until_done(dagster, backfill) == "COMPLETED_FAILED"
                yield Told(Pages(driver, dagster.url), topics, backfill)
        except ToolMissing as missing:
            if IN_CI:
                pytest.fail(str(missing), pytrace=False)
            pytest.skip(str(missing))
        finally:
            dagster.kill()


def test_the_graph_leads_from_the_topics_to_the_results(told: Told) -> None:
    """The lineage of all assets, in groups whose names are in the order of the flow."""
    told.pages.open("/asset-groups", "1_topics", "2_archive", "3_followers", "4_results")
    assert told.pages.troubles() == []


def test_an_asset_says_what_it_is_and_how_its_last_batch_went(told: Told) -> None:
    """The page of `messages`: what it is, SQL for it, columns, lag and types of the last batch; and plots."""
    pages = told.pages
    pages.open("/assets/messages", "micro-batch", "archiver sql", "lag seconds", "Kafka's own id of the topic")
    assert pages.troubles() == []
    pages.press("Plots")
    pages.wait("lag seconds", "messages per second")
    assert pages.troubles() == []
    pages.open("/assets/messages?view=events", f"messages of {told.topics.orders}")
    assert pages.troubles() == []


def test_the_topics_page_has_its_lag(told: Told) -> None:
    """Its observations are those of the batches that took messages of it."""
    told.pages.open(f"/assets/kafka/{told.topics.orders}", "lag", "end offset", "producers write it")
    assert told.pages.troubles() == []


def test_a_gap_is_found_by_its_check(told: Told) -> None:
    """The check that failed has a sentence with topic, partition and offsets, the reason, and what to do."""
    first, end = story.GAP
    told.pages.open(
        "/assets/messages?view=checks&checkDetail=nothing_was_lost",
        f"{end - first} offsets were gone before they could be archived",
        f"{told.topics.clicks}/0 [{first}, {end}): retention",
        "retention.ms",
    )
    assert told.pages.troubles() == []


def test_a_failed_hour_is_found_by_its_check_partition_and_backfill(told: Told) -> None:
    """The check names hour and reason, the partitions show one failed, and the backfill says how many of three did."""
    pages, bad = told.pages, story.BAD_HOUR
    pages.open(
        "/assets/sealed_hours?view=checks&checkDetail=every_hour_is_whole", f"1 hour is not whole: {name(bad)}: "
    )
    assert pages.troubles() == []
    pages.open(f"/assets/sealed_hours?view=partitions&partition={key(bad)}", key(bad), "Failed")
    assert pages.troubles() == []
    pages.open(f"/runs/b/{told.backfill}", "sealed_hours", "Failed")
    assert pages.troubles() == []


def test_runs_say_what_they_archived_and_ticks_why_they_did_not(told: Told) -> None:
    """The list of runs has topics, offsets and messages of each as tags; a tick that starts none says why."""
    pages = told.pages
    pages.open("/runs", "archiver/ranges", f"{told.topics.orders}/0 [0, ", "archiver/hours")
    assert pages.troubles() == []
    pages.open("/automation", "archive_sensor", "seal_sensor", "follow_sensor")
    assert pages.troubles() == []
    pages.open(SENSOR, "Starts a micro-batch when Kafka has run ahead", "0 runs requested")
    pages.press("0 runs requested")
    pages.wait("lane 0: ")
    assert pages.troubles() == []


def test_the_view_is_fresh(told: Told) -> None:
    """The DuckDB file has a policy, and what fulfils it is in its description."""
    told.pages.open("/assets/archive_view", "Freshness", "An idle topic does not make it stale")
    assert told.pages.troubles() == []
