"""Which storage an address is of."""

from __future__ import annotations

import threading
from pathlib import Path

from archiver_pipeline.storage.base import Storage
from archiver_pipeline.storage.bucket import Bucket
from archiver_pipeline.storage.folder import Folder

_loading = threading.Lock()


def storage_at(uri: str, scratch: Path) -> Storage:
    """The storage at an address.

    Args:
        uri: a folder, or `s3://…`, `gs://…` or `az://…`.
        scratch: a local folder for files on their way to a bucket.
    """
    if "://" not in uri:
        return Folder(Path(uri))
    with _loading:
        # A thread that wants it while another one loads it would find half of it.
        import obstore.exceptions  # noqa: F401
    return Bucket(uri, scratch)
