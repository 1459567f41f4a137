"""An export from end to end: what is selected, as of one moment, to a file, a folder or standard output."""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from archiver_pipeline import envelope
from archiver_pipeline.errors import ExportError, Superseded
from archiver_pipeline.export import payloads
from archiver_pipeline.export.compression import opened
from archiver_pipeline.export.formats import TEXT, Writer, table_writer, text_writer
from archiver_pipeline.export.out import translated, whole
from archiver_pipeline.export.target import STANDARD_OUTPUT, Target
from archiver_pipeline.hours import Hour
from archiver_pipeline.storage.folder_staging import remove_empty_folders
from archiver_pipeline.stored.files import OnProgress, quietly
from archiver_pipeline.stored.selected import Selected
from archiver_pipeline.stored.selection import Selection
from archiver_pipeline.stored.survey import Survey
from archiver_pipeline.table.archive import Archive

if TYPE_CHECKING:
    import polars as pl

_TRIES = 5
_NAME = "messages"
"""What a file in a folder is called, before its ending."""


@dataclass
class Exported:
    """What an export came to.

    Attributes:
        out: the place.
        messages, files, bytes: what was written; the bytes as they are on disk.
        refused: how many messages have a payload that cannot be a line, by reason.
        seconds: from start to end.
    """

    out: str
    messages: int = 0
    files: int = 0
    bytes: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


@dataclass(frozen=True)
class _Partition(Selection):
    """What of a selection lies under one type and hour."""

    values: tuple[tuple[str, str], ...] = ()

    def files(self, files: pl.DataFrame) -> pl.DataFrame:
        import polars as pl

        return files.filter(pl.col(name) == value for name, value in self.values)


class Exporter:
    """Exports a selection, once."""

    def __init__(
        self, archive: Archive, moment: Selected, selection: Selection, target: Target, on_progress: OnProgress
    ) -> None:
        """Begin nothing yet.

        Args:
            archive: the archive.
            moment: the snapshot of it that is exported.
            selection: what of it is to go out.
            target: what it is to become.
            on_progress: told about the steps `survey` and `export`, in messages.
        """
        self._archive = archive
        self._selection = selection
        self._target = target
        self._on_progress = on_progress
        self._selected = moment.narrowed(selection)
        topics = selection.topics
        self._offsets = {at: both for at, both in moment.ranges.items() if not topics or at.topic in topics}
        self._order = {at: number for number, at in enumerate(moment.places)}
        self._done = Exported(str(target.out or STANDARD_OUTPUT))

    def run(self) -> Exported:
        """Export.

        Raises:
            ArchiveDamaged: a file of the archive is missing or changed; it is named.
            ExportError: the disk refused, messages cannot be lines, or were erased meanwhile.
            Superseded: an hour was rewritten again and again while it was read.
        """
        began = time.monotonic()
        if self._target.out is None:
            self._to_standard_output()
        else:
            with whole(self._target.out, folder=self._target.folder, overwrite=self._target.overwrite) as partial:
                if self._target.folder:
                    self._to_folder(partial)
                else:
                    self._to_file(partial)
                self._check()
        self._done.seconds = time.monotonic() - began
        return self._done

    def _to_standard_output(self) -> None:
        survey = self._selected.survey(self._offsets, self._on_progress)
        if self._target.payloads and not self._target.leave_out:
            # What is printed cannot be taken back, so all of it is looked at first.
            self._write(self._selected, survey, None, quietly, "")
            self._check()
            self._done = Exported(STANDARD_OUTPUT)
        sink: Any = _Printed()
        place = "standard output"
        with translated(place):
            writer = text_writer(self._target.format, sink, payloads=self._target.payloads, hive=False)
        self._write(self._selected, survey, writer, self._on_progress, place)
        with translated(place):
            writer.close()
        self._done.bytes = sink.bytes
        self._check()

    def _to_file(self, path: Path) -> None:
        survey = self._selected.survey(self._offsets, self._on_progress)
        self._write_file(self._selected, survey, path, self._on_progress)

    def _to_folder(self, folder: Path) -> None:
        """Write a file for each hour and type, one after the other."""
        every = self._selected.partitions
        total, past = sum(count for *_, count in every), 0
        selected, version = self._selected, self._selected.version
        for hour, group in groupby(every, key=lambda part: part[0]):
            parts = list(group)
            known = [name for _, name, _ in parts] if selected.version == version else None
            selected = self._hour(selected, hour, known, folder)
            past += sum(count for *_, count in parts)
            self._on_progress("export", past, total)

    def _hour(self, selected: Selected, hour: Hour, types: list[str] | None, folder: Path) -> Selected:
        """Write the files of an hour and its types, and return the snapshot that they were read from."""
        for _ in range(_TRIES):
            before = replace(self._done, refused=Counter(self._done.refused))
            if types is None:  # They are those of a new snapshot.
                types = [name for each, name, _ in selected.partitions if each == hour]
            same = [self._partition(selected, hour, name, folder) for name in types]
            if all(same):
                return selected
            # A rewrite took a file away. It may be a backfill that gave messages another type: all types anew.
            self._done = before
            for name in types:
                place = folder / envelope.folder(_values(hour, name))
                shutil.rmtree(place, ignore_errors=True)
                remove_empty_folders(folder, place)
            selected, types = Selected(self._archive, self._selection), None
        raise Superseded(f"hour {hour} was rewritten again and again while it was read", hint="Run again")

    def _partition(self, selected: Selected, hour: Hour, name: str, folder: Path) -> bool:
        """Write the file of an hour and type, if it has any message; tell whether it is of the same snapshot."""
        values = _values(hour, name)
        chosen = self._selection
        part = selected.narrowed(
            _Partition(chosen.start, chosen.end, chosen.topics, chosen.types, tuple(values.items()))
        )
        survey = part.survey(self._offsets, quietly)
        if survey.messages:
            place = folder / envelope.folder(values)
            with translated(place):
                place.mkdir(parents=True)
            self._write_file(part, survey, place / f"{_NAME}{self._target.ending}", quietly)
        return part.version == selected.version

    def _write_file(self, selected: Selected, survey: Survey, path: Path, on_progress: OnProgress) -> None:
        place = str(self._target.out)
        with translated(place):
            writer = self._writer(path)
        try:
            self._write(selected, survey, writer, on_progress, place)
            with translated(place):
                writer.close()
        except BaseException:
            writer.abandon()
            raise
        self._done.files += 1
        self._done.bytes += path.stat().st_size

    def _writer(self, path: Path) -> Writer:
        target = self._target
        if target.format not in TEXT:
            return table_writer(target.format, path, hive=target.folder)
        sink = opened(path, target.packed)
        return text_writer(target.format, sink, payloads=target.payloads, hive=target.folder)

    def _write(
        self, selected: Selected, survey: Survey, writer: Writer | None, on_progress: OnProgress, place: str
    ) -> None:
        """Write what was surveyed; once a message cannot be a line, only count, unless such are left out."""
        past = 0
        # One partition after the other: side by side, each row group of a sealed file would be read again and again.
        for ranges in survey.stretches(self._order.__getitem__):
            frame = selected.stretch(ranges).frame.sort("n", "offset")
            past += frame.height
            if self._target.payloads:
                frame, refused = payloads.lines(frame)
                self._done.refused.update(refused)
            if writer is not None and (self._target.leave_out or not self._done.refused):
                with translated(place):
                    writer.write(frame)
            self._done.messages += frame.height
            on_progress("export", past, survey.messages)

    def _check(self) -> None:
        """Refuse what must not go out."""
        refused = self._done.refused
        if refused and not self._target.leave_out:
            raise ExportError(
                f"{refused.total():,} of {self._done.messages + refused.total():,} messages have no payload that can "
                f"be a line: {reasons(refused)}",
                hint="--leave-out leaves them out; without --payloads all go out",
            )
        if self._archive.ledger().erasures != self._selected.ledger.erasures:
            raise ExportError("messages were erased while they were exported", hint="Run again")


def _values(hour: Hour, name: str) -> dict[str, str]:
    return {"type": name, "dt": hour.dt, "hr": hour.hr}


def reasons(refused: Mapping[str, int]) -> str:
    """The reasons in words: `3 tombstones, 1 not UTF-8`."""
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(refused.items()))


class _Printed:
    """Standard output, and how many bytes went there."""

    def __init__(self) -> None:
        self.bytes = 0

    def write(self, content: bytes) -> None:
        sys.stdout.buffer.write(content)
        self.bytes += len(content)

    def close(self) -> None:
        sys.stdout.buffer.flush()
