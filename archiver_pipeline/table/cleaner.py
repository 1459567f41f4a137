"""Cleaning: what replaced files and killed runs leave on the disk, removed once nobody is to need it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping

from archiver_pipeline import envelope
from archiver_pipeline.errors import Superseded
from archiver_pipeline.storage.staging import translated
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.table.attempt import Attempt, batch_of, rewrite_of
from archiver_pipeline.table.ledger import fence_of

log = logging.getLogger(__name__)

_TRIES = 5


def clean(archive: Archive, keep_hours: float, metadata: Mapping[str, str]) -> int:
    """Remove what killed rewrites left, and files that were replaced longer ago than `keep_hours`.

    The view has to be brought up to date before: one of an older version would name the files that go. Returns how
    many files went.

    Args:
        archive: the archive.
        keep_hours: how long replaced files stay.
        metadata: what the commits say that keep dead rewrites from waking up.
    """
    if not archive.exists():
        return 0
    removed = _clean_behind(archive, _is_rewrite, metadata)
    names = archive.table().vacuum(math.ceil(keep_hours), dry_run=True, enforce_retention_duration=False)
    return removed + _remove(archive, names)


def replaced(archive: Archive) -> set[str]:
    """The files that the log has taken off its list, however short ago; they may be gone from the disk."""
    table = archive.table()
    names = {*table.vacuum(0, dry_run=True, enforce_retention_duration=False), *archive.removed()}
    return names - set(archive.files(table)["path"])


def clean_all(archive: Archive, names: Iterable[str], metadata: Mapping[str, str]) -> int:
    """Remove replaced files, however short ago that was, and what killed runs left, batches among them.

    What a live run has staged or placed is left alone. Returns how many files went.

    Args:
        archive: the archive.
        names: what `replaced` said before the view was brought up to date.
        metadata: as in `clean`.
    """
    removed = 0
    for _ in range(_TRIES):
        removed += _clean_behind(archive, _has_messages, metadata)
        # A live run of the lane may have been faster, and then have died.
        if not archive.storage.leftovers(_has_messages):
            break
    return removed + _remove(archive, names)


def rewrites(archive: Archive) -> set[str]:
    """The rewrites of hours that are at work."""
    with translated(archive.uri):
        return archive.storage.living(_is_rewrite)


def _is_rewrite(scope: str) -> bool:
    return fence_of(scope).startswith("rewrite/")


def _has_messages(scope: str) -> bool:
    """Whether an attempt writes messages; a replay only writes down what it has sent."""
    return fence_of(scope).startswith(("rewrite/", "lane/"))


def _clean_behind(archive: Archive, mine: Callable[[str], bool], metadata: Mapping[str, str]) -> int:
    """Fence the dead runs of these scopes by a commit each, and remove what they left."""
    removed = 0
    dead = {leftover.scope for leftover in archive.storage.leftovers(mine)}
    for hour in sorted({scope.partition("-")[2] for scope in dead if _is_rewrite(scope)}):
        attempt = rewrite_of(archive, envelope.SEAL, hour)
        removed += _fence(attempt, {**metadata, "rewrite": envelope.SEAL, "hour": hour})
    for lane in sorted(int(scope.removeprefix("lane")) for scope in dead if not _is_rewrite(scope)):
        removed += _fence(batch_of(archive, lane), {**metadata, "lane": str(lane)})
    return removed


def _fence(attempt: Attempt, metadata: Mapping[str, str]) -> int:
    try:
        attempt.commit([], metadata)
        return attempt.clean()
    except Superseded:
        attempt.discard()
        return 0
    except BaseException:
        attempt.discard()
        raise


def _remove(archive: Archive, names: Iterable[str]) -> int:
    """Remove files that the log has taken off its list; their tombstones stay in it, so most have gone before."""
    with translated(archive.uri):
        return archive.storage.remove(names)
