"""One installation of the archiver: its folders, its settings as a user gives them, and what Dagster recorded of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from archiver_pipeline.defs.assets import OP
from archiver_pipeline.defs.hour_metadata import SEALED_HOURS
from archiver_pipeline.defs.seal import SEAL_OP
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.processes import CHECKOUT, Ended, Processes, environment

MESSAGES = dg.AssetKey("messages")
EXECUTE = ["-m", "dagster", "job", "execute", "-m", "archiver_pipeline.definitions", "-j"]
JOB = [*EXECUTE, "archive"]


class Deployment:
    """A folder with the archive, the DuckDB file and Dagster's own folder.

    Attributes:
        bootstrap_servers: address of its broker.
        base: `BASE_DIR`.
        home: `DAGSTER_HOME`.
        settings: the environment variables that make it.
        archived: the archive, to be compared with Kafka.
        processes: what starts its programs.
    """

    def __init__(
        self, folder: Path, processes: Processes, bootstrap_servers: str, *topics: str, **settings: object
    ) -> None:
        """Choose folders and settings.

        Args:
            folder: where everything goes.
            processes: what starts its programs.
            bootstrap_servers: address of the broker.
            topics: names or regexes.
            settings: more variables of the environment.
        """
        self.bootstrap_servers = bootstrap_servers
        self.base = folder
        self.home = folder / "dagster_home"
        self.home.mkdir(parents=True)
        self.settings = {
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
            "ARCHIVER_TOPICS": ",".join(topics),
            "BASE_DIR": str(folder),
            "DAGSTER_HOME": str(self.home),
            # Runs of followers would take time from what is tested; those that test them say so.
            "ARCHIVER_FOLLOW_SECONDS": "0",
            **{name: str(value) for name, value in settings.items()},
        }
        self.archived = Archived(folder, bootstrap_servers, *topics)
        self.processes = processes

    @property
    def variables(self) -> dict[str, str]:
        """The whole environment of its processes."""
        return environment(self.settings)

    def execute(self, **config: Any) -> Ended:
        """Run the job `archive` by `dagster job execute`, with this run config if any."""
        return self._execute("archive", OP, config)

    def seal(self, **config: Any) -> Ended:
        """Run the job `seal` by `dagster job execute`, with this run config if any."""
        return self._execute("seal", SEAL_OP, config)

    def dagster(self, *arguments: str, seconds: float = 240) -> Ended:
        """Run `dagster` with these arguments."""
        return self.processes.run(["-m", "dagster", *arguments], self.variables, seconds)

    def _execute(self, job: str, op: str, config: dict[str, Any]) -> Ended:
        arguments = [*EXECUTE, job]
        if config:
            path = self.base / "run.json"
            path.write_text(json.dumps({"ops": {op: {"config": config}}}))
            arguments += ["-c", str(path)]
        return self.processes.run(arguments, self.variables)

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        """Dagster's own record of everything, read from its folder."""
        with dg.DagsterInstance.from_config(str(self.home)) as instance:
            yield instance

    def materializations(self) -> list[dict[str, Any]]:
        """Metadata of every materialization of `messages`, by label, the oldest first."""
        with self.instance() as instance:
            records = instance.fetch_materializations(MESSAGES, limit=1000, ascending=True).records
        return [plain(record.asset_materialization) for record in records]

    def hours(self) -> dict[str, list[dict[str, Any]]]:
        """Metadata of every materialization of `sealed_hours` by partition, the oldest first."""
        found: dict[str, list[dict[str, Any]]] = {}
        with self.instance() as instance:
            for record in instance.fetch_materializations(SEALED_HOURS, limit=1000, ascending=True).records:
                event = record.asset_materialization
                assert event is not None
                assert event.partition is not None
                found.setdefault(event.partition, []).append({"sentence": event.description, **plain(event)})
        return found

    def load(self) -> Ended:
        """Load the definitions as Dagster does, from `workspace.yaml`."""
        return self.dagster("definitions", "validate", "-w", str(CHECKOUT / "workspace.yaml"))

    def holds(self, text: str) -> list[str]:
        """The files of the whole deployment in which a text is found."""
        return [str(path) for path in self.base.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def run_config(**config: Any) -> dict[str, Any]:
    """The run config of the job `archive`."""
    return {"ops": {OP: {"config": config}}}


def wanted(topic: str, partition: int, start: int, end: int) -> dict[str, Any]:
    """An explicit range, as run config has it."""
    return {"topic": topic, "partition": partition, "start": start, "end": end}


def plain(event: dg.AssetMaterialization | dg.AssetObservation | None) -> dict[str, Any]:
    """The metadata of an event by label: a table as a list of its rows, anything else as its value."""
    assert event is not None
    return {
        label: [dict(row.data) for row in value.records] if isinstance(value, dg.TableMetadataValue) else value.value
        for label, value in event.metadata.items()
    }
