"""A run in a process of its own, taken step by step, so that it can be frozen or killed between any two of them."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).parents[1]


class RemoteRun:
    """A run that archives one message, one step at a time.

    The steps: `begin` takes the snapshot, `stage` makes the staging folder, `write` writes a file, `place` moves it
    into place, `commit` commits it, `clean` ends the run. `loop:N` archives message after message until N offsets of
    its partition are there.
    """

    def __init__(self, archive: Path, lane: int, lanes: int = 1, partition: int = 0) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(archive), str(lane), str(lanes), str(partition)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def do(self, *steps: str) -> str:
        """Take the steps and return the answer to the last: its result, or the name of the error that it raised."""
        answer = ""
        for step in steps:
            self.start(step)
            answer = self.answer()
        return answer

    def start(self, step: str) -> None:
        """Begin a step and do not wait for it."""
        assert self._process.stdin
        self._process.stdin.write(step + "\n")
        self._process.stdin.flush()

    def answer(self) -> str:
        """Wait for the step that was begun."""
        assert self._process.stdout
        return str(json.loads(self._process.stdout.readline()))

    def freeze(self) -> None:
        """Stop the process where it stands (SIGSTOP)."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it (SIGKILL) and wait until it is gone."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe
            # What was written to a dead process cannot be flushed.
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def main(folder: str, lane: str, lanes: str, partition: str) -> None:
    """Take the steps that come in line by line."""
    from archiver_pipeline.errors import ArchiverError, Superseded
    from archiver_pipeline.plan import TopicPartition
    from archiver_pipeline.table.archive import Archive
    from archiver_pipeline.table.attempt import Attempt, batch_of
    from archiver_pipeline_tests import batches

    target, at = Archive(folder, int(lanes)), TopicPartition("orders", "A", int(partition))
    attempt: Attempt | None = None

    def first_of(attempt: Attempt) -> int:
        known = attempt.ledger.committed.get(at)
        return known.next if known else 0

    def take(step: str) -> object:
        nonlocal attempt
        if step.startswith("loop:"):
            while (first := first_of(attempt := batch_of(target, int(lane)))) < int(step.removeprefix("loop:")):
                try:
                    batches.place(attempt, [batches.event()], first, at)
                    batches.commit(attempt, first, first + 1, at, 1)
                    attempt.clean()
                except Superseded:
                    attempt.discard()
            return "done"
        if step == "begin" or attempt is None:
            attempt = batch_of(target, int(lane))
        first = first_of(attempt)
        match step:
            case "write":
                batches.write(attempt, [batches.event()], first, at)
            case "place":
                attempt.staging.place()
            case "commit":
                return batches.commit(attempt, first, first + 1, at, 1)
            case "clean":
                return attempt.clean()
        return attempt.staging.attempt if step != "begin" else "begun"

    for line in sys.stdin:
        try:
            answer = take(line.strip())
        except ArchiverError as error:
            answer = type(error).__name__
        print(json.dumps(str(answer)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
