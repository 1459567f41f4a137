"""How the lag of each topic was in the last hour, in little memory. No I/O."""

from __future__ import annotations

from array import array
from collections.abc import Mapping

SLOT_SECONDS = 30.0
"""Looks closer together share a sample, which has the highest of them."""

MOST_SAMPLES = 120

_UNKNOWN = -1


class LagHistory:
    """The lag of topics over time: at most `MOST_SAMPLES` numbers of 8 bytes for each."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._lags: dict[str, array[int]] = {}

    def see(self, now: float, lags: Mapping[str, int]) -> None:
        """Note the lag of each topic at a time in seconds since 1970; topics that are not named are forgotten."""
        fresh = not self._times or now - self._times[-1] >= SLOT_SECONDS
        if fresh:
            self._times.append(now)
            for known in self._lags.values():
                known.append(_UNKNOWN)
        self._lags = {topic: known for topic, known in self._lags.items() if topic in lags}
        for topic, lag in lags.items():
            known = self._lags.setdefault(topic, array("q", [_UNKNOWN] * len(self._times)))
            known[-1] = max(lag, known[-1])
        if len(self._times) > MOST_SAMPLES:
            del self._times[0]
            for known in self._lags.values():
                del known[0]

    def of(self, topic: str) -> list[tuple[float, int]]:
        """The samples of a topic as (time, lag), the oldest first; those from before it was seen are left out."""
        known = self._lags.get(topic, array("q"))
        return [(time, lag) for time, lag in zip(list(self._times), known, strict=False) if lag != _UNKNOWN]
