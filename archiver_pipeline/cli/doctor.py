"""`archiver doctor`."""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from archiver_pipeline.amounts import counted

if TYPE_CHECKING:
    from archiver_pipeline.doctor.round import Report

_MARKS = {"ok": "ok     ", "warning": "WARNING", "fault": "FAULT  ", "skipped": "-      "}
_COLOURS = {"ok": "green", "warning": "yellow", "fault": "red", "skipped": "bright_black"}


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Check everything that archiving needs: settings, broker, topics and ACLs, retention, storage, the archive and its
    format, clocks, disks, memory, followers, Schema Registry, and Dagster with its daemon and sensors.

    A line each: a mark, what was looked at, how it is, and below it what to do. Independent checks are made side by
    side, and each has 10 seconds: all of it takes 15 at most, or 40 where this machine is too busy to load Dagster.
    The storage is tried out with a scratch object of its own in `_doctor/`, which is removed again; nothing else is
    changed.

    Exit code 0: all is well, or there are warnings only. 1: a fault. 2: a setting is wrong or missing.

    **JSON**: good, seconds, findings (mark: ok, warning, fault or skipped; check, what, remedy).

    **Examples**

        archiver doctor
        archiver doctor --json | jq '.findings[] | select(.mark == "fault")'
    """
    from archiver_pipeline.cli.output import print_json
    from archiver_pipeline.cli.progress import looking
    from archiver_pipeline.doctor.checkup import examine, settings_or_report
    from archiver_pipeline.doctor.round import Report

    found = settings_or_report()
    logging.disable(logging.CRITICAL)  # What libraries complain of is in the findings.
    wrong = isinstance(found, Report)
    with looking("looking at settings, broker, storage, followers and Dagster"):
        report = found if isinstance(found, Report) else examine(found)
    if as_json:
        findings = [vars(finding) for finding in report.findings]
        print_json({"good": report.good, "seconds": round(report.seconds, 1), "findings": findings})
    else:
        _print(report)
    code = 2 if wrong else 0 if report.good else 1
    if report.hangs:
        # A client that hangs would keep the interpreter from ending.
        sys.stdout.flush()
        os._exit(code)
    raise typer.Exit(code)


def _print(report: Report) -> None:
    width = max(len(finding.check) for finding in report.findings)
    for finding in report.findings:
        mark = typer.style(_MARKS[finding.mark], fg=_COLOURS[finding.mark])
        typer.echo(f"{mark} {finding.check:{width}}  {finding.what}")
        if finding.remedy:
            typer.echo(f"{'':{9 + width}} → {finding.remedy}")
    counts = {mark: sum(finding.mark == mark for finding in report.findings) for mark in ("fault", "warning")}
    told = ", ".join(counted(count, mark) for mark, count in counts.items() if count)
    typer.echo(f"{told or 'all is well'}; {report.seconds:.1f} s")
