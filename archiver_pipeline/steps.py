"""The steps of a batch, and how long each takes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

OnStep = Callable[[str], None]
"""Told the name of each step as it begins: plan, read (and frame, for each), write, sync, place, check, commit, clean,
done."""


@dataclass
class Clock:
    """Seconds spent in each step of one batch.

    Attributes:
        on_step: told of each step.
        steps: seconds by step.
    """

    on_step: OnStep
    steps: Counter[str] = field(default_factory=Counter)
    _began: float = field(default_factory=time.monotonic)
    _name: str = ""
    _since: float = 0.0

    def elapsed(self) -> float:
        """Seconds since the first step."""
        return time.monotonic() - self._began

    def step(self, name: str) -> None:
        """Begin a step, which ends the one before."""
        now = time.monotonic()
        if self._name:
            self.steps[self._name] += now - self._since  # type: ignore[assignment]
        self._name, self._since = name, now
        self.on_step(name)
