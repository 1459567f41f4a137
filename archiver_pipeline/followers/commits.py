"""The commits of batches in the table's log: where to look for the messages that a follower lacks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.storage.base import Storage
from archiver_pipeline.table import delta_log


@dataclass(frozen=True)
class BatchCommit:
    """A batch as its commit tells: its ranges `[start, end)`, payload bytes, messages, and the files that it added."""

    ranges: Mapping[TopicPartition, tuple[int, int]]
    messages: int
    bytes: int
    paths: tuple[str, ...]


@dataclass(frozen=True)
class Lacking:
    """Where the messages are that a follower lacks.

    Attributes:
        versions: the commits of batches that hold them, in order, as far as the log goes back.
        older: the offsets `[start, end)` per topic partition whose commits the log no longer has.
    """

    versions: tuple[int, ...]
    older: Mapping[TopicPartition, tuple[int, int]]


def read_commit(storage: Storage, version: int) -> BatchCommit | None:
    """Read the commit of a batch; None where it is no batch's. Raises FileNotFoundError."""
    paths: list[str] = []
    info: dict[str, Any] = {}
    for line in delta_log.commit(storage, version).splitlines():
        if line.startswith(b'{"add"'):
            # The log escapes a path once more than the disk has it (Delta protocol, "Add File").
            paths.append(unquote(json.loads(line)["add"]["path"]))
        elif line.startswith(b'{"commitInfo"'):
            info = json.loads(line)["commitInfo"]
    if "ranges" not in info:
        return None
    ranges = {
        TopicPartition(item["topic"], item["topic_id"], item["partition"]): (item["start"], item["end"])
        for item in json.loads(info["ranges"])
    }
    return BatchCommit(ranges, int(info["messages"]), int(info["bytes"]), tuple(paths))


def look_back(storage: Storage, newest: int, wanted: Mapping[TopicPartition, tuple[int, int]]) -> Lacking:
    """Go back through the log until all wanted offsets are found, whatever lies in gaps between them.

    Args:
        storage: the archive's files.
        newest: the version to begin with.
        wanted: offsets `[start, end)` per topic partition, each `end` being the committed offset of that version.
    """
    missing = {at: item for at, item in wanted.items() if item[0] < item[1]}
    versions: list[int] = []
    for version in range(newest, -1, -1):
        if not missing:
            break
        try:
            commit = read_commit(storage, version)
        except FileNotFoundError:
            break
        touched = missing.keys() & commit.ranges.keys() if commit else set()
        for at in touched:
            assert commit is not None
            (start, end), (low, high) = missing[at], commit.ranges[at]
            if high > start and (not versions or versions[-1] != version):
                versions.append(version)
            if low <= start or high <= start:
                del missing[at]
            else:
                missing[at] = (start, min(end, low))
    return Lacking(tuple(reversed(versions)), missing)
