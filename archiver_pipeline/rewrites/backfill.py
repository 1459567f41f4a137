"""Backfill: hours read again from Kafka, as far as it still has them, and what differs replaced, one commit an hour."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from archiver_pipeline import envelope
from archiver_pipeline.errors import ArchiveError, RangeRefused, TopicChanged
from archiver_pipeline.hours import Hour, is_closed
from archiver_pipeline.kafka.cluster import Cluster
from archiver_pipeline.rewrites.backfilled import Backfilled
from archiver_pipeline.rewrites.kafka_hours import HoursRead
from archiver_pipeline.rewrites.mender import MEND, Mender
from archiver_pipeline.rewrites.seal import Sealer
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.steps import OnStep
from archiver_pipeline.storage.staging import translated
from archiver_pipeline.stored.files import OnProgress, quietly
from archiver_pipeline.table.archive import archive_of
from archiver_pipeline.table.ledger import Ledger

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger(__name__)

_TRIES = 5
_HOURS_AT_ONCE = 24
_BYTES_AT_ONCE = 4 * 1024**3
"""So many neighbouring hours are read from Kafka in one go, as long as the archive has no more than so much of them."""


class Backfiller:
    """Reads hours again and mends what differs, beside batches and seals."""

    def __init__(
        self,
        settings: Settings,
        run_id: str = "",
        on_step: OnStep = lambda _: None,
        on_progress: OnProgress = quietly,
        *,
        accept_loss: bool = False,
        from_kafka: bool = True,
    ) -> None:
        """Prepare it.

        Args:
            settings: where the archive is, and the broker.
            run_id: the Dagster run, for the commits.
            on_step: told of each step.
            on_progress: told how far the reading of Kafka is.
            accept_loss: give up messages of damaged or missing files that Kafka no longer has.
            from_kafka: False leaves Kafka alone, and applies the present type rules to what the archive has.
        """
        self.settings = settings
        self.archive = archive_of(settings)
        self._run_id = run_id
        self._on_step = on_step
        self._on_progress = on_progress
        self._accept_loss = accept_loss
        self._from_kafka = from_kafka
        self._sealer = Sealer(settings, run_id, on_step)

    def run(self, hours: Sequence[Hour]) -> Iterator[Backfilled]:
        """Read the hours again and yield each as it is done: neighbours share one read of Kafka, each has its commit.

        Raises:
            KafkaError: the broker failed; ArchiveError: the archive could not be read or written. The hours that were
            yielded are done, and the others as they were.
        """
        if not self.archive.exists() or not self.archive.ledger().committed:
            raise RangeRefused(
                "there is nothing archived yet, and a backfill only mends what is",
                path=self.archive.uri,
                hint="Archive something first: `dagster job execute -m archiver_pipeline.definitions -j archive`",
            )
        for group in self._groups(sorted(set(hours))):
            for number in range(_TRIES):
                try:
                    yield from self._group(group)
                    break
                except TopicChanged as error:
                    if number == _TRIES - 1:
                        raise
                    log.warning("%s; reading the hours again", error)

    def _groups(self, hours: Sequence[Hour]) -> Iterator[list[Hour]]:
        """Put neighbouring hours together."""
        listed = self.archive.files().select("dt", "hr", "bytes").group_by("dt", "hr").sum()
        sizes = {Hour(dt, hr): size for dt, hr, size in listed.iter_rows()}
        group: list[Hour] = []
        for hour in hours:
            full = len(group) >= _HOURS_AT_ONCE or sum(sizes.get(each, 0) for each in group) > _BYTES_AT_ONCE
            if group and (full or group[-1].number is None or hour.number != group[-1].number + 1):
                yield group
                group = []
            group.append(hour)
        if group:
            yield group

    def _group(self, hours: Sequence[Hour]) -> Iterator[Backfilled]:
        import polars as pl

        staging = self.archive.storage.stage(f"{MEND}-{hours[0].name}")
        try:
            table, ledger = self.archive.snapshot()
            files = self.archive.files(table)
            names = pl.DataFrame({"dt": [hour.dt for hour in hours], "hr": [hour.hr for hour in hours]})
            own, others = (files.join(names, on=["dt", "hr"], how=how) for how in ("semi", "anti"))
            types, settings = self._types(own, others)
            read = HoursRead(hours, staging.scratch, types)
            if self._from_kafka:
                self._read(read, ledger, own, settings)
            caught_up_ms = self._sealer.caught_up_ms(ledger, ask=self._from_kafka)
            grace_ms = self.settings.seal_grace_minutes * 60_000
            mender = Mender(self.archive, settings, self._run_id, self._on_step, accept_loss=self._accept_loss)
            there = {Hour(*row) for row in own.select("dt", "hr").unique().iter_rows()}
            for hour in hours:
                if hour not in there and not read.of(hour).rows:
                    yield Backfilled(hour)  # Neither side has any message of it.
                    continue
                closed = is_closed(hour, caught_up_ms, grace_ms)
                done = mender.mend(hour, read, closed=closed)
                failed = self._seal(hour) if closed and done.fault is None else None
                yield done
                if failed is not None:
                    raise failed
        finally:
            staging.discard()

    def _types(self, own: pl.DataFrame, others: pl.DataFrame) -> tuple[set[str], Settings]:
        """The types that the archive has, and the settings with their limit.

        Types of the hours' `own` files alone do not count: the present rules may take each of them away.
        """
        mine, kept = (set(files["type"].unique()) - envelope.RESERVED for files in (own, others))
        limit = self.settings.max_types + len(mine - kept)
        return mine | kept, self.settings.model_copy(update={"max_types": limit})

    def _seal(self, hour: Hour) -> ArchiveError | None:
        """Seal what is left of a mended hour; that it was mended is to be told even if this fails."""
        try:
            self._sealer.seal(hour, whole=True)
        except ArchiveError as error:
            return error
        return None

    def _read(self, read: HoursRead, ledger: Ledger, files: pl.DataFrame, settings: Settings) -> None:
        """Read what Kafka still has of the hours that these files are of, whatever `ARCHIVER_TOPICS` names now."""
        self._on_step("read")
        topics = tuple(sorted({at.topic for at in ledger.committed}))
        cluster = Cluster(settings.model_copy(update={"topics": topics}))
        highest = files["last"].max()
        with translated(self.archive.uri):
            read.read(cluster, ledger, highest if isinstance(highest, int) else -1, self._tell)

    def _tell(self, what: str, done: int, total: int) -> None:
        """Say how far the reading is, and that the run is alive."""
        self._on_step("frame")
        self._on_progress(what, done, total)
