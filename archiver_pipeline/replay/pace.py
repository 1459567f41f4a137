"""How many messages may go out by now. No I/O."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass
class Pace:
    """As fast as possible, at a rate, or in the distances in time that the messages have.

    Attributes:
        rate: messages per second; 0 for no such limit.
        original: whether to keep the distances in time.
    """

    rate: float = 0.0
    original: bool = False
    _sent: int = 0
    _first_ms: int | None = None

    @property
    def is_free(self) -> bool:
        """Whether all may go at once."""
        return not self.rate and not self.original

    def due(self, times_ms: Sequence[int], elapsed: float) -> int:
        """How many of the next messages may go out.

        Args:
            times_ms: their times in milliseconds since 1970, which never decrease.
            elapsed: seconds since the first one was due.
        """
        if self.is_free or not times_ms:
            return len(times_ms)
        if self.rate:
            return max(0, min(len(times_ms), int(elapsed * self.rate) + 1 - self._sent))
        if self._first_ms is None:
            self._first_ms = times_ms[0]
        return bisect_right(times_ms, self._first_ms + int(elapsed * 1000))

    def sent(self, count: int) -> None:
        """Take down that so many more went out."""
        self._sent += count
