"""Rules of the exporter, on a real broker and a real archive."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from archiver_pipeline.metrics.catalogue import BY_NAME, DEFINITIONS
from archiver_pipeline.plan import RETENTION
from archiver_pipeline.status import BROKER_TIMEOUT_SECONDS
from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.processes import CHECKOUT, HOST, environment, free_ports
from archiver_pipeline_tests.prometheus.dashboards import queries
from archiver_pipeline_tests.prometheus.exporting import Exporter, samples_of
from archiver_pipeline_tests.prometheus.server import PrometheusServer
from archiver_pipeline_tests.prometheus.world import World
from archiver_pipeline_tests.waiting import LIMIT_SECONDS, wait_for

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
LAG_ALERTS = {"ArchiverLagTooOld", "ArchiverLagGrows"}
COMMAND = [sys.executable, "-m", "archiver_pipeline.cli", "metrics"]


def _once(variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "--once"], cwd=CHECKOUT, env=environment(variables), capture_output=True, text=True,
        timeout=LIMIT_SECONDS, check=False,
    )  # fmt: skip


@pytest.mark.usefixtures("prometheus")
def test_what_it_tells_is_what_happened(world: World, exporter: Exporter) -> None:
    """Messages, lag, gaps, kinds, runs and followers are those of the archive, the broker and Dagster."""
    topic = world.topic
    wait_for("all that happened", lambda: exporter.samples().get(("archiver_lag_messages", "0", topic)) == 4)
    files = len(world.archived.listed_files())
    wait_for("all files", lambda: exporter.samples()["archiver_table_files",] == files)
    found = exporter.samples()
    archived = {number: len(messages) for number, messages in world.archived.messages(topic).items()}
    told = {number: found["archiver_archived_messages_total", str(number), topic] for number in archived}
    assert told == archived
    assert found["archiver_end_offset", "0", topic] - found["archiver_committed_offset", "0", topic] == 4
    assert (found["archiver_lag_messages", "1", topic], found["archiver_lag_seconds", "1", topic]) == (0, 0)
    assert found["archiver_lag_seconds", "0", topic] > 0
    assert found["archiver_gaps_total", RETENTION, topic] == 1
    assert found["archiver_lost_offsets_total", RETENTION, topic] == 2
    kinds = {key[1]: value for key, value in found.items() if key[0] == "archiver_classified_messages_total"}
    assert kinds == {"malformed": 1, "untyped": 2, "other": 0, "tombstone": 0, "typed": 1}
    assert found["archiver_batches_total",] == found["archiver_batch_seconds_count",] == 1
    assert found["archiver_batch_step_seconds_total", "read"] > 0
    assert found["archiver_runs_total", "archive", "failure"] == 1
    assert found["archiver_runs_total", "archive", "success"] == 1
    assert found["archiver_follower_lag_messages", "events_per_minute"] == 0
    assert found["archiver_follower_lag_messages", "page_views"] > 0
    assert found["archiver_daemon_up", "SENSOR"] == 1
    assert found["archiver_newest_message_timestamp_seconds",] <= time.time()
    assert found["archiver_hours", "open"] >= 2


@pytest.mark.usefixtures("prometheus")
def test_every_metric_of_the_catalogue_is_exported_and_no_other(exporter: Exporter) -> None:
    """What the documents name is there, under that name; beside it there are only Python's own process metrics."""
    names = {key[0] for key in exporter.samples() if not key[0].startswith("process_")}
    wanted = {item.exported for item in DEFINITIONS} - {"archiver_batch_seconds"}
    wanted |= {f"archiver_batch_seconds_{suffix}" for suffix in ("bucket", "count", "sum")}
    # An hour of long ago waits for sealing as soon as everything is archived, which four messages are not.
    assert names | {"archiver_oldest_due_hour_timestamp_seconds"} == wanted


def test_openmetrics_is_given_to_who_asks_for_it(exporter: Exporter) -> None:
    """By content negotiation the same metrics come in either format, and other clients get Prometheus' text."""
    status, kind, body = exporter.get("/metrics", Accept=OPENMETRICS)
    assert (status, kind.split(";")[0]) == (200, "application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    status, kind, body = exporter.get("/metrics")
    assert (status, kind.split(";")[0]) == (200, "text/plain")
    assert b"# TYPE archiver_archived_messages_total counter" in body


def test_paths(exporter: Exporter) -> None:
    """The page at / links to all others; what is not there is 404, and nothing is taken."""
    status, kind, body = exporter.get("/")
    assert (status, kind) == (200, "text/html; charset=utf-8")
    assert all(f'href="{path}"'.encode() in body for path in ("/metrics", "/readyz", "/healthz"))
    assert exporter.get("/healthz")[0] == 200
    assert exporter.get("/nonsense")[0] == 404


def test_a_dead_broker_leaves_the_rest(own_kafka: KafkaBroker, tmp_path: Path) -> None:
    """With the broker frozen a scrape stays quick; lag is no longer shown, /readyz says why, the archive is told of,
    and once the broker answers, all is as before. Killed by SIGTERM, it ends with 0 at once."""
    world = World(tmp_path, own_kafka.bootstrap_servers, "orders")
    world.begin()
    with Exporter(tmp_path / "exporter", world.archived.environment()) as exporter:
        wait_for("lag", lambda: ("archiver_lag_messages", "0", "orders") in exporter.samples())
        wait_for("readiness", lambda: exporter.get("/readyz")[0] == 200)
        own_kafka.pause()
        wait_for("the broker's end", lambda: exporter.samples()["archiver_collector_up", "broker"] == 0)
        began = time.monotonic()
        found = exporter.samples()
        assert time.monotonic() - began < BROKER_TIMEOUT_SECONDS
        assert not [key for key in found if key[0].startswith("archiver_lag")]
        assert found["archiver_archived_messages_total", "0", "orders"] == 10
        assert found["archiver_collector_up", "archive"] == 1
        assert found["archiver_collector_last_success_timestamp_seconds", "broker"] < time.time() - 1
        status, _, body = exporter.get("/readyz")
        assert status == 503
        assert json.loads(body)["reasons"][0].startswith("broker: ")
        began = time.monotonic()
        page = exporter.get("/")[2].decode()
        assert time.monotonic() - began < 4
        for words in ("The broker does not answer", "it answered last", "archiver doctor", "(old)"):
            assert words in page
        own_kafka.resume()
        wait_for("readiness again", lambda: exporter.get("/readyz")[0] == 200)
        # Right after its pause the broker may have no leader for the partition yet.
        wait_for("lag again", lambda: ("archiver_lag_seconds", "0", "orders") in exporter.samples())
        own_kafka.pause()
        assert exporter.process is not None
        began = time.monotonic()
        exporter.process.terminate()
        assert exporter.process.wait(60) == 0
        assert time.monotonic() - began < BROKER_TIMEOUT_SECONDS
        own_kafka.resume()


def test_interrupted_is_130(world: World, tmp_path: Path) -> None:
    """Ctrl-C ends it with the code that a shell has for it, also after looks, for which libraries were loaded that
    have handlers of their own."""
    with Exporter(tmp_path, world.archived.environment()) as exporter:
        wait_for("a first look at the files", lambda: exporter.samples().get(("archiver_collector_up", "files")) == 1)
        assert exporter.process is not None
        exporter.process.send_signal(signal.SIGINT)
        assert exporter.process.wait(60) == 130


def test_once_prints_and_ends(world: World) -> None:
    """`--once` counts what the log has; a source that is down is named, and the exit code is 1."""
    (port,) = free_ports(1)
    done = _once({**world.archived.environment(), "ARCHIVER_MYSQL_URL": f"mysql://u:s3cret@{HOST}:{port}/d"})
    found = samples_of(done.stdout)
    assert done.returncode == 0
    assert found["archiver_batches_total",] >= 1
    assert found["archiver_follower_up", "mysql_messages"] == 0
    assert ("archiver_follower_lag_messages", "mysql_messages") not in found
    assert "s3cret" not in done.stdout + done.stderr
    done = _once({**world.archived.environment(), "KAFKA_BOOTSTRAP_SERVERS": f"{HOST}:{port}"})
    assert done.returncode == 1
    assert "archiver: broker does not answer" in done.stderr
    assert samples_of(done.stdout)["archiver_collector_up", "broker"] == 0


def test_a_port_that_is_taken_is_said(world: World, exporter: Exporter) -> None:
    """It ends with one line that says what to do."""
    done = subprocess.run(
        [*COMMAND, "--port", str(exporter.port)], cwd=CHECKOUT, env=environment(world.archived.environment()),
        capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert f"metrics cannot be served at port {exporter.port} of 127.0.0.1: address already in use" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_prometheus_takes_what_it_is_given(prometheus: PrometheusServer) -> None:
    """A real Prometheus finds the exporter up, and every name as it is in the catalogue."""
    assert prometheus.value("up") == 1
    assert prometheus.value("archiver_build_info") == 1
    assert {item.name for item in DEFINITIONS} == set(BY_NAME)


def test_each_query_of_each_dashboard_has_an_answer(prometheus: PrometheusServer) -> None:
    """Asked of a Prometheus that has seen everything happen, none comes back empty or without a number."""
    every = list(queries())
    assert len(every) >= 40

    def empty() -> list[str]:
        answers = {query: prometheus.query(query.expression) for query in every}
        return [
            f"{query.dashboard}, {query.panel}: {query.expression}"
            for query, found in answers.items()
            if not found or all(item["value"][1] == "NaN" for item in found)
        ]

    try:
        wait_for("an answer to every query", lambda: not empty())
    except TimeoutError:
        pytest.fail("\n".join(empty()), pytrace=False)


def test_the_alert_of_lag_comes_and_goes(world: World, prometheus: PrometheusServer) -> None:
    """While messages wait and become more it fires, and it ends once they are archived."""
    wait_for("a lag that is too old", lambda: "ArchiverLagTooOld" in prometheus.firing())

    def grows() -> bool:
        world.send(5)
        return prometheus.firing() >= LAG_ALERTS

    wait_for("a lag that grows", grows)
    world.archived.run()
    wait_for("the end of both", lambda: not LAG_ALERTS & prometheus.firing())
