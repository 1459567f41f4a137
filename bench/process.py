"""Measuring one child process: wall clock, CPU and peak memory as the operating system counts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Measured:
    """What one process took.

    Attributes:
        seconds: from start to end.
        cpu_seconds: user and system time together.
        peak_bytes: the largest resident set, of the process or of one of its children.
        report: the JSON object that it printed last, or alone over several lines.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    report: Mapping[str, Any]


def measure(module: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Measured:
    """Run `python -m module` and measure it. Raises CalledProcessError if it fails."""
    return measure_command(_python(module, *arguments), environment)


def measure_command(line: Sequence[str], environment: Mapping[str, str] | None = None) -> Measured:
    """Run a program and measure it, with the children that it waited for. Raises CalledProcessError if it fails."""
    found, output = _run(line, {**os.environ, **(environment or {})})
    return replace(found, report=json.loads(output if output.startswith(b"{\n") else output.splitlines()[-1]))


def measure_saying(words: str, module: str, *arguments: str, environment: Mapping[str, str]) -> Measured:
    """The same for a module that reports nothing, with this environment and no more.

    Raises:
        CalledProcessError: it fails.
        RuntimeError: it did not say these words, and so did something else than what was to be measured.
    """
    found, output = _run(_python(module, *arguments), environment, subprocess.STDOUT)
    if words.encode() not in output:
        raise RuntimeError(f"{module} {' '.join(arguments)} did not say {words!r}: {output[-2000:]!r}")
    return found


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _run(line: Sequence[str], environment: Mapping[str, str], errors: int | None = None) -> tuple[Measured, bytes]:
    began = time.monotonic()
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=errors, env=environment)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, line, output)
    return Measured(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, {}), output
