"""Rules of the demo: it ends well only if what was produced is what was archived, and it leaves no process behind."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from archiver_pipeline.demo import TOPICS
from archiver_pipeline.generator import Generator, generate
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.processes import Processes, environment
from archiver_pipeline_tests.waiting import wait_for

DEMO = ["-m", "archiver_pipeline.demo"]
LIMIT_SECONDS = 240.0
STOP_LIMIT_SECONDS = 100.0

pytestmark = pytest.mark.slow


def test_the_demo_needs_nothing_and_ends_by_itself(processes: Processes, tmp_path: Path) -> None:
    """With no broker named it brings one; batches, rows by type and hour and the UI's address are shown; exit 0."""
    variables = environment({"BASE_DIR": str(tmp_path), "DEMO_SECONDS": "5"})
    ended = processes.run(DEMO, variables, LIMIT_SECONDS)
    assert ended.code == 0, ended.said
    assert processes.living() == []
    assert "embedded" in ended.out
    assert ended.out.count("  batch ") >= 3
    for kind in ("object.one", "object.two", "object.three"):
        assert kind in ended.out
    assert "http://127.0.0.1:" in ended.out
    assert "Every message is in the archive exactly once, byte for byte." in ended.out
    (line,) = [line for line in ended.out.splitlines() if line.startswith("Produced ")]
    produced, archived = (int(word.replace(",", "").rstrip(".")) for word in line.split() if word[0].isdigit())
    assert produced == archived > 0


def test_the_demo_archives_all_that_a_broker_of_ones_own_has(
    processes: Processes, bootstrap_servers: str, tmp_path: Path
) -> None:
    """With a broker named it uses that one, and ends when all is archived, also what an earlier demo left there."""
    generate(Generator({"bootstrap.servers": bootstrap_servers}, TOPICS, rate=0, count=30_000, late_share=0.5))
    named = {"BASE_DIR": str(tmp_path), "DEMO_SECONDS": "1", "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers}
    ended = processes.run(DEMO, environment(named), LIMIT_SECONDS)
    assert ended.code == 0, ended.said
    assert processes.living() == []
    assert bootstrap_servers in ended.out
    assert "embedded" not in ended.out
    Archived(tmp_path / "demo", bootstrap_servers, *TOPICS).assert_equal(*TOPICS)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"])
def test_an_interrupted_demo_leaves_no_process(
    processes: Processes, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    """Ctrl-C or a polite kill ends the demo and Dagster with all its processes."""
    log = tmp_path / "demo.log"
    variables = environment({"BASE_DIR": str(tmp_path), "DEMO_SECONDS": "600"})
    demo = processes.start(DEMO, variables, log)
    wait_for("the first batch", lambda: "  batch 1:" in log.read_text(), LIMIT_SECONDS)
    assert len(processes.living()) > 3
    demo.send_signal(number)
    assert demo.wait(STOP_LIMIT_SECONDS) == code
    processes.wait_until_none_lives(STOP_LIMIT_SECONDS)
    assert "Traceback" not in log.read_text()


def test_a_demo_without_its_broker_fails_and_says_so(processes: Processes, tmp_path: Path) -> None:
    """A broker that does not answer ends the demo with exit 1 and its address, not with a wait for batches."""
    named = {"BASE_DIR": str(tmp_path), "DEMO_SECONDS": "5", "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    ended = processes.run(DEMO, environment(named), 100)
    assert ended.code == 1
    assert "127.0.0.1:1" in ended.out
    assert "Traceback" not in ended.said
    assert processes.living() == []


def test_a_wrong_length_is_refused(processes: Processes, tmp_path: Path) -> None:
    """`DEMO_SECONDS` that is no number is exit 2 and one line, before anything is started."""
    ended = processes.run(DEMO, environment({"BASE_DIR": str(tmp_path), "DEMO_SECONDS": "soon"}))
    assert (ended.code, ended.said) == (2, "DEMO_SECONDS is 'soon': allowed is a whole number of seconds\n")
