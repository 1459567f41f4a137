"""The actions of a commit that add and remove files (Delta protocol, "Actions")."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote


def add_action(path: str, values: Mapping[str, str], size: int, time_ms: int, change: bool, stats: Any) -> Any:
    """An added file as a commit names it; its path is escaped once more than the disk has it."""
    of_file = {"path": quote(path, safe="/=~"), "partitionValues": dict(values), "size": size}
    return {"add": {**of_file, "modificationTime": time_ms, "dataChange": change, "stats": json.dumps(stats)}}


def remove_action(path: str, values: Mapping[str, str], size: int, time_ms: int, change: bool) -> Any:
    """A removed file as a commit names it."""
    of_file = {"path": quote(path, safe="/=~"), "deletionTimestamp": time_ms, "dataChange": change}
    return {"remove": {**of_file, "extendedFileMetadata": True, "partitionValues": dict(values), "size": size}}
