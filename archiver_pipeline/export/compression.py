"""How text is compressed on its way into a file: by the ending of its name."""

from __future__ import annotations

import lzma
from pathlib import Path
from typing import IO, Any

ENDINGS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}
"""The endings of compressed files, and what they are compressed with."""

_LEVELS = {"gzip": 6, "zstd": 3, "bz2": 9}
"""What the tools of these names take where they are told no level."""


def compression_of(name: str) -> str | None:
    """The compression that the ending of a file's name asks for; None for none."""
    return ENDINGS.get(Path(name).suffix.lower())


def opened(path: Path, compression: str | None) -> IO[bytes]:
    """Open a file to write text to, which is compressed on its way. Raises OSError."""
    if compression is None:
        return open(path, "wb")
    if compression == "xz":
        return lzma.open(path, "wb")
    import pyarrow

    codec = pyarrow.Codec(compression, compression_level=_LEVELS[compression])
    stream: Any = pyarrow.CompressedOutputStream(pyarrow.OSFile(str(path), "wb"), codec)
    return stream  # type: ignore[no-any-return]
