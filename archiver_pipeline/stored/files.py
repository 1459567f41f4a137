"""A file of the table, checked on its own: there, unchanged, readable, and under the partition that it belongs to."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from archiver_pipeline import envelope
from archiver_pipeline.amounts import counted
from archiver_pipeline.storage.base import Storage
from archiver_pipeline.storage.bucket_errors import Unreachable
from archiver_pipeline.storage.staging import storage_error

if TYPE_CHECKING:
    import polars as pl
    from pyarrow.parquet import FileMetaData

COLUMNS = (
    *("topic", "topic_id", "partition", "offset", "timestamp", "timestamp_type"),
    *("key", "value", "value_bytes", "headers"),
)
"""The columns that every file holds; the partition columns are in its path."""

RESTORE = "`archiver backfill` of its hour brings back what Kafka still has; else restore it from a copy of the archive"

_HOUR_US = envelope.HOUR_MS * 1000
_FIRST_US, _LAST_US = envelope.FIRST_MS * 1000, envelope.LAST_MS * 1000 + 999

OnProgress = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""


def quietly(what: str, done: int, total: int) -> None:
    """Report no progress."""


@dataclass(frozen=True)
class Fault:
    """Something that is not as it has to be.

    Attributes:
        kind: `missing`, `changed`, `unlisted`, `doubled`, or `unerased` for an erasure that was interrupted.
        path: the whole address of the file, or that of the archive where no single file is at fault.
        what: what is wrong.
        hint: what to do next.
    """

    kind: Literal["missing", "changed", "unlisted", "doubled", "unerased"]
    path: str
    what: str
    hint: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.path}: {self.what}. {self.hint}"


@dataclass(frozen=True)
class ListedFile:
    """A file as the table's log has it: the path below the archive, its partition values, rows, and size in bytes."""

    path: str
    type: str
    dt: str
    hr: str
    messages: int
    bytes: int


@dataclass(frozen=True)
class SoundFile:
    """A file of the table without fault: its address, its path below the archive, type, rows, and its first and last
    offset."""

    address: str
    path: str
    type: str
    messages: int
    first: int
    last: int


class _Damage(Exception):
    """What is wrong with a file that is there."""


def listed_files(frame: pl.DataFrame) -> list[ListedFile]:
    """Turn the frame of `Archive.files` into rows, in the order of paths."""
    return [
        ListedFile(*row)
        for row in frame.select("path", "type", "dt", "hr", "messages", "bytes").sort("path").iter_rows()
    ]


def check_files(
    storage: Storage, files: Iterable[ListedFile], version: int, on_progress: OnProgress
) -> Iterator[SoundFile | Fault]:
    """Check each file on its own, several at a time; content is hashed as a stream.

    Args:
        storage: the archive's files.
        files: what the table's log lists.
        version: the version of the table, for the text of faults.
        on_progress: told after each file.
    """
    wanted = list(files)
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1), "check") as pool:
        checked = pool.map(lambda file: check_file(storage, file, version), wanted)
        for done, outcome in enumerate(checked, 1):
            on_progress("files", done, len(wanted))
            yield outcome


def check_file(storage: Storage, file: ListedFile, version: int) -> SoundFile | Fault:
    """Check size, hash, place, readability, row count and hours of a file that version `version` of the log lists.

    Raises:
        StorageError: object store or local disk fail, and nobody knows what is there.
    """
    address = storage.address(file.path)
    try:
        with storage.local(file.path) as path:
            return _sound(address, path, file)
    except Unreachable as error:
        raise storage_error(error, address) from error
    except FileNotFoundError:
        what = f"listed by the table's log (version {version}) but not there"
        return Fault("missing", address, what, RESTORE)
    except _Damage as damage:
        return Fault("changed", address, str(damage), RESTORE)
    except OSError as error:
        return Fault("changed", address, f"it cannot be read: {error.strerror or error}", RESTORE)


def _sound(address: str, path: Path, file: ListedFile) -> SoundFile:
    size = path.stat().st_size
    if size != file.bytes:
        raise _Damage(f"it has {counted(size, 'byte')}, the table's log says {file.bytes:,}")
    claimed = envelope.content_hash(file.path)
    if claimed is not None and (found := _hash(path)) != claimed:
        raise _Damage(f"the hash of its content begins with {found}, its name says {claimed}")
    values = {"type": file.type, "dt": file.dt, "hr": file.hr}
    if os.path.dirname(file.path) != envelope.folder(values):
        raise _Damage(f"it belongs under {envelope.folder(values)}, as the table's log says")
    metadata = _metadata(path, decode=claimed is None)
    if metadata.num_rows != file.messages:
        raise _Damage(f"it holds {counted(metadata.num_rows, 'message')}, the table's log says {file.messages:,}")
    names = metadata.schema.to_arrow_schema().names
    if absent := [name for name in COLUMNS if name not in names]:
        raise _Damage(f"it has no column {', '.join(absent)}")
    for stamp in _bounds(metadata, names.index("timestamp")):
        if _hour(stamp) != (file.dt, file.hr):
            raise _Damage(f"it holds messages of hour {'T'.join(_hour(stamp))}")
    offsets = _bounds(metadata, names.index("offset"))
    return SoundFile(
        address, file.path, file.type, file.messages, min(offsets, default=0), max(offsets, default=2**63 - 1)
    )


def _hash(path: Path) -> str:
    with open(path, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:16]


def _metadata(path: Path, decode: bool) -> FileMetaData:
    """Read the footer; `decode` reads all else, too, where no hash vouches for it."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as parquet:
            if decode:
                for _ in parquet.iter_batches():
                    pass
            return parquet.metadata
    except FileNotFoundError:
        raise
    except (pyarrow.ArrowException, OSError) as error:
        raise _Damage(f"it is no readable Parquet file: {' '.join(str(error).split())}") from error


def _bounds(metadata: FileMetaData, index: int) -> list[int]:
    """The least and the greatest value of an INT64 column in each row group, as far as the footer has them."""
    found: list[int] = []
    for number in range(metadata.num_row_groups):
        statistics: Any = metadata.row_group(number).column(index).statistics
        if statistics is not None and statistics.has_min_max:
            found += (statistics.min_raw, statistics.max_raw)
    return found


def _hour(stamp_us: int) -> tuple[str, str]:
    """The `dt` and `hr` of a timestamp in microseconds."""
    return envelope.hour_name(stamp_us // _HOUR_US if _FIRST_US <= stamp_us <= _LAST_US else None)
