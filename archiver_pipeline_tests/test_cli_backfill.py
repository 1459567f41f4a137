"""`archiver backfill`, run as a process of its own: what it prints where, its exit codes, and what Ctrl-C leaves."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from archiver_pipeline.cli.main import app
from archiver_pipeline.stored.verify import verify
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.commands import COMMAND, run_command, variables_of
from archiver_pipeline_tests.kafka.produce import Sent, create_topic, delete_records, produce
from archiver_pipeline_tests.kafka.raw import RawRecord, produce_raw
from archiver_pipeline_tests.processes import Ended, free_port
from archiver_pipeline_tests.samples import FIRST_MS
from archiver_pipeline_tests.waiting import LIMIT_SECONDS

BACKFILL = [*COMMAND, "backfill"]
RANGE = ("--from", "2019-08-01T03:00", "--to", "2019-08-01T05:00")
HOUR_MS = 3_600_000

Run = Callable[..., Ended]


@pytest.fixture
def archived(tmp_path: Path, bootstrap_servers: str, topic_name: str) -> Archived:
    """An archive of two hours with ten messages each, of two types."""
    create_topic(bootstrap_servers, topic_name)
    messages = [
        Sent(b'{"type": "t%d", "seq": %d}' % (n % 2, n), b"k", (), FIRST_MS + n // 10 * HOUR_MS + n) for n in range(20)
    ]
    produce(bootstrap_servers, topic_name, messages)
    archive = Archived(tmp_path / "data", bootstrap_servers, topic_name)
    archive.run()
    return archive


@pytest.fixture
def backfill(tmp_path: Path, bootstrap_servers: str, topic_name: str) -> Run:
    """Runs the command on the shared broker and the test's topic."""

    def run(*arguments: str, **more: str) -> Ended:
        settings = {"KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers, "ARCHIVER_TOPICS": topic_name, **more}
        return run_command(["backfill", *arguments], variables_of(tmp_path, **settings), tmp_path)

    return run


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        ("yesterday", "2019-08-01", "--from is 'yesterday': allowed is an ISO time such as 2019-08-01T03:00"),
        ("2019-08-01", "2019-13-01", "--to is '2019-13-01': allowed is an ISO time"),
        ("", "2019-08-01", "give both times, or --unknown-time alone"),
        ("0001-01-01T00:00+05:00", "2019-08-01", "allowed is an ISO time"),
        ("2019-08-01T03:30", "2019-08-01T05:00", "both have to be whole hours"),
        ("2019-08-01T03:00", "2019-08-01T05:00:01", "both have to be whole hours"),
        ("2019-08-01T05:00", "2019-08-01T03:00", "the end has to be after the start"),
        ("2019-08-01T03:00", "2019-08-01T03:00", "the end has to be after the start"),
        ("2019-08-01T03:00+02:00", "2019-08-01T01:00Z", "the end has to be after the start"),
    ],
)
def test_wrong_times_are_wrong_usage(start: str, end: str, said: str) -> None:
    """What is no time, no whole hour or no range is said in one sentence with what was given: exit code 2."""
    done = CliRunner().invoke(app, ["backfill", "--from", start, "--to", end])
    assert (done.exit_code, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert isinstance(done.exception, SystemExit)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--from", "2019-08-01"],
        ["--to", "2019-08-01"],
        ["--unknown-time", *RANGE],
        [*RANGE, "--nonsense"],
        [*RANGE, "--from-archive", "--accept-loss"],
    ],
)
def test_wrong_options_are_wrong_usage(arguments: list[str]) -> None:
    """Both times or none, no loss where Kafka is not asked, no option that is not there: exit code 2."""
    done = CliRunner().invoke(app, ["backfill", *arguments])
    assert (done.exit_code, done.stdout) == (2, "")
    assert re.fullmatch(r"archiver: [^A-Z].+\. Try 'archiver backfill --help'\n", done.stderr), done.stderr


def test_a_good_range(backfill: Run, archived: Archived) -> None:
    """A line for each hour on standard output, the sum on standard error, exit code 0, and the hours are sealed."""
    done = backfill(*RANGE)
    assert done.code == 0, done.err
    assert done.out.splitlines() == [
        f"hour 2019-08-01T0{hour} is as it should be: Kafka has 10 of its messages, 0 only the archive has"
        for hour in (3, 4)
    ]
    assert done.err == "2 hours read again, 0 changed\n"
    assert archived.sql("SELECT DISTINCT sealed FROM hours") == [(True,)]


def test_the_times_may_have_a_zone(backfill: Run, archived: Archived) -> None:
    """A day is the hours of UTC from midnight to midnight; another zone is reckoned into UTC."""
    done = backfill("--from", "2019-08-01T05:00+02:00", "--to", "2019-08-01T03:00-01:00", "--json")
    assert [item["hour"] for item in json.loads(done.out)["hours"]] == ["2019-08-01T03"]
    done = backfill("--from", "2019-08-01", "--to", "2019-08-02")
    assert len(done.out.splitlines()) == 2, "nothing is said of the hours without a message"
    assert done.err == "24 hours read again, 0 changed, 22 without any message\n"
    done = backfill("--from", "2019-08-01", "--to", "2019-08-02", "--json")
    assert [item["hour"] for item in json.loads(done.out)["hours"]] == [f"2019-08-01T{n:02}" for n in range(24)]


def test_damage_is_mended_and_said(backfill: Run, archived: Archived) -> None:
    """A deleted file is told of with what became of it, and afterwards the archive is good: exit code 0."""
    gone = min(archived.path.glob("type=t0/**/hr=03/*.parquet"))
    gone.unlink()
    done = backfill(*RANGE)
    assert done.code == 0, done.err
    first, second = done.out.splitlines()
    assert first == (
        "hour 2019-08-01T03: 5 added, 1 damaged or missing file replaced; "
        "Kafka has 10 of its messages, 0 only the archive has"
    )
    assert second.startswith("hour 2019-08-01T04 is as it should be")
    assert done.err == "2 hours read again, 1 changed\n"
    assert verify(archived.settings, against_kafka=True).good
    assert archived.sql("SELECT count(*) FROM messages") == [(20,)], "the DuckDB file is up to date"


def test_as_json(backfill: Run, archived: Archived) -> None:
    """One document with every promised field, and nothing else on standard output."""
    gone = min(archived.path.glob("type=t0/**/hr=03/*.parquet"))
    gone.unlink()
    done = backfill(*RANGE, "--json")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert set(found) == {"good", "hours"}
    assert found["good"] is True
    first, second = found["hours"]
    assert set(first) == {
        *("hour", "read", "added", "changed", "retyped", "kept", "lost", "mended", "messages", "files_before"),
        *("files_after", "seconds", "version", "fault"),
    }
    assert (first["hour"], first["read"], first["added"], first["mended"]) == ("2019-08-01T03", 10, 5, [str(gone)])
    assert (first["files_before"], first["files_after"], first["messages"], first["version"] > 0) == (1, 1, 10, True)
    assert (second["read"], second["added"], second["mended"], second["version"]) == (10, 0, [], None)
    assert first["fault"] is second["fault"] is None


def test_a_loss_is_a_fault_until_it_is_accepted(backfill: Run, archived: Archived, topic_name: str) -> None:
    """What neither side has any more leaves the hour as it was, with exit code 1, and names file and remedy."""
    gone = min(archived.path.glob("type=t0/**/hr=03/*.parquet"))
    gone.unlink()
    delete_records(archived.bootstrap_servers, topic_name, {0: -1})
    done = backfill(*RANGE)
    assert done.code == 1
    first, second = done.out.splitlines()
    assert first.startswith("hour 2019-08-01T03 was left as it was: Kafka no longer has 5 of the 5 messages of damaged")
    assert str(gone) in first
    assert "`archiver backfill --accept-loss`" in first
    assert second == "hour 2019-08-01T04 is as it should be: nothing of it was read from Kafka, 10 only the archive has"
    assert done.err.splitlines()[-1] == "2 hours read again, 0 changed, 1 left with a fault"
    told = json.loads(backfill(*RANGE, "--json").out)
    assert (told["good"], told["hours"][0]["lost"]) == (False, 5)
    assert str(gone) in told["hours"][0]["fault"]
    done = backfill(*RANGE, "--accept-loss")
    assert done.code == 0
    assert "5 lost and given up" in done.out
    assert verify(archived.settings).good


def test_messages_without_a_usable_time(backfill: Run, archived: Archived, topic_name: str) -> None:
    """They have no hour that --from and --to could name, but an option."""
    produce_raw(archived.bootstrap_servers, topic_name, [RawRecord(b"x", -1)])
    archived.run()
    for path in archived.path.glob("type=*/dt=_unknown/**/*.parquet"):
        path.unlink()
    done = backfill("--unknown-time")
    assert done.code == 0, done.err
    assert done.out.startswith("hour _unknown: 1 added, 1 damaged or missing file replaced;")
    assert verify(archived.settings, against_kafka=True).good


def test_other_rules_without_kafka(backfill: Run, archived: Archived) -> None:
    """With --from-archive types are given anew with no broker at all, neither set nor reachable."""
    done = backfill(*RANGE, "--from-archive", KAFKA_BOOTSTRAP_SERVERS="", ARCHIVER_TYPE_PATH="constant:all")
    assert done.code == 0, done.err
    assert "10 given another type" in done.out
    assert archived.sql("SELECT type, count(*) FROM messages GROUP BY 1") == [("all", 20)]


def test_without_an_archive(backfill: Run, bootstrap_servers: str, topic_name: str) -> None:
    """Where nothing is archived it is not known how far to read: one line that says what to do first, exit code 1."""
    create_topic(bootstrap_servers, topic_name)
    done = backfill(*RANGE)
    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(r"archiver: there is nothing archived yet.+Archive something first: .+\n", done.err)


def test_a_broker_that_is_not_named(backfill: Run, archived: Archived) -> None:
    """A wrong setting is one line and exit code 2, and no trace is left of the attempt."""
    done = backfill(*RANGE, KAFKA_BOOTSTRAP_SERVERS="")
    assert (done.code, done.out) == (2, "")
    assert re.fullmatch(r"archiver: KAFKA_BOOTSTRAP_SERVERS is not set: .+\n", done.err)
    assert list((archived.path / "_staging").iterdir()) == []


@pytest.mark.slow
def test_a_broker_that_is_down(backfill: Run, archived: Archived) -> None:
    """It is a fault, said in one line after the time that the broker has for an answer; nothing is changed."""
    version = archived.version()
    done = backfill(*RANGE, KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}")
    assert (done.code, done.out) == (1, "")
    assert re.fullmatch(r"(0 of 2 hours done\n)*archiver: 127\.0\.0\.1:\d+ did not answer .+\n", done.err)
    assert archived.version() == version
    assert list((archived.path / "_staging").iterdir()) == []


def test_ctrl_c_leaves_whole_hours(tmp_path: Path, archived: Archived, topic_name: str) -> None:
    """It ends with one line and exit code 130; hours that were said to be done are, and the next run cleans up."""
    for path in archived.path.glob("type=t0/**/*.parquet"):
        path.unlink()
    settings = {"KAFKA_BOOTSTRAP_SERVERS": archived.bootstrap_servers, "ARCHIVER_TOPICS": topic_name}
    process = subprocess.Popen(
        [*BACKFILL, "--from", "2019-08-01T03:00", "--to", "2029-08-01T00:00"],
        cwd=tmp_path,
        env=variables_of(tmp_path, **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(2)]
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=LIMIT_SECONDS)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130
    assert re.fullmatch(r"stopped: .+ of .+; an hour is mended whole or not at all: run the same .+\n", errors), errors
    assert said[0].startswith("hour 2019-08-01T03: 5 added, 1 damaged or missing file replaced")
    assert output == "", "ten years without a message were still to come"
    assert verify(archived.settings, against_kafka=True).good
    assert archived.sql("SELECT count(*) FROM messages") == [(20,)]
    again = subprocess.run([*BACKFILL, *RANGE], cwd=tmp_path, env=variables_of(tmp_path, **settings), check=True)
    assert again.returncode == 0
    assert [path for path in archived.stray_files() if not path.startswith("type=")] == []


def test_progress_is_shown_on_a_terminal(tmp_path: Path, archived: Archived, topic_name: str) -> None:
    """On a terminal a bar tells how many offsets are read; elsewhere standard error stays free of it."""
    leader, follower = pty.openpty()
    settings = {"KAFKA_BOOTSTRAP_SERVERS": archived.bootstrap_servers, "ARCHIVER_TOPICS": topic_name, "TERM": "xterm"}
    process = subprocess.Popen(
        [*BACKFILL, *RANGE],
        cwd=tmp_path,
        env=variables_of(tmp_path, **settings),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=follower,
        text=True,
    )
    os.close(follower)
    try:
        shown, deadline = b"", time.monotonic() + LIMIT_SECONDS
        while time.monotonic() < deadline and select.select([leader], [], [], LIMIT_SECONDS)[0]:
            try:
                shown += os.read(leader, 65536)
            except OSError:  # the other side is closed
                break
        output, _ = process.communicate(timeout=LIMIT_SECONDS)
    finally:
        process.kill()
        process.wait()
        os.close(leader)
    assert process.returncode == 0
    assert "20 of 20 offsets read" in shown.decode()
    assert len(output.splitlines()) == 2
    assert "\x1b" not in output


def test_help_names_what_it_does(backfill: Run) -> None:
    """The help tells of the range, of what is given up only on request, of the JSON, and has examples."""
    done = backfill("--help", COLUMNS="100")
    assert done.code == 0
    for text in ("--from", "--to", "--accept-loss", "--from-archive", "--json", "Examples", "archiver backfill --from"):
        assert text in done.out
