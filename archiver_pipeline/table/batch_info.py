"""What a commit says of its batch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from archiver_pipeline.plan import OffsetRange


@dataclass(frozen=True)
class BatchInfo:
    """What a commit says of its batch, for the view `batches`.

    Attributes:
        run_id: the Dagster run, or empty.
        lane: the lane.
        ranges: what was archived, `end` being the next offset.
        messages, bytes, files: how many messages, payload bytes and files.
        seconds: from plan to commit.
        steps: seconds of each step before the commit; what comes with it and after it is not known yet.
    """

    run_id: str
    lane: int
    ranges: tuple[OffsetRange, ...]
    messages: int
    bytes: int
    files: int
    seconds: float
    steps: Mapping[str, float] = field(default_factory=dict)

    def metadata(self) -> dict[str, str]:
        """The commit's metadata; every value is text, as Delta has it."""
        ranges = [
            {
                "topic": r.at.topic,
                "topic_id": r.at.topic_id,
                "partition": r.at.partition,
                "start": r.start,
                "end": r.end,
            }
            for r in self.ranges
        ]
        return {
            "run_id": self.run_id,
            "lane": str(self.lane),
            "ranges": json.dumps(ranges),
            "messages": str(self.messages),
            "bytes": str(self.bytes),
            "files": str(self.files),
            "seconds": f"{self.seconds:.3f}",
            "steps": json.dumps({name: round(seconds, 3) for name, seconds in self.steps.items()}),
        }
