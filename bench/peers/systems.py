"""The archiver and its peers, each as one program that copies the topic into `archive/` of a folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from archiver_pipeline_tests.kafka.jars import BrokerError, java
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


@dataclass(frozen=True)
class Task:
    """What is to be copied, and where to.

    Attributes:
        servers: bootstrap servers of the broker.
        folder: gets `archive/`, and beside it whatever a peer keeps of its own.
        messages: how many the topic has. Who never ends by itself is ended once all of them are visible.
        small: commit every 50,000 messages or every second, so that a kill comes between two commits.
    """

    servers: str
    folder: Path
    messages: int
    small: bool = False


@dataclass(frozen=True)
class Job:
    """A program that does a task: its command line, and what its environment has beside this one's."""

    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)


Maker = Callable[[Task], Job]


@contextmanager
def started(job: Job, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A job at work, whose output goes behind what is in a file; leaving it kills all of its processes (SIGKILL)."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            job.command, stdout=output, stderr=output, env={**os.environ, **job.environment}, start_new_session=True
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run(job: Job) -> Measured:
    """Run a job to its end and measure it. Raises CalledProcessError where it fails."""
    return measure_command(job.command, job.environment)


def archiver(task: Task) -> Job:
    """One pass of the archiver; its start-up is that of Python, with its imports and settings."""
    environment = _environment(task.folder) | {"KAFKA_BOOTSTRAP_SERVERS": task.servers}
    if task.small:
        environment["ARCHIVER_BATCH_MESSAGES"] = "50000"
    return Job([sys.executable, "-m", "bench.archive"], environment)


def seal(folder: Path) -> Measured:
    """Seal what the archiver has left in a folder."""
    return measure("bench.peers.seal", environment=_environment(folder))


def _environment(folder: Path) -> dict[str, str]:
    return {"ARCHIVER_TOPICS": TOPIC, "ARCHIVER_CONFIG": os.devnull, "BASE_DIR": str(folder)}


def _spark() -> Maker:
    home = fetch.spark()
    command = [str(home / "venv" / "bin" / "python"), "-I", str(Path(__file__).with_name("spark.py"))]
    environment = {"JAVA_HOME": str(Path(java()).resolve().parents[1])}

    def job(task: Task) -> Job:
        folders = [task.folder / "archive", task.folder / "scratch", home / "jars"]
        more = ["--each", "50000"] * task.small
        return Job([*command, task.servers, TOPIC, *map(str, folders), *more], environment)

    return job


def _flink() -> Maker:
    home = fetch.flink()
    command = [java(), *FLINK_JAVA, "-cp", f"{home / 'classes'}:{home / 'jars'}/*", "Archive"]

    def job(task: Task) -> Job:
        folders = [str(task.folder / "archive"), str(task.folder / "checkpoints")]
        return Job([*command, task.servers, TOPIC, *folders, "1" if task.small else "10"])

    return job


def _loop() -> Maker:
    def job(task: Task) -> Job:
        more = ["--each", "50000"] * task.small
        arguments = [task.servers, TOPIC, str(PARTITIONS), str(task.folder / "archive"), *more]
        return Job([sys.executable, "-m", "bench.peers.loop", *arguments])

    return job


def _connect() -> Maker:
    fetch.connect()

    def job(task: Task) -> Job:
        arguments = [task.servers, TOPIC, str(task.folder), str(task.messages), *["--small"] * task.small]
        return Job([sys.executable, "-m", "bench.peers.connect", *arguments])

    return job


def _delta_ingest() -> Maker:
    program = os.environ.get("DELTA_INGEST", "")
    if not Path(program).is_file():
        raise BrokerError(
            "kafka-delta-ingest is not fetched: build it from its source (docs/comparison.md has the lines), "
            f"and set DELTA_INGEST to the path of its program, which is {program!r}"
        )

    def job(task: Task) -> Job:
        arguments = [task.servers, TOPIC, str(task.folder), str(task.messages), *["--small"] * task.small]
        return Job([sys.executable, "-m", "bench.peers.delta_ingest", *arguments])

    return job


PEERS: Mapping[str, Callable[[], Maker]] = {
    "spark": _spark,
    "flink": _flink,
    "connect": _connect,
    "delta-ingest": _delta_ingest,
    "loop": _loop,
}
"""What makes a peer ready, fetched where it is not here yet. Raises BrokerError where that cannot be done."""

USUAL = tuple(name for name in PEERS if name != "delta-ingest" or os.environ.get("DELTA_INGEST"))
"""The peers that are measured where none is named: those that can be fetched."""
