"""How far a long command has come: a bar on a terminal, a line every few seconds elsewhere, all on standard error."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any, TextIO

from archiver_pipeline.amounts import duration
from archiver_pipeline.cli.output import say
from archiver_pipeline.logs import JSON, wanted_format
from archiver_pipeline.stored.files import OnProgress

log = logging.getLogger(__name__)

LINE_SECONDS = 10.0
"""Where there is no terminal, how often a line is written; work that is shorter has none."""

_NARROW = 70
"""A terminal of fewer columns has no room for a bar and a rate."""

_WAITING = "waiting for "
"""A step whose label begins so is a wait: it is told in seconds, of how many it takes at most."""

_SLOW_SECONDS = 1.0


@dataclass
class Course:
    """How one step comes along.

    Attributes:
        label: what is done, such as `files checked`, or what is waited for, `waiting for …`.
        done, total: how much of how much; a total of 0 is one that nobody knows.
        first: how much was done when it began; an earlier run did that.
        began: when it began, by the monotonic clock.
    """

    label: str
    done: int = 0
    total: int = 0
    first: int = 0
    began: float = field(default_factory=time.monotonic)

    def moved(self, done: int, total: int) -> None:
        """Take how far it is. Where it is less than before, it has begun anew."""
        if done < self.done:
            self.began, self.first = time.monotonic(), done
        self.done, self.total = done, total

    def count(self) -> str:
        """How much is done: `12 of 20 files checked`."""
        if self.label.startswith(_WAITING):
            return f"{self.label}, {self.done} s of {self.total} s"
        if self.total:
            return f"{self.done:,} of {self.total:,} {self.label}"
        return f"{self.done:,} {self.label}" if self.done else self.label

    def told(self, now: float, *, narrow: bool = False) -> str:
        """The whole of it: how much is done, how fast, and how long the rest takes at that rate.

        Args:
            now: the time, by the monotonic clock.
            narrow: leave out what has no room in few columns.
        """
        seconds = now - self.began
        if self.label.startswith(_WAITING):
            return self.count()
        if not self.total and not self.done:
            return f"{self.label}, {duration(seconds)}"
        rate = (self.done - self.first) / seconds if seconds >= 1 else 0.0
        left = duration((self.total - self.done) / rate) + " left" if rate and self.total > self.done else ""
        if narrow and self.total:
            return ", ".join(filter(None, [f"{100 * self.done // self.total} % {self.label}", left]))
        speed = f"{rate:,.0f} a second" if rate >= 10 else f"{rate:.1f} a second" if rate >= 0.05 else ""
        return ", ".join(filter(None, [self.count(), speed, left]))


class Steps:
    """The steps of a command, as `OnProgress` tells them."""

    def __init__(self, labels: Mapping[str, str]) -> None:
        """Begin; `labels` has for each step what its `Course` says."""
        self._labels = labels
        self.courses: dict[str, Course] = {}
        self.newest = ""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Take what is being done, how much of it is done, and how much there is."""
        if what not in self.courses:
            self.courses[what] = Course(self._labels[what], done, total, done)
        self.courses[what].moved(done, total)
        self.newest = what

    def count(self) -> str:
        """How much is done of the newest step; empty where none has begun."""
        return self.courses[self.newest].count() if self.newest else ""


def is_live() -> bool:
    """Whether standard error is a terminal on which a line can be written anew, and logs are for people."""
    terminal = sys.stderr is not None and sys.stderr.isatty()
    return terminal and os.environ.get("TERM", "") not in ("", "dumb") and wanted_format() != JSON


@contextmanager
def progress(labels: Mapping[str, str], going_on: str = "") -> Iterator[OnProgress]:
    """Show how far a task of several steps has come, with its rate and the time that is left.

    Args:
        labels: for each step a text such as `files checked`, or `waiting for …`, whose numbers are seconds.
        going_on: what is said after Ctrl-C of going on; empty where the command says that itself.
    """
    steps = Steps(labels)
    try:
        with _bars(steps) if is_live() else _lines(steps):
            yield steps
    except KeyboardInterrupt:
        if going_on:
            say(f"stopped: {steps.count() or 'nothing was done yet'}; {going_on}", file=sys.stderr, flush=True)
        raise


def looking(what: str) -> AbstractContextManager[object]:
    """Show on a terminal that something is being done, such as `asking the broker`, once it takes long."""
    return _late_spinner(what) if is_live() else nullcontext()


@contextmanager
def _bars(steps: Steps) -> Iterator[None]:
    """A bar for each step, drawn anew some times a second and gone at the end."""
    from rich.console import Console
    from rich.live import Live
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    console = Console(stderr=True)

    def drawn() -> Table:
        narrow = console.width < _NARROW
        rows = Table.grid(padding=(0, 1))
        for course in list(steps.courses.values()):
            text = Text(course.told(time.monotonic(), narrow=narrow), no_wrap=True, overflow="ellipsis")
            bar = ProgressBar(course.total or None, course.done, width=20, pulse=not course.total)
            rows.add_row(*([text] if narrow else [bar, text]))
        return rows

    before = sys.stderr
    shown: dict[str, Any] = {"console": console, "transient": True, "redirect_stdout": sys.stdout.isatty()}
    with Live(get_renderable=drawn, refresh_per_second=8, **shown), _logged_above(before):
        yield


@contextmanager
def _logged_above(stream: TextIO) -> Iterator[None]:
    """Have log records for a stream written above the bar, which takes its place in `sys.stderr` while it is up."""
    handlers = [
        each
        for each in logging.getLogger().handlers
        if isinstance(each, logging.StreamHandler) and each.stream is stream
    ]
    for each in handlers:
        each.setStream(sys.stderr)
    try:
        yield
    finally:
        for each in handlers:
            each.setStream(stream)


@contextmanager
def _lines(steps: Steps) -> Iterator[None]:
    """A line every `LINE_SECONDS`, by a thread: a step that hangs is told of, too."""
    ended = threading.Event()
    # Who waits is told without --verbose, too.
    log.setLevel(logging.INFO)

    def tell() -> None:
        while not ended.wait(LINE_SECONDS):
            if not steps.newest:
                continue
            line = steps.courses[steps.newest].told(time.monotonic())
            if wanted_format() == JSON:
                log.info("%s", line)
            else:
                # A standard error that is closed is no reason to stop the work.
                with suppress(OSError, ValueError):
                    say(line, file=sys.stderr, flush=True)

    thread = threading.Thread(target=tell, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def _late_spinner(what: str) -> Iterator[None]:
    from rich.console import Console

    status = Console(stderr=True).status(f"{what} …")
    timer = threading.Timer(_SLOW_SECONDS, status.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        status.stop()
