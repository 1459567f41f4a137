"""A file system for DuckDB and whoever else takes one of fsspec: the objects of a bucket, to be read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from io import SEEK_CUR, SEEK_END, SEEK_SET, RawIOBase
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fsspec import AbstractFileSystem

from archiver_pipeline.storage.base import Attached
from archiver_pipeline.storage.bucket_errors import StoreError, told

if TYPE_CHECKING:
    from obstore.store import ObjectStore


_TAIL_BYTES = 64 * 1024
"""So much of the end of an object comes with the first request for any of it."""


@contextmanager
def _noted(attached: Attached, address: str) -> Iterator[None]:
    """Raise what is wrong with an object, and note it for whoever asked DuckDB."""
    try:
        with told(address):
            yield
    except OSError as error:
        attached.error = error
        raise


class BucketFiles(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no annotations
    """The objects below one address, by their whole addresses."""

    cachable = False

    def __init__(self, uri: str, store: ObjectStore, attached: Attached) -> None:
        """Ask nothing yet; `attached` is told what goes wrong."""
        super().__init__()
        self._attached = attached
        self.protocol = urlsplit(uri).scheme
        self._uri = uri
        self._store = store
        self._known: dict[str, Any] = {}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return path

    def glob(self, path: str, maxdepth: int | None = None, **_: Any) -> list[str]:
        """The path itself: names have no wildcards, and to ask for each of a hundred thousand would take minutes."""
        return [path]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Name, size and kind of an object. Raises FileNotFoundError, StoreError."""
        import obstore

        # DuckDB asks again and again; an object of the archive is never written a second time.
        if path not in self._known:
            with _noted(self._attached, path):
                self._known[path] = obstore.head(self._store, self._name(path))
        meta = self._known[path]
        return {"name": path, "size": meta["size"], "type": "file", "modified": meta["last_modified"]}

    def modified(self, path: str) -> Any:
        """When an object was written."""
        return self.info(path)["modified"]

    def open(self, path: str, mode: str = "rb", **_: Any) -> ObjectReader:
        """An object as a file to be read. Raises FileNotFoundError, StoreError."""
        size = self.info(path)["size"]
        return ObjectReader(self._store, self._name(path), path, size, self._attached)

    def _name(self, path: str) -> str:
        if not path.startswith(f"{self._uri}/"):
            raise StoreError("the DuckDB file shows another archive", path, "Check ARCHIVER_URI and BASE_DIR")
        return path.removeprefix(f"{self._uri}/")


class ObjectReader(RawIOBase):
    """An object as a file: each read is a request, but for those near its end, where Parquet has its footer."""

    def __init__(self, store: ObjectStore, name: str, address: str, size: int, attached: Attached) -> None:
        self._attached = attached
        self._store = store
        self._file = name
        self._address = address
        self._size = size
        self._at = 0
        self._tail_from = max(0, size - _TAIL_BYTES)
        self._tail: bytes | None = None

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """Begin the next read elsewhere."""
        self._at = offset + {SEEK_SET: 0, SEEK_CUR: self._at, SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Read so many bytes, or all that are left. Raises StoreError."""
        end = self._size if size is None or size < 0 else min(self._size, self._at + size)
        start, self._at = self._at, max(self._at, end)
        if start >= end:
            return b""
        if start < self._tail_from:
            return self._range(start, end)
        if self._tail is None:
            self._tail = self._range(self._tail_from, self._size)
        return self._tail[start - self._tail_from : end - self._tail_from]

    def _range(self, start: int, end: int) -> bytes:
        import obstore

        with _noted(self._attached, self._address):
            return bytes(obstore.get_range(self._store, self._file, start=start, end=end))
