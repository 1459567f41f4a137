"""An archive's format brought up to what this archiver writes: step by step, in one commit of the table's log."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from archiver_pipeline.storage.base import Storage
from archiver_pipeline.table import delta_log, format_version
from archiver_pipeline.table.delta_log import LogState

log = logging.getLogger(__name__)

FENCE = "format"
"""The application transaction that moves with each upgrade."""

Action = Mapping[str, Any]


@dataclass(frozen=True)
class Step:
    """From one version of the format to the next.

    Attributes:
        version: the version that it makes.
        what: what changes, for the log of the run.
        actions: the actions that it takes besides the new metadata, of what the log says; pure.
    """

    version: int
    what: str
    actions: Callable[[LogState], Sequence[Action]] = lambda _: ()


STEPS: tuple[Step, ...] = ()
"""Every step there is, in order; the last one makes `format_version.KNOWN`. There has been one format until now.

Archives from before the property are not stamped: they are what a stamped one is, and the first step will stamp them.
"""


def due(version: int, steps: Sequence[Step]) -> tuple[Step, ...]:
    """The steps that an archive of a version has before it, in order."""
    return tuple(step for step in steps if step.version > version)


def commit_of(state: LogState, steps: Sequence[Step], now_ms: int) -> list[Action]:
    """The lines of the commit that takes steps: what it says of itself, the fence, actions, and the new metadata."""
    said = {"timestamp": now_ms, "operation": "SET TBLPROPERTIES", "operationParameters": {}}
    fence = state.transactions.get(FENCE)
    moved = {"appId": FENCE, "version": (fence.version if fence else 0) + 1, "lastUpdated": now_ms}
    properties = {**state.metadata["configuration"], format_version.PROPERTY: str(steps[-1].version)}
    extra = [action for step in steps for action in step.actions(state)]
    stated = _plain({**state.metadata, "configuration": properties})
    return [{"commitInfo": {**said, "engineInfo": delta_log.ENGINE}}, {"txn": moved}, *extra, {"metaData": stated}]


def _plain(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Metadata as a commit has it; a checkpoint writes maps as pairs, and what is not there as null."""
    formatted = {"provider": metadata["format"]["provider"], "options": {}}
    return {name: value for name, value in {**metadata, "format": formatted}.items() if value is not None}


def upgrade(storage: Storage, state: LogState, steps: Sequence[Step] = STEPS) -> bool:
    """Take the steps that an archive has before it, all in one commit; False where there is none, or another process
    has committed meanwhile, so that the log has to be read first.

    Whoever is at work with an older snapshot reads the new metadata before it commits: an older archiver is then
    refused, one of the same version starts its batch over.

    Raises:
        OSError: the storage refused; the commit may be in the log all the same.
    """
    version = format_version.version_of(state.metadata, storage.uri)
    taken = due(version, steps)
    if not taken:
        return False
    scratch = storage.workroom("_upgrade")
    scratch.mkdir(parents=True, exist_ok=True)
    lines = commit_of(state, taken, int(time.time() * 1000))
    # The folder stays: somebody else may be about to write into it.
    if not delta_log.put(storage, state.version + 1, lines, scratch / f"{os.getpid()}-{time.time_ns()}"):
        return False
    for step in taken:
        log.warning("archive %s is now of format %d: %s", storage.uri, step.version, step.what)
    return True
