"""Staging in a bucket: files are written on the local disk and sent to their places, which a lease names before.

_staging/<attempt>.lease      who is at work, and where its files go; written again as long as the process lives

An object store has no locks and no rename. A lease that has not been written for a while is that of a dead process; if
it wakes up, the fence of whoever cleaned behind it refuses its commit, and it removes what it has sent meanwhile.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import socket
import threading
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archiver_pipeline import envelope
from archiver_pipeline.errors import SUPERSEDED, StorageError, Superseded
from archiver_pipeline.storage.base import Content
from archiver_pipeline.storage.bucket_errors import StoreError
from archiver_pipeline.storage.objects import Objects, Tag
from archiver_pipeline.storage.staging import ATTEMPT, Leftover, Staging, translated

log = logging.getLogger(__name__)

RENEW_SECONDS = 5.0
"""So often a lease is written again."""

DEAD_AFTER = 6
"""A lease that has missed so many writings, by the store's own clock, is a dead process's."""

_LEASE = ".lease"
_CLOCK = f"{envelope.STAGING}/clock"
"""An object that is written to know the time; it stays."""


class LeaseLost(Exception):
    """Somebody has taken the process for dead, and removed its lease or taken it over."""


class Lease:
    """An object that says that a process is at work; written again and again until `end`.

    Each writing replaces the one before and no other (`If-Match`): who has slept finds that the lease is lost.
    """

    def __init__(self, bucket: Objects, name: str) -> None:
        self._bucket = bucket
        self._name = name
        self._nonce = uuid.uuid4().hex
        self._written = 0
        self._tag: Tag | None = None
        self._files: list[str] = []
        self._lost = False
        self._ended = threading.Event()
        self._writing = threading.Lock()

    def begin(self) -> None:
        """Write it where there is none, or a dead process's, and keep it up. Raises BlockingIOError elsewhere."""
        content = self._content()
        self._tag = self._bucket.claim(self._name, content)
        if self._tag is None:
            tag, other = self._bucket.tag(self._name), held(self._bucket, [self._name]).get(self._name)
            if other and other.nonce == self._nonce:
                self._tag = tag  # The answer to our own writing was lost.
            elif other is None or not other.alive:
                # Of several that find it dead, one is served: the others find another tag.
                self._tag = self._bucket.claim(self._name, content, tag)
        if self._tag is None:
            raise BlockingIOError(f"{self._bucket.address(self._name)} is held by another process")
        threading.Thread(target=self._keep_up, name="lease", daemon=True).start()

    def write(self, files: list[str]) -> None:
        """Write down which files there will be. Raises LeaseLost."""
        with self._writing:
            self._files = files
            self._write(self._bucket)

    def release(self) -> None:
        """Keep it up no longer, and say so: as if the process were dead."""
        self._ended.set()
        with self._writing, suppress(OSError, LeaseLost):  # It is dead soon without that.
            self._write(self._bucket.hasty())

    def end(self) -> None:
        """Remove it, if it is not lost."""
        self._ended.set()
        with self._writing:
            if not self._lost:
                self._bucket.delete([self._name])

    def _keep_up(self) -> None:
        bucket = self._bucket.hasty()
        while not self._ended.wait(RENEW_SECONDS):
            try:
                with self._writing:
                    if not self._ended.is_set():
                        self._write(bucket)
            except LeaseLost:
                return
            except Exception as error:  # It is tried again; where it is too late for that, the fence is there.
                log.info("the lease was not renewed: %s", error)

    def _write(self, bucket: Objects) -> None:
        if self._lost:
            raise LeaseLost
        self._written += 1
        content = self._content()
        tag = bucket.claim(self._name, content, self._tag)
        if tag is None and self._is_ours(bucket):  # The answer to this writing was lost, or that to one before it.
            tag = bucket.claim(self._name, content, bucket.tag(self._name))
        if tag is None:
            self._lost = True
            raise LeaseLost
        self._tag = tag

    def _is_ours(self, bucket: Objects) -> bool:
        found = bucket.fetch(self._name)
        return found is not None and json.loads(found.data)["nonce"] == self._nonce

    def _content(self) -> bytes:
        who = {"host": socket.gethostname(), "pid": os.getpid(), "nonce": self._nonce, "written": self._written}
        return json.dumps({**who, "alive": not self._ended.is_set(), "files": self._files}).encode()


class BucketStaging(Staging):
    """The files of one attempt, on the local disk until they are sent."""

    def __init__(self, bucket: Objects, scratch: Path, scope: str) -> None:
        """Begin: from now on nobody cleans behind this attempt as long as the process lives."""
        super().__init__(scratch, scope)
        self._bucket = bucket
        self._sending = False
        self._lease = Lease(bucket, f"{envelope.STAGING}/{self.attempt}{_LEASE}")
        with translated(self._folder):
            self._folder.mkdir(parents=True)
            self._lease.begin()

    def sync(self) -> None:
        """As `Staging.sync`: they go from the disk as they are."""

    def place(self) -> None:
        """As `Staging.place`: a PUT each, once the lease says where to."""
        if not self._files:
            return
        with translated(self._bucket.uri):
            try:
                self._lease.write(self._files)
            except LeaseLost:
                raise Superseded("another run took this one for dead", path=self._bucket.uri, hint=SUPERSEDED) from None
            self._sending = True
            self._bucket.put_all((self._staged(number), path) for number, path in enumerate(self._files))
            self._sending = False

    def finish(self) -> None:
        """As `Staging.finish`."""
        self._forget()
        with translated(self._bucket.uri):
            self._lease.end()

    def discard(self) -> None:
        """As `Staging.discard`."""
        self._forget()
        self._lease.release()
        try:
            # What the store was still busy with may come after that: then the lease stays, for the next run to look.
            clear(self._bucket.hasty(), Leftover("", self.attempt, tuple(self._files)), (), lease=not self._sending)
        except StorageError as error:
            log.info("what was sent is left to the next run: %s", error)

    def release(self) -> None:
        """As `Staging.release`."""
        self._forget()
        self._lease.release()

    def _forget(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def leftovers(bucket: Objects, mine: Callable[[str], bool]) -> list[Leftover]:
    """List what dead attempts of the scopes that are `mine` left; one whose process lives is passed over."""
    with translated(bucket.uri):
        return [Leftover(scope, name, lease.files) for scope, name, lease in _attempts(bucket, mine) if not lease.alive]


def living(bucket: Objects, mine: Callable[[str], bool]) -> set[str]:
    """The attempts of the scopes that are `mine` whose process lives."""
    return {name for _, name, lease in _attempts(bucket, mine) if lease.alive}


def in_flight(bucket: Objects) -> set[str]:
    """Return the names that any attempt, dead or alive, may have sent files to."""
    leases = [_lease_of(match[0]) for match in _matches(bucket, lambda _: True)]
    return {path for content in map(bucket.fetch, leases) if content for path in json.loads(content.data)["files"]}


def clear(bucket: Objects, leftover: Leftover, keep: Collection[str], *, lease: bool = True) -> int:
    """Remove what an attempt left, but for the files to `keep` (those the log has), and return how many went.

    Args:
        bucket: where it lies.
        leftover: the attempt.
        keep: files that stay.
        lease: whether its lease goes, too; last, for it names the others.
    """
    name = _lease_of(leftover.attempt)
    with translated(bucket.uri):
        # Read again: a process taken for dead may have gone on after it was listed.
        now = bucket.fetch(name)
        files = {*leftover.files, *(json.loads(now.data)["files"] if now else ())} - set(keep)
        there = bucket.there(sorted(files))
        bucket.delete(sorted(there))
        if lease:
            bucket.delete([name])
        return len(there)


@dataclass(frozen=True)
class Held:
    """What a lease says: whether its process lives, which files there will be, and what tells it from another's."""

    alive: bool
    files: tuple[str, ...]
    nonce: str


def held(bucket: Objects, leases: Sequence[str]) -> dict[str, Held]:
    """Read leases; those that are not there are left out. What is old is so by the clock of the store alone."""
    found = {name: content for name in leases if (content := bucket.fetch(name)) is not None}
    if not found:
        return {}
    now = _now(bucket)
    return {name: _read(content, now) for name, content in found.items()}


def _now(bucket: Objects) -> float:
    """The time by the clock of the store, in seconds since 1970: when an object was written just now, or later.

    Who may only read goes by the own clock; nothing is removed by that.
    """
    try:
        bucket.write(_CLOCK, b"")
        return bucket.modified(_CLOCK)
    except StoreError as error:
        if not error.refused:
            raise
        return time.time()


def _read(content: Content, now: float) -> Held:
    said: Any = json.loads(content.data)
    written = float(content.mark.rpartition(" ")[2])
    alive = said["alive"] and now - written < DEAD_AFTER * RENEW_SECONDS
    return Held(alive, tuple(said["files"]), said["nonce"])


def _attempts(bucket: Objects, mine: Callable[[str], bool]) -> list[tuple[str, str, Held]]:
    """The attempts of the scopes that are `mine`: scope, name and lease."""
    matches = _matches(bucket, mine)
    leases = held(bucket, [_lease_of(match[0]) for match in matches])
    return [(match[1], match[0], leases[_lease_of(match[0])]) for match in matches if _lease_of(match[0]) in leases]


def _matches(bucket: Objects, mine: Callable[[str], bool]) -> list[re.Match[str]]:
    names = sorted(name.removesuffix(_LEASE) for name in bucket.names(envelope.STAGING) if name.endswith(_LEASE))
    return [match for name in names if (match := ATTEMPT.fullmatch(name)) and mine(match[1])]


def _lease_of(attempt: str) -> str:
    return f"{envelope.STAGING}/{attempt}{_LEASE}"
