"""One Spark Connect server with Delta Lake, run as a Java process of its own.

Its jars are fetched once from Maven Central into `.cache/spark/<version>/` of the checkout.
"""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from pathlib import Path

from archiver_pipeline_tests.fetched import once
from archiver_pipeline_tests.kafka.jars import ToolMissing, java, last_lines
from archiver_pipeline_tests.processes import HOST, free_ports
from archiver_pipeline_tests.server import Server

POM = Path(__file__).with_name("pom.xml")
CACHE = Path(__file__).resolve().parents[2] / ".cache" / "spark"
_OPENED = (
    *("java.lang", "java.lang.invoke", "java.lang.reflect", "java.io", "java.net", "java.nio", "java.util"),
    *("java.util.concurrent", "java.util.concurrent.atomic", "jdk.internal.ref", "sun.nio.ch", "sun.nio.cs"),
    *("sun.security.action", "sun.util.calendar"),
)
"""Packages of Java's own that Spark looks into; its scripts open the same ones."""


class SparkFault(RuntimeError):
    """Spark could not be fetched, started or stopped; the text has the last lines of its log."""


def fetch() -> Path:
    """The folder of the jars, fetched by Maven if this checkout has none yet.

    Raises:
        ToolMissing: there is nothing fetched yet and no Maven.
        SparkFault: Maven failed; the text has what it said.
    """
    found = re.search(r"<spark\.version>(.+?)</", POM.read_text())
    assert found, f"{POM} has no <spark.version>"
    return once(CACHE / found[1], _fetch)


def _fetch(scratch: Path) -> Path:
    maven = shutil.which("mvn")
    if maven is None:
        raise ToolMissing("Maven is missing: the tests on Spark need mvn on the PATH to fetch it once")
    jars = scratch / "jars"
    command = [maven, "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", "-DincludeScope=runtime"]
    done = subprocess.run([*command, f"-DoutputDirectory={jars}"], capture_output=True, text=True, check=False)
    if done.returncode != 0 or not jars.is_dir():
        raise SparkFault(f"Maven could not fetch Spark; is Maven Central in reach?\n{last_lines(done.stdout)}")
    return jars


class SparkConnect(Server):
    """A server of two threads; Java 17 and, for the first fetch, Maven have to be installed.

    Attributes:
        address: `sc://host:port`, the same over its whole life.
    """

    error = SparkFault

    def __init__(self, data: Path | None = None) -> None:
        """Choose a port and a data folder; nothing runs until `start`.

        Args:
            data: where it works; without it a temporary folder that `close` removes.
        """
        super().__init__(data, "spark-", "spark.log")
        (self._port,) = free_ports(1)
        self.address = f"sc://{HOST}:{self._port}"
        self.what = f"Spark Connect on {self.address}"

    def _command(self) -> list[str]:
        work = self.data / "work"
        options = {
            "spark.master": "local[2]",
            "spark.app.name": "archiver",
            "spark.driver.host": HOST,
            "spark.ui.enabled": "false",
            "spark.local.dir": work,
            "spark.sql.warehouse.dir": work / "warehouse",
            "spark.sql.shuffle.partitions": 2,
            "spark.databricks.delta.snapshotPartitions": 2,
            "spark.connect.grpc.binding.port": self._port,
            "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
            "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
            "java.io.tmpdir": work,
            "derby.system.home": work,
        }
        work.mkdir(parents=True, exist_ok=True)
        # To start fast is worth more than to run fast.
        command = [java(), "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Xmx1g"]
        command += [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in _OPENED]
        command += [f"-D{name}={value}" for name, value in options.items()]
        return [*command, "-cp", f"{fetch()}/*", "org.apache.spark.sql.connect.service.SparkConnectServer"]

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self._port)) == 0
