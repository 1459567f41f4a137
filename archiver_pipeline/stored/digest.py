"""The digest of messages: the sum of their hashes, which does not depend on their order.

A message is hashed on its own (SHA-256), and a digest is the sum of its messages' hashes modulo 2**256. So each side of
a comparison is read once, in whatever order is fastest, and sums of parts add up to the sum of the whole.
"""

from __future__ import annotations

import hashlib
import struct
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from archiver_pipeline.frames import original

if TYPE_CHECKING:
    import polars as pl

BUCKET = 1 << 16
"""Offsets that share one sum; where two sums differ, so many are compared one by one."""

_RANGE = 1 << 40
_MODULUS = 1 << 256
_WORDS = 8
_SIZES = struct.Struct(">ii")


def hashes(frame: pl.DataFrame) -> pl.Series:
    """Hash each message: SHA-256 of partition, offset, timestamp and its type, key, original bytes and headers.

    Numbers come first, and among them the sizes of all that follows, so that no two messages are encoded alike. Frames
    from Kafka and from the archive go through this one function.

    Args:
        frame: the archive's columns from `partition` to `headers`.

    Returns:
        32 bytes for each row, Binary.
    """
    import polars as pl

    key, payload = pl.col("key"), original()
    numbers = (
        pl.col("partition"),
        pl.col("offset"),
        pl.col("timestamp").to_physical(),
        pl.col("timestamp_type"),
        key.bin.size(),
        payload.bin.size(),
    )
    head = pl.format(",".join(["{}"] * len(numbers)) + ":", *(each.cast(pl.String).fill_null("-") for each in numbers))
    content = frame.select(head.cast(pl.Binary) + key.fill_null(b"") + payload.fill_null(b"")).to_series()
    if frame["headers"].null_count() < frame.height:
        content += pl.Series(map(_encoded_headers, frame["headers"].to_list()), dtype=pl.Binary)
    sha256 = hashlib.sha256
    return pl.Series("hash", [sha256(each).digest() for each in content.to_list()], dtype=pl.Binary)


def _encoded_headers(row: list[dict[str, Any]] | None) -> bytes:
    """Encode the headers of a message, with their order and repeats; none at all is no bytes."""
    parts = []
    for header in row or ():
        key, value = header["key"].encode(), header["value"]
        parts += [_SIZES.pack(len(key), -1 if value is None else len(value)), key, value or b""]
    return b"".join(parts)


class Sums:
    """Counts of messages and sums of their hashes, for every range and every bucket of offsets in it."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._sums: defaultdict[int, int] = defaultdict(int)

    def add(self, frame: pl.DataFrame) -> None:
        """Take messages: the archive's columns, and `range`, the index of the range that each belongs to."""
        import polars as pl

        # Words of 32 bits add up in 64 bits without loss; carries are taken when they are put together.
        words = [
            pl.col("hash").bin.slice(4 * number, 4).bin.reinterpret(dtype=pl.UInt32, endianness="big")
            for number in range(_WORDS)
        ]
        buckets = frame.select(pl.col("range").cast(pl.Int64) * _RANGE + pl.col("offset") // BUCKET, hashes(frame))
        sums = [word.cast(pl.UInt64).sum().alias(str(number)) for number, word in enumerate(words)]
        for bucket, count, *parts in buckets.group_by("range").agg(pl.len(), *sums).iter_rows():
            self._counts[bucket] += count
            self._sums[bucket] += sum(part << 32 * (_WORDS - 1 - number) for number, part in enumerate(parts))

    def differing(self, other: Sums) -> dict[int, list[int]]:
        """The buckets that are not the same here and there: per range their numbers (offset // `BUCKET`), in order."""
        found: dict[int, list[int]] = {}
        for key in sorted(self._sums.keys() | other._sums.keys()):
            if self._counts[key] != other._counts[key] or (self._sums[key] - other._sums[key]) % _MODULUS:
                found.setdefault(key // _RANGE, []).append(key % _RANGE)
        return found

    def totals(self) -> dict[int, tuple[int, str]]:
        """The number of messages of each range, and their digest as 64 hex digits."""
        counts: Counter[int] = Counter()
        sums: defaultdict[int, int] = defaultdict(int)
        for key, number in self._sums.items():
            counts[key // _RANGE] += self._counts[key]
            sums[key // _RANGE] += number
        return {index: (counts[index], f"{number % _MODULUS:064x}") for index, number in sums.items()}


EMPTY = 0, f"{0:064x}"
"""Count and digest of no messages."""
