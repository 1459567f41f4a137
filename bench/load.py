"""Filling a topic with messages of a given size."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator

from confluent_kafka import Producer

TYPES = ("object.one", "object.two", "object.three", "page.view", "page.click")


def texts(numbers: range, size: int, now: int, types: int = len(TYPES)) -> Iterator[str]:
    """JSON messages of about `size` bytes, of so many types."""
    names = [*TYPES, *(f"object.{number}" for number in range(len(TYPES), types))][:types]
    draw = random.Random(numbers.start + 1)
    letters = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=4096 + size))
    for number in numbers:
        body = {
            "type": names[number % types],
            "uid": f"u{draw.randrange(100_000)}",
            "ts": now,
            "url": f"/p/{draw.randrange(5_000)}",
            "seq": number,
        }
        text = json.dumps(body)
        at = draw.randrange(3_800)
        yield f'{text[:-1]}, "pad": "{letters[at : at + max(0, size - len(text) - 11)]}"}}'


def fill(
    bootstrap_servers: str,
    topic: str,
    partitions: int,
    messages: int,
    size: int,
    hours: int = 3,
    types: int = len(TYPES),
) -> None:
    """Produce JSON messages of about `size` bytes, evenly over partitions, types and the last hours, in time order."""
    import time

    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "linger.ms": 50,
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": 500_000,
            "message.max.bytes": 20_000_000,
            "compression.type": "lz4",
        }
    )
    now = int(time.time() * 1000)
    for number, text in enumerate(texts(range(messages), size, now, types)):
        stamp = now - int((messages - number) / messages * hours * 3_600_000)
        while True:
            try:
                producer.produce(topic, text, partition=number % partitions, timestamp=stamp)
                break
            except BufferError:
                producer.poll(0.1)
        if number % 5_000 == 0:
            producer.poll(0)
    if producer.flush(120):
        raise RuntimeError("not every message was delivered")


def fill_apart(bootstrap_servers: str, topic: str, *numbers: int) -> None:
    """Do that in a process of its own: what it takes in memory would be counted for every child that comes after it."""
    subprocess.run([sys.executable, "-m", "bench.load", bootstrap_servers, topic, *map(str, numbers)], check=True)


if __name__ == "__main__":
    fill(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
