"""A program that copies a topic for ever, run until its table has every message: Kafka Connect, kafka-delta-ingest."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from archiver_pipeline_tests.kafka.jars import last_lines

LIMIT_SECONDS = 600.0


def run_until(
    command: Sequence[str],
    log: Path,
    ready: str,
    rows: Callable[[], int],
    messages: int,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run the program, end it by SIGTERM once its table has the messages, and print a JSON object.

    Its `seconds` are those from the first line with `ready` that it prints until all messages are committed.

    Args:
        command: its command line.
        log: gets what it prints.
        ready: words of the line that ends its start-up.
        rows: counts what its table has committed.
        messages: as many as it is to have.
        environment: its whole environment; None for this one's.

    Raises:
        RuntimeError: it ended by itself, or was not done after `LIMIT_SECONDS`; the text has its last lines.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", env=environment
    )
    signal.signal(signal.SIGTERM, lambda number, frame: _end(process, number))
    began: list[float] = []
    reader = threading.Thread(target=_keep, args=(process, log, ready, began), daemon=True)
    reader.start()
    deadline = time.monotonic() + LIMIT_SECONDS
    while rows() < messages:
        time.sleep(0.02)
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            reader.join()
            what = f"ended with {process.wait()}, or was not done in {LIMIT_SECONDS:.0f} s"
            raise RuntimeError(
                f"{command[0]} {what}, with {rows()} of {messages} messages:\n{last_lines(log.read_text())}"
            )
    ended = time.monotonic()
    process.terminate()
    process.wait()
    reader.join()
    if not began:
        raise RuntimeError(f"{command[0]} did not say {ready!r}:\n{last_lines(log.read_text())}")
    print(json.dumps({"messages": rows(), "seconds": ended - began[0]}))


def _end(process: subprocess.Popen[str], number: int) -> None:
    """Let the program not outlive this one."""
    process.kill()
    sys.exit(128 + number)


def _keep(process: subprocess.Popen[str], log: Path, ready: str, began: list[float]) -> None:
    """Copy what the program prints to its log, and note when it said that it is ready."""
    assert process.stdout is not None
    with log.open("a", buffering=1) as kept:
        for line in process.stdout:
            if not began and ready in line:
                began.append(time.monotonic())
            kept.write(line)
