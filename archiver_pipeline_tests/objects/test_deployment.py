"""Rules of Dagster over a bucket: jobs, partitions and the DuckDB file are as over a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from archiver_pipeline.defs.partitions import first_hour
from archiver_pipeline.table.archive import archive_of
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.kafka.produce import produce
from archiver_pipeline_tests.objects.gateway import SECRET_KEY
from archiver_pipeline_tests.processes import CHECKOUT
from archiver_pipeline_tests.samples import numbered


def test_jobs_and_partitions(archived: Archived, tmp_path: Path) -> None:
    """The jobs `archive` and `seal` do their work, its hours are partitions, and no secret is written down."""
    produce(archived.bootstrap_servers, archived.settings.topics[0], numbered(range(100)))
    home = tmp_path / "home"
    home.mkdir()
    # dagster.yaml of its own: a telemetry question has no place in a test.
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    variables = {**os.environ, **archived.environment(), "DAGSTER_HOME": str(home)}
    variables["ARCHIVER_KEEP_REPLACED_HOURS"] = "0"
    said = ""
    for job in ("archive", "seal"):
        command = [sys.executable, "-m", "dagster", "job", "execute", "-m", "archiver_pipeline.definitions", "-j", job]
        done = subprocess.run(command, env=variables, cwd=CHECKOUT, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        said += done.stdout + done.stderr
    archived.assert_equal(archived.settings.topics[0])
    assert archived.sql("SELECT DISTINCT sealed FROM hours") == [(True,)]
    now = datetime.now(UTC)
    first = first_hour(archive_of(archived.settings).storage, now - timedelta(hours=100_000), now)
    assert first is not None
    assert first.name == "2019-08-01T03"
    written = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file()) + said.encode()
    for secret in (SECRET_KEY, json.dumps(SECRET_KEY)[1:-1]):
        assert secret.encode() not in written
