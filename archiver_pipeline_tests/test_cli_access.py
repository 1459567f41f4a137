"""Rules of the `archiver` command where the broker does not let it in: one line, in time, with what to check."""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.commands import run_command, variables_of
from archiver_pipeline_tests.kafka.produce import create_topic, produce
from archiver_pipeline_tests.kafka.secured import SecuredBroker
from archiver_pipeline_tests.processes import Ended
from archiver_pipeline_tests.samples import numbered

COMMANDS = {
    "status": ["status"],
    "verify": ["verify", "--against-kafka"],
    "generate": ["generate", "--count", "1"],
    "replay": ["replay", "--all"],
    "backfill": ["backfill", "--from", "2019-08-01T03:00", "--to", "2019-08-01T04:00"],
    "tail": ["tail", "--messages"],
}
WRONG = "wrong-password"

Said = dict[str, tuple[Ended, float]]


def environment_of(properties: dict[str, str], folder: Path, topic: str) -> dict[str, str]:
    """The environment of the command for a client with these properties."""
    kafka = {f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in properties.items()}
    return variables_of(folder, ARCHIVER_TOPICS=topic, **kafka)


def run(arguments: list[str], variables: dict[str, str], folder: Path) -> tuple[Ended, float]:
    """Run the command to its end, and tell how long it took."""
    began = time.monotonic()
    ended = run_command(arguments, variables, folder)
    return ended, time.monotonic() - began


@pytest.fixture(scope="module")
def said(secured: SecuredBroker, tmp_path_factory: pytest.TempPathFactory) -> Said:
    """What each command says to a wrong password, and after how many seconds."""
    folder, topic = tmp_path_factory.mktemp("cli"), f"cli-access-{uuid.uuid4().hex[:8]}"
    create_topic(secured.bootstrap_servers, topic)
    produce(secured.bootstrap_servers, topic, numbered(range(10)))
    Archived(folder / "data", secured.bootstrap_servers, topic).run()
    secured.add_user(topic, "right-password")
    variables = environment_of(secured.scram(topic, WRONG), folder, topic)
    with ThreadPoolExecutor(3) as side_by_side:
        found = side_by_side.map(lambda arguments: run(arguments, variables, folder), COMMANDS.values())
        return dict(zip(COMMANDS, found, strict=True))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_that_it_is_not_let_in(said: Said, command: str) -> None:
    """Its last line names the broker, the reason and the settings to check; the exit code is 1."""
    ended, seconds = said[command]
    assert ended.code == 1, ended.said
    line = ended.err.strip().splitlines()[-1]
    assert line.startswith("archiver: 127.0.0.1:")
    assert " refused access when " in line
    assert "Check KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD and KAFKA_SASL_MECHANISM" in line
    assert WRONG not in ended.said
    assert seconds < 60  # Three at a time on a busy machine; most of it is Python's start.


def test_a_missing_file_is_wrong_usage(tmp_path: Path) -> None:
    """One line names the variable, the path and the fault; the exit code is 2."""
    properties = {"bootstrap.servers": "127.0.0.1:1", "security.protocol": "ssl", "ssl.ca.location": "/nowhere/ca.pem"}
    ended, _ = run(["status"], environment_of(properties, tmp_path, "orders"), tmp_path)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "archiver: KAFKA_SSL_CA_LOCATION is '/nowhere/ca.pem': there is no such file\n"
