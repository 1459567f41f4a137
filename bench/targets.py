"""What was measured next to what it ought to be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table


@dataclass(frozen=True)
class Target:
    """A figure with its bound.

    Attributes:
        name: what was measured.
        found: the figure.
        most: what it may be at most; None where there is no bound.
        unit: of both.
    """

    name: str
    found: float
    most: float | None
    unit: str

    @property
    def is_met(self) -> bool:
        """Whether it is within its bound."""
        return self.most is None or self.found <= self.most


def table(title: str, targets: Sequence[Target]) -> Table:
    """The targets as a table."""
    shown = Table("", "found", "at most", "", title=title)
    for item in targets:
        bound = "" if item.most is None else f"{item.most:g} {item.unit}"
        verdict = "" if item.most is None else "pass" if item.is_met else "FAIL"
        shown.add_row(item.name, f"{item.found:.2f} {item.unit}", bound, verdict)
    return shown
