"""Rules of the files for Kubernetes: Dagster's launcher takes them, and its pods have what their runs need."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._config import process_config, resolve_to_config_type
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import construct_dagster_k8s_job
from dagster_k8s.launcher import K8sRunLauncher
from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict
from kubernetes import client

from archiver_pipeline.settings.settings import Settings
from archiver_pipeline_tests.processes import CHECKOUT

FOLDER = CHECKOUT / "deploy" / "kubernetes"
VALUES: dict[str, Any] = yaml.safe_load((FOLDER / "values.yaml").read_text())
MANIFESTS = {item["kind"]: item for item in yaml.safe_load_all((FOLDER / "archiver.yaml").read_text())}
CLUSTER = {
    "apiVersion": "v1",
    "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    "current-context": "c",
    "users": [{"name": "u", "user": {}}],
}


def snake(name: str) -> str:
    """A name of the chart as dagster.yaml has it."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda found: f"_{found.group(1).lower()}", name)


def as_dagster_has_it(content: Any) -> Any:
    """Values of the chart with the names of dagster.yaml."""
    if isinstance(content, dict):
        return {snake(name): as_dagster_has_it(value) for name, value in content.items()}
    return [as_dagster_has_it(item) for item in content] if isinstance(content, list) else content


@pytest.fixture
def launcher(tmp_path: Path) -> K8sRunLauncher:
    """The launcher as the chart makes it of the values; Dagster's own schema has checked its settings."""
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(CLUSTER))
    given = dict(VALUES["runLauncher"]["config"]["k8sRunLauncher"])
    run_config = {snake(name): value for name, value in given.pop("runK8sConfig").items()}
    config = {snake(name): value for name, value in given.items() if name != "loadInclusterConfig"}
    config |= {
        "env_secrets": [item["name"] for item in given["envSecrets"]],
        "run_k8s_config": run_config,
        "load_incluster_config": False,
        "kubeconfig_file": str(tmp_path / "kubeconfig"),
        # What the chart adds.
        "service_account_name": "archiver-dagster",
        "instance_config_map": "archiver-dagster-instance",
        "postgres_password_secret": "archiver-postgresql",
        "dagster_home": "/opt/dagster/dagster_home",
        "job_image": "archiver-pipeline:0.1.0",
        "job_namespace": "archiver",
    }
    schema = resolve_to_config_type(K8sRunLauncher.config_type())  # type: ignore[no-untyped-call]
    checked = process_config(schema, config)
    assert checked.success, checked.errors
    made: K8sRunLauncher = K8sRunLauncher.from_config_value(None, checked.value)  # type: ignore[no-untyped-call]
    return made


def settings() -> Settings:
    """The archiver's settings in the ConfigMap."""
    given = tomllib.loads(MANIFESTS["ConfigMap"]["data"]["archiver.toml"])
    del given["kafka"]
    return Settings(**given)


def pod_of(launcher: K8sRunLauncher, tags: dict[str, str]) -> dict[str, Any]:
    """The pod of a run with these tags, as the launcher asks Kubernetes for it."""
    run = dg.DagsterRun("archive", tags=tags)
    context = K8sContainerContext.create_for_run(run, launcher, include_run_tags=True)
    job = construct_dagster_k8s_job(
        context.get_k8s_job_config("archiver-pipeline:0.1.0", launcher),
        args=["dagster"],
        job_name="run",
        user_defined_k8s_config=context.run_k8s_config,
    )
    pod: dict[str, Any] = client.ApiClient().sanitize_for_serialization(job)["spec"]["template"]["spec"]
    return pod


def volumes_of(pod: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The volumes of a pod by the folder that they are mounted at."""
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    return {mount["mountPath"]: volumes[mount["name"]] for mount in pod["containers"][0]["volumeMounts"]}


@pytest.mark.parametrize("kind", ["follow", "seal", "backfill", "view", ""])
def test_runs_are_at_home_unless_the_settings_say_otherwise(launcher: K8sRunLauncher, kind: str) -> None:
    """A run of a follower, and one that the settings say nothing of, has the volume and is where the volume is."""
    tags = settings().tags_of(kind) if kind else {}  # type: ignore[arg-type]
    pod = pod_of(launcher, tags)
    found = volumes_of(pod)
    assert (
        found["/data"]["persistentVolumeClaim"]["claimName"] == MANIFESTS["PersistentVolumeClaim"]["metadata"]["name"]
    )
    assert found["/etc/archiver"]["configMap"]["name"] == MANIFESTS["ConfigMap"]["metadata"]["name"]
    assert pod["nodeSelector"] == {"archiver-home": "true"}
    assert pod["securityContext"]["runAsNonRoot"]
    assert "ARCHIVER_VIEW" not in {item["name"] for item in pod["containers"][0]["env"]}


def test_lanes_may_be_anywhere(launcher: K8sRunLauncher) -> None:
    """A run that archives has an empty folder, no DuckDB file, the settings, the Secret, and no node of its own."""
    pod = pod_of(launcher, settings().tags_of("archive"))
    found = volumes_of(pod)
    assert "emptyDir" in found["/data"]
    assert found["/etc/archiver"]["configMap"]["name"] == MANIFESTS["ConfigMap"]["metadata"]["name"]
    assert not pod.get("nodeSelector")
    container = pod["containers"][0]
    values = {item["name"]: item.get("value") for item in container["env"]}
    assert (values["ARCHIVER_VIEW"], values["BASE_DIR"]) == ("off", "/data")
    assert values["ARCHIVER_CONFIG"] == "/etc/archiver/archiver.toml"
    assert {item["secretRef"]["name"] for item in container["envFrom"]} == {"archiver-secrets"}
    assert container["resources"]["limits"]["memory"]
    assert pod["securityContext"]["runAsNonRoot"]


def test_settings_of_dagster_agree() -> None:
    """What deploy/dagster.yaml says of queue, monitoring, retries, retention and logs holds in the cluster."""
    ours = yaml.safe_load((CHECKOUT / "deploy" / "dagster.yaml").read_text())
    daemon = as_dagster_has_it(VALUES["dagsterDaemon"])
    assert daemon["run_coordinator"]["config"]["queued_run_coordinator"] == ours["run_coordinator"]["config"]
    for part in ("run_monitoring", "run_retries"):
        assert daemon[part] == ours[part]
    retention = as_dagster_has_it(VALUES["retention"])
    assert {name: retention[name] for name in ours["retention"]} == ours["retention"]
    assert as_dagster_has_it(VALUES["pythonLogs"]) == ours["python_logs"]
    assert VALUES["computeLogManager"]["type"] == ours["compute_logs"]["class"]
    assert VALUES["telemetry"] == ours["telemetry"]


@pytest.mark.parametrize(
    ("kind", "model"),
    [("Deployment", client.V1Deployment), ("Service", client.V1Service), ("ConfigMap", client.V1ConfigMap)],
)
def test_manifests_have_fields_that_kubernetes_knows(kind: str, model: Any) -> None:
    """Every field of a manifest is one of Kubernetes' own models, by the name that it has there."""
    found = k8s_model_from_dict(model, k8s_snake_case_dict(model, MANIFESTS[kind]))
    assert json.loads(json.dumps(client.ApiClient().sanitize_for_serialization(found))) == MANIFESTS[kind]


def test_what_is_mounted_for_metrics_is_there() -> None:
    """Each mount of the metrics has a volume, and what it takes from a manifest has the name of that."""
    pod = MANIFESTS["Deployment"]["spec"]["template"]["spec"]
    found = volumes_of(pod)
    assert (
        found["/data"]["persistentVolumeClaim"]["claimName"] == MANIFESTS["PersistentVolumeClaim"]["metadata"]["name"]
    )
    assert pod["nodeSelector"] == VALUES["dagster-user-deployments"]["deployments"][0]["nodeSelector"]
    assert MANIFESTS["Service"]["spec"]["selector"] == MANIFESTS["Deployment"]["spec"]["template"]["metadata"]["labels"]
