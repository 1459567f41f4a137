"""What a commit says of its batch."""

from __future__ import annotations

import json
from dataclasses import dataclass

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
    """

    run_id: str
    lane: int
    ranges: tuple[OffsetRange, ...]
    messages: int
    bytes: int
    files: int
    seconds: float

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
        }
