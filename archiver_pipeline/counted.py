"""A number with its noun, as a sentence has it: `1 hour`, `2 hours`."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a count of things: `1 hour`, `1,200 hours`; `plural` is for nouns that take more than an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
