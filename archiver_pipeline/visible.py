"""Text of others as it may be shown: nothing in it moves the cursor, hides something or begins a line of its own."""

from __future__ import annotations

import re

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control characters of ASCII (but tab and line feed) and ISO 6429, what turns the direction of writing, other ends of
lines, and halves of pairs, which no terminal takes."""

_NUMBER = re.compile(r"\[Errno -?\d+\] ")
_BREAKS = re.compile("[\t\n]")


def visible(text: str) -> str:
    """Return `text` with what could control a terminal written as an escape, such as `\\x1b`; lines stay lines."""
    return _UNSAFE.sub(_escaped, text)


def one_line(text: str) -> str:
    """The same in one line: a line break within it is an escape, too."""
    return _BREAKS.sub(_escaped, visible(text))


def without_number(text: str) -> str:
    """Return an error of the operating system without its number, `[Errno 111]`, which tells nobody anything."""
    return _NUMBER.sub("", text)


def _escaped(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape").decode()
