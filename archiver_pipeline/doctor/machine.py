"""The machine and what is installed on it: memory, and the versions of the libraries."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

from archiver_pipeline.amounts import counted
from archiver_pipeline.doctor.finding import Finding, good, warning
from archiver_pipeline.doctor.patient import Patient

_DEFAULT_BYTES = 256 * 1024**2
_NEEDED = 1024**3
"""What a run with batches of the default size may take; larger ones take more in proportion."""

_SHOWN = ("dagster", "deltalake", "duckdb", "polars", "confluent-kafka")


def memory(patient: Patient) -> Iterator[Finding]:
    """Whether there is as much memory as the batches of all lanes may take."""
    free = available()
    if free is None:
        return
    settings = patient.settings
    needed = round(_NEEDED * max(1.0, settings.batch_bytes / _DEFAULT_BYTES)) * settings.lanes
    told = (
        f"{free / 1e9:.1f} GB are available, runs of {counted(settings.lanes, 'lane')} may take {needed / 1e9:.1f} GB"
    )
    if free < needed:
        remedy = "Lower ARCHIVER_BATCH_BYTES and ARCHIVER_BATCH_MESSAGES, or give it more memory"
        yield warning("memory", told, remedy)
    else:
        yield good("memory", told)


def available(root: Path = Path("/")) -> int | None:
    """Bytes of memory that may still be taken, of the machine or of the container; None where nobody tells."""
    found = []
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
        found += [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError, IndexError):
        pass
    try:
        group = root / "sys/fs/cgroup"
        limit, used = (group / "memory.max").read_text().strip(), (group / "memory.current").read_text()
        if limit != "max":
            cached = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            found.append(int(limit) - int(used) + int(cached.get("inactive_file", 0)))
    except (OSError, ValueError):
        pass
    return min(found, default=None)


def versions(_: Patient) -> Iterator[Finding]:
    """Whether the libraries are of the versions that the archiver needs."""
    from importlib.metadata import PackageNotFoundError, requires, version

    from packaging.requirements import Requirement

    wrong = []
    try:
        wanted = [Requirement(text) for text in requires("archiver-pipeline") or ()]
    except PackageNotFoundError:
        wanted = []
    for each in wanted:
        if each.marker is not None and not each.marker.evaluate({"extra": ""}):
            continue
        try:
            if not each.specifier.contains(version(each.name), prereleases=True):
                wrong.append(f"{each.name} {version(each.name)} is installed, {each.specifier} is needed")
        except PackageNotFoundError:
            wrong.append(f"{each.name} is not installed")
    for told in wrong:
        yield warning("versions", told, "Install requirements.lock again (make does, once it is touched)")
    shown = []
    for name in _SHOWN:
        try:
            shown.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    if not wrong:
        yield good("versions", f"Python {platform.python_version()}, {', '.join(shown)}")
