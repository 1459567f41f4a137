"""Staging in a bucket: files are written on the local disk and sent to their places, which a lease names before.

_staging/<attempt>.lease      who is at work, and where its files go; written again as long as the process lives

An object store has no locks and no rename. A lease that has not been written for a while is that of a dead process; if
it wakes up, the fence of whoever cleaned behind it refuses its commit, and it removes what it has sent meanwhile.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import threading
import uuid
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archiver_pipeline import envelope
from archiver_pipeline.errors import StorageError
from archiver_pipeline.objects import Objects
from archiver_pipeline.staging import ATTEMPT, Leftover, Staging, translated
from archiver_pipeline.storage import Content

log = logging.getLogger(__name__)

RENEW_SECONDS = 5.0
"""So often a lease is written again."""

DEAD_AFTER = 6
"""A lease that has missed so many writings, by the store's own clock, is a dead process's."""

_LEASE = ".lease"


class Lease:
    """An object that says that a process is at work; written again and again until `end`."""

    def __init__(self, bucket: Objects, name: str) -> None:
        self._bucket = bucket
        self._name = name
        self._files: list[str] = []
        self._ended = threading.Event()
        self._writing = threading.Lock()

    def begin(self) -> None:
        """Write it, and keep it up."""
        self.write([])
        self._keep_up()

    def claim(self) -> None:
        """Write it where there is none, or a dead process's, and keep it up. Raises BlockingIOError elsewhere."""
        if not self._bucket.claim(self._name, self._content()):
            found = self._bucket.fetch(self._name)
            other = held(self._bucket, [self._name]).get(self._name)
            # Of several that find it dead, one is served: the others find another entity tag.
            tag = found.mark.split(" ")[0] if found else None
            if (other and other.alive) or not self._bucket.claim(self._name, self._content(), tag):
                raise BlockingIOError(f"{self._bucket.address(self._name)} is held by another process")
        self._keep_up()

    def write(self, files: list[str]) -> None:
        """Write down which files there will be."""
        with self._writing:
            self._files = files
            self._bucket.write(self._name, self._content())

    def release(self) -> None:
        """Keep it up no longer, and say so: as if the process were dead."""
        self._ended.set()
        with self._writing, suppress(OSError):  # It is dead soon without that.
            _hasty(self._bucket).write(self._name, self._content())

    def end(self) -> None:
        """Remove it."""
        self._ended.set()
        with self._writing:
            self._bucket.remove([self._name])

    def _keep_up(self) -> None:
        threading.Thread(target=self._renew, name="lease", daemon=True).start()

    def _renew(self) -> None:
        while not self._ended.wait(RENEW_SECONDS):
            try:
                with self._writing:
                    if not self._ended.is_set():
                        self._bucket.write(self._name, self._content())
            except OSError as error:  # It is tried again; where it is too late for that, the fence is there.
                log.info("the lease was not renewed: %s", error)

    def _content(self) -> bytes:
        who = {"host": socket.gethostname(), "pid": os.getpid(), "alive": not self._ended.is_set()}
        return json.dumps({**who, "files": self._files}).encode()


class BucketStaging(Staging):
    """The files of one attempt, on the local disk until they are sent."""

    def __init__(self, bucket: Objects, scratch: Path, scope: str) -> None:
        """Begin: from now on nobody cleans behind this attempt as long as the process lives."""
        super().__init__(scratch, scope)
        self._bucket = bucket
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
            self._lease.write(self._files)
            self._bucket.put_all((self._staged(number), path) for number, path in enumerate(self._files))

    def finish(self) -> None:
        """As `Staging.finish`."""
        self._forget()
        with translated(self._bucket.uri):
            self._lease.end()

    def discard(self) -> None:
        """As `Staging.discard`."""
        self._forget()
        try:
            self._lease.release()
            clear(_hasty(self._bucket), Leftover("", self.attempt, tuple(self._files)), keep=())
        except (OSError, StorageError) as error:
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
    return {path for _, _, lease in _attempts(bucket, lambda _: True) for path in lease.files}


def clear(bucket: Objects, leftover: Leftover, keep: Collection[str]) -> int:
    """Remove what an attempt left, but for the files to `keep` (those the log has), and return how many went."""
    with translated(bucket.uri):
        # Read again: a process taken for dead may have gone on after it was listed.
        lease = _lease_of(leftover.attempt)
        now = held(bucket, [lease]).get(lease)
        files = {*leftover.files, *(now.files if now else ())} - set(keep)
        there = bucket.there(sorted(files))
        bucket.remove([*sorted(there), lease])
        return len(there)


def _hasty(bucket: Objects) -> Objects:
    """The same objects for whoever gives up: the store may be the reason, and has been waited for."""
    return Objects(bucket.uri, bucket.scratch.path, retry_seconds=1)


@dataclass(frozen=True)
class Held:
    """What a lease says: whether its process lives, and which files there will be."""

    alive: bool
    files: tuple[str, ...]


def held(bucket: Objects, leases: Sequence[str]) -> dict[str, Held]:
    """Read leases; those that are not there are left out. What is old is so by the clock of the store alone."""
    found = {name: content for name in leases if (content := bucket.fetch(name)) is not None}
    if not found:
        return {}
    now = _now(bucket)
    return {name: _read(content, now) for name, content in found.items()}


def _now(bucket: Objects) -> float:
    """The time by the clock of the store, in seconds since 1970: when an object was written just now."""
    name = f"{envelope.STAGING}/clock-{uuid.uuid4().hex}"
    bucket.write(name, b"")
    try:
        return bucket.modified(name)
    finally:
        bucket.remove([name])


def _read(content: Content, now: float) -> Held:
    said: Any = json.loads(content.data)
    written = float(content.mark.rpartition(" ")[2])
    return Held(said["alive"] and now - written < DEAD_AFTER * RENEW_SECONDS, tuple(said["files"]))


def _attempts(bucket: Objects, mine: Callable[[str], bool]) -> list[tuple[str, str, Held]]:
    """The attempts of the scopes that are `mine`: scope, name and lease."""
    names = sorted(name.removesuffix(_LEASE) for name in bucket.names(envelope.STAGING) if name.endswith(_LEASE))
    matches = [match for name in names if (match := ATTEMPT.fullmatch(name)) and mine(match[1])]
    leases = held(bucket, [_lease_of(match[0]) for match in matches])
    return [(match[1], match[0], leases[_lease_of(match[0])]) for match in matches if _lease_of(match[0]) in leases]


def _lease_of(attempt: str) -> str:
    return f"{envelope.STAGING}/{attempt}{_LEASE}"
