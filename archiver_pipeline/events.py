"""Random events for the generator: JSON as a web shop may send it, with late and ugly ones among them."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import count
from typing import NamedTuple

LATE_MS = 3 * 3_600_000
"""How far back a late message is stamped at most."""

ODD_TYPES = (
    *("a/b", "..", ".", "Object.One", "тип", "🎉", "a=b", "50%", 'quo"te', "two\nlines", " ", "_underscore", "x" * 300),
    *("__HIVE_DEFAULT_PARTITION__", 7, 1.5, True),
)
"""Types that trip folders, readers or SQL which take them as they are."""

NO_TYPES = ("null", '""', "[]", '{"name": "object.one"}')
"""JSON at the place of the type that is no type."""


class Event(NamedTuple):
    """A message to produce; `timestamp` in milliseconds since 1970."""

    topic: str
    value: bytes | None
    key: bytes | None
    timestamp: int
    headers: list[tuple[str, str | bytes | None]] | None


def make_events(
    topics: Sequence[str],
    types: Sequence[str],
    *,
    keys: bool = True,
    headers: bool = False,
    late_share: float = 0.0,
    ugly_share: float = 0.0,
    seed: int | None = None,
    users: int = 1000,
) -> Iterator[Event]:
    """Yield messages without end, each stamped with the time at which it is asked for, unless it is a late one.

    Such as `{"type": "object.one", "uid": "u123", "ts": "2026-01-02T03:04:05.678Z", "url": "/p/12", "price": 12.5,
    "seq": 17}`, where `ts` is the message's timestamp and `seq` counts from 0. The same seed gives the same messages
    but for their times. The arguments are those of `Generator`.
    """
    chance = random.Random(seed)
    draw = chance.random
    kinds = [json.dumps(name, ensure_ascii=False) for name in types]
    for number in count():
        stamp = time.time_ns() // 1_000_000
        if late_share and draw() < late_share:
            stamp -= int(draw() * LATE_MS)
        user = f"u{int(draw() * users)}"
        kind = kinds[int(draw() * len(kinds))]
        rest = (
            f'"uid": "{user}", "ts": "{_second(stamp // 1000)}.{stamp % 1000:03d}Z", "url": "/p/{int(draw() * 100)}", '
            f'"price": {int(draw() * 10_000) / 100}, "seq": {number}}}'
        )
        value: bytes | None = f'{{"type": {kind}, {rest}'.encode()
        carried: list[tuple[str, str | bytes | None]] | None = None
        if headers:
            carried = [("source", b"generator"), ("trace", b"%016x" % chance.getrandbits(64))]
        if ugly_share and draw() < ugly_share:
            value = _ugly(chance, kind, rest)
            carried = carried and [*carried, ("trace", None), ("", b"\xff")]
        topic = topics[int(draw() * len(topics))]
        yield Event(topic, value, user.encode() if keys else None, stamp, carried)


def _ugly(chance: random.Random, kind: str, rest: str) -> bytes | None:
    """A payload that is a tombstone, cut short, not UTF-8, without type, with none there, or with an odd one."""
    good = f'{{"type": {kind}, {rest}'
    match chance.randrange(6):
        case 0:
            return None
        case 1:
            return good.encode()[: chance.randrange(60)]
        case 2:
            return good.replace("/p/", "/\udcff\udcfe/").encode(errors="surrogateescape")
        case 3:
            return ("{" + rest).encode()
        case 4:
            return f'{{"type": {chance.choice(NO_TYPES)}, {rest}'.encode()
        case _:
            return f'{{"type": {json.dumps(chance.choice(ODD_TYPES), ensure_ascii=False)}, {rest}'.encode()


@lru_cache(maxsize=20_000)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
