"""One Apache Kafka broker in KRaft mode, run as a Java process of its own."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from archiver_pipeline_tests.kafka.jars import BrokerError, fetch_jars, java
from archiver_pipeline_tests.processes import HOST, free_ports
from archiver_pipeline_tests.server import Server

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

SHORT_LIVED = ("-XX:TieredStopAtLevel=1",)
"""Options of Java for a broker that lives for minutes: its best compiler takes more time than it would ever save."""


class KafkaBroker(Server):
    """A broker; Java and, for the first fetch, Maven have to be installed.

    Attributes:
        bootstrap_servers: `host:port` of the broker, the same over its whole life.
        addresses: `host:port` of each further listener.
    """

    error = BrokerError

    def __init__(
        self,
        data: Path | None = None,
        *,
        properties: Mapping[str, str | int | float] | None = None,
        heap: str = "512m",
        listeners: Mapping[str, str] | None = None,
        options: Sequence[str] = (),
    ) -> None:
        """Choose ports and a data folder; nothing runs until `start`.

        Args:
            data: where its data goes and stays; without it a temporary folder that `close` removes.
            properties: server properties over `PROPERTIES`.
            heap: size of the Java heap, as `-Xmx` takes it.
            listeners: more listeners, by name, and the security protocol of each.
            options: more options of the Java process.
        """
        super().__init__(data, "kafka-", "broker.log")
        protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT", **(listeners or {})}
        self.addresses = {
            name: f"{HOST}:{port}" for name, port in zip(protocols, free_ports(len(protocols)), strict=True)
        }
        self.bootstrap_servers, controller = self.addresses.pop("PLAINTEXT"), self.addresses.pop("CONTROLLER")
        self.what = f"Kafka on {self.bootstrap_servers}"
        self._heap = heap
        self._options = options
        self._config = self.data / "server.properties"
        public = ",".join(
            f"{name}://{address}" for name, address in {"PLAINTEXT": self.bootstrap_servers, **self.addresses}.items()
        )
        lines = {
            **PROPERTIES,
            "listeners": f"{public},CONTROLLER://{controller}",
            "advertised.listeners": public,
            "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in protocols.items()),
            "controller.quorum.voters": f"1@{controller}",
            "log.dirs": str(self.data / "logs"),
            **(properties or {}),
        }
        self._config.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))

    def _command(self) -> list[str]:
        from archiver_pipeline_tests.kafka.first import CLASSES, first, format_folder

        if not (self.data / "logs" / "meta.properties").exists():
            format_folder(self.data / "logs")
        # A Java that is not the one which has left them passes them over.
        return [*self._java(), f"-XX:SharedArchiveFile={first() / CLASSES}", "-Xlog:cds=off", *self._server()]

    def _java(self) -> list[str]:
        return [java(), "-cp", f"{fetch_jars()}/*", "-Dlog4j2.level=WARN", "-XX:+UseSerialGC"]

    def _server(self) -> list[str]:
        return [*self._options, f"-Xmx{self._heap}", f"-Xms{self._heap}", "kafka.Kafka", str(self._config)]

    def _answers(self) -> bool:
        host, port = self.bootstrap_servers.split(":")
        try:
            # A plain connection first: librdkafka would log each refused one.
            socket.create_connection((host, int(port)), timeout=1).close()
            admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
            return bool(admin.list_topics(timeout=2).brokers)
        except (OSError, KafkaException):
            return False
