"""`archiver replay`, run as a process of its own: what it prints where, its exit codes, and what Ctrl-C leaves."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.commands import COMMAND, run_command, variables_of
from archiver_pipeline_tests.kafka.produce import Sent, create_topic, delete_records, delete_topic, end_offsets, produce
from archiver_pipeline_tests.processes import Ended, free_port
from archiver_pipeline_tests.replays import assert_sent
from archiver_pipeline_tests.samples import FIRST_MS
from archiver_pipeline_tests.waiting import LIMIT_SECONDS, wait_for

Run = Callable[..., Ended]


@pytest.fixture
def archived(tmp_path: Path, bootstrap_servers: str, topic_name: str) -> Archived:
    """An archive of a topic with two partitions and 20 messages."""
    create_topic(bootstrap_servers, topic_name, 2)
    sent = [Sent(b'{"type": "t", "seq": %d}' % n, b"k", (), FIRST_MS + n, partition=n % 2) for n in range(20)]
    produce(bootstrap_servers, topic_name, sent)
    archive = Archived(tmp_path / "data", bootstrap_servers, topic_name)
    archive.run()
    return archive


@pytest.fixture
def variables(tmp_path: Path, bootstrap_servers: str, topic_name: str) -> dict[str, str]:
    """The environment of the command: nothing of ours but what is given."""
    return variables_of(tmp_path, KAFKA_BOOTSTRAP_SERVERS=bootstrap_servers, ARCHIVER_TOPICS=topic_name)


@pytest.fixture
def replay(tmp_path: Path, variables: dict[str, str]) -> Run:
    """Runs the command."""

    def run(*arguments: str, **more: str) -> Ended:
        return run_command(["replay", *arguments], {**variables, **more}, tmp_path)

    return run


def test_the_disaster_drill(archived: Archived, replay: Run, topic_name: str) -> None:
    """The drill's one command brings a lost topic back, and prints for each partition that both sides are equal."""
    delete_topic(archived.bootstrap_servers, topic_name)
    done = replay("--all", "--create-topics", "--check")
    assert done.code == 0, done.err
    assert f"20 messages sent to {topic_name}, in " in done.out
    assert f"recorded as archived already: {topic_name}" in done.out
    for number in range(2):
        assert f"topic {topic_name}, partition {number}: equal, 10 messages, digest " in done.out
    again = replay("--all", "--check", "--json")
    document = json.loads(again.out)
    assert (again.code, document["good"], document["sent"], document["before"]) == (0, True, 0, 20)
    assert [item["equal"] for item in document["partitions"]] == [True, True]


def test_what_differs_is_a_fault(archived: Archived, replay: Run, topic_name: str) -> None:
    """Where a topic no longer has all that was sent to it, the check says so, and the exit code is 1."""
    copy = f"{topic_name}-2"
    create_topic(archived.bootstrap_servers, copy, 2)
    assert replay("--all", "--to-topic", copy).code == 0
    delete_records(archived.bootstrap_servers, copy, {1: 3})
    done = replay("--all", "--to-topic", copy, "--check")
    assert done.code == 1
    assert f"topic {copy}, partition 0: equal" in done.out
    assert f"topic {copy}, partition 1: NOT equal: the archive has 10 messages" in done.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--from, --to or both, or --all"),
        (("--all", "--from", "2019-08-01"), "--all"),
        (("--from", "yesterday"), "--from is 'yesterday'"),
        (("--from", "2019-08-02", "--to", "2019-08-01"), "it has to be after --from"),
        (("--all", "--rate", "5", "--original-pace"), "one of --rate and --original-pace"),
        (("--all", "--rate", "-5"), "--rate"),
        (("--all", "--to-topic", "no topic!"), "--to-topic"),
    ],
)
def test_wrong_usage(archived: Archived, replay: Run, arguments: tuple[str, ...], says: str) -> None:
    """What makes no sense is refused with exit code 2 before anything is asked of the broker."""
    done = replay(*arguments, KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}")
    assert done.code == 2, done
    assert says in done.err


def test_what_cannot_be_done(archived: Archived, replay: Run, topic_name: str) -> None:
    """A broker that is not there, and a topic that neither side has, are one line on standard error."""
    gone = replay("--all", KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}")
    assert (gone.code, gone.err.count("\n")) == (1, 1), gone.err
    assert "Check KAFKA_BOOTSTRAP_SERVERS" in gone.err
    strange = replay("--all", "--topics", "nowhere")
    assert (strange.code, strange.err.count("\n")) == (2, 1), strange.err
    assert f"the archive has no such topic; it has {topic_name}" in strange.err
    nothing = replay("--from", "2030-01-01")
    assert (nothing.code, nothing.out) == (0, "nothing was sent: the archive has no such messages\n")


def test_ctrl_c_stops_it_and_it_goes_on(
    archived: Archived, variables: dict[str, str], replay: Run, topic_name: str, tmp_path: Path
) -> None:
    """Ctrl-C ends a replay with a sentence, its exit code is 130, and the same command sends the rest."""
    copy = f"{topic_name}-2"
    create_topic(archived.bootstrap_servers, copy, 2)
    command = [*COMMAND, "replay", "--all", "--to-topic", copy, "--rate", "4"]
    running = subprocess.Popen(command, env=variables, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    wait_for("the first messages", lambda: sum(end_offsets(archived.bootstrap_servers, copy).values()) > 0)
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=LIMIT_SECONDS)
    assert running.returncode == 130
    assert "the same command goes on behind them" in errors
    assert replay("--all", "--to-topic", copy).code == 0
    assert_sent(archived, topic_name, copy)
