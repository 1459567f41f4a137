"""The plan of an erasure on the disk: which messages go, so that one that was killed is finished as it was confirmed.

_erasures/working/                      what one that is not confirmed yet has found
_erasures/<ms>-<sha256>/plan.parquet    what was confirmed; it goes when all of it is done

A plan has identities, no content. Readers of the archive pass over names that begin with `_`. Beside the archive lies
`archive.erasure.lock`, which is held by flock(2) while an erasure is at work: one at a time.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from archiver_pipeline.durable import force, is_locked, locked
from archiver_pipeline.errors import ArchiveDamaged, ArchiveError
from archiver_pipeline.hours import Hour
from archiver_pipeline.runs import ORDER
from archiver_pipeline.staging import translated

if TYPE_CHECKING:
    import polars as pl

FOLDER = "_erasures"
"""Folder of the archive for the plans of erasures."""

_PLAN, _WORKING = "plan.parquet", "working"
_NAME = re.compile(r"(\d+)-([0-9a-f]{64})")


@dataclass(frozen=True, order=True)
class ErasurePlan:
    """A confirmed erasure: when it began (ms since 1970), the SHA-256 of its condition, and its folder."""

    started_ms: int
    predicate_hash: str
    folder: Path

    @property
    def started(self) -> datetime:
        """When it began, UTC."""
        return datetime.fromtimestamp(self.started_ms / 1000, UTC)

    @cached_property
    def hours(self) -> dict[Hour, int]:
        """Its hours in order, and how many messages are to go in each."""
        import polars as pl

        rows = self._scan().group_by("dt", "hr").agg(pl.len()).sort("dt", "hr").collect().iter_rows()
        return {Hour(dt, hr): count for dt, hr, count in rows}

    def of(self, hour: Hour) -> pl.DataFrame:
        """The messages of an hour that are to go: topic, topic_id, partition, offset, and the type that they had.

        They are in memory all at once: 50 bytes each.
        """
        import polars as pl

        rows = self._scan().filter(pl.col("dt") == hour.dt, pl.col("hr") == hour.hr).select(*ORDER, "type")
        return rows.unique(ORDER).collect()

    def remove(self) -> None:
        """Forget it, once nothing of it is left to be done."""
        with translated(self.folder):
            (self.folder / _PLAN).unlink(missing_ok=True)
            self.folder.rmdir()
            force([self.folder.parent])

    def _scan(self) -> pl.LazyFrame:
        import polars as pl

        path = self.folder / _PLAN
        try:
            found = pl.scan_parquet(path, glob=False, hive_partitioning=False)
            found.collect_schema()
        except (OSError, pl.exceptions.PolarsError) as error:
            raise ArchiveDamaged(
                f"the plan of an erasure cannot be read: {error}",
                path=str(path),
                hint="Remove its folder and erase anew: what is erased already stays so",
            ) from error
        return found


@contextmanager
def erasing(archive: Path) -> Iterator[Path]:
    """Let no other process erase meanwhile; gives an empty folder to work in, which goes at the end.

    Raises:
        ArchiveError: another process is erasing.
        StorageError: the folder cannot be written.
    """
    root = archive / FOLDER
    working = root / _WORKING
    with translated(root), _held(archive):
        shutil.rmtree(working, ignore_errors=True)
        for folder in root.glob("*-*"):
            with suppress(OSError):
                folder.rmdir()
        target(working).parent.mkdir(parents=True)
        try:
            yield working
        finally:
            shutil.rmtree(working, ignore_errors=True)
            with suppress(OSError):
                root.rmdir()


@contextmanager
def _held(archive: Path) -> Iterator[None]:
    try:
        with locked(_lock(archive), wait=False):
            yield
    except BlockingIOError:
        raise ArchiveError(
            "another erasure of this archive is at work", path=str(archive), hint="Run again when it is done"
        ) from None


def _lock(archive: Path) -> Path:
    return archive.with_name(archive.name + ".erasure")


def target(working: Path) -> Path:
    """Where in the folder of `erasing` what was found is to be written."""
    return working / "found" / _PLAN


def confirm(working: Path, started_ms: int, predicate_hash: str) -> ErasurePlan:
    """Make what was found a plan: from now on it will be done, whatever is killed. Raises StorageError."""
    folder = working.parent / f"{started_ms}-{predicate_hash}"
    found = target(working)
    with translated(folder):
        force([found, found.parent])
        os.rename(found.parent, folder)
        force([folder.parent, folder.parent.parent])
    return ErasurePlan(started_ms, predicate_hash, folder)


def plans(archive: Path) -> list[ErasurePlan]:
    """The plans that are not done, the oldest first; of the last one a process may be at work."""
    root = archive / FOLDER
    names = sorted(os.listdir(root)) if root.is_dir() else []
    # A kill may leave the folder of one that is done.
    found = [(match, root / name) for name in names if (match := _NAME.fullmatch(name)) and os.listdir(root / name)]
    return sorted(ErasurePlan(int(match[1]), match[2], folder) for match, folder in found)


def interrupted(archive: Path) -> list[ErasurePlan]:
    """The plans that are not done and that no process is at work on."""
    return [] if is_locked(_lock(archive)) else plans(archive)
