"""The children of `bench.growth` for the sensor: an archive of many commits over many partitions, and its ticks."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from archiver_pipeline.kafka.cluster import Cluster
from archiver_pipeline.plan import Committed, TopicPartition
from archiver_pipeline.settings.settings import load
from archiver_pipeline.table import delta_log
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.attempt import batch_of
from archiver_pipeline.table.ledger import offset_transactions

PER_TOPIC = 100
LIMIT_SECONDS = 120
_TOPICS_AT_ONCE = 20
"""A broker refuses more than some thousand partitions at once."""

CHECKPOINT_EVERY = 1_000
"""Fewer than an archive has, so that writing them takes no longer than the rest."""


def make_topics(bootstrap_servers: str, count: int) -> None:
    """Make topics of a hundred partitions each, and send a message to the first partition of each."""
    from confluent_kafka import Producer
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    names = [f"grow{number:03}" for number in range(count)]
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    for start in range(0, count, _TOPICS_AT_ONCE):
        some = [NewTopic(name, PER_TOPIC, 1) for name in names[start : start + _TOPICS_AT_ONCE]]
        for future in admin.create_topics(some, operation_timeout=60).values():
            future.result(LIMIT_SECONDS)
    producer = Producer({"bootstrap.servers": bootstrap_servers})
    for name in names:
        producer.produce(name, b'{"type":"x"}', partition=0)
    if producer.flush(LIMIT_SECONDS):
        raise RuntimeError("not every message was delivered")


def write_commits(count: str) -> dict[str, Any]:
    """Commits that move partitions on, as batches without messages do; the first one knows all partitions."""
    settings = load()
    archive = Archive(settings.archive_uri)
    cluster = Cluster(settings, timeout=LIMIT_SECONDS)
    while (look := cluster.look()).unread or not all(len(state.partitions) == PER_TOPIC for state in look.topics):
        time.sleep(0.5)  # Until every partition has a leader.
    every = [
        TopicPartition(state.topic, state.topic_id, number) for state in look.topics for number in state.partitions
    ]
    attempt = batch_of(archive, 0)
    attempt.commit([item for at in every for item in offset_transactions(at, Committed(0, 0, 0))], {})
    attempt.clean()
    state, _ = archive.standing()
    for version in range(state.version + 1, int(count) + 1):
        moved = every[version % len(every)]
        said = {"timestamp": int(time.time() * 1000), "operation": "WRITE", "attempt": str(version)}
        transactions = [(item.app_id, item.version) for item in offset_transactions(moved, Committed(0, 0, 0))]
        actions: list[dict[str, Any]] = [
            {"commitInfo": said},
            *(
                {"txn": {"appId": name, "version": number, "lastUpdated": said["timestamp"]}}
                for name, number in [*transactions, ("lane/0", version)]
            ),
        ]
        # Not forced to the disk, as `delta_log.put` does: that takes most of the time of a commit.
        lines = "".join(json.dumps(action, separators=(",", ":")) + "\n" for action in actions)
        (Path(archive.uri) / delta_log.commit_name(version)).write_text(lines)
        if version % CHECKPOINT_EVERY == CHECKPOINT_EVERY - 50:
            archive.table().create_checkpoint()
    return {"version": archive.ledger().version}


def ticks(turns: str) -> dict[str, Any]:
    """Evaluate each sensor again and again in one process, as the code server does; a commit comes between."""
    import dagster as dg

    from archiver_pipeline.definitions import defs

    archive = Archive(load().archive_uri)
    before = archive.ledger()
    taken: dict[str, list[float]] = {}
    reasons: dict[str, str] = {}
    with dg.DagsterInstance.get() as instance:
        for sensor in (
            defs.resolve_all_sensor_defs() if hasattr(defs, "resolve_all_sensor_defs") else defs.sensors or ()
        ):
            cursor = None
            for _ in range(int(turns) + 1):
                began = time.monotonic()
                with dg.build_sensor_context(instance=instance, cursor=cursor, repository_def=None) as context:
                    data = sensor.evaluate_tick(context)
                taken.setdefault(sensor.name, []).append(round(time.monotonic() - began, 3))
                cursor = data.cursor
                reasons[sensor.name] = data.skip_message or f"{len(data.run_requests or ())} runs asked for"
                attempt = batch_of(archive, 0)
                attempt.commit([], {})
                attempt.clean()
    assert reasons["archive_sensor"].endswith("runs asked for"), reasons
    return {
        "partitions": len(before.committed),
        "commits": before.version,
        "ticks": taken,
        "reason": json.dumps(reasons),
        "load": os.getloadavg()[0],
    }


if __name__ == "__main__":
    print(json.dumps({"commits": write_commits, "tick": ticks}[sys.argv[1]](*sys.argv[2:])))
