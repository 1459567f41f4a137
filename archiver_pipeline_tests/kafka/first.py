"""What every broker starts from, made once for a checkout: an empty formatted folder, and Kafka's classes as loaded.

To format a folder takes a Java process of its own, and most of a broker's start is the loading of classes: with both at
hand a broker is up after a third of the processor time.
"""

from __future__ import annotations

import base64
import re
import shutil
import signal
import subprocess
import uuid
from pathlib import Path

from archiver_pipeline_tests.fetched import once
from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.jars import CACHE, BrokerError, kafka_version, last_lines
from archiver_pipeline_tests.kafka.produce import create_topic, produce, read_all
from archiver_pipeline_tests.samples import numbered

CLASSES, EMPTY = "classes.jsa", "empty"
_PROPERTIES = "meta.properties"
_END_LIMIT_SECONDS = 180.0
"""At its end Java writes the classes, which takes some seconds."""


def first() -> Path:
    """The folder that has both, left by a broker that is run for it if this checkout has none yet.

    Raises:
        ToolMissing: there is none yet and no Java, or no Maven.
        BrokerError: that broker could not be formatted or started.
    """
    return once(CACHE.with_name("kafka-first") / kafka_version(), _leave)


def format_folder(logs: Path) -> None:
    """Make the folder of a broker's logs as Kafka's own tool does, with an id of a cluster that no other has."""
    shutil.copytree(first() / EMPTY, logs)
    text = (logs / _PROPERTIES).read_text()
    (logs / _PROPERTIES).write_text(re.sub(r"(?m)^cluster\.id=.*$", f"cluster.id={_cluster_id()}", text))


def _leave(scratch: Path) -> Path:
    left = scratch / "left"
    left.mkdir()
    with _FirstBroker(scratch / "broker") as broker:
        # So that the classes of these requests are among the loaded ones.
        create_topic(broker.bootstrap_servers, "first")
        produce(broker.bootstrap_servers, "first", numbered(range(10)))
        read_all(broker.bootstrap_servers, "first")
        assert broker.process is not None
        broker.process.send_signal(signal.SIGTERM)
        broker.process.wait(_END_LIMIT_SECONDS)
        for name in (CLASSES, EMPTY):
            (broker.data / name).rename(left / name)
    return left


class _FirstBroker(KafkaBroker):
    """Formats its folder by Kafka's tool, and leaves a copy of that and its classes when it ends."""

    def _command(self) -> list[str]:
        command = self._java()
        tool = ["kafka.tools.StorageTool", "format", f"--cluster-id={_cluster_id()}", f"--config={self._config}"]
        done = subprocess.run([*command, *tool], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise BrokerError(f"formatting {self.data} failed:\n{last_lines(done.stdout + done.stderr)}")
        shutil.copytree(self.data / "logs", self.data / EMPTY)
        return [*command, f"-XX:ArchiveClassesAtExit={self.data / CLASSES}", *self._server()]


def _cluster_id() -> str:
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
