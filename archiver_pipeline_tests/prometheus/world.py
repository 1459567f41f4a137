"""An archive in which everything has happened that a dashboard shows: batches, bad messages, a gap, runs, followers."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import dagster as dg
from dagster._daemon.types import DaemonHeartbeat

from archiver_pipeline.followers.catch_up import catch_up
from archiver_pipeline.followers.registry import followers
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.kafka.produce import Sent, create_topic, delete_records, produce
from archiver_pipeline_tests.kafka.topics import FAR_TIMESTAMPS

OLD_MS = 1_564_628_400_000
"""2019-08-01T03:00:00Z: an hour that is closed."""

GOOD = b'{"type": "object.one", "uid": "u1"}'


class World:
    """An archive of a topic with two partitions, and a Dagster that has run jobs.

    Attributes:
        archived: the archive.
        topic: its topic.
        home: `DAGSTER_HOME`.
    """

    def __init__(self, folder: Path, bootstrap_servers: str, topic: str) -> None:
        """Make the topic; nothing has happened yet."""
        self.archived = Archived(folder / "base", bootstrap_servers, topic)
        self.topic = topic
        self.home = folder / "home"
        self.home.mkdir(parents=True)
        quiet = "python_logs: {python_log_level: CRITICAL}\ntelemetry: {enabled: false}\n"
        (self.home / "dagster.yaml").write_text(quiet)
        create_topic(bootstrap_servers, topic, 2, {**FAR_TIMESTAMPS, "retention.ms": -1})

    def variables(self) -> dict[str, str]:
        """The environment of its exporter."""
        return {**self.archived.environment(), "DAGSTER_HOME": str(self.home)}

    def send(self, count: int, value: bytes = GOOD, partition: int = 0, timestamp_ms: int | None = None) -> None:
        """Produce messages."""
        sent = Sent(value, partition=partition, timestamp_ms=timestamp_ms)
        produce(self.archived.bootstrap_servers, self.topic, [sent] * count)

    def begin(self) -> None:
        """Archive a first batch, so that the topic is known."""
        self.send(10)
        self.send(10, partition=1, timestamp_ms=OLD_MS)
        self.archived.run()

    def happen(self) -> None:
        """Archive good and bad messages over a gap, let a follower catch up, and let runs fail and succeed."""
        self.send(3, b"no JSON")
        self.send(2, b'{"kind": 1}')
        self.send(1, b'{"type": "object.two"}', partition=1)
        delete_records(self.archived.bootstrap_servers, self.topic, {0: 12})
        self.archived.run()
        with closing(followers(self.archived.settings)["events_per_minute"]()) as follower:
            catch_up(follower, self.archived.settings)
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            for fails in (False, True):
                _job(fails).execute_in_process(instance=instance, raise_on_error=False)
            instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), "SENSOR", "here", None))
        self.send(4)


def _job(fails: bool) -> dg.JobDefinition:
    @dg.op
    def work() -> None:
        if fails:
            raise dg.Failure("as it was told")

    @dg.job(name="archive")
    def archive() -> None:
        work()

    return archive
