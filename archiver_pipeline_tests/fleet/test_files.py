"""Rules of the files that deployments are made of: they are valid, what they name is there, and they agree."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from archiver_pipeline_tests.fleet import compose
from archiver_pipeline_tests.processes import CHECKOUT

DEPLOY = CHECKOUT / "deploy"
SHARED = (
    "run_coordinator", "run_monitoring", "run_retries", "compute_logs", "retention", "telemetry", "nux", "python_logs"
)  # fmt: skip
OURS = ("producer", "prepare", "code", "webserver", "daemon", "metrics")


def pins(path: Path) -> set[str]:
    """The releases that a lock names, whatever extras it takes of them."""
    found = re.findall(r"^([\w.-]+)(?:\[.*?\])?==(\S+)", path.read_text(), re.MULTILINE)
    return {f"{name}=={version}" for name, version in found}


def _volumes(service: dict[str, Any]) -> list[str]:
    """Where the volumes of a service that it may write to are mounted."""
    return [volume.split(":")[1] for volume in service.get("volumes", ()) if not volume.endswith(":ro")]


def dagster_yaml(name: str) -> dict[str, Any]:
    """The settings of Dagster in a folder of deploy/."""
    content: dict[str, Any] = yaml.safe_load((DEPLOY / name / "dagster.yaml").read_text())
    return content


def test_compose_follows_its_specification() -> None:
    """The file is valid by the schema of the Compose specification, with every variable at its default."""
    schema = json.loads(Path(__file__).with_name("compose-spec.json").read_text())
    jsonschema.Draft7Validator(schema).validate(compose.load())


@pytest.mark.parametrize("name", sorted(compose.load()["services"]))
def test_a_service_is_held_in_bounds(name: str) -> None:
    """No root, no rights, bounded memory and logs, ports of this machine alone, a release, and a health check."""
    service = compose.load()["services"][name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["logging"]["options"]["max-size"]
    assert service["mem_limit"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert re.search(r":v?\d|archiver-pipeline:", service["image"]), service["image"]
    if name in OURS:
        assert service["read_only"]
        places = [*(mount.split(":")[0] for mount in service["tmpfs"]), *_volumes(service)]
        assert {service.get("environment", {}).get(name, "/tmp") for name in ("DAGSTER_HOME", "BASE_DIR")} <= {*places}
    else:
        assert re.fullmatch(r"[1-9]\d*:\d+", service["user"])
    if service.get("healthcheck") != {"disable": True}:
        assert {"test", "interval", "timeout", "retries"} <= service["healthcheck"].keys()
    if name != "prepare":
        assert service["restart"] == "unless-stopped"


def test_services_wait_for_those_that_they_need() -> None:
    """Who waits for health waits for a service with a check, and who waits for an end for one that ends."""
    services = compose.load()["services"]
    for service in services.values():
        for name, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "test" in services[name]["healthcheck"]
            elif how["condition"] == "service_completed_successfully":
                assert services[name]["restart"] == "no"


def test_what_is_mounted_and_copied_is_there() -> None:
    """Every folder and file of the checkout that Compose mounts or that the image copies exists."""
    content = compose.load()
    for service in content["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if not source.startswith("."):
                assert source in content["volumes"]
            else:
                assert (CHECKOUT / source).exists(), source
    dockerfile = (CHECKOUT / "Dockerfile").read_text()
    copied = [line.split()[1] for line in dockerfile.splitlines() if line.startswith("COPY") and "--from" not in line]
    assert copied
    for pattern in copied:
        assert pattern == "." or list(CHECKOUT.glob(pattern)), pattern
    kept = [line[1:] for line in (CHECKOUT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for pattern in kept:
        assert list(CHECKOUT.glob(pattern)), pattern
    assert {"deploy/*.lock", "deploy/compose", "archiver_pipeline", "pyproject.toml"} <= set(kept)


def test_every_password_can_be_changed() -> None:
    """Each variable of the file stands in example.env with the same default, and no other one does."""
    text = (CHECKOUT / "docker-compose.yml").read_text()
    used = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", text))
    lines = (DEPLOY / "compose" / "example.env").read_text().splitlines()
    shown = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert shown == used
    assert not re.findall(r"\$\{\w+\}", text), "one without a default"


@pytest.mark.parametrize("name", ["compose", "celery"])
def test_settings_of_dagster_agree(name: str) -> None:
    """What deploy/dagster.yaml says of queue, monitoring, retries, retention and logs holds for every deployment."""
    ours, theirs = dagster_yaml("."), dagster_yaml(name)
    assert {part: theirs[part] for part in SHARED} == {part: ours[part] for part in SHARED}
    assert set(theirs) - set(SHARED) <= {"storage", "run_launcher"}


def test_the_image_installs_a_part_of_what_is_tested() -> None:
    """Both locks of the image have releases of requirements.lock alone, and no program that only development needs."""
    tested, image = pins(CHECKOUT / "requirements.lock"), pins(DEPLOY / "requirements.lock")
    assert image < tested
    assert pins(DEPLOY / "build.lock") < tested
    names = {pin.split("==")[0] for pin in image}
    assert not names & {"pytest", "mypy", "ruff", "hypothesis", "matplotlib", "hatchling", "pip"}
    assert {"dagster", "dagster-celery", "dagster-k8s", "dagster-postgres", "polars", "redis"} <= names


def test_daemon_and_workers_agree_on_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher and the workers have the same settings of Celery, and the workers take the same variables."""
    config = dagster_yaml("celery")["run_launcher"]["config"]
    for name in ("CELERY_BROKER_URL", "CELERY_RESULTS_URL"):
        monkeypatch.setenv(name, name)
    workers = runpy.run_path(str(DEPLOY / "celery" / "dagster_celery_config.py"))
    assert {name: workers[name] for name in config["config_source"]} == config["config_source"]
    assert workers["broker_url"] == config["broker"]["env"]
    assert workers["result_backend"] == config["backend"]["env"]
