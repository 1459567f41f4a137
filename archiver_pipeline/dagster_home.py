"""Dagster's own record, looked at by others than Dagster: how its storage, daemon and sensors are."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from archiver_pipeline.errors import ArchiverError

if TYPE_CHECKING:
    from dagster import DagsterInstance

LATE_SECONDS = 90.0
"""Of each part of the daemon there is a sign every half minute."""

_CONNECT_SECONDS = 3.0
_SERVER = (
    "Is the storage that dagster.yaml names up, and are user and password right? The archive itself needs none of it"
)


class DagsterFault(ArchiverError):
    """Dagster's folder or storage is missing, cannot be read or does not answer."""


@dataclass(frozen=True)
class SensorHealth:
    """A sensor that has ticked, or that somebody has switched.

    Attributes:
        name: its name.
        stopped: whether it is switched off.
        tick_age: seconds since it last looked, None where that is not known.
        error: why its last tick failed, empty where it did not.
    """

    name: str
    stopped: bool
    tick_age: float | None
    error: str


@dataclass(frozen=True)
class Health:
    """How Dagster is.

    Attributes:
        kind: what its storage is.
        outdated: tables of an older Dagster, as `runs: 1a2b, should be 3c4d`.
        server_clock: our clock before and after a server of its own was asked for its time, and that time (seconds
            since 1970); None for files.
        switched_off: what of `dagster.yaml` is missing.
        queued, started: runs that wait, and that are at work.
        oldest_queued_seconds: how long the oldest of them has waited.
        beats: for each part of the daemon, seconds since there was a sign of it; none where it has never run.
        sensors: the sensors on record.
    """

    kind: str
    outdated: tuple[str, ...]
    server_clock: tuple[float, float, float] | None
    switched_off: tuple[str, ...]
    queued: int
    started: int
    oldest_queued_seconds: float
    beats: Mapping[str, float]
    sensors: tuple[SensorHealth, ...]


def home_of(base_dir: Path) -> Path | None:
    """Dagster's folder: `DAGSTER_HOME`, else that of `make dev` in BASE_DIR; None where neither is there."""
    if given := os.environ.get("DAGSTER_HOME"):
        return Path(given)
    usual = base_dir.absolute() / "dagster_home"
    return usual if usual.is_dir() else None


def opened(home: Path, mask: Callable[[str], str] = str) -> DagsterInstance:
    """Dagster's record in its folder, to be closed by `with` or by the end of the process; `mask` as for `reading`.

    Raises:
        DagsterFault: there is no such folder, its `dagster.yaml` is wrong, or its storage does not answer.
    """
    if not home.is_dir():
        raise DagsterFault("DAGSTER_HOME is no folder", path=str(home), hint="Set it to the one that Dagster runs with")
    _check_server(home)
    from dagster import DagsterInstance

    try:
        return DagsterInstance.from_config(str(home))
    except Exception as error:
        raise DagsterFault(
            f"Dagster's record cannot be opened: {_told(error, mask)}", path=str(home), hint=_SERVER
        ) from None


def _told(error: Exception, mask: Callable[[str], str]) -> str:
    """What a driver says; what Dagster says of a wrong configuration has all of it, a database's password too."""
    said = getattr(error, "orig", None) or getattr(error.__cause__, "orig", None)
    text = _brief(mask(str(said or "")))
    return text or f"{type(error).__name__}; `dagster instance info` says why"


def _brief(text: str) -> str:
    """The beginning of a text, as one line. Secrets are out of it before: half of one would be known to nobody."""
    return " ".join(text.split())[:300]


def read(home: Path, mask: Callable[[str], str] = str) -> Health:
    """Read how Dagster is, from its folder; `mask` takes secrets out of the text of errors.

    Raises:
        DagsterFault: the folder or its storage cannot be read, or does not answer.
    """
    with opened(home, mask) as instance, reading(home, mask):
        return _health(instance, mask)


@contextmanager
def reading(home: Path, mask: Callable[[str], str] = str) -> Iterator[None]:
    """Translate what Dagster's storages raise, which is what their drivers do; `mask` takes secrets out of it.

    Raises:
        DagsterFault: with the driver's words, but not the statement and its values.
    """
    try:
        yield
    except Exception as error:
        raise DagsterFault(
            f"Dagster's record cannot be read: {_told(error, mask)}", path=str(home), hint=_SERVER
        ) from error


def _check_server(home: Path) -> None:
    """Raise DagsterFault where the database server that `dagster.yaml` names takes no connection: Dagster itself would
    try for long."""
    import yaml  # it comes with Dagster

    try:
        content = yaml.safe_load((home / "dagster.yaml").read_text()) or {}
    except FileNotFoundError:
        return  # Dagster does without.
    except yaml.MarkedYAMLError as error:
        # Its text quotes the line, which may be the one with a password.
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise DagsterFault(f"dagster.yaml is no YAML{where}", path=str(home), hint="Mend the file") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        text = f"dagster.yaml cannot be read: {getattr(error, 'strerror', None) or type(error).__name__}"
        raise DagsterFault(text, path=str(home), hint="Mend the file") from None
    try:
        host, port = _server_of(content)
    except RecursionError:
        raise DagsterFault("dagster.yaml has no end", path=str(home), hint="Mend the file") from None
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), _CONNECT_SECONDS).close()
    except (OSError, UnicodeError, OverflowError) as error:
        told = f"PostgreSQL of Dagster does not answer at {host}:{port}: {getattr(error, 'strerror', None) or error}"
        raise DagsterFault(told, path=str(home), hint=_SERVER) from error


def _server_of(content: Any) -> tuple[str, str]:
    """Host and port of the PostgreSQL that `dagster.yaml` names, empty without one."""
    access = _within(content, "postgres_db")
    if isinstance(access, dict):
        return _plain(access.get("hostname")), _plain(access.get("port")) or "5432"
    try:
        parts = urlsplit(_plain(_within(content, "postgres_url")))
        return parts.hostname or "", str(parts.port or 5432)
    except ValueError:
        return "", ""


def _within(content: Any, name: str) -> Any:
    """The value of a name, however deep it lies."""
    if not isinstance(content, dict):
        return None
    return content[name] if name in content else next(filter(None, (_within(v, name) for v in content.values())), None)


def _plain(value: Any) -> str:
    """A value of `dagster.yaml`, which may stand in the environment."""
    return os.environ.get(str(value.get("env")), "") if isinstance(value, dict) else str(value or "")


def _health(instance: DagsterInstance, mask: Callable[[str], str]) -> Health:
    from dagster import DagsterRunStatus, RunsFilter

    now = time.time()
    waiting = instance.get_run_records(RunsFilter(statuses=[DagsterRunStatus.QUEUED]), limit=1, ascending=True)
    queued = instance.get_runs_count(RunsFilter(statuses=[DagsterRunStatus.QUEUED]))
    started = instance.get_runs_count(
        RunsFilter(statuses=[DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING])
    )
    beats = {name: max(0.0, now - beat.timestamp) for name, beat in instance.get_daemon_heartbeats().items()}
    needed = instance.get_required_daemon_types()
    storage: Any = instance.run_storage
    return Health(
        kind=type(storage).__name__.replace("RunStorage", "") or "unknown",
        outdated=tuple(_outdated(instance)),
        server_clock=_server_clock(storage),
        switched_off=tuple(_switched_off(instance)),
        queued=queued,
        started=started,
        oldest_queued_seconds=now - waiting[0].create_timestamp.timestamp() if waiting else 0.0,
        beats={name: age for name, age in beats.items() if name in needed},
        sensors=tuple(sensors_of(instance, now, mask)),
    )


def _outdated(instance: DagsterInstance) -> Iterator[str]:
    storages = {
        "runs": instance.run_storage,
        "events": instance.event_log_storage,
        "schedules": instance.schedule_storage,
    }
    for name, storage in storages.items():
        # A private answer of Dagster's storages, by which `dagster instance migrate` goes, too.
        ask: Any = getattr(storage, "alembic_version", None)
        found = ask() if ask is not None else None
        if found and found[0] != found[1]:
            yield f"{name}: {found[0]}, should be {found[1]}"


def _server_clock(storage: Any) -> tuple[float, float, float] | None:
    from sqlalchemy import text

    if "Postgres" not in type(storage).__name__:
        return None
    with storage.connect() as connection:
        before = time.time()
        said = float(connection.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())
        return before, time.time(), said


def _switched_off(instance: DagsterInstance) -> Iterator[str]:
    if not instance.run_monitoring_enabled:
        yield "run_monitoring: a run that died would count as started for ever"
    if not (instance.get_settings("retention") or {}).get("sensor"):
        yield "retention of sensors: their ticks, 8,640 rows a day each, would be kept for Dagster's own time"
    if "Queued" not in type(instance.run_coordinator).__name__:
        yield "the queue of run_coordinator: a backfill of 500 hours would be 500 processes at once"


def sensors_of(instance: DagsterInstance, now: float, mask: Callable[[str], str] = str) -> Iterator[SensorHealth]:
    """Yield the sensors that are on record, as of a time in seconds since 1970; `mask` takes secrets out of errors."""
    from dagster._core.definitions.run_request import InstigatorType
    from dagster._core.scheduler.instigation import InstigatorStatus, TickStatus

    for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
        ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
        last = ticks[0] if ticks else None
        error = ""
        if last is not None and last.status is TickStatus.FAILURE and last.error is not None:
            error = _brief(mask(last.error.message))
        age = None if last is None else max(0.0, now - last.timestamp)
        yield SensorHealth(state.instigator_name, state.status is InstigatorStatus.STOPPED, age, error)
