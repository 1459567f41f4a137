"""Rules of what is shown while a command works: on a real pseudo-terminal, and without one."""

from __future__ import annotations

import fcntl
import logging
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from archiver_pipeline.cli import progress
from archiver_pipeline.cli.progress import Course
from archiver_pipeline_tests.processes import CHECKOUT
from archiver_pipeline_tests.waiting import LIMIT_SECONDS, wait_for

PROGRAM = """
import logging, sys, time
from archiver_pipeline.cli import progress
progress.LINE_SECONDS = 0.2
log = logging.getLogger("archiver_pipeline")
logging.basicConfig(handlers=[logging.StreamHandler(sys.stderr)], format="archiver: %(message)s")
with progress.progress({"files": "files checked", "wait": "waiting for seals"}, "run it again") as on_progress:
    for done in range(6):
        on_progress("files", done, 5)
        time.sleep(0.15)
    log.warning("a line of the log")
    on_progress("wait", 12, 60)
    if "stay" in sys.argv:
        time.sleep(60)
    time.sleep(0.3)
print("the result")
"""


class Terminal:
    """A program whose standard error is a pseudo-terminal of some columns, and what it has shown there."""

    def __init__(self, *arguments: str, columns: int = 100, variables: Mapping[str, str] | None = None) -> None:
        """Start it."""
        leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            cwd=CHECKOUT,
            env={**kept, "TERM": "xterm-256color", **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=follower,
        )
        os.close(follower)
        os.set_blocking(leader, False)
        self._leader, self._shown = leader, b""

    def shown(self) -> str:
        """All that came so far."""
        try:
            while found := os.read(self._leader, 65536):
                self._shown += found
        except OSError:  # Nothing is there now, or the other side is closed.
            pass
        return self._shown.decode(errors="replace")

    def end(self) -> tuple[int, str, str]:
        """Wait for its end: exit code, standard output, and all that was shown."""
        wait_for("the end", lambda: (self.shown(), self.process.poll())[1] is not None)
        output, _ = self.process.communicate(timeout=LIMIT_SECONDS)
        told = self.shown()
        os.close(self._leader)
        return self.process.returncode, output.decode(), told


def lines(shown: str) -> list[str]:
    """What a terminal was sent, without what moves its cursor or colours."""
    return [line.strip() for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)) if line.strip()]


def test_a_bar_on_a_terminal_is_gone_at_the_end_and_logs_stand_above_it() -> None:
    """The bar has count, rate and what is left; a line of the log is whole; standard output has the result alone."""
    code, output, shown = Terminal().end()
    assert (code, output) == (0, "the result\n")
    told = lines(shown)
    assert any("5 of 5 files checked" in line for line in told), told
    assert any("━" in line for line in told)
    assert any("waiting for seals, 12 s of 60 s" in line for line in told)
    assert "archiver: a line of the log" in told
    assert shown.rstrip().endswith(("\x1b[2K", "\x1b[?25h")), "the last line is cleared, and the cursor is there again"
    assert "\x1b[?25h" in shown


def test_ctrl_c_takes_the_bar_away_and_says_what_is_done() -> None:
    """One line stands behind the bar: how far it came, and what going on takes."""
    terminal = Terminal("stay")
    wait_for("the wait", lambda: "waiting for seals" in terminal.shown())
    terminal.process.send_signal(signal.SIGINT)
    _, output, shown = terminal.end()
    assert output == ""
    assert "stopped: waiting for seals, 12 s of 60 s; run it again" in lines(shown)
    assert shown.index("\x1b[?25h") < shown.index("stopped: ")


def test_a_narrow_terminal_has_lines_that_fit() -> None:
    """In 40 columns there is no bar: the share and what is left, and no line is longer."""
    _, _, shown = Terminal(columns=40).end()
    told = lines(shown)
    assert any(line.startswith("100 % files checked") for line in told), told
    assert max(map(len, told)) <= 40
    assert "━" not in shown


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"ARCHIVER_LOG_FORMAT": "json"}], ids=str)
def test_what_a_user_does_not_want_is_not_sent(variables: dict[str, str]) -> None:
    """NO_COLOR takes the colours away, a dumb terminal and logs for programs get no bar at all."""
    _, _, shown = Terminal(variables=variables).end()
    assert not re.search(r"\x1b\[[\d;]*3\d(;[\d;]*)?m", shown)
    if "NO_COLOR" not in variables:
        assert "\x1b" not in shown
    assert "a line of the log" in shown


def test_without_a_terminal_there_is_a_line_now_and_then(tmp_path: Path) -> None:
    """Each line is whole: how much is done of what, and no control character; short work has none."""
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=True)
    told = done.stderr.splitlines()
    assert any(re.fullmatch(r"\d of 5 files checked(, [\d.]+ a second)?(, [\d.]+ s left)?", line) for line in told), (
        told
    )
    assert "\x1b" not in done.stderr
    quick = PROGRAM.replace("LINE_SECONDS = 0.2", "LINE_SECONDS = 60")
    done = subprocess.run([sys.executable, "-c", quick], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("the result\n", "archiver: a line of the log\n")


def test_where_logs_are_json_progress_is_a_record(caplog: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    """It is there without --verbose, too."""
    monkeypatch.setenv("ARCHIVER_LOG_FORMAT", "json")
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.01)
    progress.log.setLevel(logging.NOTSET)
    with progress.progress({"files": "files checked"}) as on_progress:
        on_progress("files", 1, 5)
        wait_for("a record", lambda: "1 of 5 files checked" in caplog.text)


@pytest.mark.parametrize(
    ("course", "seconds", "text"),
    [
        (Course("files checked", 0, 20, 0, 0.0), 0.0, "0 of 20 files checked"),
        (Course("messages sent", 500, 2000, 0, 0.0), 5.0, "500 of 2,000 messages sent, 100 a second, 15 s left"),
        (Course("messages sent", 1500, 2000, 1000, 0.0), 5.0, "1,500 of 2,000 messages sent, 100 a second, 5.0 s left"),
        (Course("messages sent", 500, 0, 0, 0.0), 5.0, "500 messages sent, 100 a second"),
        (Course("files checked", 20, 20, 0, 0.0), 5.0, "20 of 20 files checked, 4.0 a second"),
        (Course("looking through the messages", 0, 0, 0, 0.0), 12.0, "looking through the messages, 12 s"),
        (Course("waiting for a lock", 12, 60, 0, 0.0), 12.0, "waiting for a lock, 12 s of 60 s"),
    ],
    ids=lambda each: str(each)[:40],
)
def test_a_step_tells_count_rate_and_rest(course: Course, seconds: float, text: str) -> None:
    """The rate is that of this step so far, without what was done before it; what is left is told as long as there is
    a rate."""
    assert course.told(seconds) == text


def test_a_step_that_begins_anew_has_a_rate_of_its_own() -> None:
    """Hours read in a second go are not counted against the time of the first."""
    course = Course("offsets read", 100, 100, 0, 0.0)
    course.moved(10, 50)
    assert (course.first, course.done, course.total) == (10, 10, 50)
    assert course.began > 0.0
