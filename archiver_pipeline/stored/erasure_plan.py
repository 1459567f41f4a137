"""The plan of an erasure: which messages go, so that one that was killed is finished as it was confirmed.

_erasures/working/                      what one that is not confirmed yet has found; beside a bucket, on the local disk
_erasures/<ms>-<sha256>/plan.parquet    what was confirmed; it goes when all of it is done

A plan has identities, no content. Readers of the archive pass over names that begin with `_`. One erasure is at work at
a time (see `Storage.alone`).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from archiver_pipeline.errors import ArchiveDamaged, ArchiveError
from archiver_pipeline.hours import Hour
from archiver_pipeline.storage.base import Storage
from archiver_pipeline.storage.staging import translated
from archiver_pipeline.stored.runs import ORDER
from archiver_pipeline.visible import one_line

if TYPE_CHECKING:
    import polars as pl

FOLDER = "_erasures"
"""Folder of the archive for the plans of erasures."""

_PLAN, _WORKING = "plan.parquet", f"{FOLDER}/working"
_NAME = re.compile(r"(\d+)-([0-9a-f]{64})")
_WORK = "erasure"


@dataclass(frozen=True, order=True)
class ErasurePlan:
    """A confirmed erasure: when it began (ms since 1970), the SHA-256 of its condition, and where it lies."""

    started_ms: int
    predicate_hash: str
    storage: Storage = field(compare=False, repr=False)

    @property
    def started(self) -> datetime:
        """When it began, UTC."""
        return datetime.fromtimestamp(self.started_ms / 1000, UTC)

    @property
    def name(self) -> str:
        """Its file, below the archive."""
        return f"{FOLDER}/{self.started_ms}-{self.predicate_hash}/{_PLAN}"

    @property
    def address(self) -> str:
        """The address of its folder."""
        return self.storage.address(self.name.removesuffix(f"/{_PLAN}"))

    @cached_property
    def hours(self) -> dict[Hour, int]:
        """Its hours in order, and how many messages are to go in each."""
        import polars as pl

        with self._scan() as rows:
            counts = rows.group_by("dt", "hr").agg(pl.len()).sort("dt", "hr").collect()
        return {Hour(dt, hr): count for dt, hr, count in counts.iter_rows()}

    def of(self, hour: Hour) -> pl.DataFrame:
        """The messages of an hour that are to go: topic, topic_id, partition, offset, and the type that they had.

        They are in memory all at once: 50 bytes each.
        """
        import polars as pl

        with self._scan() as rows:
            mine = rows.filter(pl.col("dt") == hour.dt, pl.col("hr") == hour.hr).select(*ORDER, "type")
            return mine.unique(ORDER).collect()

    def remove(self) -> None:
        """Forget it, once nothing of it is left to be done."""
        with translated(self.address):
            self.storage.remove([self.name])
            self.storage.lasting([self.name.rpartition("/")[0]])

    @contextmanager
    def _scan(self) -> Iterator[pl.LazyFrame]:
        import polars as pl

        with translated(self.address):
            try:
                with self.storage.local(self.name) as path:
                    found = pl.scan_parquet(path, glob=False, hive_partitioning=False)
                    found.collect_schema()
                    yield found
            except (FileNotFoundError, pl.exceptions.PolarsError) as error:
                raise ArchiveDamaged(
                    f"the plan of an erasure cannot be read: {one_line(str(error))}",
                    path=self.storage.address(self.name),
                    hint="Remove its folder and erase anew: what is erased already stays so",
                ) from error


@contextmanager
def erasing(storage: Storage) -> Iterator[Path]:
    """Let no other process erase meanwhile; gives an empty local folder to work in, which goes at the end.

    Raises:
        ArchiveError: another process is erasing.
        StorageError: the folder cannot be written.
    """
    with translated(storage.address(FOLDER)), _held(storage):
        working = storage.workroom(_WORKING)
        shutil.rmtree(working, ignore_errors=True)
        for folder in working.parent.glob("*-*"):
            with suppress(OSError):
                folder.rmdir()
        target(working).parent.mkdir(parents=True)
        try:
            yield working
        finally:
            shutil.rmtree(working, ignore_errors=True)
            with suppress(OSError):
                working.parent.rmdir()


@contextmanager
def _held(storage: Storage) -> Iterator[None]:
    try:
        with storage.alone(_WORK):
            yield
    except BlockingIOError:
        raise ArchiveError(
            "another erasure of this archive is at work", path=storage.uri, hint="Run again when it is done"
        ) from None


def target(working: Path) -> Path:
    """Where in the folder of `erasing` what was found is to be written."""
    return working / "found" / _PLAN


def confirm(storage: Storage, working: Path, started_ms: int, predicate_hash: str) -> ErasurePlan:
    """Make what was found a plan: from now on it will be done, whatever is killed. Raises StorageError."""
    plan = ErasurePlan(started_ms, predicate_hash, storage)
    with translated(plan.address):
        storage.put(target(working), plan.name)
    return plan


def plans(storage: Storage) -> list[ErasurePlan]:
    """The plans that are not done, the oldest first; of the last one a process may be at work."""
    with translated(storage.address(FOLDER)):
        found = [match for name in storage.names(FOLDER) if (match := _NAME.fullmatch(name))]
        every = {plan.name: plan for match in found for plan in [ErasurePlan(int(match[1]), match[2], storage)]}
        # A kill may leave the folder of one that is done.
        return sorted(every[name] for name in storage.there(sorted(every)))


def interrupted(storage: Storage) -> list[ErasurePlan]:
    """The plans that are not done and that no process is at work on."""
    found = plans(storage)
    with translated(storage.uri):
        return [] if found and storage.is_busy(_WORK) else found
