"""Programs of Debian's packages that tests need, installed where that can be done."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from archiver_pipeline_tests.kafka.jars import ToolMissing


def installed(program: str, *packages: str, folder: str = "") -> str:
    """The path of a program, installed with apt-get where it is missing and this can be done.

    Args:
        program: its name.
        packages: the packages that bring it.
        folder: where it lies if not on the PATH; a pattern such as `/usr/lib/postgresql/*/bin`.

    Raises:
        ToolMissing: it is not there, and cannot be installed.
    """
    if _find(program, folder) is None and os.geteuid() == 0 and shutil.which("apt-get"):
        with Path(tempfile.gettempdir(), "archiver-tests-install.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # apt-get works for one at a time, and need not do anything twice
            _install(program, folder, packages)
    found = _find(program, folder)
    if found is None:
        raise ToolMissing(f"{program} is missing: it comes with Debian's {', '.join(packages)}")
    return found


def _find(program: str, folder: str) -> str | None:
    more = [str(path) for path in sorted(Path("/").glob(folder.lstrip("/")), reverse=True)] if folder else []
    return shutil.which(program, path=":".join([*more, os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"]))


def _install(program: str, folder: str, packages: tuple[str, ...]) -> None:
    variables = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (("update",), ("install", "-y", "--no-install-recommends", *packages)):
        if _find(program, folder) is None:
            subprocess.run(["apt-get", "-q", *command], env=variables, capture_output=True, check=False, timeout=240)
