"""What a run says of the hours that it sealed or read again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from types import TracebackType
from typing import Any, Self

import dagster as dg

from archiver_pipeline import envelope
from archiver_pipeline.amounts import counted
from archiver_pipeline.defs import hour_checks, hour_metadata, metadata
from archiver_pipeline.defs.hour_checks import TypeHour
from archiver_pipeline.defs.hour_metadata import Done
from archiver_pipeline.defs.partitions import key_of
from archiver_pipeline.defs.resources import settings
from archiver_pipeline.errors import ArchiverError
from archiver_pipeline.hours import Hour
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.view import view

_EVERY_SECONDS = 30.0
_MOST_UNSEEN = 1000
"""So many hours that Dagster does not know of are told by one run: each takes some milliseconds."""


class HourReport:
    """Brings the DuckDB file up to date and logs a materialization for each hour, now and then and at the end.

    At the end of the `with` statement it also says whether every hour is whole, and whether the fields of its hours are
    those of the hours before.
    """

    def __init__(
        self,
        context: dg.OpExecutionContext | dg.AssetExecutionContext,
        archive: Archive,
        partitions: dg.HourlyPartitionsDefinition,
    ) -> None:
        self._log = context.log
        self._instance = context.instance
        # For an op, its annotation leaves out that it takes the answers of checks.
        self._log_event: Callable[[Any], None] = context.log_event
        self._archive = archive
        self._partitions = partitions
        self._waiting: list[Done] = []
        self._compared: list[TypeHour] = []
        self._done: list[Hour] = []
        self._failed: dict[str, str] = {}
        self._last = time.monotonic()

    def add(self, done: Done) -> None:
        """Note what was done to an hour."""
        self._log.info(done.sentence)
        self._waiting.append(done)
        self._done.append(done.hour)
        if time.monotonic() - self._last >= _EVERY_SECONDS:
            self._tell()

    def add_unseen(self) -> None:
        """Note the sealed hours that Dagster does not know of: a run was killed, or its database is another one."""
        shown = self._instance.get_materialized_partitions(hour_metadata.SEALED_HOURS)
        shown |= {key_of(done.hour, self._partitions) for done in self._waiting}
        unseen = [
            hour_metadata.found(hour, *numbers)
            for hour, *numbers in sealed_hours(self._archive)
            if (key := key_of(hour, self._partitions)) and key not in shown
        ]
        if unseen:
            self._log.info(f"{counted(len(unseen), 'hour was', 'hours were')} sealed before and shown from now on")
            self._waiting.extend(unseen[:_MOST_UNSEEN])

    def fail(self, hour: Hour, why: str) -> None:
        """Note that an hour stays as it is, and go on with the others."""
        self._failed[hour.name] = why
        self._log.error(f"{hour}: {why}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # What was done before something went wrong is to be seen, too; but it is the error that counts.
        with suppress(ArchiverError) if error else nullcontext():
            self._tell()
            if self._compared:
                self._log_event(hour_checks.fields_are_stable(self._compared))
            if self._done or self._failed:
                before = hour_checks.failed_before(self._instance)
                self._log_event(hour_checks.every_hour_is_whole(before, self._done, self._failed))

    def raise_failure(self, what_to_do: str) -> None:
        """Raise dagster.Failure if hours failed; it names them and says what to do."""
        if self._failed:
            raise dg.Failure(
                f"{_listed(self._failed)} could not be done, the others are; the log says why. {what_to_do}",
                metadata={"failed hours": dg.MetadataValue.json(self._failed)},
                allow_retries=False,
            )

    def _tell(self) -> None:
        self._last = time.monotonic()
        waiting, self._waiting = self._waiting, []
        if not self._archive.exists():
            return
        # Always and first: files that were replaced may go only once the view names them no more.
        path = settings().kept_view
        version = None if path is None else view.refresh(path, self._archive)
        fields = hour_checks.look(self._archive, [done.hour for done in waiting]) if waiting else {}
        for done in waiting:
            key = key_of(done.hour, self._partitions)
            if key is None:
                self._log.info(f"{done.hour} is no partition of sealed_hours, so nothing is shown for it there")
            else:
                types = {item.type: item.fields for item in fields.get(done.hour, ())}
                self._log_event(hour_metadata.materialization(done, key, types))
            if done.is_new:
                self._compared.extend(fields.get(done.hour, ()))
        if waiting and path is not None and version is not None:
            self._log_event(metadata.view_made(path, version))


def sealed_hours(archive: Archive) -> list[tuple[Hour, int, int, int]]:
    """The hours of which every file is a sealed one: hour, files, bytes, messages, in order."""
    import polars as pl

    if not archive.exists():
        return []
    rows = (
        archive.files()
        .with_columns(sealed=pl.col("path").map_elements(envelope.is_sealed, return_dtype=pl.Boolean))
        .group_by("dt", "hr")
        .agg(pl.col("sealed").all(), pl.len().alias("files"), pl.col("bytes").sum(), pl.col("messages").sum())
        .filter("sealed")
        .sort("dt", "hr")
    )
    return [(Hour(dt, hr), *numbers) for dt, hr, _, *numbers in rows.iter_rows()]


def _listed(names: Iterable[str], most: int = 20) -> str:
    every = list(names)
    more = f" and {len(every) - most:,} more" if len(every) > most else ""
    return ("hour " if len(every) == 1 else f"{counted(len(every), 'hour')}: ") + ", ".join(every[:most]) + more
