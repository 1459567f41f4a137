"""Rules of `archiver doctor`: what is broken is named with what to do, what is well is not, and nothing hangs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from archiver_pipeline.doctor import clock, disk, machine
from archiver_pipeline.doctor.checkup import checks, settings_or_report
from archiver_pipeline.doctor.finding import Finding, good
from archiver_pipeline.doctor.patient import Patient
from archiver_pipeline.doctor.round import ROUND_SECONDS, Check, Report, make_round
from archiver_pipeline.errors import KafkaError
from archiver_pipeline_tests.doctor.setups import SETUPS, Servers, made
from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.secured import SecuredBroker
from archiver_pipeline_tests.processes import CHECKOUT, environment, is_taken


@pytest.fixture(scope="module")
def servers(kafka: KafkaBroker, secured: SecuredBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """What set-ups are made of."""
    found = Servers(kafka, secured, tmp_path_factory.mktemp("servers"))
    yield found
    found.close()


def report_of(checked: tuple[str, ...]) -> Report:
    """What the doctor finds by some of its checks, with the settings of the environment."""
    found = settings_or_report()
    if isinstance(found, Report):
        return found
    return make_round([check for check in checks(Patient(found)) if check.name in checked], found.mask)


def lines(report: Report) -> list[str]:
    """The findings, a line each."""
    return [f"{each.mark} {each.check} {each.what} {each.remedy}" for each in report.findings]


@pytest.mark.parametrize("name", SETUPS)
def test_what_is_broken_is_named_with_what_to_do(servers: Servers, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Each set-up is broken for real; the finding has the reason and the remedy, no secret, and nothing else is a
    fault."""
    setup = SETUPS[name]
    with made(servers, name) as variables:
        for taken in filter(is_taken, list(os.environ)):
            monkeypatch.delenv(taken)
        for variable, value in environment(variables).items():
            monkeypatch.setenv(variable, value)
        before = sorted(Path(variables["BASE_DIR"]).rglob("*"))
        report = report_of(setup.checks)
        after = sorted(Path(variables["BASE_DIR"]).rglob("*"))
    said = lines(report)
    assert [line for line in said if re.search(setup.says, line)], said
    assert report.good is (setup.code == 0), said
    assert report.seconds < 2 * ROUND_SECONDS
    everything = "\n".join(said)
    assert "wrong-password" not in everything
    assert "secret-word" not in everything
    assert [
        path for path in after if path not in before and "_doctor" in str(path) and "scratch" not in str(path)
    ] == []


def test_the_command_says_it_in_lines_and_json(servers: Servers) -> None:
    """A process of its own looks at everything: a mark, what, and what to do; exit code 1."""
    name = "a topic is missing"
    setup = SETUPS[name]
    command = [sys.executable, "-m", "archiver_pipeline.cli", "doctor", "--json"]
    with made(servers, name) as variables:
        done = subprocess.run(
            command,
            cwd=CHECKOUT,
            env=environment(variables),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == setup.code, done.stderr
    content = json.loads(done.stdout)
    said = [" ".join(each.values()) for each in content["findings"]]
    assert [line for line in said if re.search(setup.says, line)], said
    assert content["good"] is False
    assert {"settings", "disk", "broker", "topics", "storage", "dagster"} <= {
        each["check"] for each in content["findings"]
    }


def test_a_folder_that_may_not_be_entered_is_named(tmp_path: Path) -> None:
    """Another user's folder above BASE_DIR is a fault with its path and what to do, and nothing unforeseen."""

    def look() -> list[Finding]:
        closed = tmp_path / "closed"
        raise PermissionError(13, "Permission denied", str(closed))

    (found,) = make_round([Check("disk", look)]).findings
    assert (found.mark, found.what) == ("fault", f"{tmp_path}/closed cannot be looked at: Permission denied")
    assert "Let this user read and enter it" in found.remedy


def test_a_busy_machine_has_more_time_for_what_is_its_own() -> None:
    """Loading Dagster may take longer than an answer of a server may."""

    def slow() -> list[Finding]:
        time.sleep(0.4)
        return [good("own", "it is")]

    (found,) = make_round([Check("own", slow, local=True)], check_seconds=0.1, round_seconds=0.2).findings
    assert found.mark == "ok"


def test_a_check_that_hangs_keeps_no_other_waiting() -> None:
    """It is a fault when its time is up, who needs it is told, and all else is there."""
    end = threading.Event()

    def hang() -> list[Finding]:
        end.wait(30)
        return []

    def fail() -> list[Finding]:
        raise KafkaError("no", hint="Do this")

    every = [
        Check("hangs", hang),
        Check("waits", lambda: [good("waits", "it does")], ("hangs",)),
        Check("fails", fail),
        Check("needs", lambda: [good("needs", "it does")], ("fails",)),
        Check("after", lambda: [good("after", "it does")], (), ("fails",)),
        Check("breaks", lambda: [good("breaks", str(1 // 0))]),
    ]
    began = time.monotonic()
    report = make_round(every, check_seconds=0.3, round_seconds=0.5)
    end.set()
    assert time.monotonic() - began < 20
    assert (report.hangs, report.good) == (True, False)
    marks = [(found.check, found.mark) for found in report.findings]
    assert marks == [
        ("hangs", "fault"),
        ("waits", "skipped"),
        ("fails", "fault"),
        ("needs", "skipped"),
        ("after", "ok"),
        ("breaks", "fault"),
    ]
    assert report.findings[2] == Finding("fault", "fails", "no", "Do this")


@pytest.mark.parametrize(
    ("ahead", "mark"),
    [(0.0, "ok"), (4.9, "ok"), (-6.0, "warning"), (59.0, "warning"), (61.0, "fault"), (-3600.0, "fault")],
)
def test_a_clock_is_judged_by_how_far_it_is_off(ahead: float, mark: str) -> None:
    """Seconds are nothing, some are a warning, a minute is a fault; one that tells whole seconds is not wronged."""
    assert clock.judged("x", ahead).mark == mark
    (found,) = clock.compared("x", 1000.4, 1000.9, 1000.0 + ahead)
    assert found.mark == mark


def test_room_is_judged_by_the_size_of_a_batch(tmp_path: Path) -> None:
    """Less than ten batches is a warning, less than one a fault."""
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    assert disk.room("x", tmp_path, free // 5).mark == "warning"
    assert disk.room("x", tmp_path, free * 2).mark == "fault"


def test_memory_is_that_of_the_container_where_it_is_less(tmp_path: Path) -> None:
    """The limit of a cgroup counts, without what the kernel gives back at once; where nothing is told, None."""
    assert machine.available(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable:       1000 kB\n")
    assert machine.available(tmp_path) == 1_024_000
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    for name, text in {"max": "500000", "current": "300000", "stat": "anon 1\ninactive_file 100000\n"}.items():
        (group / f"memory.{name}").write_text(text)
    assert machine.available(tmp_path) == 300_000
