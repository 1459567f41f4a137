"""Amounts as people read them: bytes, spans of time, counts, moments. No I/O."""

from __future__ import annotations

from datetime import UTC, datetime


def size(count: float) -> str:
    """Bytes for people: `12.3 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """A span of time for people: `3 h 12 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = int(seconds / 60)
    if minutes < 60:
        return f"{minutes} min {int(seconds % 60)} s"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} days"


def short(count: float) -> str:
    """A count in at most four characters: `950`, `1.2k`, `38M`."""
    for unit in ("", "k", "M", "G", "T"):
        if count < 9.95 and unit:
            return f"{count:.1f}{unit}"
        if count < 999.5:
            return f"{count:.0f}{unit}"
        count /= 1000
    return f"{count:.0f}P"


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number of things: `1 hour`, `1,200 hours`; `plural` is for nouns that take more than an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def moment(seconds: float) -> str:
    """A time since 1970 for people, with its zone: `2026-11-20 03:00:01 UTC`."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
