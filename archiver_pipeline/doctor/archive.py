"""The archive itself: whether its log can be read, its format, and the DuckDB file before it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from archiver_pipeline.amounts import counted
from archiver_pipeline.doctor import clock
from archiver_pipeline.doctor.finding import Finding, fault, good, warning
from archiver_pipeline.doctor.patient import Patient
from archiver_pipeline.formats.waits import Waits
from archiver_pipeline.stored import erasure_plan
from archiver_pipeline.stored.untyped import untyped
from archiver_pipeline.table.format_version import version_of
from archiver_pipeline.view import view

if TYPE_CHECKING:
    from archiver_pipeline.table.ledger import Ledger

VIEW_SECONDS = 60.0
"""A view that lacks a commit for so long is not about to be brought up to date."""

COMMITS = 1000
"""More commits than that since the newest checkpoint make reading the log slow, and say that none can be made."""


def archive(patient: Patient) -> Iterator[Finding]:
    """Whether the log can be read, and by this release. Raises ArchiveError."""
    found = patient.archive
    if not found.exists():
        yield good("archive", f"there is none yet at {found.uri}: the first batch makes it")
        return
    state, ledger = patient.standing = found.standing()
    form = version_of(state.metadata, found.uri)
    yield good("archive", f"table version {state.version}, format {form}, {counted(ledger.messages, 'message')}")
    if state.version - state.checkpoint > COMMITS:
        told = f"its log has no checkpoint since version {state.checkpoint}"
        yield warning("archive", told, "Look for 'no checkpoint' in the logs of the runs: they say what is in the way")
    yield from clock.of_commit(patient)
    yield from _undone(patient, ledger)


def _undone(patient: Patient, ledger: Ledger) -> Iterator[Finding]:
    for plan in erasure_plan.interrupted(patient.archive.storage):
        told = f"an erasure of {plan.started:%Y-%m-%d %H:%M:%S} UTC was interrupted"
        yield fault("archive", told, "`archiver erase --resume` finishes it")
    for wait in Waits(patient.settings).present(ledger.committed):
        yield fault("archive", str(wait), "The rest is archived meanwhile; see the Schema Registry")


def types(patient: Patient) -> Iterator[Finding]:
    """Whether the types of messages were found. Raises ArchiveError."""
    if patient.standing is None:
        return
    if (found := untyped(patient.archive.files())) is not None:
        yield warning("types", found.what, found.remedy)
    else:
        yield good("types", "nearly all of the newest messages have a type")


def duckdb_view(patient: Patient) -> Iterator[Finding]:
    """Whether the DuckDB file can be opened and shows the newest commit."""
    path = patient.settings.kept_view
    if path is None or patient.standing is None:
        return
    if not path.exists():
        yield warning("view", f"there is no {path}", "The next run makes it; check BASE_DIR if runs go through")
        return
    import duckdb

    try:
        with duckdb.connect(str(path), read_only=True) as connection:
            connection.execute("SELECT count(*) FROM duckdb_views()").fetchone()
    except duckdb.Error as error:
        told = f"{path} cannot be opened: {' '.join(str(error).split())[:200]}"
        yield fault("view", told, "Delete the file: the next run makes it anew")
        return
    if view.behind(path, patient.archive, patient.standing[0], VIEW_SECONDS):
        told = f"{path} lacks commits that are older than {VIEW_SECONDS:.0f} s"
        yield warning("view", told, "The next run brings it up to date; see why the last one did not")
    elif not os.access(path.parent, os.W_OK):
        yield fault("view", f"{path.parent} cannot be written", "Make the folder writable for this user")
    else:
        yield good("view", f"{path} shows the newest commit")
