"""One Apicurio Registry, which speaks Confluent's REST API, run as a Java process of its own.

It is fetched once from Maven Central into `.cache/apicurio/<version>/` of the checkout: the last one that Java 17 runs.
"""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from pathlib import Path

from archiver_pipeline_tests.fetched import once
from archiver_pipeline_tests.kafka.jars import ToolMissing, java, last_lines
from archiver_pipeline_tests.processes import HOST, free_ports
from archiver_pipeline_tests.server import Server, is_ok

VERSION = "3.0.9"
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "apicurio"
_GET = "org.apache.maven.plugins:maven-dependency-plugin:2.8:get"
"""Later ones want the parent POM, which is not published."""

_ARTIFACT = f"io.apicurio:apicurio-registry-app:{VERSION}:tar.gz:all"


class RegistryFault(RuntimeError):
    """The registry could not be fetched, started or stopped; the text has the last lines of its log."""


def fetch() -> Path:
    """The folder of the registry, fetched by Maven if this checkout has none yet.

    Raises:
        ToolMissing: there is nothing fetched yet and no Maven.
        RegistryFault: Maven failed; the text has what it said.
    """
    return once(CACHE / VERSION, _fetch)


def _fetch(scratch: Path) -> Path:
    maven = shutil.which("mvn")
    if maven is None:
        raise ToolMissing("Maven is missing: the tests on the registry need mvn on the PATH to fetch it once")
    packed = scratch / "registry.tar.gz"
    command = [maven, "-q", "-B", _GET, f"-Dartifact={_ARTIFACT}", "-Dtransitive=false", f"-Ddest={packed}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 or not packed.exists():
        said = last_lines(done.stdout + done.stderr)
        raise RegistryFault(f"Maven could not fetch {_ARTIFACT}; is Maven Central in reach?\n{said}")
    with tarfile.open(packed) as archive:
        archive.extractall(scratch / "app", filter="data")
    return scratch / "app"


class Apicurio(Server):
    """A registry; Java and, for the first fetch, Maven have to be installed.

    Attributes:
        url: `http://host:port/…` of the API that is Confluent's, the same over its whole life.
    """

    error = RegistryFault

    def __init__(self, data: Path | None = None) -> None:
        """Choose a port and a data folder; nothing runs until `start`.

        Args:
            data: where its schemas go and stay; without it a temporary folder that `close` removes.
        """
        super().__init__(data, "apicurio-", "registry.log")
        (self._port,) = free_ports(1)
        self.url = f"http://{HOST}:{self._port}/apis/ccompat/v7"
        self.what = f"Apicurio Registry on {self.url}"

    def _command(self) -> list[str]:
        options = {
            "quarkus.http.host": HOST,
            "quarkus.http.port": self._port,
            "apicurio.datasource.url": f"jdbc:h2:file:{self.data / 'schemas' / 'db'}",
        }
        # To start fast is worth more than to run fast.
        command = [java(), "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xmx256m"]
        command += [f"-D{name}={value}" for name, value in options.items()]
        return [*command, "-jar", str(next(fetch().glob("*-runner.jar")))]

    def _answers(self) -> bool:
        return is_ok(self._port, "/apis/ccompat/v7/subjects")
