"""`archiver erase`, run as a process of its own: what it asks, what it prints where, and its exit codes."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from archiver_pipeline.cli.main import app
from archiver_pipeline.erasure import begun
from archiver_pipeline.rewrites.predicate import Predicate
from archiver_pipeline.stored.verify import verify
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.commands import COMMAND, run_command, variables_of
from archiver_pipeline_tests.damaged_hours import HOURS, files_of, flip
from archiver_pipeline_tests.erasing import OF_SECRET, SECRET, assert_erased, rows, traces, users
from archiver_pipeline_tests.processes import Ended, free_port
from archiver_pipeline_tests.waiting import LIMIT_SECONDS

Run = Callable[..., Ended]


@pytest.fixture
def archived(tmp_path: Path, bootstrap_servers: str, topic_name: str) -> Archived:
    """An archive of two hours."""
    return users(bootstrap_servers, topic_name, tmp_path / "data")


def variables(archived: Archived, **more: str) -> dict[str, str]:
    """The environment of the command: nothing of ours but what is given."""
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": archived.bootstrap_servers,
        "ARCHIVER_TOPICS": archived.settings.topics[0],
        "ARCHIVER_RESULTS_TOPIC": "",
    }
    return variables_of(archived.settings.base_dir.parent, **{**settings, **more})


@pytest.fixture
def run(archived: Archived, tmp_path: Path) -> Run:
    """Runs `archiver` on the test's archive, without a terminal."""

    def ended(*arguments: str, **more: str) -> Ended:
        return run_command(arguments, variables(archived, **more), tmp_path)

    return ended


def at_terminal(archived: Archived, folder: Path, answer: str, *arguments: str) -> tuple[int, str]:
    """Run `archiver erase` at a terminal, give an answer when it asks, and return exit code and all that it showed."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "erase", *arguments],
        cwd=folder,
        env=variables(archived, TERM="xterm", COLUMNS="200"),
        stdin=follower,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    shown, asked, deadline = b"", False, time.monotonic() + LIMIT_SECONDS
    try:
        while time.monotonic() < deadline and select.select([leader], [], [], LIMIT_SECONDS)[0]:
            try:
                shown += os.read(leader, 65536)
            except OSError:  # the other side is closed
                break
            if not asked and b"[y/N]" in shown:
                asked = True
                os.write(leader, answer.encode() + b"\n")
        process.wait(LIMIT_SECONDS)
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    return process.returncode, shown.decode()


def interrupted(archived: Archived) -> None:
    """Leave an erasure that was confirmed and not done."""
    with begun(archived.settings) as erasure:
        erasure.confirm(Predicate(OF_SECRET), erasure.look(Predicate(OF_SECRET)))


def test_what_it_says(run: Run, archived: Archived) -> None:
    """What matches by topic and type goes to standard output, what was done and what others keep to standard error."""
    before = rows(archived.path)
    done = run("erase", "--yes", "--where", OF_SECRET)
    assert done.code == 0, done.err
    topic = re.escape(archived.settings.topics[0])
    for line in done.out.splitlines()[:-1]:
        assert re.fullmatch(
            rf"topic {topic}, type \S+: \d messages?, 2019-08-01 0\d:\S+ to 2019-08-01 0\d:\S+ UTC", line
        )
    assert done.out.splitlines()[-1] == "24 messages in 2 hours of 120 match"
    summary, kafka = done.err.splitlines()
    assert re.fullmatch(
        r"24 messages erased in 2 hours: 12 of 16 files \(\d+\.\d % of .+ bytes\) rewritten in .+ s", summary
    )
    assert kafka.startswith("Kafka keeps what it has until")
    assert SECRET not in done.said
    assert_erased(archived, before)
    assert run("verify", "--against-kafka").code == 0


def test_as_json(run: Run, archived: Archived) -> None:
    """One document with every promised field, and nothing else on standard output."""
    done = run("erase", "--yes", "--json", "--where", "value->>'$.uid' = 'user-1'")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert set(found) == {
        *("good", "dry_run", "erased", "hours", "files_rewritten", "files", "bytes_rewritten", "bytes", "matched"),
        *("unjudged", "seconds", "followers", "faults", "resumed", "predicate_hash"),
    }
    assert (found["good"], found["dry_run"], found["erased"], found["hours"]) == (True, False, 24, 2)
    assert found["unjudged"] == 4
    assert sum(item["messages"] for item in found["matched"]) == 24
    assert 0 < found["bytes_rewritten"] <= found["bytes"]
    assert found["predicate_hash"] == Predicate("value->>'$.uid' = 'user-1'").digest
    assert "4 messages could not be judged" in done.err
    ((digest, messages),) = archived.sql("SELECT predicate_hash, messages FROM erasures")
    assert (digest, messages) == (found["predicate_hash"], 24)


def test_a_dry_run_changes_nothing(run: Run, archived: Archived) -> None:
    """It says what would go, and every file is as it was."""
    files = {path: path.stat().st_mtime_ns for path in archived.path.rglob("*") if path.is_file()}
    done = run("erase", "--dry-run", "--where", OF_SECRET)
    assert (done.code, done.out.splitlines()[-1]) == (0, "24 messages in 2 hours of 120 match")
    assert done.err.splitlines() == ["nothing was changed"]
    assert {path: path.stat().st_mtime_ns for path in archived.path.rglob("*") if path.is_file()} == files
    assert json.loads(run("erase", "--dry-run", "--json", "--where", OF_SECRET).out)["dry_run"] is True


def test_nothing_matches(run: Run, archived: Archived) -> None:
    """That is said, with exit code 0, and nothing is changed."""
    version = archived.version()
    done = run("erase", "--yes", "--where", "type = 'nothing'")
    assert (done.code, done.out, done.err) == (0, "none of 120 match\n", "nothing was changed\n")
    assert archived.version() == version


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("selec", "no SQL condition over messages"),
        ("nocolumn = 1", "nocolumn"),
        ("value", "no condition that is true or false"),
        ("value->>'$.uid' IN (SELECT value->>'$.uid' FROM messages)", "TRY("),
    ],
)
def test_what_is_not_sql(run: Run, archived: Archived, where: str, said: str) -> None:
    """One clear line, exit code 2, and nothing is changed."""
    version = archived.version()
    done = run("erase", "--yes", "--where", where)
    assert (done.code, done.out) == (2, "")
    assert re.fullmatch(r"archiver: --where .+\n", done.err)
    assert said in done.err
    assert archived.version() == version


@pytest.mark.parametrize(
    "arguments",
    [[], ["--where", " "], ["--yes"], ["--resume", "--where", "true"], ["--resume", "--dry-run"], ["--where", "true"]],
)
def test_wrong_options_are_wrong_usage(arguments: list[str]) -> None:
    """A condition, or --resume alone; and without a terminal an answer beforehand: exit code 2."""
    done = CliRunner().invoke(app, ["erase", *arguments])
    assert (done.exit_code, done.stdout) == (2, "")
    assert re.fullmatch(r"archiver: [^A-Z].+\. Try 'archiver erase --help'\n", done.stderr), done.stderr


def test_everything_is_asked_for_twice(run: Run, archived: Archived) -> None:
    """Without a terminal --yes alone is not enough for a condition that matches every message."""
    version = archived.version()
    done = run("erase", "--yes", "--where", "true")
    assert done.code == 2
    assert "--everything" in done.err
    assert archived.version() == version
    done = run("erase", "--yes", "--everything", "--where", "true")
    assert done.code == 0, done.err
    assert "120 messages erased in 2 hours" in done.err
    assert traces(archived.settings.base_dir, "user-") == []
    assert verify(archived.settings, against_kafka=True).good


def test_at_a_terminal(archived: Archived, tmp_path: Path) -> None:
    """It asks; no is no, and yes is done."""
    before = rows(archived.path)
    code, shown = at_terminal(archived, tmp_path, "n", "--where", OF_SECRET)
    assert code == 1
    assert "Erase 24 messages for good? [y/N]" in shown
    assert "nothing was changed" in shown
    assert rows(archived.path).equals(before)
    code, shown = at_terminal(archived, tmp_path, "n", "--yes", "--where", "true")
    assert code == 1
    assert "EVERY message" in shown
    code, shown = at_terminal(archived, tmp_path, "y", "--where", OF_SECRET)
    assert code == 0
    assert "24 messages erased in 2 hours" in shown
    assert_erased(archived, before)


def test_one_that_was_interrupted(run: Run, archived: Archived) -> None:
    """status and verify tell of it, a dry run leaves it, the next erasure finishes it first."""
    before = rows(archived.path)
    interrupted(archived)
    assert "was interrupted: `archiver erase --resume` finishes it" in run("status").out
    assert len(json.loads(run("status", "--json").out)["interrupted_erasures"]) == 1
    found = run("verify")
    assert (found.code, found.out.split(":")[0]) == (1, "unerased")
    assert "archiver erase --resume" in run("erase", "--dry-run", "--where", "type = 'nothing'").err
    done = run("erase", "--yes", "--where", "type = 'nothing'")
    assert done.code == 0
    assert "was interrupted and is finished now" in done.err
    assert "24 messages erased in 2 hours" in done.err
    assert_erased(archived, before)
    assert run("verify").code == 0


def test_resume(run: Run, archived: Archived) -> None:
    """It does only that, asks nothing, and says so where there is nothing to do."""
    before = rows(archived.path)
    interrupted(archived)
    found = json.loads(run("erase", "--resume", "--json").out)
    assert (found["good"], [item["erased"] for item in found["resumed"]]) == (True, [24])
    assert_erased(archived, before)
    done = run("erase", "--resume")
    assert (done.code, done.err) == (0, "no erasure was interrupted\n")


def test_a_damaged_file(run: Run, archived: Archived) -> None:
    """One line names it and the remedy, exit code 1; found only afterwards, its hour alone is left."""
    damaged = files_of(archived, HOURS[0], "t0")[0]
    content = damaged.read_bytes()
    flip(damaged)
    done = run("erase", "--yes", "--where", OF_SECRET)
    assert done.code == 1
    assert re.fullmatch(rf"archiver: a file is missing or damaged.+{damaged.name}.+`archiver backfill`.+\n", done.err)
    damaged.write_bytes(content)
    interrupted(archived)
    flip(damaged)
    done = run("erase", "--resume")
    assert done.code == 1
    assert "12 messages erased in 1 hour" in done.err
    assert str(damaged) in done.err
    damaged.write_bytes(content)
    assert run("erase", "--resume").code == 0


def test_without_a_broker(run: Run, archived: Archived) -> None:
    """It needs none: what Kafka may still have is said all the same."""
    done = run("erase", "--yes", "--where", OF_SECRET, KAFKA_BOOTSTRAP_SERVERS="")
    assert done.code == 0, done.err
    assert "Kafka keeps" in done.err
    done = run("erase", "--yes", "--where", "type = 't0'", KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}")
    assert done.code == 0, done.err
    assert traces(archived.settings.base_dir) == []


def test_without_an_archive(run: Run, tmp_path: Path) -> None:
    """One line that says so, exit code 1, and nothing is made."""
    done = run("erase", "--yes", "--where", "true", BASE_DIR=str(tmp_path / "nowhere"))
    assert (done.code, done.out) == (1, "")
    assert "there is no archive yet" in done.err
    assert not (tmp_path / "nowhere").exists()


def test_help_names_what_it_does(run: Run) -> None:
    """The help tells of the options, of what stays, of the JSON, and has examples."""
    done = run("erase", "--help", COLUMNS="100")
    for text in ("--where", "--dry-run", "--yes", "--everything", "--resume", "_erased", "JSON", "Examples", "u4711"):
        assert text in done.out
