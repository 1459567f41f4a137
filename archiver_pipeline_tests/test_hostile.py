"""Rules for messages that are made to use up memory or time: the archive goes on, in bounds, and loses none of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from confluent_kafka import Producer

from archiver_pipeline.errors import BatchUnreadable
from archiver_pipeline.fields import MAX_FIELDS
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.kafka.produce import Sent, create_topic, produce
from archiver_pipeline_tests.samples import FIRST_MS, at_step, numbered

MIB = 1024**2
DEEP = 100_000

BOMBS: dict[str, tuple[bytes, str]] = {
    "nested lists": (b'{"type": "bomb", "a": ' + b"[" * DEEP + b"]" * DEEP + b"}", "bomb"),
    "nested objects": (b'{"type":' * DEEP + b'"x"' + b"}" * DEEP, "_untyped"),
    "never closed": (b'{"type": "bomb", "a": ' + b"[" * DEEP, "_malformed"),
    "nested, and in doubt": (b'{"type": "bomb", "n": -0, "a": ' + b"[" * DEEP + b"]" * DEEP + b"}", "bomb"),
    "no number has it": (b'{"type": "bomb", "n": 1e999999}', "bomb"),
    "digits": (b'{"type": "bomb", "n": ' + b"9" * MIB + b"}", "bomb"),
    "digits as a type": (b'{"type": ' + b"9" * MIB + b"}", "9" * 180 + "~<hash>"),
    "a key": (b'{"type": "bomb", "' + b"k" * 4 * MIB + b'": 1}', "bomb"),
    "many keys": (b'{"type": "bomb", ' + b", ".join(b'"k%d": 1' % n for n in range(200_000)) + b"}", "bomb"),
    "one key again and again": (b'{"type": "bomb"' + b', "k": 1' * 200_000 + b"}", "bomb"),
    "nothing but brackets": (b"[" + b"{}," * MIB + b"{}]", "_untyped"),
}
"""Payloads that are much more than they look like, and the type of each."""


def grown(before: int) -> int:
    """By how many bytes the largest resident set has grown since `settled`."""
    return _memory("VmHWM") - before


def settled() -> int:
    """Begin to measure: the resident set now, in bytes."""
    Path("/proc/self/clear_refs").write_text("5")
    return _memory("VmRSS")


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()  # of Linux: elsewhere there is no such count
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def compressed(bootstrap_servers: str, topic: str, *payloads: bytes, partition: int = 0, codec: str = "zstd") -> None:
    """Send payloads as one compressed batch, as large as it may be."""
    failed: list[str] = []
    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "compression.type": codec,
            "message.max.bytes": 1_000_000_000,
            "batch.size": 900_000_000,
            "linger.ms": 1000,
        }
    )
    for payload in payloads:
        producer.produce(topic, payload, partition=partition, timestamp=FIRST_MS, on_delivery=_noted(failed))
    assert producer.flush(60) == 0
    assert failed == []


def _noted(failed: list[str]) -> Callable[[Any, Any], None]:
    return lambda error, _: failed.append(str(error)) if error else None


def zeros(size: int) -> bytes:
    """JSON of a certain type that compression makes to next to nothing."""
    return b'{"type": "zeros", "fill": "' + b"0" * size + b'"}'


def test_json_bombs(bootstrap_servers: str, topic_name: str, tmp_path: Path) -> None:
    """JSON that is deep, wide or long beyond reason is archived as it came and has its type, in bounded memory; no
    column is made of ids, and the type's view can be asked."""
    create_topic(bootstrap_servers, topic_name)
    headers = tuple((f"h{number}", b"v") for number in range(100_000))
    sent = [Sent(payload, timestamp_ms=FIRST_MS) for payload, _ in BOMBS.values()]
    produce(bootstrap_servers, topic_name, [*sent, Sent(b'{"type": "bomb"}', headers=headers, timestamp_ms=FIRST_MS)])
    archived = Archived(tmp_path, bootstrap_servers, topic_name)
    before = settled()
    (batch,) = archived.run()
    assert grown(before) < 600 * MIB
    long_type = next(name for name in batch.types if name.startswith("999"))
    assert len(long_type) == 180 + 1 + 16
    found = archived.sql('SELECT type FROM messages ORDER BY "offset"')
    wanted = [kind.replace("<hash>", long_type[-16:]) for _, kind in BOMBS.values()]
    assert [kind for (kind,) in found] == [*wanted, "bomb"]
    columns = [name for (name, *_) in archived.sql("DESCRIBE bomb")]
    assert len(columns) < MAX_FIELDS / 10
    assert archived.sql("SELECT count(*) FROM bomb") == [(len(found) - 4,)]
    archived.assert_equal(topic_name)


def test_what_cannot_be_unpacked_waits_alone(
    bootstrap_servers: str, topic_name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A batch that is too large once it is unpacked holds up its partition and nothing else; the error has its place
    and what to do, and once the limit is raised all of it is archived."""
    create_topic(bootstrap_servers, topic_name, partitions=2)
    produce(bootstrap_servers, topic_name, numbered(range(5)))
    compressed(bootstrap_servers, topic_name, *[zeros(900_000)] * 8)
    produce(bootstrap_servers, topic_name, [*numbered(range(5, 9)), *numbered(range(9), partition=1)])
    small = {"fetch.max.bytes": "1000000", "message.max.bytes": "1000000", "receive.message.max.bytes": "1001000"}
    archived = Archived(tmp_path, bootstrap_servers, topic_name, kafka=small)
    with pytest.raises(BatchUnreadable, match=r"cannot be unpacked: .*KAFKA_RECEIVE_MESSAGE_MAX_BYTES") as raised:
        archived.run()
    assert (raised.value.topic, raised.value.partition, raised.value.start) == (topic_name, 0, 5)
    assert archived.next_offsets(topic_name) == {0: 5, 1: 9}
    assert "what does not wait for it goes on" in caplog.text
    Archived(tmp_path, bootstrap_servers, topic_name).run()
    archived.assert_equal(topic_name)


def test_behind_a_killed_run_little_is_unpacked_at_once(
    bootstrap_servers: str, topic_name: str, tmp_path: Path
) -> None:
    """Some kilobytes in Kafka may be gigabytes unpacked, and a run that is killed for it would be so again and again:
    the run behind a killed one takes a producer's batches one at a time, and comes through."""
    create_topic(bootstrap_servers, topic_name)
    produce(bootstrap_servers, topic_name, numbered(range(3)))
    archived = Archived(tmp_path, bootstrap_servers, topic_name, batch_bytes=16 * MIB)
    staging, aside = archived.path / "_staging", tmp_path / "aside"
    archived.run(on_step=at_step("write", lambda: shutil.copytree(staging, aside)))
    for _ in range(12):
        compressed(bootstrap_servers, topic_name, *[zeros(900_000)] * 64)
    shutil.copytree(aside, staging, dirs_exist_ok=True)
    before = settled()
    archiver = archived.archiver()
    batch = archiver.batch()
    assert batch is not None
    assert batch.messages >= 15
    assert grown(before) < 400 * MIB
    assert pl.read_delta(str(archived.path)).height == 3 + batch.messages
