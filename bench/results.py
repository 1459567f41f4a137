"""What was measured, kept beside the code: a JSON file per benchmark, with the machine and versions it is true for."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"

_LIBRARIES = ("dagster", "confluent-kafka", "polars", "pyarrow", "duckdb", "deltalake")


def record(name: str, command: str, figures: Any) -> Path:
    """Write `results/<name>.json`, in place of what was measured before.

    Args:
        name: of the benchmark.
        command: what measures it again.
        figures: what was found; every number's unit is in its name.
    """
    found = {
        "measured": f"{datetime.now(UTC):%Y-%m-%d}",
        "command": command,
        "machine": {
            "cores": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3),
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "versions": {library: version(library) for library in _LIBRARIES},
        "figures": figures,
    }
    path = FOLDER / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(found, indent=1) + "\n")
    return path


def recorded(name: str) -> Any:
    """The figures of `results/<name>.json`; None where nothing was recorded."""
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text())["figures"] if path.exists() else None
