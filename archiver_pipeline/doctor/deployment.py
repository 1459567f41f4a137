"""Dagster: its folder, its storage, its daemon and sensors, and whether it loads the definitions."""

from __future__ import annotations

import os
import runpy
from collections.abc import Iterator

from archiver_pipeline import dagster_home
from archiver_pipeline.amounts import counted
from archiver_pipeline.doctor import clock
from archiver_pipeline.doctor.finding import Finding, fault, good, warning
from archiver_pipeline.doctor.patient import Patient

_STUCK_SECONDS = 600.0
_SILENT_SECONDS = 300.0


def home(patient: Patient) -> Iterator[Finding]:
    """Whether Dagster's folder is there, with its settings. Raises DagsterFault."""
    given, path = os.environ.get("DAGSTER_HOME"), dagster_home.home_of(patient.settings.base_dir)
    ours = "Copy deploy/dagster.yaml there: mkdir -p $DAGSTER_HOME && cp -n deploy/dagster.yaml $DAGSTER_HOME"
    if path is None:
        told = "DAGSTER_HOME is not set, and BASE_DIR has no dagster_home: runs are not kept"
        yield warning("dagster home", told, f"make dev makes it; for cron set DAGSTER_HOME to one of its own. {ours}")
        return
    if given and not path.is_absolute():
        raise dagster_home.DagsterFault("DAGSTER_HOME is no absolute path", path=given, hint="Give the whole path")
    if not path.is_dir():
        raise dagster_home.DagsterFault("DAGSTER_HOME is no folder", path=str(path), hint=ours)
    if not (path / "dagster.yaml").is_file():
        told = "there is no dagster.yaml: runs would not be watched, queued or forgotten"
        raise dagster_home.DagsterFault(told, path=str(path), hint=ours)
    if not os.access(path, os.W_OK):
        yield fault("dagster home", f"{path} cannot be written", "Make it writable for this user")
    yield good("dagster home", f"{path} has a dagster.yaml")


def record(patient: Patient) -> Iterator[Finding]:
    """Whether Dagster's storage answers and is of its release, and daemon and sensors work. Raises DagsterFault."""
    path = dagster_home.home_of(patient.settings.base_dir)
    if path is None:
        return
    found = dagster_home.read(path, patient.settings.mask)
    if found.outdated:
        told = f"the tables of Dagster's storage are older than Dagster: {', '.join(found.outdated)}"
        yield fault("dagster", told, "Stop Dagster, then run `dagster instance migrate` with this DAGSTER_HOME")
    else:
        under_way = found.queued + found.started
        yield good("dagster", f"its storage ({found.kind}) answers, {counted(under_way, 'run')} under way")
    if found.server_clock is not None:
        yield from clock.compared("Dagster's PostgreSQL", *found.server_clock)
    for missing in found.switched_off:
        yield warning("dagster", f"dagster.yaml does not switch on {missing}", "Take it over from deploy/dagster.yaml")
    if found.oldest_queued_seconds > _STUCK_SECONDS and not found.started:
        waited = counted(round(found.oldest_queued_seconds / 60), "minute")
        told = f"{counted(found.queued, 'run waits', 'runs wait')} in the queue, one for {waited}"
        yield fault("dagster", told, "See whether its daemon runs, and the limits of run_coordinator in dagster.yaml")
    yield from _daemon(found)
    yield from _sensors(found)


def _daemon(found: dagster_home.Health) -> Iterator[Finding]:
    if not found.beats:
        told = "its daemon has never run: nothing is archived by itself"
        yield warning("daemon", told, "Start it (make dev, or dagster-daemon run), or run the job archive by cron")
        return
    late = {name: age for name, age in found.beats.items() if age > dagster_home.LATE_SECONDS}
    if late:
        told = f"its daemon is not running: no sign of {', '.join(sorted(late))} for {max(late.values()):,.0f} s"
        yield fault("daemon", told, "Start it: make dev, or dagster-daemon run with this DAGSTER_HOME")
        return
    yield good("daemon", f"each part of it was heard of in the last {max(found.beats.values()):.0f} s")


def _sensors(found: dagster_home.Health) -> Iterator[Finding]:
    for sensor in found.sensors:
        if sensor.stopped:
            told = f"{sensor.name} is switched off: nothing starts its runs"
            yield warning("sensors", told, f"Switch it on in the UI, or `dagster sensor start {sensor.name}`")
        elif sensor.error:
            yield fault("sensors", f"{sensor.name} fails: {sensor.error}", "See its ticks in the UI")
        elif sensor.tick_age is not None and sensor.tick_age > _SILENT_SECONDS:
            told = f"{sensor.name} has not looked for {counted(round(sensor.tick_age / 60), 'minute')}"
            yield warning("sensors", told, "See whether daemon and code server run")
    names = [sensor.name for sensor in found.sensors if not sensor.stopped and not sensor.error]
    if names:
        yield good("sensors", f"switched on: {', '.join(sorted(names))}")


def location(_: Patient) -> Iterator[Finding]:
    """Whether the definitions can be loaded, as the code server does it."""
    try:
        # Run and not imported: nothing of them is to stay, and no module of this package knows them.
        runpy.run_module("archiver_pipeline.definitions")
    except Exception as error:  # They raise whatever Dagster, settings and archive do.
        told = f"the definitions cannot be loaded: {' '.join(str(error).split())[:300] or type(error).__name__}"
        yield fault("code location", told, "Run `dagster definitions validate -w workspace.yaml` for the whole of it")
    else:
        yield good("code location", "archiver_pipeline.definitions loads")
