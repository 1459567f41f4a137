"""Rules of `make dev`: nothing starts under a wrong setting, and Dagster's folder gets our `dagster.yaml`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType

from archiver_pipeline.dev import dagster_home, quiet
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline_tests.processes import CHECKOUT, Processes, environment, free_port
from archiver_pipeline_tests.server import is_ok
from archiver_pipeline_tests.waiting import wait_for

DEV = ["-m", "archiver_pipeline.dev"]


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"ARCHIVER_LANES": "none"}, "ARCHIVER_LANES is 'none': allowed is "),
        ({"KAFKA_BOOTSTRAP_SERVERS": ""}, "KAFKA_BOOTSTRAP_SERVERS is not set: it takes "),
        ({"ARCHIVER_TOPICS": ""}, "ARCHIVER_TOPICS is not set: it takes "),
        (
            {"KAFKA_SECURITY_PROTOCOL": "pigeon", "KAFKA_SASL_PASSWORD": "hunter2"},
            "KAFKA_SECURITY_PROTOCOL is 'pigeon'",
        ),
    ],
    ids=["wrong", "no broker", "no topic", "refused by librdkafka"],
)
def test_a_wrong_setting_starts_nothing(
    processes: Processes, tmp_path: Path, changed: dict[str, str], line: str
) -> None:
    """Exit 2, and one line on standard error that names the setting; no folder is made."""
    base = tmp_path / "base"
    given = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "ARCHIVER_TOPICS": "orders", "BASE_DIR": str(base), **changed}
    ended = processes.run(DEV, environment(given))
    assert (ended.code, ended.out) == (2, "")
    assert len(ended.err.splitlines()) == 1, ended.err
    assert ended.err.startswith(line)
    assert "hunter2" not in ended.err
    assert not base.exists()


def test_dagsters_folder_gets_our_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`$BASE_DIR/dagster_home` is made with a copy of `deploy/dagster.yaml`."""
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    home = dagster_home(Settings(BASE_DIR=tmp_path))
    assert home == tmp_path / "dagster_home"
    assert (home / "dagster.yaml").read_text() == (CHECKOUT / "deploy" / "dagster.yaml").read_text()


def test_dagsters_folder_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A `DAGSTER_HOME` of one's own is used, and its `dagster.yaml` is left as it is."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    assert dagster_home(Settings(BASE_DIR=tmp_path / "base")) == tmp_path / "home"
    assert (tmp_path / "home" / "dagster.yaml").read_text() == "telemetry:\n  enabled: false\n"


def test_dagster_takes_our_settings(tmp_path: Path) -> None:
    """Dagster reads our `dagster.yaml`: it watches runs, keeps ticks for days and not for ever, tells nobody."""
    shutil.copy(CHECKOUT / "deploy" / "dagster.yaml", tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.run_monitoring_enabled
        assert instance.run_retries_enabled
        assert not instance.telemetry_enabled
        days = instance.get_tick_retention_settings(InstigatorType.SENSOR)
        assert {0 < kept <= 30 for kept in days.values()} == {True}


def test_one_warning_is_left_out_and_no_other() -> None:
    """That `dagster dev` is superseded; what somebody has chosen of warnings stays, and all others stay errors."""
    program = (
        "import warnings; warnings.warn('Function `dev_command` is superseded and more', FutureWarning); print('on')"
    )
    strict = quiet({**os.environ, "PYTHONWARNINGS": "error"})
    assert subprocess.run([sys.executable, "-c", program], env=strict, capture_output=True, check=True).stderr == b""
    other = program.replace("dev_command", "other")
    assert subprocess.run([sys.executable, "-c", other], env=strict, capture_output=True, check=False).returncode == 1


@pytest.mark.slow
def test_it_starts_dagster_and_an_interrupt_ends_it(processes: Processes, tmp_path: Path) -> None:
    """The UI answers at the given port though the broker is down; SIGINT ends Dagster and all that it started."""
    port = free_port()
    given = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "ARCHIVER_TOPICS": "orders", "BASE_DIR": str(tmp_path)}
    log = tmp_path / "dev.log"
    dev = processes.start([*DEV, "--port", str(port)], environment(given), log)
    wait_for("the UI", lambda: is_ok(port, "/server_info"), 180)
    assert (tmp_path / "dagster_home" / "dagster.yaml").exists()
    first = log.read_text().splitlines()[0]
    assert first == f"Dagster is starting: its UI will be at http://127.0.0.1:{port} in some seconds. Ctrl-C ends it."
    assert "is superseded" not in log.read_text()
    dev.send_signal(signal.SIGINT)
    dev.wait(60)
    processes.wait_until_none_lives(60)
    assert "Dagster services shut down" in log.read_text()
