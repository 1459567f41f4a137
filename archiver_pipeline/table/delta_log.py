"""The Delta log: what its newest checkpoint and the commits behind it say, read once, and one more commit put there.

What the log says is kept and carried on commit by commit: a batch costs the same however many files and commits there
are. What is kept never hides a commit, of whomever: each reading goes on to the newest one that the log has.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from archiver_pipeline.envelope import RESERVED
from archiver_pipeline.errors import ArchiveDamaged
from archiver_pipeline.storage.base import Content, Storage
from archiver_pipeline.storage.bucket_errors import Unreachable
from archiver_pipeline.storage.staging import translated

if TYPE_CHECKING:
    import polars as pl

FOLDER = "_delta_log"
ENGINE = "archiver"
"""Who a commit says that it is by."""

WRITER_VERSION = 2
"""What a commit has to know of (Delta protocol, "Requirements for Writers"): neither constraints nor other features."""

LISTED_SECONDS = 60.0
"""So often the log is listed. In between the next commit is looked for by its name: none that is younger than that has
been cleaned up. A listing of a hundred thousand commits takes as long as a small batch."""

_CHECKPOINT = ".checkpoint.parquet"
_LAST_CHECKPOINT = f"{FOLDER}/_last_checkpoint"
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


def read(storage: Storage, known: LogState | None = None) -> LogState:
    """Read the log up to its newest commit; from `known` on where that is still what the log says.

    Raises:
        ArchiveDamaged: a commit or the checkpoint is missing or cannot be read.
        OSError: the storage refused or does not answer.
    """
    now = time.monotonic()
    state = known if known and known.mark and storage.mark(commit_name(known.version)) == known.mark else None
    if state and state._listed and now - state._listed < LISTED_SECONDS:
        return _carried_on(storage, state)
    there = listed(storage, state.checkpoint if state else _hinted(storage))
    carried_on = state is not None
    state = _carried_on(storage, state or _from_checkpoint(storage, max(there.checkpoints, default=-1)))
    if state.version < max(there.commits, default=-1):
        if carried_on:
            return read(storage)
        raise ArchiveDamaged(
            f"the table's log has no commit {state.version + 1}",
            path=storage.address(commit_name(state.version + 1)),
            hint="Restore this file from a copy; nothing was changed",
        )
    return replace(
        state,
        oldest=there.oldest,
        checkpoint=max(there.checkpoints, default=-1),
        _listed=now if state.mark else 0.0,
    )


def commit_name(version: int) -> str:
    """The commit of a version, as a file of the archive."""
    return f"{FOLDER}/{version:020}.json"


def commit(storage: Storage, version: int) -> bytes:
    """What the commit of a version says, a line each action. Raises FileNotFoundError."""
    with translated(storage.uri):
        content = storage.fetch(commit_name(version))
    if content is None:
        raise FileNotFoundError(2, "there is no such commit", storage.address(commit_name(version)))
    return content.data


def put(storage: Storage, version: int, actions: Iterable[Mapping[str, Any]], scratch: Path) -> bool:
    """Put a commit in the log, so that it lasts before anyone sees it; False where the version is taken.

    Args:
        storage: the archive.
        version: the version that it makes.
        actions: a line each.
        scratch: a local file for it, which is removed.

    Raises:
        OSError: disk or object store refused; the commit may be in the log all the same.
    """
    lines = (json.dumps(action, separators=(",", ":")) + "\n" for action in actions)
    return storage.create(commit_name(version), "".join(lines).encode(), scratch)


def make_durable(storage: Storage, version: int) -> None:
    """Force a commit to the disk, and the checkpoint that may have come with it; the library only writes them."""
    storage.lasting([commit_name(version), checkpoint_name(version), _LAST_CHECKPOINT])


@dataclass(frozen=True)
class Listed:
    """What a listing of the log shows: its oldest commit, and the versions of newer commits and checkpoints."""

    oldest: int
    commits: tuple[int, ...]
    checkpoints: tuple[int, ...]


def listed(storage: Storage, checkpoint: int = -1) -> Listed:
    """List the log from a checkpoint on; all of it where that is not there."""
    names = storage.names(FOLDER, f"{checkpoint:020}" if checkpoint >= 0 else "")
    checkpoints = tuple(int(name[:20]) for name in names if name.endswith(_CHECKPOINT) and name[:20].isdigit())
    if checkpoint >= 0 and checkpoint not in checkpoints:
        return listed(storage)
    commits = tuple(int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdigit())
    oldest = (storage.first(FOLDER) or "") if checkpoint >= 0 else ""
    return Listed(int(oldest[:-5]) if oldest[:-5].isdigit() else min(commits, default=0), commits, checkpoints)


def _hinted(storage: Storage) -> int:
    """The newest checkpoint by the file that names it (Delta protocol, "Last Checkpoint File"), -1 without it."""
    content = storage.fetch(_LAST_CHECKPOINT)
    try:
        found = json.loads(content.data)["version"] if content else -1
        return found if isinstance(found, int) else -1
    except (ValueError, KeyError, TypeError):
        return -1


def checkpoint_name(version: int) -> str:
    """The checkpoint of a version, as a file of the archive."""
    return f"{FOLDER}/{version:020}{_CHECKPOINT}"


def _from_checkpoint(storage: Storage, version: int) -> LogState:
    if version < 0:
        return LogState()
    columns = {name: checkpoint_column(storage, version, name) for name in ("txn", "metaData", "protocol", "add")}
    rows = [row for row in columns["txn"].drop_nulls().to_list() if row["appId"] is not None]
    (metadata,) = [row for row in columns["metaData"].drop_nulls().to_list() if row["id"] is not None][:1] or [{}]
    writers = [row["minWriterVersion"] for row in columns["protocol"].drop_nulls().to_list()]
    return LogState(
        version,
        checkpoint=version,
        transactions={row["appId"]: Transaction(row["appId"], row["version"], row["lastUpdated"]) for row in rows},
        metadata={**metadata, "configuration": _pairs(metadata.get("configuration"))},
        writer=max((each for each in writers if each is not None), default=0),
        _files=_by_type(columns["add"]),
    )


def _by_type(added: Any) -> Counter[str]:
    """How many files each type has, by its name as the log writes it."""
    paths = added.struct.field("path").drop_nulls()
    return Counter(dict(paths.str.extract("^type=([^/]*)/").drop_nulls().value_counts().iter_rows()))


def _pairs(configuration: Any) -> dict[str, str]:
    """A map as Polars reads it from Parquet: a dictionary, or a list of keys and values."""
    if isinstance(configuration, dict):
        return configuration
    return {row["key"]: row["value"] for row in configuration or ()}


def checkpoint_column(storage: Storage, version: int, name: str) -> pl.Series:
    """A column of a checkpoint: `txn`, `metaData`, `protocol`, `add` or `remove`. Raises ArchiveDamaged."""
    import polars as pl

    try:
        with storage.local(checkpoint_name(version)) as path:
            # Its path is the archive's own, whatever characters that has.
            return pl.read_parquet(path, columns=[name], glob=False, hive_partitioning=False)[name]
    except (pl.exceptions.PolarsError, FileNotFoundError) as error:
        raise damaged(storage.address(checkpoint_name(version)), error) from error


def _carried_on(storage: Storage, state: LogState) -> LogState:
    """Read the commits behind a state, one after the other by name.

    A listing made while others commit may hold a commit and lack the one before it.
    """
    version, mark = state.version, state.mark
    transactions, files = dict(state.transactions), Counter(state._files)
    changes: dict[str, Any] = {}
    while content := _fetched(storage, version + 1):
        version, mark = version + 1, content.mark
        for kind, action in _actions(storage, version, content.data):
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
        return state if mark else replace(state, mark=storage.mark(commit_name(version)))
    return replace(state, version=version, transactions=transactions, _files=files, mark=mark, **changes)


def _fetched(storage: Storage, version: int) -> Content | None:
    try:
        return storage.fetch(commit_name(version))
    except Unreachable:
        raise  # Nobody knows what is there.
    except OSError as error:
        raise damaged(storage.address(commit_name(version)), error) from error


def _actions(storage: Storage, version: int, content: bytes) -> Sequence[tuple[str, Any]]:
    """The actions of a commit; of files, of which there may be thousands, only the type."""
    try:
        if not content.rstrip().endswith(b"}"):
            raise ValueError("it is cut short")
        return list(_parsed(content))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(storage.address(commit_name(version)), error) from error


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


def damaged(address: str, error: Exception) -> ArchiveDamaged:
    """The error of a file of the log that cannot be read."""
    return ArchiveDamaged(
        f"a file of the table's log cannot be read: {error}",
        path=address,
        hint="Restore this file from a copy; nothing was changed",
    )
