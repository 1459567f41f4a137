"""What the peers need, fetched once into `.cache/peers/` of the checkout by pip and Maven as they are set up here.

Nothing is installed elsewhere: Spark gets a virtual environment of its own, Maven a local repository of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from archiver_pipeline_tests.kafka.jars import BrokerError, ToolMissing, java, last_lines

HERE = Path(__file__).parent
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "peers"


def version(peer: str) -> str:
    """The version of `spark`, `flink` or `connect` that its `pom.xml` names."""
    pom = HERE / peer / "pom.xml"
    found = re.search(rf"<{peer}\.version>(.+?)</", pom.read_text())
    assert found, f"{pom} has no <{peer}.version>"
    return found[1]


def spark() -> Path:
    """The folder with Spark: `venv/` with pyspark, `jars/` with what reads Kafka. Raises BrokerError, ToolMissing."""

    def fetch(folder: Path) -> None:
        _copy_jars("spark", folder / "jars")
        _run([sys.executable, "-m", "venv", str(folder / "venv")], "a virtual environment for Spark")
        pip = [str(folder / "venv" / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-cache-dir"]
        _run([*pip, f"pyspark=={version('spark')}"], "pyspark")

    return _once(f"spark-{version('spark')}", fetch)


def flink() -> Path:
    """The folder with Flink: `jars/`, and `classes/` with the program. Raises BrokerError, ToolMissing."""

    def fetch(folder: Path) -> None:
        _copy_jars("flink", folder / "jars")

    folder = _once(f"flink-{version('flink')}", fetch)
    source, compiled = HERE / "flink" / "Archive.java", folder / "classes" / "Archive.class"
    if not compiled.exists() or compiled.stat().st_mtime < source.stat().st_mtime:
        compiler = str(Path(java()).with_name("javac"))
        _run([compiler, "-cp", f"{folder / 'jars'}/*", "-d", str(compiled.parent), str(source)], "the Flink program")
    return folder


def connect() -> Path:
    """The folder with Kafka Connect and Iceberg's sink: `jars/`. Raises BrokerError, ToolMissing."""

    def fetch(folder: Path) -> None:
        _copy_jars("connect", folder / "jars")

    return _once(f"connect-{version('connect')}", fetch)


def _once(name: str, fetch: Callable[[Path], None]) -> Path:
    """Fetch a folder, unless it was fetched to its end before."""
    folder = CACHE / name
    done = folder / ".fetched"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        print(f"Fetching {name} into .cache/peers, some minutes the first time ...", file=sys.stderr)
        fetch(folder)
        done.touch()
    return folder


def _copy_jars(peer: str, folder: Path) -> None:
    """Copy the jars that a peer's `pom.xml` names, and what these need."""
    maven = shutil.which("mvn")
    if maven is None:
        raise ToolMissing(f"Maven is missing: mvn has to be on the PATH to fetch {peer} once")
    pom = ["-f", str(HERE / peer / "pom.xml"), f"-Dmaven.repo.local={CACHE / 'maven'}"]
    goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={folder}"]
    _run([maven, "-q", "-B", *pom, *goal], f"the jars of {peer}")


def _run(command: Sequence[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PIP_NO_INPUT": "1"})
    if done.returncode != 0:
        raise BrokerError(f"could not make {what}: {' '.join(command)}\n{last_lines(done.stdout + done.stderr)}")
