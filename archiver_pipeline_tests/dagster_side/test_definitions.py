"""Rules of what Dagster loads: the names that the contract promises, whatever the topics, broker and archive are."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from archiver_pipeline.errors import SettingsError
from archiver_pipeline.settings.aggregates import Aggregate
from archiver_pipeline.table.schema import delta_schema
from archiver_pipeline_tests.dagster_side.conftest import Load, MakeDeployment
from archiver_pipeline_tests.dagster_side.deployment import Deployment
from archiver_pipeline_tests.kafka.produce import Sent, create_topic, produce
from archiver_pipeline_tests.processes import Processes

NO_BROKER = "127.0.0.1:1"
CHECKS = {
    ("messages", "offsets_are_contiguous"),
    ("messages", "nothing_was_lost"),
    ("messages", "types_are_known"),
    ("messages", "lag_is_bounded"),
    ("sealed_hours", "fields_are_stable"),
    ("sealed_hours", "every_hour_is_whole"),
}
OWN = {"messages", "archive_view", "sealed_hours", "events_per_minute", "page_views", "kafka/events_per_minute"}


@pytest.fixture
def unconnected(tmp_path: Path, processes: Processes) -> Deployment:
    """A deployment without a broker and without an archive."""
    return Deployment(tmp_path / "base", processes, NO_BROKER, "orders", "a.b-c_d", "^clicks-.*")


def asset_names(definitions: dg.Definitions) -> set[str]:
    """Every asset by its name."""
    return {key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()}


def test_the_names_are_those_of_the_contract(unconnected: Deployment, load: Load) -> None:
    """Assets, jobs, sensors and checks have their promised names, with no broker and no archive yet."""
    definitions = load(unconnected)
    dg.Definitions.validate_loadable(definitions)
    assert asset_names(definitions) == {"kafka/orders", "kafka/a.b-c_d", *OWN}
    graph = definitions.resolve_asset_graph()
    assert {(key.asset_key.to_user_string(), key.name) for key in graph.asset_check_keys} == CHECKS
    assert isinstance(graph.get(dg.AssetKey("sealed_hours")).partitions_def, dg.HourlyPartitionsDefinition)
    for job in ("seal", "backfill"):
        assert definitions.resolve_job_def(job).tags["archiver/kind"] == "rewrite"
    assert definitions.resolve_job_def("backfill").partitions_def is not None
    assert definitions.resolve_job_def("seal").partitions_def is None
    assert definitions.resolve_sensor_def("seal_sensor").minimum_interval_seconds == 60
    for aggregate in ("events_per_minute", "page_views"):
        assert isinstance(graph.get(dg.AssetKey(aggregate)).partitions_def, dg.HourlyPartitionsDefinition)
    assert definitions.resolve_job_def("follow").partitions_def is None
    assert definitions.resolve_sensor_def("follow_sensor").minimum_interval_seconds == 10
    assert definitions.resolve_job_def("archive").name == "archive"
    assert definitions.resolve_sensor_def("archive_sensor").minimum_interval_seconds == 9


def test_topics_are_external_and_lead_to_messages_and_on_to_the_view(unconnected: Deployment, load: Load) -> None:
    """The asset graph goes from the topics, which nobody can materialize, to `messages`, and on from there."""
    graph = load(unconnected).resolve_asset_graph()
    topics = {dg.AssetKey(["kafka", "orders"]), dg.AssetKey(["kafka", "a.b-c_d"])}
    assert not any(graph.get(topic).is_executable for topic in topics)
    assert graph.get(dg.AssetKey("messages")).parent_keys == topics
    for name in ("archive_view", "sealed_hours"):
        assert graph.get(dg.AssetKey(name)).parent_keys == {dg.AssetKey("messages")}


def test_the_groups_are_in_the_order_of_the_flow_and_every_asset_is_described(
    unconnected: Deployment, load: Load
) -> None:
    """Topics, archive, followers, results: each asset is in a group, says what it is, where it lies and of what kind
    it is, and no password of a URL is in any of it."""
    unconnected.settings |= {
        "ARCHIVER_MYSQL_URL": "mysql://me:hunter2@db:3306/archive",
        "ARCHIVER_SEARCH_URL": "http://me:hunter2@search:9200",
    }
    graph = load(unconnected).resolve_asset_graph()
    nodes = {node.key.to_user_string(): node for node in graph.asset_nodes}
    flow = ["kafka/orders", "messages", "mysql_messages", "kafka/events_per_minute"]
    groups = [nodes[name].group_name for name in flow]
    assert groups == sorted(set(groups))
    for name, node in nodes.items():
        assert node.description, name
        assert node.kinds, name
        assert node.metadata["dagster/uri"], name
        assert "hunter2" not in f"{node.description} {node.metadata}"
    assert nodes["mysql_messages"].metadata["dagster/uri"] == "mysql://db:3306/archive"
    columns = [column.name for column in nodes["messages"].metadata["dagster/column_schema"].columns]
    assert columns == [field.name for field in delta_schema().fields]


def test_topics_whose_names_differ_in_punctuation_only_are_assets_of_their_own(
    unconnected: Deployment, load: Load
) -> None:
    """Kafka's names may hold letters, digits, dot, underscore and hyphen: each such topic is an asset."""
    names = ["a.b", "a_b", "a-b", "A.B", "-", "x" * 249]
    unconnected.settings["ARCHIVER_TOPICS"] = ",".join(names)
    definitions = load(unconnected)
    dg.Definitions.validate_loadable(definitions)
    topics = {dg.AssetKey(["kafka", name]) for name in names}
    assert definitions.resolve_asset_graph().get(dg.AssetKey("messages")).parent_keys == topics


def test_aggregates_may_have_any_name_that_is_no_other_assets(unconnected: Deployment, load: Load) -> None:
    """What Dagster and Python keep for themselves is a good name; that of an asset is refused, whatever is on."""
    names = ["type", "config", "class", "kafka", "archive", "count_page_views", "x" * 63]
    tables = [f"[[aggregates]]\nname = '{name}'\nwindow = 'day'\nmeasures = {{n = 'count'}}\n" for name in names]
    config = unconnected.base / "archiver.toml"
    config.write_text("".join(tables))
    unconnected.settings |= {
        "ARCHIVER_CONFIG": str(config),
        "ARCHIVER_MYSQL_URL": "mysql://localhost/archive",
        "ARCHIVER_SEARCH_URL": "http://localhost",
    }
    definitions = load(unconnected)
    dg.Definitions.validate_loadable(definitions)
    found = {name for name in asset_names(definitions) if "/" not in name}
    assert found == {*(name for name in OWN if "/" not in name), *names, "mysql_messages", "search_messages"}
    for name in found - {*names, "events_per_minute", "page_views"}:
        with pytest.raises(ValueError, match="the name of another view or asset"):
            Aggregate(name=name, window="day", measures={"n": "count"})


def test_a_topic_that_a_regex_has_found_is_an_asset_once_it_is_archived(
    deploy: MakeDeployment, load: Load, topic_name: str
) -> None:
    """A regex names no topic; the archive does, as soon as it has met one."""
    deployment = deploy(rf"^{topic_name}\..*")
    create_topic(deployment.bootstrap_servers, f"{topic_name}.a")
    assert asset_names(load(deployment)) == OWN
    deployment.archived.run()
    assert asset_names(load(deployment)) == {f"kafka/{topic_name}.a", *OWN}


def test_a_damaged_archive_does_not_keep_the_definitions_from_loading(
    deploy: MakeDeployment, load: Load, topic_name: str
) -> None:
    """The topics of the settings are still there: it is for runs and sensor to say what is wrong with the archive."""
    deployment = deploy(topic_name)
    log = deployment.archived.path / "_delta_log"
    log.mkdir(parents=True)
    (log / f"{0:020}.json").write_text('{"txn"')
    assert asset_names(load(deployment)) == {f"kafka/{topic_name}", *OWN}


@pytest.mark.parametrize(
    ("setting", "value", "allowed"),
    [
        ("ARCHIVER_LANES", "two", "number from 1"),
        ("ARCHIVER_TOPICS", "orders,a/b", "topic names"),
        ("ARCHIVER_START", "yesterday", "earliest, latest or an ISO time"),
        ("KAFKA_SECURITY_PROTOCOL", "carrier_pigeon", "sasl_plaintext"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(
    unconnected: Deployment, load: Load, setting: str, value: str, allowed: str
) -> None:
    """The error of loading is one line with the setting, its value and what is allowed."""
    unconnected.settings[setting] = value
    with pytest.raises(SettingsError) as caught:
        load(unconnected)
    text = str(caught.value)
    assert len(text.splitlines()) == 1
    assert text.startswith(f"{setting} is ")
    assert value in text
    assert allowed in text


def test_dagster_itself_loads_the_workspace(unconnected: Deployment) -> None:
    """`dagster definitions validate -w workspace.yaml` passes with no broker and no archive."""
    ended = unconnected.load()
    assert ended.code == 0, ended.said
    assert "archiver_pipeline" in ended.said


def test_dagster_shows_the_line_of_a_wrong_setting(unconnected: Deployment) -> None:
    """Under Dagster the load fails, and the line is in what it says."""
    unconnected.settings["ARCHIVER_BATCH_MESSAGES"] = "-5"
    ended = unconnected.load()
    assert ended.code != 0
    (line,) = {line for line in ended.said.splitlines() if "ARCHIVER_BATCH_MESSAGES" in line}
    assert "ARCHIVER_BATCH_MESSAGES is '-5': allowed is " in line
    assert "number from 1" in line


def test_a_secret_is_stored_nowhere_and_never_shown(deploy: MakeDeployment, topic_name: str) -> None:
    """A password of the settings is in no run config, event, log, commit or output of a run."""
    deployment = deploy(topic_name, KAFKA_SASL_PASSWORD="hunter2-secret", KAFKA_SASL_USERNAME="archiver")
    create_topic(deployment.bootstrap_servers, topic_name)
    produce(deployment.bootstrap_servers, topic_name, [Sent(b"{}")])
    ended = deployment.execute()
    assert ended.code == 0, ended.said
    assert "hunter2" not in ended.said
    assert deployment.holds(topic_name), "what was archived ought to be found in this way"
    assert deployment.holds("hunter2") == []
