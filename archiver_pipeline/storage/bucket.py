"""An archive in a bucket."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from archiver_pipeline.storage import bucket_staging
from archiver_pipeline.storage.base import Attached, Mine, Storage
from archiver_pipeline.storage.bucket_errors import refused
from archiver_pipeline.storage.bucket_staging import BucketStaging, Lease
from archiver_pipeline.storage.objects import ANSWER_SECONDS, MAX_RETRIES, RETRY_SECONDS, Objects, allows_http
from archiver_pipeline.storage.staging import Leftover, translated

if TYPE_CHECKING:
    import duckdb


class Bucket(Objects, Storage):
    """The files of an archive below a prefix of a bucket; names are keys below it."""

    def create(self, name: str, content: bytes, scratch: Path) -> bool:
        """As `Storage.create`: a conditional PUT."""
        return self.claim(name, content) is not None

    def remove(self, names: Iterable[str]) -> int:
        """As `Storage.remove`."""
        there = self.there(sorted(names))
        self.delete(sorted(there))
        return len(there)

    def lasting(self, names: Iterable[str]) -> None:
        """As `Storage.lasting`: an object that was written lasts."""

    def make(self) -> None:
        """As `Storage.make`: a bucket has no folders, and is not the archiver's to make."""

    def options(self) -> dict[str, str]:
        """As `Storage.options`; what else there is, it takes from the environment."""
        limits = {
            "timeout": f"{3 * ANSWER_SECONDS}s",
            "retry_timeout": f"{RETRY_SECONDS}s",
            "max_retries": str(MAX_RETRIES),
        }
        return limits | ({"allow_http": "true"} if allows_http() else {})

    def explained(self, error: Exception) -> OSError | None:
        """As `Storage.explained`."""
        return refused(str(error), self.uri) if "Error performing" in str(error) else None

    def attach(self, connection: duckdb.DuckDBPyConnection) -> Attached:
        """As `Storage.attach`: by a file system of Python, for which DuckDB needs no extension."""
        from archiver_pipeline.storage.bucket_files import BucketFiles

        attached = Attached()
        connection.register_filesystem(BucketFiles(self.uri, self.ranges, attached))
        return attached

    def pattern(self, name: str) -> str:
        """As `Storage.pattern`: that file system knows no wildcards."""
        return self.address(name)

    def stage(self, scope: str) -> BucketStaging:
        """As `Storage.stage`."""
        with translated(self.uri):
            return BucketStaging(self, self.scratch.path, scope)

    def leftovers(self, mine: Mine) -> list[Leftover]:
        """As `Storage.leftovers`."""
        return bucket_staging.leftovers(self, mine)

    def living(self, mine: Mine) -> set[str]:
        """As `Storage.living`."""
        return bucket_staging.living(self, mine)

    def in_flight(self) -> set[str]:
        """As `Storage.in_flight`."""
        return bucket_staging.in_flight(self)

    def clear(self, leftover: Leftover, keep: Collection[str]) -> int:
        """As `Storage.clear`."""
        return bucket_staging.clear(self, leftover, keep)

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """As `Storage.alone`: by a lease."""
        lease = Lease(self, f"_{name}.lease")
        lease.begin()
        try:
            yield
        finally:
            lease.release()  # Where it is lost by now, it is another's, and stays.
            lease.end()

    def is_busy(self, name: str) -> bool:
        """As `Storage.is_busy`."""
        return any(lease.alive for lease in bucket_staging.held(self, [f"_{name}.lease"]).values())

    def workroom(self, name: str) -> Path:
        """As `Storage.workroom`: on the local disk."""
        with translated(self.uri):
            return self.scratch.path / name
