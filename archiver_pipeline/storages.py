"""Which storage an address is of."""

from __future__ import annotations

from pathlib import Path

from archiver_pipeline.bucket import Bucket
from archiver_pipeline.folder import Folder
from archiver_pipeline.storage import Storage


def storage_at(uri: str, scratch: Path) -> Storage:
    """The storage at an address.

    Args:
        uri: a folder, or `s3://…`, `gs://…` or `az://…`.
        scratch: a local folder for files on their way to a bucket.
    """
    return Bucket(uri, scratch) if "://" in uri else Folder(Path(uri))
