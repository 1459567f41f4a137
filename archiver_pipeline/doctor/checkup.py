"""All checks there are, in the order in which they are told."""

from __future__ import annotations

from archiver_pipeline.doctor import archive, deployment, disk, kafka, machine, servers, storage
from archiver_pipeline.doctor.finding import fault, good, skipped
from archiver_pipeline.doctor.patient import Patient
from archiver_pipeline.doctor.round import Check, Report, make_round
from archiver_pipeline.errors import SettingsError
from archiver_pipeline.settings.settings import Settings, load

_REMEDY = "Correct the setting; all else is looked at once it is right"


def checks(patient: Patient) -> list[Check]:
    """The checks of a patient; each stands behind those that it needs."""
    return [
        Check("settings", lambda: [good("settings", f"archives {', '.join(patient.settings.topics)}")]),
        Check("versions", lambda: machine.versions(patient)),
        Check("memory", lambda: machine.memory(patient)),
        Check("disk", lambda: disk.disk(patient)),
        Check("storage", lambda: storage.storage(patient)),
        Check("archive", lambda: archive.archive(patient)),
        Check("types", lambda: archive.types(patient), ("archive",), local=True),
        Check("view", lambda: archive.duckdb_view(patient), ("archive",)),
        Check("broker", lambda: kafka.broker(patient)),
        # The archive comes first, well or not: what waits is counted from what it has.
        Check("topics", lambda: kafka.topics(patient), ("broker",), ("archive",)),
        Check("retention", lambda: kafka.retention(patient), ("topics",)),
        Check("results", lambda: kafka.results(patient), ("broker",)),
        Check("registry", lambda: servers.registry(patient)),
        Check("mysql", lambda: servers.mysql(patient)),
        Check("search", lambda: servers.search(patient)),
        Check("followers", lambda: servers.followers(patient), ("archive",)),
        Check("dagster home", lambda: deployment.home(patient)),
        Check("dagster", lambda: deployment.record(patient), ("dagster home",), local=True),
        Check("code location", lambda: deployment.location(patient), after=("dagster",), local=True),
    ]


def settings_or_report() -> Settings | Report:
    """The settings; or, where one is wrong or missing, a report that says so and looks at nothing else."""
    try:
        found = load()
        found.require_kafka()
    except SettingsError as error:
        return Report((fault("settings", str(error), _REMEDY), skipped("all else", "not looked at")), 0.0)
    return found


def examine(settings: Settings) -> Report:
    """Make all checks."""
    return make_round(checks(Patient(settings)), settings.mask)
