"""One Apache Kafka broker in KRaft mode, run as a Java process of its own."""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from archiver_pipeline_tests.kafka.jars import BrokerError, fetch_jars, java, last_lines
from archiver_pipeline_tests.processes import DIE_WITH_PARENT, HOST, free_ports

START_LIMIT_SECONDS = 60.0
STOP_LIMIT_SECONDS = 20.0
MESSAGE_MAX_BYTES = 20 * 1024 * 1024

PROPERTIES: Mapping[str, str | int | float] = {
    "process.roles": "broker,controller",
    "node.id": 1,
    "controller.listener.names": "CONTROLLER",
    # A broker that comes back after a kill is refused until its former session is over: 9 s as Kafka ships.
    "broker.session.timeout.ms": 2000,
    "broker.heartbeat.interval.ms": 300,
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 1,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 1,
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": 500,
    "share.coordinator.state.topic.replication.factor": 1,
    "share.coordinator.state.topic.min.isr": 1,
    "share.coordinator.state.topic.num.partitions": 1,
    "group.initial.rebalance.delay.ms": 0,
    "auto.create.topics.enable": "false",
    "num.partitions": 1,
    "num.network.threads": 2,
    "num.io.threads": 4,
    # Retention goes by message time: with the usual week, a test's message of 2019 would vanish at the first check.
    "log.retention.ms": -1,
    "log.retention.check.interval.ms": 500,
    "log.initial.task.delay.ms": 100,
    "log.segment.delete.delay.ms": 100,
    "log.cleaner.backoff.ms": 200,
    "log.cleaner.min.cleanable.ratio": 0.01,
    "log.cleaner.dedupe.buffer.size": 4 * 1024 * 1024,
    "message.max.bytes": MESSAGE_MAX_BYTES,
    "replica.fetch.max.bytes": MESSAGE_MAX_BYTES,
}
"""Server properties of a broker for tests: one node, and housekeeping that happens within a second."""

# What others of the tests start is started alike.


class KafkaBroker:
    """A broker with its own ports and data, which dies with the process (on Linux: the thread) that started it.

    Attributes:
        bootstrap_servers: `host:port` of the broker, the same over its whole life.
        data: the folder with its properties, its log file `broker.log` and its data.
        process: the Java process, or None while it does not run.
    """

    def __init__(
        self,
        data: Path | None = None,
        *,
        properties: Mapping[str, str | int | float] | None = None,
        heap: str = "512m",
    ) -> None:
        """Choose ports and a data folder; nothing runs until `start`.

        Args:
            data: where its data goes and stays; without it a temporary folder that `close` removes.
            properties: server properties over `PROPERTIES`.
            heap: size of the Java heap, as `-Xmx` takes it.
        """
        self._own_data = data is None
        self.data = data or Path(tempfile.mkdtemp(prefix="kafka-"))
        self.data.mkdir(parents=True, exist_ok=True)
        port, controller_port = free_ports(2)
        self.bootstrap_servers = f"{HOST}:{port}"
        self.process: subprocess.Popen[bytes] | None = None
        self._heap = heap
        self._log = self.data / "broker.log"
        self._config = self.data / "server.properties"
        listeners = f"PLAINTEXT://{self.bootstrap_servers},CONTROLLER://{HOST}:{controller_port}"
        lines = {
            **PROPERTIES,
            "listeners": listeners,
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap_servers}",
            "controller.quorum.voters": f"1@{HOST}:{controller_port}",
            "log.dirs": str(self.data / "logs"),
            **(properties or {}),
        }
        self._config.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))

    def start(self) -> None:
        """Start the broker and wait until it answers.

        Raises:
            ToolMissing: Java, or Maven for the first fetch, is not installed.
            BrokerError: it ended or did not answer in `START_LIMIT_SECONDS`.
        """
        if self.process is not None:
            raise BrokerError(f"the broker on {self.bootstrap_servers} runs already")
        command = [java(), "-cp", f"{fetch_jars()}/*", "-Dlog4j2.level=WARN", "-XX:+UseSerialGC"]
        if not (self.data / "logs" / "meta.properties").exists():
            self._format(command)
        command += [f"-Xmx{self._heap}", f"-Xms{self._heap}", "kafka.Kafka", str(self._config)]
        launcher = [sys.executable, "-I", "-S", "-c", DIE_WITH_PARENT, str(os.getpid()), *command]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                launcher, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End the broker in order (SIGTERM), by SIGKILL where that takes over `STOP_LIMIT_SECONDS`."""
        if self.process is None:
            return
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_LIMIT_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End the broker at once (SIGKILL to its process group), as a power cut would."""
        if self.process is None:
            return
        self._signal(signal.SIGKILL)
        self.process.wait()
        self.process = None

    def restart(self) -> None:
        """End the broker in order if it runs, and start it on the same ports and data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze the broker (SIGSTOP): connections stay open, and nobody answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen broker go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Kill the broker and remove its data if the folder was temporary."""
        self.kill()
        if self._own_data:
            shutil.rmtree(self.data, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _format(self, command: list[str]) -> None:
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        arguments = ["kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", f"--config={self._config}"]
        done = subprocess.run(
            [*command, "-XX:TieredStopAtLevel=1", *arguments], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise BrokerError(f"formatting {self.data} failed:\n{last_lines(done.stdout + done.stderr)}")

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_LIMIT_SECONDS
        assert self.process is not None
        while not _answers(self.bootstrap_servers):
            code = self.process.poll()
            if code is None and time.monotonic() < deadline:
                time.sleep(0.05)
                continue
            what = f"did not answer in {START_LIMIT_SECONDS:.0f} s" if code is None else f"ended with code {code}"
            log = last_lines(self._log.read_text(errors="replace"))
            raise BrokerError(f"Kafka on {self.bootstrap_servers} {what}; the end of {self._log}:\n{log}")

    def _signal(self, number: signal.Signals) -> None:
        if self.process is None:
            raise BrokerError(f"the broker on {self.bootstrap_servers} does not run")
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)


def _answers(bootstrap_servers: str) -> bool:
    host, port = bootstrap_servers.split(":")
    try:
        # A plain connection first: librdkafka would log each refused one.
        socket.create_connection((host, int(port)), timeout=1).close()
        admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
        return bool(admin.list_topics(timeout=2).brokers)
    except (OSError, KafkaException):
        return False
