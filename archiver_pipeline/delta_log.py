"""The Delta log: what its newest checkpoint and the commits behind it say, read once, and one more commit put there.

What the log says is kept and carried on commit by commit: a batch costs the same however many files and commits there
are. What is kept never hides a commit, of whomever: each reading goes on to the newest one that the log has.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from archiver_pipeline.durable import force
from archiver_pipeline.envelope import RESERVED
from archiver_pipeline.errors import ArchiveDamaged

FOLDER = "_delta_log"
ENGINE = "archiver"
"""Who a commit says that it is by."""

WRITER_VERSION = 2
"""What a commit has to know of (Delta protocol, "Requirements for Writers"): neither constraints nor other features."""

LISTED_SECONDS = 60.0
"""So often the log is listed. In between the next commit is looked for by its name: none that is younger than that has
been cleaned up. A listing of a hundred thousand commits takes as long as a small batch."""

_CHECKPOINT = ".checkpoint.parquet"
_TYPE = b'":{"path":"type='


@dataclass(frozen=True)
class Transaction:
    """One application transaction: its name, its number, and when it was committed (ms since 1970, if known)."""

    app_id: str
    version: int
    updated_ms: int | None = None


@dataclass(frozen=True, eq=False)
class LogState:
    """What the log says as of one version.

    Attributes:
        version: the table's version, -1 before its first commit.
        oldest: the first commit that the log had when it was last listed.
        checkpoint: the version of the newest checkpoint then, -1 without one.
        transactions: by name.
        metadata: the table's metadata, as the log has it; of a checkpoint, id and configuration.
        writer: the version of the protocol that a writer has to know.
        mark: that of its newest commit (see `mark_of`), empty where it is unknown.
    """

    version: int = -1
    oldest: int = 0
    checkpoint: int = -1
    transactions: Mapping[str, Transaction] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    writer: int = 0
    _files: Mapping[str, int] = field(default_factory=dict)
    mark: str = ""
    _listed: float = 0.0

    def unlisted(self) -> LogState:
        """The same, but the next reading lists the log."""
        return replace(self, _listed=0.0)

    def types(self) -> set[str]:
        """The types that the table has files of, the reserved ones not counted."""
        # Escaped for the folder's name, and once more for the log.
        return {unquote(unquote(name)) for name, count in self._files.items() if count > 0} - RESERVED


def read(archive: Path, known: LogState | None = None) -> LogState:
    """Read the log up to its newest commit; from `known` on where that is still what the log says.

    Raises:
        ArchiveDamaged: a commit or the checkpoint is missing or cannot be read.
    """
    now = time.monotonic()
    state = known if known and known.mark and mark_of(archive, known.version) == known.mark else None
    if state and state._listed and now - state._listed < LISTED_SECONDS:
        return _carried_on(archive, state)
    commits, checkpoints = listed(archive)
    carried_on = state is not None
    state = _carried_on(archive, state or _from_checkpoint(archive, max(checkpoints, default=-1)))
    if state.version < max(commits, default=-1):
        if carried_on:
            return read(archive)
        missing = commit_path(archive, state.version + 1)
        raise ArchiveDamaged(
            f"the table's log has no commit {state.version + 1}",
            path=str(missing),
            hint="Restore this file from a copy; nothing was changed",
        )
    return replace(
        state,
        oldest=min(commits, default=0),
        checkpoint=max(checkpoints, default=-1),
        _listed=now if state.mark else 0.0,
    )


def commit_path(archive: Path, version: int) -> Path:
    """Where the commit of a version lies."""
    return archive / FOLDER / f"{version:020}.json"


def put(archive: Path, version: int, actions: Iterable[Mapping[str, Any]], scratch: Path) -> bool:
    """Put a commit in the log, forced to the disk before anyone sees it; False where the version is taken.

    Args:
        archive: the archive.
        version: the version that it makes.
        actions: a line each.
        scratch: a file in the same file system, which is removed.

    Raises:
        OSError: the disk refused; the commit may be in the log all the same.
    """
    path = commit_path(archive, version)
    scratch.write_text("".join(json.dumps(action, separators=(",", ":")) + "\n" for action in actions), "utf-8")
    force([scratch])
    os.utime(scratch)  # Its time is that of the commit: see `view.behind`.
    try:
        os.link(scratch, path)
    except FileExistsError:
        return False
    finally:
        scratch.unlink(missing_ok=True)
    force([path.parent])
    return True


def add_action(path: str, values: Mapping[str, str], size: int, time_ms: int, change: bool, stats: Any) -> Any:
    """An added file as a commit names it; its path is escaped once more than the disk has it."""
    of_file = {"path": quote(path, safe="/=~"), "partitionValues": dict(values), "size": size}
    return {"add": {**of_file, "modificationTime": time_ms, "dataChange": change, "stats": json.dumps(stats)}}


def remove_action(path: str, values: Mapping[str, str], size: int, time_ms: int, change: bool) -> Any:
    """A removed file as a commit names it."""
    of_file = {"path": quote(path, safe="/=~"), "deletionTimestamp": time_ms, "dataChange": change}
    return {"remove": {**of_file, "extendedFileMetadata": True, "partitionValues": dict(values), "size": size}}


def make_durable(archive: Path, version: int) -> None:
    """Force a commit to the disk, and the checkpoint that may have come with it; the library only writes them."""
    log = archive / FOLDER
    written = [commit_path(archive, version), *log.glob(f"{version:020}.checkpoint*"), log / "_last_checkpoint"]
    for path in (*written, log, archive):
        with suppress(FileNotFoundError):
            force([path])


def listed(archive: Path) -> tuple[list[int], list[int]]:
    """The versions of the commits and of the checkpoints that the log has."""
    try:
        names = os.listdir(archive / FOLDER)
    except (FileNotFoundError, NotADirectoryError):
        return [], []
    commits = [int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdigit()]
    checkpoints = [int(name[:20]) for name in names if name.endswith(_CHECKPOINT) and name[:20].isdigit()]
    return commits, checkpoints


def mark_of(archive: Path, version: int) -> str:
    """What tells a commit from another one in its place, as after a restore; empty where there is none."""
    try:
        found = os.stat(commit_path(archive, version))
    except FileNotFoundError:
        return ""
    return f"{found.st_ino} {found.st_size} {found.st_mtime_ns}"


def checkpoint_path(archive: Path, version: int) -> Path:
    """Where the checkpoint of a version lies."""
    return archive / FOLDER / f"{version:020}{_CHECKPOINT}"


def _from_checkpoint(archive: Path, version: int) -> LogState:
    if version < 0:
        return LogState()
    path = checkpoint_path(archive, version)
    rows = [row for row in _column(path, "txn").drop_nulls().to_list() if row["appId"] is not None]
    (metadata,) = [row for row in _column(path, "metaData").drop_nulls().to_list() if row["id"] is not None][:1] or [{}]
    writers = [row["minWriterVersion"] for row in _column(path, "protocol").drop_nulls().to_list()]
    return LogState(
        version,
        checkpoint=version,
        transactions={row["appId"]: Transaction(row["appId"], row["version"], row["lastUpdated"]) for row in rows},
        metadata={**metadata, "configuration": _pairs(metadata.get("configuration"))},
        writer=max((each for each in writers if each is not None), default=0),
        _files=_by_type(path),
    )


def _by_type(checkpoint: Path) -> Counter[str]:
    """How many files each type has, by its name as the log writes it."""
    paths = _column(checkpoint, "add").struct.field("path").drop_nulls()
    return Counter(dict(paths.str.extract("^type=([^/]*)/").drop_nulls().value_counts().iter_rows()))


def _pairs(configuration: Any) -> dict[str, str]:
    """A map as Polars reads it from Parquet: a dictionary, or a list of keys and values."""
    if isinstance(configuration, dict):
        return configuration
    return {row["key"]: row["value"] for row in configuration or ()}


def _column(checkpoint: Path, name: str) -> Any:
    import polars as pl

    try:
        # Its path is the archive's own, whatever characters that has.
        return pl.read_parquet(checkpoint, columns=[name], glob=False, hive_partitioning=False)[name]
    except (pl.exceptions.PolarsError, OSError) as error:
        raise damaged(checkpoint, error) from error


def _carried_on(archive: Path, state: LogState) -> LogState:
    """Read the commits behind a state, one after the other by name.

    A listing made while others commit may hold a commit and lack the one before it.
    """
    version, mark = state.version, state.mark
    transactions, files = dict(state.transactions), Counter(state._files)
    changes: dict[str, Any] = {}
    while after := mark_of(archive, version + 1):
        version, mark = version + 1, after
        for kind, action in _actions(commit_path(archive, version)):
            match kind:
                case "txn":
                    app_id = action["appId"]
                    transactions[app_id] = Transaction(app_id, action["version"], action.get("lastUpdated"))
                case "metaData":
                    changes["metadata"] = action
                case "protocol":
                    changes["writer"] = action["minWriterVersion"]
                case _:
                    files[action] += 1 if kind == "add" else -1
    if version == state.version:
        # A commit that a checkpoint covers may be gone: then the next reading begins there again.
        return state if mark else replace(state, mark=mark_of(archive, version))
    return replace(state, version=version, transactions=transactions, _files=files, mark=mark, **changes)


def _actions(commit: Path) -> Sequence[tuple[str, Any]]:
    """The actions of a commit; of files, of which there may be thousands, only the type."""
    try:
        content = commit.read_bytes()
        if not content.rstrip().endswith(b"}"):
            raise ValueError("it is cut short")
        return list(_parsed(content))
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise damaged(commit, error) from error


def _parsed(content: bytes) -> Iterator[tuple[str, Any]]:
    for line in content.splitlines():
        if not line.startswith(b'{"'):  # Another program may write its JSON with spaces.
            line = json.dumps(json.loads(line), separators=(",", ":")).encode()
        kind = line[2 : line.find(b'"', 2)].decode("ascii", "replace")
        if kind in ("txn", "metaData", "protocol"):
            action = json.loads(line)[kind]
            if kind == "txn" and not (isinstance(action["appId"], str) and isinstance(action["version"], int)):
                raise ValueError("a transaction without name or number")
            yield kind, action
        elif kind in ("add", "remove"):
            start = len(kind) + 2
            if line.startswith(_TYPE, start):
                yield kind, line[start + len(_TYPE) : line.index(b"/", start)].decode("ascii", "replace")
            else:
                folder = json.loads(line)[kind]["path"].split("/")[0]
                if folder.startswith("type="):
                    yield kind, folder.removeprefix("type=")


def damaged(path: Path, error: Exception) -> ArchiveDamaged:
    """The error of a file of the log that cannot be read."""
    return ArchiveDamaged(
        f"a file of the table's log cannot be read: {error}",
        path=str(path),
        hint="Restore this file from a copy; nothing was changed",
    )
