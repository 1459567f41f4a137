"""The disaster drill: archive a topic, lose it, bring it back by a replay that is killed on the way; and how fast.

Every partition is read by a plain consumer before and after and compared in order: key, payload, headers and time. Then
the same replay runs uninterrupted beside a bare loop over `produce()`, in turns.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException, Producer
from rich.console import Console
from rich.table import Table

from archiver_pipeline_tests.against_kafka import kafka_messages
from archiver_pipeline_tests.archived import topic_id_of
from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.topics import create_topic, delete_topic, end_offsets, start_offsets
from archiver_pipeline_tests.waiting import wait_for
from bench.load import texts
from bench.process import measure
from bench.results import record

TOPIC, PARTITIONS = "orders", 4
FIRST_MS = 1_564_628_400_000
KILLED_AT = (0.15, 0.45, 0.75)
CLI = "archiver_pipeline.cli"
PRODUCER = {
    "linger.ms": 20,
    "batch.size": 1_000_000,
    "compression.type": "lz4",
    "queue.buffering.max.messages": 1_000_000,
}


def main() -> None:
    """Do the drill, measure, and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.drill", description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--bytes", type=int, default=284, help="bytes of a message")
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="archiver-drill-") as folder, KafkaBroker(heap="1g") as broker:
        servers = broker.bootstrap_servers
        environment = {"BASE_DIR": folder, "KAFKA_BOOTSTRAP_SERVERS": servers, "ARCHIVER_TOPICS": TOPIC}
        create_topic(servers, TOPIC, PARTITIONS)
        # By a process of its own: what that takes in memory would be counted for every child that comes after it.
        measure(__spec__.name, "--bare", servers, TOPIC, str(given.messages), str(given.bytes))
        before = chains(servers, TOPIC)
        archive(environment)
        figures = drill(servers, environment, given.messages)
        good = chains(servers, TOPIC) == before
        print("every partition is as it was, in order:", good)
        archive(environment)
        once = archived(environment) == given.messages
        print("nothing was archived a second time:", once)
        rates = speed(servers, environment, given)
        show(figures, rates)
        if good and once:
            record("drill", f"python -m bench.drill --messages {given.messages}", {**figures, **rates})
        sys.exit(0 if good and once else 1)


def messages(count: int, size: int) -> list[tuple[int, str, bytes | None, int, list[tuple[str, bytes]] | None]]:
    """Partition, payload, key, time and headers: most have a key, a quarter has headers, a few are late."""
    draw = random.Random(5)
    found = []
    for number, text in enumerate(texts(range(count), size, FIRST_MS)):
        late = 3_600_000 if draw.random() < 0.02 else 0
        key = b"u%d" % draw.randrange(10_000) if number % 5 else None
        headers = [("trace", b"%d" % number), ("trace", b"")] if number % 4 == 0 else None
        found.append((draw.randrange(PARTITIONS), text, key, FIRST_MS + number * 36 - late, headers))
    return found


def fill(bootstrap_servers: str, topic: str, every: Any) -> float:
    """Send messages by a bare loop and return the seconds."""
    producer = Producer({"bootstrap.servers": bootstrap_servers, **PRODUCER})
    began = time.monotonic()
    for partition, text, key, stamp, headers in every:
        while True:
            try:
                if headers is None:
                    producer.produce(topic, text, key, partition, timestamp=stamp)
                else:
                    producer.produce(topic, text, key, partition, timestamp=stamp, headers=headers)
                break
            except BufferError:
                producer.poll(0.05)
    if producer.flush(300):
        raise RuntimeError("not every message was delivered")
    return time.monotonic() - began


def chains(bootstrap_servers: str, topic: str) -> dict[int, tuple[int, str]]:
    """Number of messages of each partition, and a hash of all of them in order, read by a plain consumer."""
    found = {}
    starts, ends = start_offsets(bootstrap_servers, topic), end_offsets(bootstrap_servers, topic)
    for number, start in starts.items():
        chain, count = hashlib.sha256(), 0
        for each in kafka_messages(bootstrap_servers, topic, number, start, ends[number]):
            chain.update(repr((each.key, each.value, each.headers, each.timestamp)).encode())
            count += 1
        found[number] = count, chain.hexdigest()
    return found


def archive(environment: Mapping[str, str]) -> None:
    """Archive what there is."""
    child = [sys.executable, "-m", "archiver_pipeline_tests.crash.child", "archive", "0"]
    subprocess.run(child, env={**os.environ, **environment}, check=True, stdout=subprocess.DEVNULL)


def archived(environment: Mapping[str, str]) -> int:
    """How many messages the archive has."""
    import duckdb

    with duckdb.connect(str(Path(environment["BASE_DIR"]) / "archive.duckdb"), read_only=True) as connection:
        ((count,),) = connection.execute("SELECT count(*) FROM messages").fetchall()
    return int(count)


def drill(servers: str, environment: Mapping[str, str], count: int) -> dict[str, Any]:
    """Lose the topic and bring it back by runs that are killed."""
    before = topic_id_of(servers, TOPIC)
    delete_topic(servers, TOPIC)
    command = [sys.executable, "-m", CLI, "replay", "--all", "--create-topics", "--json"]
    began = time.monotonic()
    for share in KILLED_AT:
        run = subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL)
        wait_for(f"{share:.0%} of the messages", lambda share=share: sent(servers) >= share * count, 120)
        run.kill()
        run.wait()
        print(f"killed after {sent(servers):,} messages")
    done = subprocess.run([*command, "--check"], env={**os.environ, **environment}, stdout=subprocess.PIPE, check=True)
    found = json.loads(done.stdout)
    assert topic_id_of(servers, TOPIC) != before
    assert found["good"], found
    assert found["messages"] == count == found["before"] + found["sent"], found
    return {"messages": count, "kills": len(KILLED_AT), "drill_seconds": round(time.monotonic() - began, 1)}


def sent(servers: str) -> int:
    """About how many messages the topic has."""
    try:
        return sum(end_offsets(servers, TOPIC).values())
    except KafkaException:  # It is not there yet.
        return 0


def speed(servers: str, environment: Mapping[str, str], given: argparse.Namespace) -> dict[str, Any]:
    """Replay and bare loop in turns."""
    rates: dict[str, list[float]] = {"replay": [], "bare": []}
    peak = 0
    for turn in range(given.turns):
        create_topic(servers, f"again-{turn}", PARTITIONS)
        create_topic(servers, f"bare-{turn}", PARTITIONS)
        found = measure(CLI, "replay", "--all", "--to-topic", f"again-{turn}", "--json", environment=environment)
        rates["replay"].append(found.report["rate"])
        peak = max(peak, found.peak_bytes >> 20)
        bare = measure(__spec__.name, "--bare", servers, f"bare-{turn}", str(given.messages), str(given.bytes))
        rates["bare"].append(bare.report["rate"])
    best = {name: max(every) for name, every in rates.items()}
    return {
        "replay_messages_per_second": round(best["replay"]),
        "bare_messages_per_second": round(best["bare"]),
        "share_of_bare": round(best["replay"] / best["bare"], 2),
        "peak_MiB": peak,
    }


def show(figures: Mapping[str, Any], rates: Mapping[str, Any]) -> None:
    """Print the figures as a table."""
    table = Table("figure", "value", title="The disaster drill")
    for name, value in {**figures, **rates}.items():
        table.add_row(name.replace("_", " "), f"{value:,}")
    Console().print(table)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--bare"]:
        seconds = fill(sys.argv[2], sys.argv[3], messages(int(sys.argv[4]), int(sys.argv[5])))
        print(json.dumps({"rate": int(sys.argv[4]) / seconds}))
    else:
        main()
