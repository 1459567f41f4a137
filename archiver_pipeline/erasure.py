"""An erasure from end to end: look, confirm, hour by hour, everything old removed, and the followers reached."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from archiver_pipeline import envelope
from archiver_pipeline.errors import ArchiveDamaged, ArchiveError, ArchiverError, KafkaError, SettingsError
from archiver_pipeline.followers.erased import Reached, reach
from archiver_pipeline.kafka.cluster import Cluster
from archiver_pipeline.kafka.look import Look
from archiver_pipeline.rewrites.eraser import ErasedHour, Eraser
from archiver_pipeline.rewrites.predicate import Matches, Predicate
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.steps import OnStep
from archiver_pipeline.storage.staging import storage_error
from archiver_pipeline.stored import erasure_plan
from archiver_pipeline.stored.erasure_plan import ErasurePlan
from archiver_pipeline.stored.files import Fault, OnProgress, check_files, listed_files, quietly
from archiver_pipeline.stored.verify import NO_ARCHIVE, unlisted
from archiver_pipeline.table.archive import archive_of
from archiver_pipeline.table.cleaner import clean_all, replaced, rewrites
from archiver_pipeline.view import view

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger(__name__)

_TRIES = 5
_PATIENCE_SECONDS = 60.0
_NAMED = 5
_BROKER_SECONDS = 5.0
"""How long each question to the broker may take: an erasure does not depend on the answer."""


@dataclass(frozen=True)
class Found:
    """What an erasure would do: what matches, the files and bytes of the archive, and when it was looked at (ms)."""

    matches: Matches
    files: int
    bytes: int
    started_ms: int


@dataclass(frozen=True)
class Erased:
    """What an erasure has done.

    Attributes:
        plan: what was confirmed.
        messages: messages erased in all, by this run and those before it that were killed.
        hours: what was done to each hour.
        removed: files that were removed from the disk.
        busy: seals and backfills that began before and are still at work, with such messages in their hands.
        unknown: files below the archive that nobody knows, and that may hold such messages still.
        followers: what became of each follower.
        seconds: how long it took.
    """

    plan: ErasurePlan
    messages: int
    hours: tuple[ErasedHour, ...]
    removed: int
    busy: tuple[str, ...]
    unknown: tuple[str, ...]
    followers: tuple[Reached, ...]
    seconds: float

    @property
    def good(self) -> bool:
        """Whether nothing is left to be done."""
        failed = [each for each in self.followers if each.error]
        return not (self.busy or self.unknown or failed or any(hour.fault for hour in self.hours))

    @property
    def files(self) -> int:
        """How many files were replaced."""
        return sum(hour.files for hour in self.hours)

    @property
    def bytes(self) -> int:
        """How many bytes they had."""
        return sum(hour.bytes for hour in self.hours)


class Erasure:
    """The one erasure of an archive at a time, as `begun` gives it.

    Attributes:
        archive: the archive.
        patience_seconds: for how long seals and backfills that are at work are waited for.
    """

    def __init__(
        self,
        settings: Settings,
        working: Path,
        run_id: str = "",
        on_step: OnStep = lambda _: None,
    ) -> None:
        """Prepare it; nothing is done yet.

        Args:
            settings: where the archive is, what follows it, and the broker, which is only asked what it has.
            working: the folder of `erasure_plan.erasing`.
            run_id: who does it, for the commits.
            on_step: told of each step.
        """
        self.archive = archive_of(settings)
        self.patience_seconds = _PATIENCE_SECONDS
        self._settings = settings
        self._working = working
        self._run_id = run_id
        self._on_step = on_step

    def interrupted(self) -> list[ErasurePlan]:
        """The erasures that were confirmed and are not done; nobody else is at work on them."""
        return erasure_plan.plans(self.archive.storage)

    def look(self, predicate: Predicate, on_progress: OnProgress = quietly) -> Found:
        """Find what matches; nothing is changed.

        Args:
            predicate: the condition.
            on_progress: told how many files are checked, and when the messages are looked through.

        Raises:
            PredicateRefused: the predicate is no condition.
            ArchiveDamaged: a file is missing or changed, and so nobody can tell what is in it.
            StorageError: the disk is full.
        """
        started_ms = int(time.time() * 1000)
        self._on_step("look")
        for _ in range(_TRIES):
            table = self.archive.table()
            listed = self.archive.files(table)
            try:
                self._check(listed, table.version(), on_progress)
                paths = listed["path"].to_list()
                target = erasure_plan.target(self._working)
                on_progress("look", 0, 0)
                matches = predicate.find(self.archive.storage, paths, target, self._working / "spilled")
                return Found(matches, listed.height, int(listed["bytes"].sum()), started_ms)
            except (ArchiveError, OSError) as error:
                # A rewrite may have replaced a file, and another run removed it.
                if set(listed["path"]) <= set(self.archive.files()["path"]):
                    if isinstance(error, OSError):
                        raise storage_error(error, self.archive.uri) from error
                    raise
                log.info("%s; looking again", error)
        raise ArchiveError(
            f"files were replaced in each of {_TRIES} attempts to look through the archive",
            path=self.archive.uri,
            hint="Raise ARCHIVER_KEEP_REPLACED_HOURS above the time that it takes; nothing was changed",
        )

    def confirm(self, predicate: Predicate, found: Found) -> ErasurePlan:
        """Make what was found a plan, which will be done whatever is killed. Raises StorageError."""
        self._on_step("confirm")
        return erasure_plan.confirm(self.archive.storage, self._working, found.started_ms, predicate.digest)

    def do(self, plan: ErasurePlan, on_progress: OnProgress = quietly) -> Erased:
        """Do what is left of a plan, and forget it once every hour is done.

        Args:
            plan: what was confirmed.
            on_progress: told how many hours are done, how many seconds rewrites are waited for, and of the followers.

        Raises:
            ArchiverError: the archive could not be written; what is left waits for the next erasure.
        """
        began = time.monotonic()
        eraser = Eraser(self._settings, self.archive, plan, self._run_id, self._on_step)
        hours: list[ErasedHour] = []
        try:
            for hour in plan.hours:
                hours.append(eraser.erase(hour))
                on_progress("hours", len(hours), len(plan.hours))
        except ArchiverError:
            # What was done is to be gone from the disk, too, and that may even make room.
            with suppress(ArchiverError):
                self._remove()
            raise
        busy = self._wait(on_progress)
        removed = self._remove()
        unknown = tuple(map(self.archive.storage.address, unlisted(self.archive, self.archive.files()["path"])))
        self._on_step("follow")
        on_progress("follow", 0, 0)
        followers = tuple(reach(self._settings, plan.hours, self._on_step))
        self._on_step("forget")
        if not busy and not any(hour.fault for hour in hours):
            plan.remove()
        seconds = time.monotonic() - began
        return Erased(plan, self._messages(plan), tuple(hours), removed, busy, unknown, followers, seconds)

    def _wait(self, on_progress: OnProgress) -> tuple[str, ...]:
        """Wait for the rewrites that may have read what is erased now, and name those that do not come to an end."""
        began, busy = time.monotonic(), rewrites(self.archive)
        while busy and time.monotonic() - began < self.patience_seconds:
            self._on_step("wait")
            on_progress("wait", round(time.monotonic() - began), round(self.patience_seconds))
            time.sleep(0.5)
            busy &= rewrites(self.archive)
        return tuple(sorted(busy))

    def kafka_has(self) -> bool | None:
        """Whether Kafka still has any message that is archived; None where it does not tell."""
        look = self._look()
        if look is None:
            return None
        marks = {(state.topic, number): at.earliest for state in look.topics for number, at in state.partitions.items()}
        committed = self.archive.ledger().committed
        return any(marks.get((at.topic, at.partition), what.next) < what.next for at, what in committed.items())

    def _check(self, listed: pl.DataFrame, version: int, on_progress: OnProgress) -> None:
        """Raise ArchiveDamaged for files with messages that are not as they were written."""
        wanted = [file for file in listed_files(listed) if file.type != envelope.ERASED]
        found = check_files(self.archive.storage, wanted, version, on_progress)
        faults = [item for item in found if isinstance(item, Fault)]
        if faults:
            named = ", ".join(fault.path for fault in faults[:_NAMED])
            more = f" and {len(faults) - _NAMED} more" if len(faults) > _NAMED else ""
            raise ArchiveDamaged(
                f"a file is missing or damaged, so nobody can tell whose messages it has: {named}{more}",
                hint="Nothing was changed. `archiver backfill` of its hour mends it; then erase again",
            )

    def _remove(self) -> int:
        """Bring the view up to date, then remove everything that the table no longer lists."""
        self._on_step("view")
        names = replaced(self.archive)
        # Anew: names of fields, which may tell of somebody, are only ever added to it.
        path = self._settings.view_path
        if self._settings.kept_view is not None or path.exists():
            view.refresh(path, self.archive, self._look(), anew=True)
        self._on_step("remove")
        return clean_all(self.archive, names, {"run_id": self._run_id})

    def _messages(self, plan: ErasurePlan) -> int:
        name = plan.started_ms, plan.predicate_hash
        done = self.archive.ledger().erasures
        return sum(item.messages for item in done if (item.started_ms, item.predicate_hash) == name)

    def _look(self) -> Look | None:
        """What the broker shows, if one is named and answers."""
        try:
            return Cluster(self._settings, _BROKER_SECONDS).look()
        except (KafkaError, SettingsError) as error:
            log.info("the broker does not tell what it has: %s", error)
            return None


@contextmanager
def begun(settings: Settings, run_id: str = "", on_step: OnStep = lambda _: None) -> Iterator[Erasure]:
    """Begin an erasure, with the arguments of `Erasure`; no other process can until it is over.

    Raises:
        ArchiveError: there is no archive, or another erasure is at work.
    """
    archive = archive_of(settings)
    if not archive.exists():
        archive.check_log()
        raise ArchiveError("there is no archive yet", path=archive.uri, hint=NO_ARCHIVE)
    archive.ledger()  # An archive that is not to be touched is refused before anything is made in it.
    with erasure_plan.erasing(archive.storage) as working:
        yield Erasure(settings, working, run_id, on_step)
