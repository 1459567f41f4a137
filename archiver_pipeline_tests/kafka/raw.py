"""Record batches written by hand, for what a client library would put right before it reaches the broker.

librdkafka takes timestamp 0 for "now", and confluent-kafka writes no header key that is not UTF-8. Here a Produce
request of version 8 (the last one before flexible fields) carries one record batch of version 2, as the Kafka protocol
guide has them.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError

_PRODUCE, _VERSION, _MAGIC = 0, 8, 2
_SETTLING = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.LEADER_NOT_AVAILABLE, KafkaError.NOT_LEADER_FOR_PARTITION)
_LIMIT_SECONDS = 60
_CRC32C_POLYNOMIAL = 0x82F63B78  # Castagnoli, reflected


@dataclass(frozen=True)
class RawRecord:
    """A record as it goes on the wire.

    Attributes:
        value: the payload, None for a tombstone.
        timestamp_ms: any int64; milliseconds since 1970, -1 is Kafka's "no timestamp".
        key: None where there is none.
        headers: pairs in order; a key may be any bytes, a value may be None.
    """

    value: bytes | None
    timestamp_ms: int
    key: bytes | None = None
    headers: tuple[tuple[bytes, bytes | None], ...] = ()


class RecordsRefused(Exception):
    """The broker refused a batch.

    Attributes:
        code: Kafka's error code.
        name: its name, such as `INVALID_TIMESTAMP`.
    """

    def __init__(self, code: int, why: str) -> None:
        self.code = code
        self.name = KafkaError(code).name()
        super().__init__(f"{self.name}: {why}")


def produce_raw(bootstrap_servers: str, topic: str, records: Sequence[RawRecord], partition: int = 0) -> int:
    """Write the records as one batch to a broker that leads the partition; returns the offset of the first.

    Raises:
        RecordsRefused: the broker answered with an error, and it is not one of a topic just made.
        OSError: no connection, or no answer in `_LIMIT_SECONDS`.
    """
    batch = _batch(records)
    body = struct.pack(">hhi", -1, -1, _LIMIT_SECONDS * 1000)  # no transaction, acks of all
    body += struct.pack(">i", 1) + _string(topic) + struct.pack(">iii", 1, partition, len(batch)) + batch
    deadline = time.monotonic() + _LIMIT_SECONDS
    while True:
        try:
            return _Answer(_ask(bootstrap_servers, _PRODUCE, _VERSION, body)).base_offset(topic)
        except RecordsRefused as refused:
            if refused.code not in _SETTLING or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _ask(bootstrap_servers: str, api: int, version: int, body: bytes) -> bytes:
    request = struct.pack(">hhi", api, version, 1) + _string("raw") + body
    host, port = bootstrap_servers.split(",")[0].rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=_LIMIT_SECONDS) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        with connection.makefile("rb") as answers:
            (size,) = struct.unpack(">i", answers.read(4))
            return answers.read(size)


class _Answer:
    """Reads the fields of a Produce response one after the other."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._at = 0

    def take(self, form: str) -> int:
        (value,) = struct.unpack_from(">" + form, self._content, self._at)
        self._at += struct.calcsize(">" + form)
        return int(value)

    def text(self) -> str | None:
        size = self.take("h")
        if size < 0:
            return None
        self._at += size
        return self._content[self._at - size : self._at].decode()

    def base_offset(self, topic: str) -> int:
        self.take("i"), self.take("i")  # correlation id, number of topics
        answered = self.text()
        assert answered == topic, f"asked about topic {topic}, the broker answered about {answered}"
        self.take("i"), self.take("i")  # number of partitions, partition
        code, offset = self.take("h"), self.take("q")
        self.take("q"), self.take("q")  # append time, log start
        reasons = [self._record_error() for _ in range(self.take("i"))]
        reasons.append(self.text() or "")
        if code:
            raise RecordsRefused(code, "; ".join(reason for reason in reasons if reason))
        return offset

    def _record_error(self) -> str:
        index = self.take("i")
        return f"record {index}: {self.text()}"


def _batch(records: Sequence[RawRecord]) -> bytes:
    first = records[0].timestamp_ms
    body = b"".join(_record(record, number, first) for number, record in enumerate(records))
    times = [record.timestamp_ms for record in records]
    # Attributes (no compression, create time), last offset delta, base and max timestamp, no producer id.
    checked = struct.pack(">hiqqqhii", 0, len(records) - 1, first, max(times), -1, -1, -1, len(records)) + body
    after_length = struct.pack(">ibI", -1, _MAGIC, _crc32c(checked)) + checked
    return struct.pack(">qi", 0, len(after_length)) + after_length


def _record(record: RawRecord, number: int, first_ms: int) -> bytes:
    fields = b"\0" + _varint(record.timestamp_ms - first_ms) + _varint(number)
    fields += _bytes(record.key) + _bytes(record.value) + _varint(len(record.headers))
    fields += b"".join(_bytes(key) + _bytes(value) for key, value in record.headers)
    return _varint(len(fields)) + fields


def _string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack(">h", len(encoded)) + encoded


def _bytes(content: bytes | None) -> bytes:
    return _varint(-1) if content is None else _varint(len(content)) + content


def _varint(number: int) -> bytes:
    # Zigzag first, so that small negative numbers stay short; a difference past int64 wraps as it does in Java.
    rest = ((number << 1) ^ (number >> 63)) & 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*out, rest])


def _crc_table() -> Iterator[int]:
    for entry in range(256):
        for _ in range(8):
            entry = entry >> 1 ^ (_CRC32C_POLYNOMIAL if entry & 1 else 0)
        yield entry


_CRC_TABLE = tuple(_crc_table())


def _crc32c(content: bytes) -> int:
    crc = 0xFFFF_FFFF
    for byte in content:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFF_FFFF
