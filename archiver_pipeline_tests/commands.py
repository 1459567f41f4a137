"""The command `archiver`, run as a user runs it: in a process and a folder of its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from archiver_pipeline_tests.processes import CHECKOUT, Ended, environment
from archiver_pipeline_tests.waiting import LIMIT_SECONDS

COMMAND = [sys.executable, "-m", "archiver_pipeline.cli"]


def variables_of(folder: Path, **settings: str) -> dict[str, str]:
    """The environment of a command in a folder, whose `data` is its `BASE_DIR`: of ours it has only what is given."""
    return environment({"PYTHONPATH": str(CHECKOUT), "BASE_DIR": str(folder / "data"), "HOME": str(folder), **settings})


def run_command(arguments: Sequence[str], variables: Mapping[str, str], folder: Path) -> Ended:
    """Run the command to its end, without a terminal. Raises subprocess.TimeoutExpired."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)
