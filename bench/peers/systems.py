"""The archiver and its peers, each as one process that copies the topic into `archive/` of a folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from archiver_pipeline_tests.kafka.jars import java
from bench.peers import fetch
from bench.process import Measured, measure, measure_command

TOPIC, PARTITIONS = "bench", 4

OURS = "archiver"

FLINK_JAVA = (
    "-Xms3g",
    "-Xmx3g",
    "-XX:+UseParallelGC",
    # As Flink's own launcher does on Java 17.
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
    "--add-opens=java.base/java.util=ALL-UNNAMED",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=error",
)
"""Options of Flink's JVM: as much heap, and the same collector, as Spark's has."""

Runner = Callable[[str, Path], Measured]
"""Copies the topic of a broker (its bootstrap servers) into `archive/` of a folder, and measures that."""


def archiver(servers: str, folder: Path) -> Measured:
    """One pass of the archiver; its start-up is that of Python, with its imports and settings."""
    return measure("bench.archive", environment=_environment(folder) | {"KAFKA_BOOTSTRAP_SERVERS": servers})


def seal(folder: Path) -> Measured:
    """Seal what the archiver has left in a folder."""
    return measure("bench.peers.seal", environment=_environment(folder))


def _environment(folder: Path) -> dict[str, str]:
    return {"ARCHIVER_TOPICS": TOPIC, "ARCHIVER_CONFIG": os.devnull, "BASE_DIR": str(folder)}


def _spark() -> Runner:
    home = fetch.spark()
    command = [str(home / "venv" / "bin" / "python"), "-I", str(Path(__file__).with_name("spark.py"))]
    environment = {"JAVA_HOME": str(Path(java()).resolve().parents[1])}

    def run(servers: str, folder: Path) -> Measured:
        arguments = [servers, TOPIC, str(folder / "archive"), str(folder / "scratch"), str(home / "jars")]
        return measure_command([*command, *arguments], environment)

    return run


def _flink() -> Runner:
    home = fetch.flink()
    command = [java(), *FLINK_JAVA, "-cp", f"{home / 'classes'}:{home / 'jars'}/*", "Archive"]

    def run(servers: str, folder: Path) -> Measured:
        return measure_command([*command, servers, TOPIC, str(folder / "archive"), str(folder / "checkpoints")])

    return run


def _loop() -> Runner:
    def run(servers: str, folder: Path) -> Measured:
        return measure("bench.peers.loop", servers, TOPIC, str(PARTITIONS), str(folder / "archive"))

    return run


PEERS: Mapping[str, Callable[[], Runner]] = {"spark": _spark, "flink": _flink, "loop": _loop}
"""What makes a peer ready, fetched where it is not here yet. Raises BrokerError where that cannot be done."""
