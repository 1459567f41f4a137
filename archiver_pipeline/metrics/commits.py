"""What the commits of batches tell, summed up as they come."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from archiver_pipeline import envelope
from archiver_pipeline.metrics.catalogue import BUCKETS, Families
from archiver_pipeline.status import BatchStatus
from archiver_pipeline.storage.base import Storage
from archiver_pipeline.table import delta_log
from archiver_pipeline.table.delta_log import LogState

KINDS: Mapping[str, str] = {
    envelope.MALFORMED: "malformed",
    envelope.UNTYPED: "untyped",
    envelope.OTHER: "other",
    envelope.TOMBSTONE: "tombstone",
}
TYPED = "typed"
STEPS = ("plan", "read", "write", "sync", "place", "check")

_LOOK_BACK = 50
"""So many commits are looked through for the newest batches, at the start."""

_RECENT = 1_000
"""So many batches are told of one by one."""


@dataclass(frozen=True)
class CommitTold:
    """A batch as its commit tells.

    Attributes:
        time: when it was committed, in seconds since 1970.
        run_id, messages: its run, and how many messages it has.
        bytes, files, seconds: its payload, its files, and from plan to commit.
        steps: seconds by step.
        kinds: messages by kind.
        newest: the newest time of a message, in seconds since 1970; None where none has a time.
    """

    time: float
    run_id: str
    messages: int
    bytes: int
    files: int
    seconds: float
    steps: Mapping[str, float]
    kinds: Mapping[str, int]
    newest: float | None


def told_by(content: bytes) -> CommitTold | None:
    """Read a commit; None where it is not that of a batch."""
    info: dict[str, Any] = {}
    kinds: Counter[str] = Counter()
    newest: list[float] = []
    for line in content.splitlines():
        if line.startswith(b'{"commitInfo"'):
            info = json.loads(line)["commitInfo"]
            if "ranges" not in info:
                return None
        elif line.startswith(b'{"add"'):
            action = json.loads(line)["add"]
            stats = json.loads(action["stats"])
            kinds[KINDS.get(action["partitionValues"]["type"], TYPED)] += stats["numRecords"]
            if stamp := stats["maxValues"].get("timestamp"):
                newest.append(datetime.fromisoformat(stamp).timestamp())
    if not info:
        return None
    time = info["timestamp"] / 1000
    steps = {name: float(seconds) for name, seconds in json.loads(info.get("steps") or "{}").items()}
    # A stamp from the future says nothing of how fresh the archive is.
    latest = min(max(newest), time) if newest else None
    messages, size, files = (int(info[name]) for name in ("messages", "bytes", "files"))
    return CommitTold(time, info["run_id"], messages, size, files, float(info["seconds"]), steps, kinds, latest)


class CommitTotals:
    """Sums over the batches since it was begun; each commit is read once."""

    def __init__(self, back: int = 0) -> None:
        """Begin with the newest commit, or so many before it."""
        self._back = back
        self._version: int | None = None
        self._batches = 0
        self._bytes = 0
        self._files = 0
        self._seconds = 0.0
        self._counts = [0] * (len(BUCKETS) + 1)
        self._steps: Counter[str] = Counter(dict.fromkeys(STEPS, 0))
        self._kinds: Counter[str] = Counter(dict.fromkeys((TYPED, *KINDS.values()), 0))
        self._last: float | None = None
        self._newest: float | None = None
        self._recent: deque[BatchStatus] = deque(maxlen=_RECENT)

    def read_on(self, storage: Storage, state: LogState) -> None:
        """Take in the commits up to the version of `state`. Raises OSError."""
        if self._version is None or state.version < self._version:  # At the start, or the archive is another one.
            begin = max(state.version - self._back, state.oldest - 1)
            self._recent.clear()
            self._look_back(storage, begin, state.oldest)
            self._version = begin
        for version in range(max(self._version + 1, state.oldest), state.version + 1):
            told = _told(storage, version)
            if told is not None:
                self._add(told)
                self._recent.append(_status_of(version, told))
            self._version = version

    def tell(self, families: Families) -> None:
        """Add what the sums say."""
        families.add("archiver_batches", self._batches)
        families.add("archiver_payload_bytes", self._bytes)
        families.add("archiver_written_files", self._files)
        families.histogram("archiver_batch_seconds", self._counts, self._seconds)
        for step, seconds in self._steps.items():
            families.add("archiver_batch_step_seconds", seconds, step)
        for kind, messages in self._kinds.items():
            families.add("archiver_classified_messages", messages, kind)
        if self._newest is not None:
            families.add("archiver_newest_message_timestamp_seconds", self._newest)
        if self._last is not None:
            families.add("archiver_last_batch_timestamp_seconds", self._last)

    @property
    def last(self) -> float | None:
        """When the newest batch was committed, in seconds since 1970."""
        return self._last

    @property
    def recent(self) -> tuple[BatchStatus, ...]:
        """The newest batches, the oldest of them first: those since it was begun, and a few from before that."""
        return tuple(self._recent)

    def _look_back(self, storage: Storage, version: int, oldest: int) -> None:
        for number in range(version, max(oldest, version - _LOOK_BACK) - 1, -1):
            if (told := _told(storage, number)) is not None:
                self._see(told)
                self._recent.appendleft(_status_of(number, told))

    def _add(self, told: CommitTold) -> None:
        self._batches += 1
        self._bytes += told.bytes
        self._files += told.files
        self._seconds += told.seconds
        self._counts[bisect_left(BUCKETS, told.seconds)] += 1
        for step, seconds in told.steps.items():
            self._steps[step] += seconds  # type: ignore[assignment]
        self._kinds.update(told.kinds)
        self._see(told)

    def _see(self, told: CommitTold) -> None:
        self._last = max(told.time, self._last or 0.0)
        if told.newest is not None:
            self._newest = max(told.newest, self._newest or 0.0)


def _status_of(version: int, told: CommitTold) -> BatchStatus:
    moment = datetime.fromtimestamp(told.time, UTC)
    return BatchStatus(version, moment, told.messages, told.bytes, told.files, told.seconds, told.run_id)


def _told(storage: Storage, version: int) -> CommitTold | None:
    try:
        return told_by(delta_log.commit(storage, version))
    except FileNotFoundError:
        return None  # It was cleaned up meanwhile.
    except (ValueError, KeyError, TypeError) as error:
        raise delta_log.damaged(storage.address(delta_log.commit_name(version)), error) from error
