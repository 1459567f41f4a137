"""The jars of OpenSearch, fetched once from Maven Central into `.cache/opensearch/` of the checkout."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

from archiver_pipeline_tests.fetched import once
from archiver_pipeline_tests.kafka.jars import ToolMissing, java, last_lines

POM = Path(__file__).with_name("pom.xml")
MAIN = Path(__file__).with_name("SearchNode.java")
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "opensearch"


class NodeError(RuntimeError):
    """The node could not be fetched, started or stopped; the text has the last lines of its log."""


def opensearch_version() -> str:
    """The version of OpenSearch named in `pom.xml`."""
    found = re.search(r"<opensearch\.version>(.+?)</opensearch\.version>", POM.read_text())
    assert found, f"{POM} has no <opensearch.version>"
    return found[1]


def fetch_class_path() -> str:
    """The class path of a node, its jars fetched by Maven and its main class compiled if this checkout has none yet.

    Raises:
        ToolMissing: there is nothing fetched yet and no Maven, or no Java.
        NodeError: Maven or the compiler failed; the text has what it said.
    """
    digest = hashlib.sha256(POM.read_bytes() + MAIN.read_bytes()).hexdigest()[:8]
    folder = once(CACHE / f"{opensearch_version()}-{digest}", _fetch)
    return os.pathsep.join([str(folder), f"{folder}/*"])


def _fetch(scratch: Path) -> Path:
    maven = shutil.which("mvn")
    if maven is None:
        raise ToolMissing("Maven is missing: the tests on OpenSearch need mvn on the PATH to fetch the node once")
    jars = scratch / "jars"
    what = f"Maven could not fetch OpenSearch {opensearch_version()}; is Maven Central in reach?"
    _run([maven, "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={jars}"], what)
    found = sorted(map(str, jars.glob("*.jar")))
    if not found:
        raise NodeError(what)
    compiler = [java(), "-cp", os.pathsep.join(found), "org.eclipse.jdt.internal.compiler.batch.Main"]
    options = ["-17", "-nowarn", "-proc:none", "-cp", os.pathsep.join(found), "-d", str(jars)]
    _run([*compiler, *options, str(MAIN)], f"{MAIN} could not be compiled")
    return jars


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise NodeError(f"{what}\n{last_lines(done.stdout + done.stderr)}")
