"""Amounts as a sentence has them: a number with its noun, and a span of time."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a count of things: `1 hour`, `1,200 hours`; `plural` is for nouns that take more than an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """A span of time for people: `3 h 12 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = int(seconds / 60)
    if minutes < 60:
        return f"{minutes} min {int(seconds % 60)} s"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} days"
