"""A batch in words: a sentence, and a few lines of Markdown for the page of its materialization."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from archiver_pipeline.amounts import counted, duration, size
from archiver_pipeline.batch.batch import Batch
from archiver_pipeline.plan import OffsetRange

_MOST = 5


def sentence(batch: Batch) -> str:
    """What a batch archived, and what it left."""
    topics = sorted({item.at.topic for item in batch.ranges})
    left = f", {batch.lag:,} left" if batch.lag else ""
    return f"{counted(batch.messages, 'message')} of {_listed(topics) or 'no topic'} in {batch.seconds:.1f} s{left}"


def markdown(batch: Batch) -> str:
    """The same for the page of a materialization, with a query for what it archived; short enough to be shown there."""
    lines = [
        f"**{counted(batch.messages, 'message')}** ({size(batch.bytes)}) in {batch.seconds:.1f} s. {_behind(batch)}"
    ]
    if batch.gaps:
        lost = sum(gap.end - gap.start for gap in batch.gaps)
        lines.append(
            f"**{counted(lost, 'offset was', 'offsets were')} gone** before they could be archived: see `gaps`."
        )
    if batch.messages:
        where = f"topic = '{batch.ranges[0].at.topic}' AND \"partition\" = {batch.ranges[0].at.partition}"
        first = f'"offset" >= {batch.ranges[0].start} AND "offset" < {batch.ranges[0].end}'
        lines.append(f"`SELECT * FROM messages WHERE {where} AND {first}`")
    return "\n\n".join(lines)


def ranges(found: Iterable[OffsetRange], most: int = _MOST) -> str:
    """Offsets by topic partition in a line, the longest ranges first: `orders/0 [10, 2000), orders/1 [0, 5)`."""
    every = sorted(found, key=lambda item: (item.start - item.end, item.at.topic, item.at.partition))
    return _listed([f"{item.at.topic}/{item.at.partition} [{item.start}, {item.end})" for item in every], most)


def freshness_seconds(batch: Batch) -> float | None:
    """Seconds from the time of the newest message to the commit; 0 for a time in the future, None for none."""
    if not batch.newest:
        return None
    return max(0.0, batch.committed_at - datetime.fromisoformat(batch.newest).timestamp())


def lag_seconds(batch: Batch) -> float | None:
    """How old the newest archived message was while more was left to read; 0 where nothing was."""
    return 0.0 if batch.lag == 0 else freshness_seconds(batch)


def _behind(batch: Batch) -> str:
    if batch.lag == 0:
        return "Nothing was left to read."
    seconds = freshness_seconds(batch)
    age = "" if seconds is None else f"; the newest archived one was {duration(seconds)} old"
    return f"**{counted(batch.lag, 'message was', 'messages were')} left to read**{age}."


def _listed(names: list[str], most: int = _MOST) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
