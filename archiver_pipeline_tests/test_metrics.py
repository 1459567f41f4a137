"""Rules of what metrics are worked out from: waits, commits, health, and Dagster's history."""

from __future__ import annotations

import time
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterRun, DagsterRunStatus
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    RegisteredCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, TickData, TickStatus
from dagster_shared.error import SerializableErrorInfo
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from archiver_pipeline.dagster_home import DagsterFault, opened
from archiver_pipeline.metrics.arrivals import MOST_SAMPLES, Arrivals
from archiver_pipeline.metrics.catalogue import BY_NAME, DEFINITIONS, Families
from archiver_pipeline.metrics.commits import CommitTotals, told_by
from archiver_pipeline.metrics.exporter import Exporter, parts
from archiver_pipeline.metrics.health import reasons, report
from archiver_pipeline.metrics.server import metrics_route
from archiver_pipeline.metrics.source import Health, Source
from archiver_pipeline.plan import OffsetRange
from archiver_pipeline.run_history import RunHistory
from archiver_pipeline.table import delta_log
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.attempt import batch_of
from archiver_pipeline.table.batch_info import BatchInfo
from archiver_pipeline.table.ledger import Transaction
from archiver_pipeline_tests import batches
from archiver_pipeline_tests.batches import AUGUST_FIRST_AT_THREE, ORDERS, event


def test_names_follow_the_conventions() -> None:
    """Counters have no unit behind `_total`, times are `_timestamp_seconds`, and no name is there twice."""
    assert len(BY_NAME) == len(DEFINITIONS)
    for item in DEFINITIONS:
        assert item.name.startswith("archiver_")
        assert not item.name.endswith(("_total", "_info"))
        assert "timestamp" not in item.name or item.name.endswith("_timestamp_seconds")
        assert item.source in ("archive", "broker", "files", "followers", "dagster", "exporter")
        assert item.text.endswith(".")
        # Prometheus gives every series a job and an instance of its own.
        assert not {"job", "instance"} & set(item.labels)


def test_a_message_is_taken_to_have_come_between_two_looks() -> None:
    """Offset 105 is half of what came between the seconds 10 and 20, so it came in the middle."""
    arrivals: Arrivals[str] = Arrivals()
    arrivals.see("p", 100, 100, 5.0)
    arrivals.see("p", 100, 100, 10.0)
    arrivals.see("p", 110, 100, 20.0)
    assert arrivals.waited("p", 105, 30.0, None) == 15.0
    assert arrivals.waited("p", 100, 30.0, None) == 20.0
    # Since then all of Kafka was archived once, so it came later.
    assert arrivals.waited("p", 105, 30.0, 18.0) == 12.0


def test_what_was_there_at_the_first_look_waits_since_everything_was_archived() -> None:
    """The wait of a message that may have come at any moment is never told too short."""
    arrivals: Arrivals[str] = Arrivals()
    arrivals.see("p", 110, 100, 1000.0)
    arrivals.see("p", 120, 100, 1010.0)
    assert arrivals.waited("p", 100, 1010.0, 400.0) == 610.0
    assert arrivals.waited("p", 100, 1010.0, None) == 10.0
    # What came behind it is known better.
    assert arrivals.waited("p", 115, 1010.0, 400.0) == 5.0


def test_a_log_that_is_cut_is_seen_anew() -> None:
    """An end that goes back says that nothing noted before is so any more; partitions that are gone are forgotten."""
    arrivals: Arrivals[str] = Arrivals()
    arrivals.see("p", 100, 0, 1.0)
    arrivals.see("p", 10, 0, 50.0)
    assert arrivals.waited("p", 5, 60.0, None) == 10.0
    arrivals.keep([])
    assert arrivals.waited("p", 5, 60.0, None) == 0.0


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0.5, 5)), min_size=1, max_size=300), st.data())
def test_a_wait_is_within_the_looks_around_its_message(steps: list[tuple[int, float]], data: st.DataObject) -> None:
    """However many looks there were, little is kept, and a wait is never shorter than since the look after it and
    never longer than since the first one."""
    arrivals: Arrivals[str] = Arrivals()
    end, now = 0, 100.0
    seen = [(end, now)]
    arrivals.see("p", end, 0, now)
    for more, seconds in steps:
        end, now = end + more, now + seconds
        seen.append((end, now))
        arrivals.see("p", end, 0, now)
    assert len(arrivals._samples["p"]) <= MOST_SAMPLES
    if end:
        following = data.draw(st.integers(0, end - 1))
        waited = arrivals.waited("p", following, now, None)
        after = next(time for reached, time in seen if reached > following)
        if len(steps) < MOST_SAMPLES:
            assert waited >= now - after - 1e-6
        assert waited <= now - 100.0 + 1e-6


def _archived(archive: Archive, payloads: list[bytes | None], seconds: float, steps: dict[str, float]) -> None:
    attempt = batch_of(archive, 0)
    known = attempt.ledger.committed.get(ORDERS)
    first = known.next if known else 0
    batches.place(attempt, payloads, first)
    ranges = (OffsetRange(ORDERS, first, first + len(payloads)),)
    info = BatchInfo("run", 0, ranges, len(payloads), 100, len(attempt.files), seconds, steps)
    attempt.commit([Transaction("orders/A/0", first + len(payloads))], info.metadata())
    attempt.clean()


def _told(totals: CommitTotals) -> dict[tuple[str, ...], float]:
    families = Families()
    totals.tell(families)
    return {
        (sample.name, *sample.labels.values()): sample.value for family in families.all() for sample in family.samples
    }


def test_commits_are_summed_up_once(tmp_path: Path) -> None:
    """Batches after the start count, each once; those before only tell when the newest one was; rewrites are none."""
    archive = Archive(str(tmp_path / "archive"))
    _archived(archive, [event()], 3.0, {"read": 1.0})
    totals = CommitTotals()
    totals.read_on(archive.storage, archive.standing()[0])
    found = _told(totals)
    assert found["archiver_batches_total",] == 0
    assert found["archiver_newest_message_timestamp_seconds",] == AUGUST_FIRST_AT_THREE / 1000
    assert abs(found["archiver_last_batch_timestamp_seconds",] - time.time()) < 600
    _archived(archive, [event(), b"{", b"{}", None], 3.0, {"read": 1.0, "write": 0.25})
    _archived(archive, [event()], 0.05, {"read": 0.01})
    for _ in range(2):
        totals.read_on(archive.storage, archive.standing()[0])
    found = _told(totals)
    assert (found["archiver_batches_total",], found["archiver_payload_bytes_total",]) == (2, 200)
    assert (found["archiver_batch_step_seconds_total", "read"], found["archiver_batch_seconds_sum",]) == (1.01, 3.05)
    buckets = {key[1]: value for key, value in found.items() if key[0] == "archiver_batch_seconds_bucket"}
    assert (buckets["0.1"], buckets["2.5"], buckets["5.0"], buckets["+Inf"]) == (1, 1, 2, 2)
    kinds = {key[1]: value for key, value in found.items() if key[0] == "archiver_classified_messages_total"}
    assert kinds == {"typed": 2, "malformed": 1, "untyped": 1, "tombstone": 1, "other": 0}
    every = CommitTotals(back=1000)
    every.read_on(archive.storage, archive.standing()[0])
    assert _told(every)["archiver_batches_total",] == 3


def test_a_stamp_from_the_future_is_not_newer_than_its_commit(tmp_path: Path) -> None:
    """The newest message is never one of tomorrow, whatever its stamp says."""
    archive = Archive(str(tmp_path / "archive"))
    batches.archive(archive, [event()], milliseconds=int(time.time() * 1000) + 86_400_000)
    told = told_by(delta_log.commit(archive.storage, archive.standing()[0].version))
    assert told is not None
    assert told.newest == told.time


@pytest.mark.parametrize(
    ("lags", "waited", "batch_age", "wrong"),
    [
        ([(0.0, 0)], 0.0, None, None),
        ([(0.0, 900), (10.0, 800)], 5000.0, 10.0, None),  # a backlog that shrinks
        ([(0.0, 800), (10.0, 900)], 5000.0, 10.0, "do not become fewer"),
        ([(0.0, 900), (10.0, 800)], 5000.0, 5000.0, "no batch is committed"),
        ([(0.0, 800), (10.0, 900)], 100.0, 5000.0, None),  # it has not waited long
        ([(0.0, 900)], 5000.0, None, "none was"),
    ],
)
def test_readiness(lags: list[tuple[float, int]], waited: float, batch_age: float | None, wrong: str | None) -> None:
    """A lag is wrong where it is old, and no batch comes or it does not shrink."""
    last = None if batch_age is None else 10_000.0 - batch_age
    health = Health(lag=lags[-1][1], waited=waited, lags=lags, last_batch=last)
    found = reasons({"archive": None, "broker": None, "followers": "down"}, health, 10_000.0, 900.0)
    assert [wrong in reason for reason in found] == [True] if wrong else found == []


def test_a_source_that_is_down_is_the_only_reason() -> None:
    """What is not known is not judged."""
    health = Health(lag=9, waited=9999.0)
    assert reasons({"archive": None, "broker": "it is gone"}, health, 1.0, 900.0) == ["broker: it is gone"]


def test_an_old_lag_is_not_told_as_a_new_one() -> None:
    """While the broker is away nobody knows the lag."""
    health = Health(lag=9, waited=99.0)
    told = report({"archive": None, "broker": "it is gone"}, health, 1.0, 900.0)
    assert (told["ready"], told["lag"], told["lag_seconds"]) == (False, None, None)
    told = report({"archive": None, "broker": None}, health, 1.0, 900.0)
    assert (told["ready"], told["lag"], told["lag_seconds"]) == (True, 9, 99.0)


@pytest.mark.parametrize(
    "accept", ["", "application/openmetrics-text; version=zzz", "text/plain;version=..", "\x00;q=;;"]
)
def test_whatever_a_client_accepts_it_gets_metrics(accept: str) -> None:
    """A version that is none is no error."""
    answer = metrics_route(CollectorRegistry())({"HTTP_ACCEPT": accept})
    assert (answer.status, answer.body.strip()) == (200, b"# EOF" if "openmetrics" in answer.content_type else b"")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "storage: {postgres: {postgres_url: 'postgresql://u:s3cret@127.0.0.1:1/x'}}",
            "does not answer at 127.0.0.1:1",
        ),
        ("storage: {postgres: {postgres_db: {hostname: 127.0.0.1, port: 1, password: s3cret}}}", "does not answer"),
        ("storage: {postgres: {postgres_db: s3cret}}", "cannot be opened: DagsterInvalidConfigError"),
        ("storage: [\n  s3cret: }", "is no YAML in line 2"),
        ("a: &a {b: *a}", "has no end"),
    ],
)
def test_what_is_wrong_with_dagster_is_told_without_its_secrets(tmp_path: Path, text: str, words: str) -> None:
    """Its record cannot be opened: soon, with a sentence, and with no line of its configuration."""
    (tmp_path / "dagster.yaml").write_text(text)
    began = time.monotonic()
    with pytest.raises(DagsterFault, match=words) as raised:
        opened(tmp_path)
    assert "s3cret" not in str(raised.value)
    assert time.monotonic() - began < 60


def test_runs_are_counted_once_however_many_there_are(tmp_path: Path) -> None:
    """Runs that ended before the start do not count, all others do once, over however many answers they come."""
    home = tmp_path / "home"
    home.mkdir()
    with dg.DagsterInstance.from_config(str(home)) as instance:

        def end(job: str, *, canceled: bool) -> None:
            run = instance.run_storage.add_run(DagsterRun(job, status=DagsterRunStatus.STARTED))
            (instance.report_run_canceled if canceled else instance.report_run_failed)(run)

        end("archive", canceled=False)
        history = RunHistory(str(home), time.time(), at_once=3)
        assert set(history.read_on().ended.values()) == {0}
        for number in range(10):
            end("archive", canceled=number % 2 == 0)
        instance.run_storage.add_run(DagsterRun("seal", status=DagsterRunStatus.STARTED))
        instance.run_storage.add_run(DagsterRun("seal", status=DagsterRunStatus.NOT_STARTED))
        for _ in range(2):
            found = history.read_on()
            assert (found.ended["archive", "failure"], found.ended["archive", "canceled"]) == (5, 5)
            assert found.active == {"queued": 1, "started": 1}
        end("follow", canceled=False)
        found = history.read_on()
        assert found.ended["follow", "failure"] == 1
        # The newest first, and the one from before the start, too.
        assert [run.job for run in found.failures] == ["follow", *["archive"] * 6]
        assert found.failures[0].ended >= found.failures[1].ended


def test_no_part_of_a_secret_is_told(tmp_path: Path) -> None:
    """Errors of runs and of sensors are shown without secrets, also where they are cut in the middle of one."""
    secret = "s3cret with spaces " * 3
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "r"), "archive_sensor")
    state = InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING)
    error = SerializableErrorInfo("x" * 280 + secret, [], "Error")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        run = instance.run_storage.add_run(DagsterRun("archive", status=DagsterRunStatus.STARTED))
        instance.report_run_failed(run, "y" * 580 + secret)
        instance.add_instigator_state(state)
        ticked = (state.instigator_origin_id, "archive_sensor", InstigatorType.SENSOR, TickStatus.FAILURE, time.time())
        instance.create_tick(TickData(*ticked, selector_id=state.selector_id, error=error))
        found = RunHistory(str(tmp_path), time.time(), mask=lambda text: text.replace(secret, "***")).read_on()
    assert [run.error for run in found.failures] == ["y" * 580 + "***"]
    assert [sensor.error for sensor in found.sensors] == ["x" * 280 + "***"]


def test_the_same_error_in_another_order_is_the_same() -> None:
    """A client tells of its brokers as it comes to them: that is no news, and what is new is."""
    first = "it did not answer: a:1: Connection refused; b:1: Connection refused. Check it"
    again = "it did not answer: b:1: Connection refused; a:1: Connection refused. Check it"
    assert parts(first) == parts(again) != parts("it did not answer: a:1: No route to host. Check it")


def test_a_source_is_neither_up_nor_down_before_its_first_look() -> None:
    """An alert on it would go off at each start of the exporter."""
    exporter = Exporter([BrokenSource()], 10.0, str)
    assert [metric.name for metric in exporter.collect() if metric.samples and "up" in metric.name] == []
    exporter.look_once(30.0)
    (metric,) = [metric for metric in exporter.collect() if metric.name == "archiver_collector_up"]
    assert [sample.value for sample in metric.samples] == [0.0]


class BrokenSource(Source):
    """A source that never answers."""

    name = "broken"

    def look(self) -> tuple[Metric, ...]:
        """Fail."""
        raise OSError("no answer")
