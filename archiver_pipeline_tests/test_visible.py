"""Rules for text of others: on a terminal and in a log it is text, and nothing else."""

from __future__ import annotations

import logging
import os
import pty
import subprocess
import sys
from pathlib import Path

from archiver_pipeline.cli.main import OneLine
from archiver_pipeline.visible import one_line, visible
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.kafka.produce import Sent, create_topic, produce
from archiver_pipeline_tests.processes import environment
from archiver_pipeline_tests.samples import FIRST_MS

HOSTILE = "a\x1b]0;title\x07\x9b31m\u202eb\r\x00\x7f"
"""Sets a terminal's title, changes its colour by the newer form, and turns the direction of writing."""

EVIL = '{"type": "evil\x9b31m\u202e", "text": "\x9b2J"}'


def on_terminal(arguments: list[str], variables: dict[str, str]) -> str:
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "archiver_pipeline.cli", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**environment(variables), "TERM": "xterm", "COLUMNS": "200"},
    ) as process:
        os.close(theirs)
        content = b""
        while True:
            try:
                read = os.read(ours, 65536)
            except OSError:  # Linux says so when the other side is closed.
                break
            if not read:
                break
            content += read
    os.close(ours)
    assert process.returncode == 0, content
    return content.decode()


def test_what_controls_a_terminal_is_an_escape() -> None:
    """Control characters of both sets and the direction of writing are written out; other text stays as it is."""
    assert visible(HOSTILE) == r"a\x1b]0;title\x07\x9b31m\u202eb\r\x00\x7f"
    assert visible("two\n\tlines, ü 日本 👩‍👩‍👧") == "two\n\tlines, ü 日本 👩‍👩‍👧"
    assert one_line("one\ntwo\u2028three") == r"one\ntwo\u2028three"
    assert visible("\ud83c").encode() == rb"\ud83c"


def test_a_name_makes_no_line_of_its_own_in_a_log() -> None:
    """A line of the log is one line, whatever a message has in it."""
    record = logging.LogRecord("n", logging.WARNING, "p", 1, "type %s", ("x\nERROR all is lost\x1b[2J",), None)
    assert OneLine("%(levelname)s %(message)s").format(record) == r"WARNING type x\nERROR all is lost\x1b[2J"


COMMANDS = (
    ["tail", "--messages", "--from-beginning", "--count", "1", "--full"],
    ["sql", "SELECT type, value->>'$.text' FROM messages"],
    ["sql", "--json", "SELECT type, value->>'$.text' FROM messages"],
)


def test_messages_do_not_control_a_terminal(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """What a command shows of messages on a terminal has no control character but those that end lines."""
    create_topic(bootstrap_servers, topic_name)
    produce(bootstrap_servers, topic_name, [Sent(EVIL.encode(), timestamp_ms=FIRST_MS)])
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    archived.run()
    for arguments in COMMANDS:
        said = on_terminal(arguments, archived.environment()).replace("\r\n", "\n")
        assert "evil" in said, arguments
        assert said == visible(said), arguments
