"""Where a secret might have got to: files, databases row by row, command lines, and what a web interface answers."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from archiver_pipeline.settings.secrets import forms_of

if TYPE_CHECKING:
    from archiver_pipeline_tests.dagster_side.running import RunningDagster

ERROR = "error { message className stack causes { message className stack } errorChain { error { message stack } } }"
QUERIES = {
    "instance": "{ instance { info hasInfo runLauncher { name } daemonHealth { allDaemonStatuses { daemonType "
    "lastHeartbeatErrors { message stack } } } executablePath } }",
    "workspace": "{ workspaceOrError { ... on Workspace { locationEntries { name displayMetadata { key value } "
    "locationOrLoadError { ... on PythonError { message stack } } } } } }",
    "runs": "{ runsOrError { ... on Runs { results { runId status runConfigYaml runConfig tags { key value } } } } }",
    "events": "{ runsOrError { ... on Runs { results { eventConnection { events { __typename ... on MessageEvent "
    "{ message } ... on ExecutionStepFailureEvent { " + ERROR + " failureMetadata { description } } "
    "... on RunFailureEvent { " + ERROR + " } } } } } } }",
    "ticks": '{ sensorsOrError(repositorySelector: {repositoryLocationName: "archiver_pipeline.definitions", '
    'repositoryName: "__repository__"}) { ... on Sensors { results { name sensorState { ticks { status skipReason '
    "cursor " + ERROR + " logEvents { events { message } } } } } } } }",
    "resources": "{ topLevelResourceDetailsOrError: allTopLevelResourceDetailsOrError(repositorySelector: "
    '{repositoryLocationName: "archiver_pipeline.definitions", repositoryName: "__repository__"}) '
    "{ ... on ResourceDetailsList { results { name configuredValues { key value type } } } } }",
    "assets": "{ assetNodes { assetKey { path } description assetMaterializations { description metadataEntries "
    "{ label description ... on TextMetadataEntry { text } ... on JsonMetadataEntry { jsonString } "
    "... on TableMetadataEntry { table { records } } } } } }",
}
"""What the UI asks for, by name: all that a run, a tick or the instance could say of a setting."""


def in_files(folder: Path, secrets: Collection[str]) -> Iterator[str]:
    """Yield each file below a folder that holds one of the secrets in any form, and each row of an SQLite database."""
    forms = _forms(secrets)
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        content = path.read_bytes()
        if any(form.encode() in content for form in forms):
            yield str(path)
        if content.startswith(b"SQLite format 3\0"):
            # Within a file a long value may be cut into pages, anywhere.
            yield from (f"{path}: {where}" for where, text in _rows(path) if _holds(text, forms))


def in_command_lines(secrets: Collection[str]) -> list[str]:
    """The command lines of this machine's processes that hold one of the secrets."""
    forms, found = _forms(secrets), []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            line = " ".join(process.cmdline())
            if _holds(line, forms):
                found.append(line)
    return found


def in_answers(dagster: RunningDagster, secrets: Collection[str]) -> list[str]:
    """The names of those `QUERIES` whose answers hold one of the secrets."""
    forms = _forms(secrets)
    return [name for name, query in QUERIES.items() if _holds(json.dumps(dagster.graphql(query)), forms)]


def _forms(secrets: Iterable[str]) -> set[str]:
    return {form for secret in secrets for form in forms_of(secret)}


def _holds(text: str, forms: Iterable[str]) -> bool:
    return any(form in text for form in forms)


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for row in database.execute(f'SELECT * FROM "{table}"'):
                yield table, " ".join(map(_text, row))


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
