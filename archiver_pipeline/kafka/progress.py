"""How far the read of an offset range has come."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from archiver_pipeline.plan import Gap, OffsetRange


@dataclass
class Progress:
    """How far the read of one range has come.

    Attributes:
        range: the planned range.
        next: every offset below it has been read, or carries no message.
        bytes: payload bytes read so far.
        quota: when to let the other ranges go first, in bytes.
        gaps: what retention took away while it was read.
        messages: how many messages were read.
        log_end: the end that the broker reported below the range's, if it did; the log was cut or made again.
    """

    range: OffsetRange
    next: int
    bytes: int = 0
    quota: float = float("inf")
    gaps: list[Gap] = field(default_factory=list)
    messages: int = 0
    log_end: int | None = None

    @property
    def done(self) -> bool:
        """Whether the end of the range is reached."""
        return self.next >= self.range.end

    @property
    def resting(self) -> bool:
        """Whether it is done, or lets the others go first."""
        return self.done or self.bytes >= self.quota

    @property
    def reached(self) -> OffsetRange:
        """The range as far as it was read."""
        return OffsetRange(self.range.at, self.range.start, self.next)

    @property
    def where(self) -> dict[str, Any]:
        """What an error says of the place: topic, partition, and the offsets that are still to be read."""
        at = self.range.at
        return {"topic": at.topic, "partition": at.partition, "start": self.next, "end": self.range.end}
