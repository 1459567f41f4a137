"""An hour as the archive has it: which of its files are sound, their messages, and why it may have to stay as it is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from archiver_pipeline import envelope
from archiver_pipeline.amounts import counted
from archiver_pipeline.batch.classifier import Classifier
from archiver_pipeline.errors import ArchiveError
from archiver_pipeline.formats.decoder import decoder_of
from archiver_pipeline.frames import raw_frame
from archiver_pipeline.hours import Hour
from archiver_pipeline.rewrites.hour_rows import Tally
from archiver_pipeline.rewrites.sealed_files import Expected
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.stored.files import COLUMNS, Fault, ListedFile, check_file
from archiver_pipeline.stored.parquet import frames_of
from archiver_pipeline.stored.runs import Runs
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.attempt import Attempt, Replaced

if TYPE_CHECKING:
    import polars as pl


class ArchivedHour:
    """The files of an hour in the snapshot of an attempt, each checked.

    Attributes:
        files: all of them.
        bad: those that are missing, damaged, or not what the table's log says.
    """

    def __init__(self, archive: Archive, attempt: Attempt, hour: Hour) -> None:
        """Check the files of the hour, content and all."""
        self._storage = archive.storage
        self._places = sorted(attempt.ledger.committed)
        listed = archive.files(attempt.table, hour).sort("type", "added", "path")  # Nearly in the order of offsets.
        columns = listed.select("path", "type", "dt", "hr", "messages", "bytes")
        self.files = [ListedFile(*row) for row in columns.iter_rows()]
        self._added = dict(listed.group_by("type").agg(added=listed["added"].min()).iter_rows()) if self.files else {}
        version = attempt.table.version()
        self.bad = [file for file in self.files if isinstance(check_file(archive.storage, file, version), Fault)]

    def read(self, folder: Path, settings: Settings, types: set[str], on_frame: Callable[[], None]) -> Runs:
        """Read the messages of the sound files: the archive's columns, `type` by the present rules, and `was`, the
        type under which the archive has them. Erased ones stay erased, and what was decoded once stays as it is.

        Args:
            folder: where to keep what does not fit into memory.
            settings: with the type rules.
            types: the types that the archive has, for the limit on their number.
            on_frame: called now and then.
        """
        runs = Runs(folder)
        by_type: defaultdict[str, list[ListedFile]] = defaultdict(list)
        for file in self.files:
            if file not in self.bad:
                by_type[file.type].append(file)
        for was, files in by_type.items():
            self._read_type(was, files, runs, settings, types, on_frame)
        runs.close()
        return runs

    def _read_type(
        self,
        was: str,
        files: Iterable[ListedFile],
        runs: Runs,
        settings: Settings,
        types: set[str],
        on_frame: Callable[[], None],
    ) -> None:
        import polars as pl

        def frames() -> Iterator[tuple[ListedFile, pl.DataFrame]]:
            for file in files:
                with self._storage.local(file.path) as path:
                    for frame in frames_of(path):
                        on_frame()
                        yield file, frame

        if was == envelope.ERASED:
            for _, frame in frames():
                runs.add(frame.with_columns(type=pl.lit(was), was=pl.lit(was)))
            return
        decoder = decoder_of(settings, self._places)
        classifier = Classifier(self._places, settings.type_rule, types, settings.max_types, decoder)
        for typed in classifier.over(self._raw(file, frame) for file, frame in frames()):
            runs.add(typed.select(*COLUMNS, "type", was=pl.lit(was)))

    def _raw(self, file: ListedFile, frame: pl.DataFrame) -> pl.DataFrame:
        """Give archived messages the columns that Kafka's have."""
        raw = raw_frame(frame, self._places)
        if raw["range"].null_count():
            raise ArchiveError(
                "a file holds messages of a partition that the archive does not know",
                path=self._storage.address(file.path),
                hint="Only the archiver may write to the archive: the table's history tells what else did",
            )
        return raw

    @property
    def damaged(self) -> int:
        """How many messages the damaged and missing files had."""
        return sum(file.messages for file in self.bad)

    def fault(self, lost: int, early: int, unread: Sequence[str], *, accept_loss: bool) -> str | None:
        """Say why the hour has to be left as it is, if it has.

        Args:
            lost: messages of damaged and missing files that Kafka did not hand out.
            early: messages from before the start that would come in.
            unread: what of Kafka could not be asked, a sentence each.
            accept_loss: whether to give up what Kafka has no more.
        """
        names = ", ".join(self._storage.address(file.path) for file in self.bad)
        messages = f"{lost:,} of the {counted(self.damaged, 'message')} of damaged or missing files"
        if any(file.type == envelope.ERASED for file in self.bad):
            return (
                f"a file of erased messages is damaged or missing, and Kafka may still have what was erased: {names}. "
                "Restore it from a copy of the archive"
            )
        if lost and unread:
            return (
                f"Kafka may still have {messages}: {names}. But {'; '.join(unread)}. Backfill the hour again when all "
                "of Kafka can be read, or restore the files from a copy of the archive"
            )
        if early and unread:
            return (
                f"{counted(early, 'message')} from before the start can be put in only together with all others of "
                "their topics, but "
                f"{'; '.join(unread)}. Backfill the hour again when all of Kafka can be read"
            )
        if lost and not accept_loss:
            return (
                f"Kafka no longer has {messages}: {names}. Restore the files from a copy of the archive, or give these "
                "messages up: `archiver backfill --accept-loss`"
            )
        return None

    def expected(self, types: Iterable[str], tally: Tally) -> dict[str, Expected]:
        """What the files of these types will have."""
        sizes: defaultdict[str, int] = defaultdict(int)
        for file in self.files:
            sizes[file.type] += file.bytes
        return {
            name: Expected(tally.types[name], sizes[name], self._added.get(name)) for name in types if tally.types[name]
        }

    def replaced(self, types: Iterable[str]) -> list[Replaced]:
        """The files of these types, to be taken off the table's list."""
        wanted = set(types)
        return [
            Replaced(file.path, file.bytes, {"type": file.type, "dt": file.dt, "hr": file.hr})
            for file in self.files
            if file.type in wanted
        ]
