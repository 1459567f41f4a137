"""Rules of the job `seal`: what it seals, what it leaves in Dagster, and that one bad hour keeps none of the others."""

from __future__ import annotations

import shutil
from pathlib import Path

import dagster as dg

from archiver_pipeline.defs.hour_metadata import SEALED_HOURS
from archiver_pipeline_tests.dagster_side.conftest import MakeDeployment
from archiver_pipeline_tests.dagster_side.deployment import Deployment
from archiver_pipeline_tests.dagster_side.filled import CONFIG, add, fill, key, messages, name
from archiver_pipeline_tests.kafka.produce import Sent, create_topic


def files_by_hour(deployment: Deployment) -> dict[str, list[Path]]:
    """The files that the table lists, by hour."""
    found: dict[str, list[Path]] = {}
    for path in sorted(deployment.archived.listed_files()):
        dt, hr = (part.partition("=")[2] for part in path.split("/")[1:3])
        found.setdefault(f"{dt}T{hr}", []).append(deployment.archived.path / path)
    return found


def test_every_closed_hour_is_sealed_and_shown(deploy: MakeDeployment, topic_name: str) -> None:
    """Each hour is one file afterwards, and a materialization of its partition has a sentence, numbers and fields."""
    deployment = deploy(topic_name, ARCHIVER_KEEP_REPLACED_HOURS=0)
    fill(deployment, topic_name, range(3))
    assert {hour: len(files) for hour, files in files_by_hour(deployment).items()} == {name(n): 2 for n in range(3)}
    ended = deployment.seal()
    assert ended.code == 0, ended.said
    assert {hour: len(files) for hour, files in files_by_hour(deployment).items()} == {name(n): 1 for n in range(3)}
    deployment.archived.assert_equal(topic_name)

    shown = deployment.hours()
    assert list(shown) == [key(n) for n in range(3)]
    (first,) = shown[key(0)]
    assert first["sentence"].startswith("2019-08-01T03: 2 files of 1 type became 1")
    counted = {label: first[label] for label in ("messages", "files before", "files after")}
    assert counted == {"messages": 10, "files before": 2, "files after": 1}
    for label in ("bytes before", "bytes after", "seconds", "table version"):
        assert isinstance(first[label], int | float), label
    assert [(row["type"], row["field"], row["present"]) for row in first["fields"]] == [
        ("object.one", "type", 10),
        ("object.one", "uid", 10),
    ]

    ended = deployment.seal()
    assert ended.code == 0, ended.said
    assert "no closed hour has files to be sealed" in ended.said
    assert deployment.hours() == shown


def test_without_an_archive_there_is_nothing_to_seal(deploy: MakeDeployment, topic_name: str) -> None:
    """The run succeeds, says so, and makes neither an archive nor a DuckDB file."""
    deployment = deploy(topic_name)
    create_topic(deployment.bootstrap_servers, topic_name)
    ended = deployment.seal()
    assert ended.code == 0, ended.said
    assert "no closed hour has files to be sealed" in ended.said
    assert not deployment.archived.path.exists()
    assert not deployment.archived.settings.view_path.exists()


def test_hours_that_dagster_has_forgotten_are_shown_again(deploy: MakeDeployment, topic_name: str) -> None:
    """With Dagster's folder deleted, or a run killed before it told what it did, the next run shows its hours."""
    deployment = deploy(topic_name)
    fill(deployment, topic_name, range(2))
    assert deployment.seal().code == 0
    before = deployment.hours()
    shutil.rmtree(deployment.home)
    deployment.home.mkdir()
    add(deployment, topic_name, messages(2))
    ended = deployment.seal()
    assert ended.code == 0, ended.said
    assert "2 hours were sealed before and shown from now on" in ended.said
    after = deployment.hours()
    assert sorted(after) == [key(n) for n in range(3)]
    for label in ("messages", "files after", "bytes after", "fields"):
        assert after[key(0)][0][label] == before[key(0)][0][label]


def test_hours_that_are_no_partition_are_sealed_all_the_same(deploy: MakeDeployment, topic_name: str) -> None:
    """1970 and the year 9999 are in archives: Dagster has no partition for them, and the run's log says so."""
    deployment = deploy(topic_name, ARCHIVER_KEEP_REPLACED_HOURS=0)
    create_topic(deployment.bootstrap_servers, topic_name, config=CONFIG)
    old = [Sent(b'{"type": "object.one"}', timestamp_ms=1)]
    for _ in range(2):
        add(deployment, topic_name, [*old, *messages(0)])
    ended = deployment.seal()
    assert ended.code == 0, ended.said
    assert {hour: len(files) for hour, files in files_by_hour(deployment).items()} == {"1970-01-01T00": 1, name(0): 1}
    assert "1970-01-01T00 is no partition of sealed_hours" in ended.said
    assert list(deployment.hours()) == [key(0)]


def test_a_damaged_hour_fails_the_run_and_keeps_none_of_the_others(deploy: MakeDeployment, topic_name: str) -> None:
    """The run's error names the hour, its file and what to do; every other hour is sealed and shown."""
    deployment = deploy(topic_name)
    fill(deployment, topic_name, range(3))
    damaged = files_by_hour(deployment)[name(1)][0]
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    ended = deployment.seal()
    assert ended.code == 1
    assert f"hour {name(1)} could not be done, the others are" in ended.said
    assert damaged.name in ended.said
    assert "archiver backfill" in ended.said
    counts = {hour: len(files) for hour, files in files_by_hour(deployment).items()}
    assert counts == {name(0): 1, name(1): 2, name(2): 1}
    assert list(deployment.hours()) == [key(0), key(2)]


def test_a_run_seals_what_its_config_names(deploy: MakeDeployment, topic_name: str) -> None:
    """Hours by name, or at most so many of the oldest; a name that is none is refused with an example."""
    deployment = deploy(topic_name)
    fill(deployment, topic_name, range(4))
    ended = deployment.seal(hours=[name(2)])
    assert ended.code == 0, ended.said
    assert list(deployment.hours()) == [key(2)]
    ended = deployment.seal(limit=1)
    assert ended.code == 0, ended.said
    assert sorted(deployment.hours()) == [key(0), key(2)]
    ended = deployment.seal(hours=["2019-08-01 03:00"])
    assert ended.code == 1
    assert "'2019-08-01 03:00', which is no hour. Write one as 2019-08-01T03" in ended.said


def test_a_new_field_is_told_by_the_check(deploy: MakeDeployment, topic_name: str) -> None:
    """A field that the hour before did not have makes `fields_are_stable` warn; the run succeeds."""
    deployment = deploy(topic_name)
    create_topic(deployment.bootstrap_servers, topic_name, config=CONFIG)
    add(deployment, topic_name, [*messages(0, 50), *messages(1, 50)])
    check = dg.AssetCheckKey(SEALED_HOURS, "fields_are_stable")

    def answer() -> dg.AssetCheckEvaluation:
        with deployment.instance() as instance:
            record = instance.event_log_storage.get_latest_asset_check_execution_by_key([check])[check]
        assert record.evaluation is not None
        return record.evaluation

    assert deployment.seal().code == 0
    assert answer().passed, answer()
    assert answer().metadata["compared"].value == 1
    add(deployment, topic_name, messages(2, 50, coupon="x"))
    ended = deployment.seal()
    assert ended.code == 0, ended.said
    assert not answer().passed
    assert answer().severity is dg.AssetCheckSeverity.WARN
    assert f"{name(2)}: object.one: field 'coupon' appeared" in (answer().description or "")
