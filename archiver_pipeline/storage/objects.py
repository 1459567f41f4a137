"""The objects below a prefix of a bucket: S3, or what speaks its language, Google Cloud Storage, Azure Blob Storage.

The client takes addresses and credentials from the environment, as deltalake and Polars do: `AWS_…`, `GOOGLE_…`,
`AZURE_…`. An upload is one PUT of a whole object, never a multipart one: a kill leaves none that is half done. What is
to be written but once is a PUT with `If-None-Match: *`, which the store refuses where the name is taken.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from archiver_pipeline.storage.base import Content
from archiver_pipeline.storage.bucket_errors import NoObject, told
from archiver_pipeline.storage.scratch import LocalCopies, Scratch

if TYPE_CHECKING:
    from obstore.store import ObjectStore

Tag = Mapping[str, Any]
"""What tells an object from another one in its place, as the store has it: entity tag, and version if it has one."""

ANSWER_SECONDS, _TRANSFER_SECONDS = 10, 300
"""How long one request may take, and that of a whole file, which may be 512 MB."""

RETRY_SECONDS = 30
"""For so long a request is tried again where the store does not answer or has a fault: below the minute that Dagster
gives a sensor."""

HASTY_SECONDS = 1
"""The same for whoever has waited already, or asks again soon."""

MAX_RETRIES = 1000
"""More than fit into that time: what ends the waiting is the clock."""

_AT_ONCE = 16
"""Requests side by side where there are many: each waits most of its time."""

_MANY = 500
"""More files than this are looked for by one listing of all."""

_LARGE_BYTES = 16 * 1024**2
"""Of larger files, what is mapped into memory at once would count as the process's own."""

_KEPT_BYTES = 512 * 1024**2


class Objects:
    """Objects, by their keys below the prefix.

    What goes wrong is Unreachable or, where there is no such object, NoObject.

    Attributes:
        uri: the address of the prefix.
        scratch: the local folder for files on their way.
    """

    def __init__(self, uri: str, scratch: Path, retry_seconds: float | None = None) -> None:
        """Ask nothing yet.

        Args:
            uri: `s3://bucket/archive`, `gs://…` or `az://…`.
            scratch: a local folder for files on their way.
            retry_seconds: for how long a request is tried again; `RETRY_SECONDS` by default.
        """
        self.uri = uri.rstrip("/")
        self._retry_seconds = RETRY_SECONDS if retry_seconds is None else retry_seconds
        self.scratch = Scratch(scratch)
        self._copies = LocalCopies(lambda: self.scratch.path / "copies", _KEPT_BYTES)

    @cached_property
    def _store(self) -> ObjectStore:
        return self._client(ANSWER_SECONDS)

    @cached_property
    def ranges(self) -> ObjectStore:
        """The client for parts of files."""
        return self._client(2 * ANSWER_SECONDS)

    @cached_property
    def _large(self) -> ObjectStore:
        return self._client(_TRANSFER_SECONDS)

    def _for(self, size: int) -> ObjectStore:
        """The client for a whole file of so many bytes: one that hangs is not waited for any longer than it has to."""
        return self._large if size > _LARGE_BYTES else self.ranges

    def _client(self, seconds: int) -> ObjectStore:
        from obstore.store import from_url

        with told(self.uri):
            return from_url(
                self.uri,
                client_options={"timeout": timedelta(seconds=seconds), "allow_http": allows_http()},
                retry_config={
                    "max_retries": MAX_RETRIES,
                    "retry_timeout": timedelta(seconds=self._retry_seconds),
                    "backoff": {
                        "max_backoff": timedelta(seconds=5),
                        "init_backoff": timedelta(milliseconds=100),
                        "base": 2,
                    },
                },
            )

    def hasty(self) -> Self:
        """As `Storage.hasty`."""
        return type(self)(self.uri, self.scratch.path, HASTY_SECONDS)

    def address(self, name: str) -> str:
        """The whole address of an object."""
        return f"{self.uri}/{name}"

    def fetch(self, name: str) -> Content | None:
        """As `Storage.fetch`."""
        import obstore

        try:
            with told(self.address(name)):
                answer = obstore.get(self._store, name)
                return Content(bytes(answer.bytes()), _mark(answer.meta))
        except FileNotFoundError:
            return None

    def mark(self, name: str) -> str:
        """As `Storage.mark`: the entity tag."""
        try:
            return _mark(self._head(name))
        except FileNotFoundError:
            return ""

    def modified(self, name: str) -> float:
        """As `Storage.modified`: by the store's own clock."""
        return float(self._head(name)["last_modified"].timestamp())

    def _head(self, name: str) -> Any:
        import obstore

        with told(self.address(name)):
            return obstore.head(self._store, name)

    def claim(self, name: str, content: bytes, instead_of: Tag | None = None) -> Tag | None:
        """Write an object where there is none, or only the one with the tag `instead_of`, and return its tag; else
        None."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        mode: Any = "create" if instead_of is None else instead_of
        try:
            with told(self.address(name)):
                try:
                    put = obstore.put(self._store, name, content, mode=mode)
                except (AlreadyExistsError, PreconditionError):
                    return None
        except NoObject:
            return None  # What was to be replaced is gone.
        return _tag(put)

    def tag(self, name: str) -> Tag | None:
        """The tag of an object, for `claim`; None where there is none."""
        try:
            meta = self._head(name)
        except NoObject:
            return None
        return _tag(meta)

    def write(self, name: str, content: bytes) -> None:
        """Write a small object, whatever is there."""
        import obstore

        with told(self.address(name)):
            obstore.put(self._store, name, content, use_multipart=False)

    def put(self, source: Path, name: str) -> None:
        """As `Storage.put`: mapped into memory, so that none of it is held."""
        import obstore

        with open(source, "rb") as file, told(self.address(name)):
            size = os.fstat(file.fileno()).st_size
            content: Any = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
            obstore.put(self._for(size), name, content, use_multipart=False)
        source.unlink()

    def put_all(self, sources: Iterable[tuple[Path, str]]) -> None:
        """Move local files to their places: small ones several at a time, large ones one by one."""
        small: list[tuple[Path, str]] = []
        large: list[tuple[Path, str]] = []
        for pair in sources:
            (large if pair[0].stat().st_size > _LARGE_BYTES else small).append(pair)
        self._each(lambda pair: self.put(*pair), small)
        for pair in large:
            self.put(*pair)

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects; those that are not there are passed over."""
        import obstore

        listed = list(names)
        if self.uri.startswith("s3:") and listed:
            with told(self.uri):
                obstore.delete(self._store, listed)
        else:  # Others have no call for many, and complain of what is not there.
            self._each(self._delete, listed)

    def _delete(self, name: str) -> None:
        import obstore

        with suppress(NoObject), told(self.address(name)):
            obstore.delete(self._store, name)

    def first(self, folder: str) -> str | None:
        """As `Storage.first`: of the first thousand."""
        with told(self.address(folder)):
            for page in self._list(folder):
                return min((name for name in page if name.endswith(".json")), default=None)
        return None

    def names(self, folder: str, after: str = "") -> list[str]:
        """As `Storage.names`."""
        import obstore

        with told(self.address(folder)):
            if folder in ("_delta_log", "_staging"):
                return [name for page in self._list(folder, after) for name in page]
            found = obstore.list_with_delimiter(self._store, folder or None)
        every = [*found["common_prefixes"], *(each["path"] for each in found["objects"])]
        return [name for path in every if (name := path.rstrip("/").rpartition("/")[2]) > after]

    def _list(self, folder: str, after: str = "") -> Iterator[list[str]]:
        """The names directly below a folder that has no others in it but those of a few, page by page."""
        import obstore

        start = f"{folder}/{after}" if after else None
        for page in obstore.list(self._store, folder, offset=start, chunk_size=1000):
            below = (each["path"].removeprefix(f"{folder}/") for each in page)
            yield [name for name in below if "/" not in name]

    def data_files(self) -> Iterator[str]:
        """As `Storage.data_files`."""
        import obstore

        for folder in self.names(""):
            if folder.startswith("type="):
                with told(self.address(folder)):
                    for page in obstore.list(self._store, folder, chunk_size=1000):
                        yield from (each["path"] for each in page if each["path"].endswith(".parquet"))

    def there(self, names: Collection[str]) -> set[str]:
        """As `Storage.there`."""
        if len(names) > _MANY:
            return set(names) & set(self.data_files())
        found = self._each(self.mark, names)
        return {name for name, mark in zip(names, found, strict=True) if mark}

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """As `Storage.local`: a copy of what is there now. Raises NoObject, Unreachable."""
        meta = self._head(name)

        def download(path: Path) -> None:
            import obstore

            with open(path, "wb") as file, told(self.address(name)):
                for part in obstore.get(self._for(meta["size"]), name):
                    file.write(part)

        with self._copies.use(name, _mark(meta), download) as path:
            yield path

    def _each(self, do: Any, items: Iterable[Any]) -> list[Any]:
        """Do something with each of many, several at a time."""
        with ThreadPoolExecutor(_AT_ONCE, "store") as pool:
            return list(pool.map(do, items))


def _tag(meta: Any) -> Tag:
    return {name: meta[name] for name in ("e_tag", "version") if meta[name] is not None}


def _mark(meta: Any) -> str:
    return f"{meta['e_tag']} {meta['size']} {meta['last_modified'].timestamp()}"


def allows_http() -> bool:
    """Whether a connection may be without TLS: where the address that is given says so."""
    given = os.environ.get("AWS_ALLOW_HTTP", "").lower() in ("1", "true")
    return given or any(
        os.environ.get(name, "").startswith("http://")
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_ENDPOINT_URL_S3", "AZURE_ENDPOINT", "GOOGLE_BASE_URL")
    )
