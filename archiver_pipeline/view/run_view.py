"""The DuckDB file as a run keeps it up to date: at once where nothing is left to read, else now and then."""

from __future__ import annotations

import time
from pathlib import Path

from archiver_pipeline.batch.batch import Batch
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.view import view

PAUSE_SECONDS = 5.0
"""How long the file may lag behind the archive while more is left to read: each batch would wait for it."""


class RunView:
    """The DuckDB file of a run of one lane, or none (`path` None)."""

    def __init__(self, path: Path | None, archive: Archive) -> None:
        self._path = path
        self._archive = archive
        self._batch: Batch | None = None
        self._is_behind = False
        self._shown = float("-inf")

    def show(self, batch: Batch) -> int | None:
        """Take a batch that was committed; return the table version that the file shows now, None if it has to wait.

        Raises:
            StorageError: the file cannot be written.
        """
        self._batch, self._is_behind = batch, True
        return self.finish() if batch.lag == 0 or time.monotonic() - self._shown >= PAUSE_SECONDS else None

    def finish(self) -> int | None:
        """Bring the file up to date if it is behind, and return the table version that it shows then.

        Raises:
            StorageError: the file cannot be written.
        """
        if not self._is_behind or self._path is None:
            return None
        version = view.refresh(self._path, self._archive, self._batch.look if self._batch else None)
        self._is_behind, self._shown = False, time.monotonic()
        return version
