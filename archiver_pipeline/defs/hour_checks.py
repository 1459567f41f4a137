"""The checks on `sealed_hours`: is every hour whole, and are its fields those of the hour that was sealed before it?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from archiver_pipeline import envelope
from archiver_pipeline.amounts import counted
from archiver_pipeline.defs.hour_metadata import MAX_ROWS, SEALED_HOURS
from archiver_pipeline.hours import Hour
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.view import hour_fields
from archiver_pipeline.view.hour_fields import Change, HourFields

FIELDS = dg.AssetCheckSpec(
    "fields_are_stable",
    asset=SEALED_HOURS,
    description="No JSON field of a type has appeared, disappeared or changed its type since the hour sealed before.",
)
WHOLE = dg.AssetCheckSpec(
    "every_hour_is_whole",
    asset=SEALED_HOURS,
    description="No hour failed when it was last sealed or read again. One that did is named until it is mended.",
)
SPECS = (WHOLE, FIELDS)

_FAILED = "failed hours"
_HOURS = dg.TableSchema([dg.TableColumn("hour", "string"), dg.TableColumn("why", "string")])
_MOST = 20
_ANSWERED = {AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED}


@dataclass(frozen=True)
class TypeHour:
    """The fields of one type in one sealed hour, and in the one before it that has the type, if there is one."""

    type: str
    hour: Hour
    fields: HourFields
    before: HourFields | None = None

    @property
    def changes(self) -> list[Change]:
        """What is different."""
        return [] if self.before is None else hour_fields.changes(self.before, self.fields, self.type)


def look(archive: Archive, hours: Iterable[Hour]) -> Mapping[Hour, list[TypeHour]]:
    """Read what the sealed files of these hours, and of the ones before them, say of their fields; types in order."""
    sealed = _sealed_files(archive)
    pairs = _pairs(sealed, set(hours))
    places = {(name, at) for name, *both in pairs for at in both if at is not None}
    reports = _read(archive, {(name, at): sealed[name][at] for name, at in places})
    found: defaultdict[Hour, list[TypeHour]] = defaultdict(list)
    for name, hour, before in pairs:
        if (name, hour) in reports:
            past = None if before is None else reports.get((name, before))
            found[hour].append(TypeHour(name, hour, reports[name, hour], past))
    return found


def fields_are_stable(looked: Sequence[TypeHour]) -> dg.AssetCheckEvaluation:
    """The answer of the check for the hours of a run; of several answers a run gives, Dagster keeps the last one."""
    lines = [f"{item.hour}: {change.sentence()}" for item in looked for change in item.changes]
    compared = sum(item.before is not None for item in looked)
    told = f"{compared:,} types and hours have the fields of the hour before"
    return dg.AssetCheckEvaluation(
        asset_key=SEALED_HOURS,
        check_name=FIELDS.name,
        passed=not lines,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(lines[:20]) + (f"; and {len(lines) - 20:,} more" if len(lines) > 20 else "") or told,
        metadata={"changes": len(lines), "compared": compared, "sentences": "\n".join(lines[:MAX_ROWS])},
    )


def every_hour_is_whole(
    before: Mapping[str, str], done: Collection[Hour], failed: Mapping[str, str]
) -> dg.AssetCheckEvaluation:
    """The answer for all hours, by the one before it and what a run has done.

    Args:
        before: hours that had failed before, and why.
        done: those that were done by this run.
        failed: those that it left as they are, and why.
    """
    well = {hour.name for hour in done}
    now = {**{name: why for name, why in before.items() if name not in well}, **failed}
    kept = dict(sorted(now.items())[:MAX_ROWS])
    rows = [dg.TableRecord({"hour": name, "why": why}) for name, why in kept.items()]
    said = "; ".join(f"{name}: {why}" for name, why in list(kept.items())[:_MOST])
    more = f"; and {len(now) - _MOST:,} more" if len(now) > _MOST else ""
    hours = counted(len(now), "hour is", "hours are")
    advice = "Put right what each needs, then materialize these partitions of sealed_hours again."
    return dg.AssetCheckEvaluation(
        asset_key=SEALED_HOURS,
        check_name=WHOLE.name,
        passed=not now,
        description=f"{hours} not whole: {said}{more}. {advice}"
        if now
        else "No hour that was looked at lacks anything.",
        metadata={"hours": len(now), _FAILED: dg.MetadataValue.table(rows, schema=_HOURS)},
    )


def failed_before(instance: dg.DagsterInstance) -> Mapping[str, str]:
    """The hours that the newest answer of the check names as failed, and why; none where there is no answer."""
    records = instance.event_log_storage.get_asset_check_execution_history(WHOLE.key, limit=1, status=_ANSWERED)
    answer = records[0].evaluation if records else None
    kept = answer.metadata.get(_FAILED) if answer else None
    if not isinstance(kept, dg.TableMetadataValue):
        return {}
    return {str(row.data["hour"]): str(row.data["why"]) for row in kept.records}


def _sealed_files(archive: Archive) -> Mapping[str, Mapping[Hour, list[str]]]:
    """The sealed files of each type, by hour."""
    found: defaultdict[str, defaultdict[Hour, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path, type_name, dt, hr in archive.files().select("path", "type", "dt", "hr").iter_rows():
        if envelope.is_sealed(path):
            found[type_name][Hour(dt, hr)].append(path)
    return found


def _pairs(sealed: Mapping[str, Mapping[Hour, list[str]]], wanted: set[Hour]) -> list[tuple[str, Hour, Hour | None]]:
    """Each type and hour that is wanted, and the hour sealed before it; `_unknown` comes after none."""
    return [
        (name, hour, None if hour.number is None else before)
        for name, by_hour in sorted(sealed.items())
        for before, hour in pairwise([None, *sorted(by_hour)])
        if hour in wanted
    ]


def _read(archive: Archive, paths: Mapping[tuple[str, Hour], list[str]]) -> dict[tuple[str, Hour], HourFields]:
    """The reports in the files of types and hours; a file that cannot be read has none, others say what is wrong."""
    import duckdb

    every = {path: archive.storage.address(path) for files in paths.values() for path in files}
    with duckdb.connect() as connection:
        attached = archive.storage.attach(connection)
        with archive.reached():
            try:
                with attached.told():
                    reports = hour_fields.read(connection, list(every.values()))
            except (duckdb.Error, FileNotFoundError):
                reports = {}
                for path in every.values():
                    with suppress(duckdb.Error, FileNotFoundError), attached.told():
                        reports |= hour_fields.read(connection, [path])
    found = {at: [reports[every[path]] for path in files if every[path] in reports] for at, files in paths.items()}
    return {at: hour_fields.together(those) for at, those in found.items() if those}
