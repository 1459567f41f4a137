"""How text is compressed on its way into a file: by the ending of its name."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path
from typing import IO, Any

ENDINGS = (".gz", ".zst", ".bz2", ".xz")
"""What the names of compressed files end in."""


class _Gzip(gzip.GzipFile):
    """A gzip file that does not hold the name and time of its making; it has another name when it is complete."""

    def __init__(self, path: Path) -> None:
        self._raw = open(path, "wb")  # noqa: SIM115, it is closed with this
        super().__init__("", "wb", 6, self._raw, mtime=0)

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._raw.close()


def ending_of(name: str) -> str:
    """The ending of a file's name if it is one of `ENDINGS`, else nothing."""
    found = Path(name).suffix.lower()
    return found if found in ENDINGS else ""


def opened(path: Path, ending: str) -> IO[bytes]:
    """Open a file to write text to, compressed as one of `ENDINGS` says, or not at all. Raises OSError."""
    stream: Any
    match ending:
        case ".gz":
            stream = _Gzip(path)
        case ".bz2":
            stream = bz2.BZ2File(path, "wb")
        case ".xz":
            stream = lzma.LZMAFile(path, "wb")  # noqa: SIM115, it outlasts this function
        case ".zst":
            import pyarrow

            stream = pyarrow.CompressedOutputStream(str(path), "zstd")
        case _:
            stream = open(path, "wb")  # noqa: SIM115, it outlasts this function
    return stream  # type: ignore[no-any-return]
