"""The digest of messages: the sum of their hashes, which does not depend on their order.

A message is hashed on its own (SHA-256), and a digest is the sum of its messages' hashes modulo 2**256. So each side of
a comparison is read once, in whatever order is fastest, and sums of parts add up to the sum of the whole.
"""

from __future__ import annotations

import hashlib
import struct
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

BUCKET = 1 << 16
"""Offsets that share one sum; where two sums differ, so many are compared one by one."""

_RANGE = 1 << 40
_MODULUS = 1 << 256
_FIXED = struct.Struct(">iqqbii")
_SIZES = struct.Struct(">ii")
_NO_TIME = -(2**63)
_TIMESTAMP_TYPES = {"none": 0, "create": 1, "append": 2}


def hashes(frame: pl.DataFrame) -> list[int]:
    """Hash each message: SHA-256 of partition, offset, timestamp and its type, key, original bytes and headers.

    Every part has its size in front, -1 for null, so that no two messages are encoded alike. Frames from Kafka and from
    the archive go through this one function.

    Args:
        frame: the archive's columns from `partition` to `headers`.
    """
    import polars as pl

    columns = frame.select(
        "partition",
        "offset",
        pl.col("timestamp").to_physical().fill_null(_NO_TIME),
        pl.col("timestamp_type").replace_strict(_TIMESTAMP_TYPES, return_dtype=pl.Int8),
        "key",
        pl.coalesce("value_bytes", pl.col("value").cast(pl.Binary)),
    )
    rows = zip(*(column.to_list() for column in columns), _header_bytes(frame["headers"]), strict=True)
    pack, sha256, number = _FIXED.pack, hashlib.sha256, int.from_bytes
    found = []
    for partition, offset, stamp, kind, key, payload, headers in rows:
        sizes = -1 if key is None else len(key), -1 if payload is None else len(payload)
        content = pack(partition, offset, stamp, kind, *sizes) + (key or b"") + (payload or b"") + headers
        found.append(number(sha256(content).digest(), "big"))
    return found


def _header_bytes(headers: pl.Series) -> Iterable[bytes]:
    """Encode each row's headers, with their order and repeats; none at all is no bytes."""
    if headers.null_count() == len(headers):
        return [b""] * len(headers)
    return map(_encoded_headers, headers.to_list())


def _encoded_headers(row: list[dict[str, Any]] | None) -> bytes:
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
        buckets = (frame["range"].cast(int) * _RANGE + frame["offset"] // BUCKET).to_list()
        self._counts.update(buckets)
        for bucket, number in zip(buckets, hashes(frame), strict=True):
            self._sums[bucket] += number

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
