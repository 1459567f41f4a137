"""Rules of the checks on `messages`: what each passes and fails, and that none of them fails a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from archiver_pipeline.batch.batch import Batch
from archiver_pipeline.defs.checks import Answers, evaluations, recent
from archiver_pipeline.defs.metadata import view_made
from archiver_pipeline.kafka.look import Look
from archiver_pipeline.plan import Committed, Gap, OffsetRange, TopicPartition
from archiver_pipeline.table.ledger import Ledger, RecordedGap
from archiver_pipeline_tests.dagster_side.conftest import Load, MakeDeployment
from archiver_pipeline_tests.dagster_side.deployment import MESSAGES
from archiver_pipeline_tests.kafka.produce import Sent, create_topic, delete_records, produce

AT = TopicPartition("orders", "id", 0)
OTHER_AT = TopicPartition("orders", "id", 1)
BATCH = Batch(
    lane=0,
    ranges=(OffsetRange(AT, 100, 200),),
    messages_by_range=(100,),
    committed_before=(100,),
    gaps=(),
    messages=100,
    bytes=1000,
    files=1,
    types={"object.one": 100},
    seconds=1.0,
    steps={},
    lag=0,
    version=5,
    look=Look(()),
)
LEDGER = Ledger(5, {AT: Committed(200, 0, 200), OTHER_AT: Committed(50, 0, 50)})
MAX_LAG = 1000


def judged(batch: Batch = BATCH, ledger: Ledger = LEDGER) -> Mapping[str, dg.AssetCheckEvaluation]:
    """The evaluation of each check by its name."""
    return {each.check_name: each for each in evaluations(batch, ledger, MAX_LAG)}


def found(age: timedelta | None, end: int = 120) -> RecordedGap:
    """A gap that was found so long ago."""
    return RecordedGap(Gap(AT, 100, end, "retention"), None if age is None else datetime.now(UTC) - age)


def test_a_run_that_stays_tells_its_answers_now_and_then() -> None:
    """Those of the first batch, of each that fails a check, of the one after it, and of the last; others may go."""
    told: list[bool] = []
    answers = Answers(lambda each: told.append(isinstance(each, dg.AssetCheckEvaluation) and each.passed), 3600)
    good, bad = list(judged().values()), list(judged(replace(BATCH, lag=MAX_LAG + 1)).values())
    counts = []
    for batch in (good, good, good, bad, bad, good, good):
        answers.add(batch)
        counts.append(len(told))
    assert counts == [4, 4, 4, 8, 12, 16, 16]
    answers.tell()
    answers.tell()
    assert (len(told), told.count(False)) == (20, 2)


def test_what_the_view_shows_is_told_with_the_answers() -> None:
    """Of batches whose answers may wait, only the newest version that the DuckDB file shows is told."""
    told: list[dg.AssetCheckEvaluation | dg.AssetMaterialization] = []
    answers = Answers(told.append, 3600)
    for version in range(4):
        answers.add(list(judged().values()), view_made(Path("archive.duckdb"), version))
    answers.tell()
    shown = [each.metadata["table version"].value for each in told if isinstance(each, dg.AssetMaterialization)]
    assert shown == [0, 3]


def test_a_run_that_does_not_stay_tells_the_answers_of_every_batch() -> None:
    """Without a pause none goes unsaid."""
    told: list[dg.AssetCheckEvaluation | dg.AssetMaterialization] = []
    answers = Answers(told.append, 0)
    for _ in range(3):
        answers.add(list(judged().values()))
    answers.tell()
    assert len(told) == 12


def test_a_good_batch_passes_every_check() -> None:
    """A batch that follows on, of known types, with nothing left and nothing lost, passes all four."""
    answers = judged()
    assert {name: each.passed for name, each in answers.items()} == {
        "offsets_are_contiguous": True,
        "nothing_was_lost": True,
        "types_are_known": True,
        "lag_is_bounded": True,
    }
    assert {each.asset_key for each in answers.values()} == {MESSAGES}
    assert all(each.description for each in answers.values())


@pytest.mark.parametrize(
    ("change", "passes"),
    [
        ({"committed_before": (None,)}, True),
        ({"committed_before": (90,), "gaps": (Gap(AT, 90, 100, "retention"),)}, True),
        ({"committed_before": (90,)}, False),
        ({"committed_before": (110,)}, False),
        ({"committed_before": (90,), "gaps": (Gap(AT, 90, 99, "retention"),)}, False),
        ({"committed_before": (90,), "gaps": (Gap(OTHER_AT, 90, 100, "retention"),)}, False),
    ],
    ids=["new partition", "behind a gap", "hole", "overlap", "gap too short", "gap of another partition"],
)
def test_offsets_are_contiguous(change: Mapping[str, Any], passes: bool) -> None:
    """Every range begins where the archive ended, or behind a gap that the batch names; a new partition anywhere."""
    answer = judged(replace(BATCH, **change))["offsets_are_contiguous"]
    assert answer.passed is passes
    assert answer.severity is dg.AssetCheckSeverity.ERROR
    if not passes:
        assert "orders/0 [100, 200)" in str(answer.description)


@pytest.mark.parametrize("committed", [{AT: Committed(199, 0, 199)}, {}], ids=["behind", "not there"])
def test_offsets_are_contiguous_only_if_the_archive_says_so_too(committed: Mapping[TopicPartition, Committed]) -> None:
    """The check looks at what the archive has after the batch, not only at what the batch says of itself."""
    assert not judged(ledger=replace(LEDGER, committed=committed))["offsets_are_contiguous"].passed


@pytest.mark.parametrize(
    ("age", "passes"),
    [(timedelta(minutes=1), False), (timedelta(hours=23), False), (None, False), (timedelta(hours=25), True)],
    ids=["now", "today", "unknown", "yesterday"],
)
def test_nothing_was_lost(age: timedelta | None, passes: bool) -> None:
    """A gap fails the check for a day, and is named with its offsets and the reason; then its number is left."""
    answer = judged(ledger=replace(LEDGER, gaps=(found(age),)))["nothing_was_lost"]
    assert answer.passed is passes
    assert answer.severity is dg.AssetCheckSeverity.ERROR
    assert answer.metadata["gaps_ever"].value == 1
    assert answer.metadata["offsets_lost"].value == (0 if passes else 20)
    if not passes:
        loss, next_step = "20 offsets were gone before they could be archived: ", "Raise `retention.ms` of the topic"
        assert str(answer.description).startswith(f"{loss}orders/0 [100, 120): retention. ")
        assert next_step in str(answer.description)
        which = answer.metadata["which"]
        assert isinstance(which, dg.TableMetadataValue)
        assert [row.data["offsets"] for row in which.records] == [20]


def test_only_recent_gaps_count() -> None:
    """Of a long list of gaps, those of the last day are told."""
    gaps = (found(timedelta(days=3), 110), found(timedelta(hours=2), 120), found(timedelta(days=300), 130))
    assert [each.gap.end for each in recent(gaps, datetime.now(UTC))] == [120]


@pytest.mark.parametrize(
    ("types", "passes"),
    [
        ({"a": 99, "_untyped": 1}, True),
        ({"a": 98, "_malformed": 1, "_untyped": 1}, False),
        ({"a": 98, "_other": 2}, False),
        ({"_tombstone": 50, "_erased": 50}, True),
        ({}, True),
    ],
    ids=["one in a hundred", "two in a hundred", "too many types", "other reserved types", "no message"],
)
def test_types_are_known(types: Mapping[str, int], passes: bool) -> None:
    """At most one message in a hundred is `_malformed`, `_untyped` or `_other`; more is a warning."""
    answer = judged(replace(BATCH, types=types, messages=sum(types.values())))["types_are_known"]
    assert answer.passed is passes
    assert answer.severity is dg.AssetCheckSeverity.WARN
    assert answer.metadata["_untyped"].value == types.get("_untyped", 0)


@pytest.mark.parametrize(("lag", "passes"), [(0, True), (MAX_LAG, True), (MAX_LAG + 1, False)])
def test_lag_is_bounded(lag: int, passes: bool) -> None:
    """What is left fits into one batch; more is a warning, with the number."""
    answer = judged(replace(BATCH, lag=lag))["lag_is_bounded"]
    assert answer.passed is passes
    assert answer.severity is dg.AssetCheckSeverity.WARN
    assert answer.metadata["lag"].value == lag


def test_every_answer_that_is_no_ends_with_what_to_do() -> None:
    """Who finds a check red reads there what comes next, with the commands and settings that it takes."""
    bad = replace(BATCH, committed_before=(90,), types={"_untyped": 100}, lag=MAX_LAG + 1)
    answers = judged(bad, replace(LEDGER, gaps=(found(timedelta(0)),)))
    assert not any(each.passed for each in answers.values())
    for name, step in {
        "offsets_are_contiguous": "`archiver verify --against-kafka`",
        "nothing_was_lost": "`retention.ms`",
        "types_are_known": "ARCHIVER_TYPE_PATH",
        "lag_is_bounded": "ARCHIVER_LANES",
    }.items():
        assert step in str(answers[name].description)


def test_a_loss_fails_the_check_and_not_the_run(deploy: MakeDeployment, load: Load, topic_name: str) -> None:
    """Offsets lost to retention: the run succeeds, archives the rest, and `nothing_was_lost` names what is gone."""
    deployment = deploy(topic_name)
    servers = deployment.bootstrap_servers
    create_topic(servers, topic_name)
    produce(servers, topic_name, [Sent(b'{"type": "a"}')] * 10)
    job = load(deployment).resolve_job_def("archive")
    key = dg.AssetCheckKey(MESSAGES, "nothing_was_lost")
    with dg.DagsterInstance.ephemeral() as instance:
        job.execute_in_process(instance=instance)
        produce(servers, topic_name, [Sent(b'{"type": "a"}')] * 10)
        delete_records(servers, topic_name, {0: 15})
        result = job.execute_in_process(instance=instance)
        assert result.success
        answers = {each.check_name: each for each in result.get_asset_check_evaluations()}
        assert {name for name, each in answers.items() if not each.passed} == {"nothing_was_lost"}
        assert f"5 offsets were gone before they could be archived: {topic_name}/0 [10, 15): retention" in str(
            answers["nothing_was_lost"].description
        )
        assert deployment.archived.next_offsets(topic_name) == {0: 20}

        assert job.execute_in_process(instance=instance).success
        latest = instance.event_log_storage.get_latest_asset_check_execution_by_key([key])[key]
        assert latest.status.value == "FAILED", "a run with nothing to archive leaves the answers as they are"
