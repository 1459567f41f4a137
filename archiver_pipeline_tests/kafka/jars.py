"""The jars of Apache Kafka, fetched once from Maven Central into `.cache/kafka/<version>/` of the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from archiver_pipeline_tests.fetched import once

POM = Path(__file__).with_name("pom.xml")
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "kafka"


class BrokerError(RuntimeError):
    """The broker could not be fetched, started or stopped; the text has the last lines of its log."""


class ToolMissing(BrokerError):
    """Java 17+ or Maven is not installed here."""


def kafka_version() -> str:
    """The version of Kafka named in `pom.xml`."""
    found = re.search(r"<kafka\.version>(.+?)</kafka\.version>", POM.read_text())
    assert found, f"{POM} has no <kafka.version>"
    return found[1]


def java() -> str:
    """The path of a Java that is new enough, from `JAVA_HOME` or the `PATH`.

    Raises:
        ToolMissing: there is none, or it is older than 17.
    """
    home = os.environ.get("JAVA_HOME")
    path = shutil.which("java", path=f"{home}/bin" if home else None)
    if path is None:
        raise ToolMissing("Java is missing: the tests on Kafka need Java 17 or later on the PATH or in JAVA_HOME")
    shown = subprocess.run([path, "-version"], capture_output=True, text=True, check=False).stderr
    major = re.search(r'version "(\d+)', shown)
    if major is None or int(major[1]) < 17:
        raise ToolMissing(f"Java 17 or later is missing: {path} says {shown.strip()!r}")
    return path


def fetch_jars() -> Path:
    """The folder with the jars of Kafka, fetched by Maven if this checkout has none yet.

    Raises:
        ToolMissing: there is nothing fetched yet and no Maven.
        BrokerError: Maven failed; the text has what it said.
    """
    return once(CACHE / kafka_version(), _fetch)


def _fetch(scratch: Path) -> Path:
    maven = shutil.which("mvn")
    if maven is None:
        raise ToolMissing("Maven is missing: the tests on Kafka need mvn on the PATH to fetch the broker once")
    jars = scratch / "jars"
    command = [maven, "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={jars}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not jars.is_dir():
        said = last_lines(done.stdout + done.stderr)
        raise BrokerError(f"Maven could not fetch Kafka {kafka_version()}; is Maven Central in reach?\n{said}")
    return jars


def last_lines(text: str, count: int = 30) -> str:
    """The end of a log, for an error's text."""
    return "\n".join(text.strip().splitlines()[-count:])
