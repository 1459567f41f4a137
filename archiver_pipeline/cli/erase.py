"""`archiver erase`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archiver_pipeline.amounts import counted
from archiver_pipeline.cli.output import say
from archiver_pipeline.errors import WrongUsage

if TYPE_CHECKING:
    from archiver_pipeline.erasure import Erased, Erasure, Found
    from archiver_pipeline.rewrites.predicate import Predicate
    from archiver_pipeline.settings.settings import Settings
    from archiver_pipeline.stored.erasure_plan import ErasurePlan

_STEPS = {
    "files": "files checked",
    "look": "looking through the messages",
    "hours": "hours done",
    "wait": "waiting for seals and backfills that are at work",
    "follow": "bringing what follows the archive in line",
}


def command(
    where: Annotated[str, typer.Option("--where", metavar="SQL", help="Which messages: SQL over messages.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be erased.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    everything: Annotated[
        bool, typer.Option("--everything", help="With --yes: go on although every message matches.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Only finish erasures that were interrupted.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Erase messages for good: their files are written anew without them, the old ones removed at once, and whatever
    follows the archive is brought in line. There is no way back.

    The condition is SQL over the columns of messages, as in archiver sql. Of what matches, identity and time stay as
    rows of the type _erased: so nothing ever brings it back, and the archive still knows that nothing is missing. What
    is archived after the command began is not looked at. A message on which the condition fails, such as one that is no
    JSON, stays and is counted.

    An erasure that was interrupted is finished by the next one, or with --resume. The condition itself, which names
    somebody, is stored nowhere: the view erasures has its SHA-256. Kafka keeps what it has until its retention.

    **JSON**: good, dry_run, erased, hours, files_rewritten, files, bytes_rewritten, bytes, matched (topic, type,
    messages, first, last), unjudged, seconds, followers (name, hours, error), faults, resumed, predicate_hash.

    **Examples**

        archiver erase --dry-run --where "value->>'$.uid' = 'u4711'"
        archiver erase --where "key = 'u4711'::BLOB OR value->>'$.uid' = 'u4711'"
        archiver erase --yes --where "topic = 'orders' AND value LIKE '%u4711%'" --json
        archiver erase --resume
    """
    from archiver_pipeline.cli.output import print_json
    from archiver_pipeline.erasure import begun
    from archiver_pipeline.rewrites.predicate import Predicate
    from archiver_pipeline.settings.settings import load

    if resume == bool(where.strip()) or (resume and dry_run):
        given = "--resume is given with another option" if resume else "--where is not given"
        raise WrongUsage(f"{given}: give a condition, or --resume alone")
    if not (yes or dry_run or resume or sys.stdin.isatty()):
        raise WrongUsage("--yes is not given, and there is no terminal to ask at: give it, or --dry-run to look")
    settings = load()
    with begun(settings) as erasure:
        resumed = [] if dry_run else _resumed(erasure)
        if resume:
            told = {"good": all(item.good for item in resumed), "resumed": [_row(item) for item in resumed]}
            if not resumed:
                _say("no erasure was interrupted")
        else:
            told = _erase(erasure, Predicate(where), dry_run=dry_run, yes=yes, everything=everything, quiet=as_json)
            told |= {"resumed": [_row(item) for item in resumed]}
            told["good"] = told["good"] and all(item.good for item in resumed)
        if any(item.messages for item in resumed) or told.get("erased"):
            _say_of_kafka(erasure, settings)
    if as_json:
        print_json(told)
    if not told["good"]:
        raise typer.Exit(1)


def _resumed(erasure: Erasure) -> list[Erased]:
    """Finish what was interrupted."""
    found = []
    for plan in erasure.interrupted():
        _say(f"an erasure of {plan.started:%Y-%m-%d %H:%M:%S} UTC was interrupted and is finished now")
        found.append(_do(erasure, plan))
        _sum_up(found[-1], None)
    return found


def _erase(
    erasure: Erasure, predicate: Predicate, *, dry_run: bool, yes: bool, everything: bool, quiet: bool
) -> dict[str, Any]:
    """Look, ask, erase; return what --json prints of it."""
    from archiver_pipeline.cli.progress import progress

    with progress(_STEPS, "nothing was changed") as on_progress:
        found = erasure.look(predicate, on_progress)
    if not quiet:
        _print_found(found)
    _say_unjudged(found)
    if dry_run:
        for plan in erasure.interrupted():
            _say(f"an erasure of {plan.started:%Y-%m-%d %H:%M:%S} UTC was interrupted: `archiver erase --resume`")
        _say("nothing was changed")
        return _told(found, predicate, None) | {"dry_run": True}
    if not found.matches.messages:
        _say("nothing was changed")
        return _told(found, predicate, None)
    if not _is_meant(found, yes=yes, everything=everything):
        _say("nothing was changed")
        raise typer.Exit(1)
    done = _do(erasure, erasure.confirm(predicate, found))
    _sum_up(done, found)
    return _told(found, predicate, done)


def _is_meant(found: Found, *, yes: bool, everything: bool) -> bool:
    """Ask, unless that was answered already."""
    count = counted(found.matches.messages, "message")
    if found.matches.everything and not (yes and everything):
        if sys.stdin.isatty():
            return typer.confirm(f"The condition matches EVERY message. Erase all {count} for good?", err=True)
        if not everything:
            raise WrongUsage(
                f"--where matches every message, {found.matches.messages:,} in all: give --everything if that is meant"
            )
    return yes or typer.confirm(f"Erase {count} for good?", err=True)


def _do(erasure: Erasure, plan: ErasurePlan) -> Erased:
    from archiver_pipeline.cli.progress import progress

    try:
        with progress(_STEPS) as on_progress:
            return erasure.do(plan, on_progress)
    except BaseException:
        _say("the erasure came to no end: `archiver erase --resume` finishes it")
        raise


def _print_found(found: Found) -> None:
    for item in found.matches.found:
        time = f", {item.first} to {item.last} UTC" if item.first else ""
        say(f"topic {item.topic}, type {item.type}: {counted(item.messages, 'message')}{time}")
    matches = found.matches
    what = f"{counted(matches.messages, 'message')} in {counted(matches.hours, 'hour')}" if matches.messages else "none"
    say(f"{what} of {matches.judged:,} match", flush=True)


def _say_unjudged(found: Found) -> None:
    if found.matches.unjudged:
        _say(
            f"{counted(found.matches.unjudged, 'message')} could not be judged, such as one that is no JSON or no "
            "UTF-8, and will stay. To find them, too, compare text, with what you look for in place of the dots: "
            "value LIKE '%…%' OR value_bytes::VARCHAR LIKE '%…%'"
        )


def _sum_up(done: Erased, found: Found | None) -> None:
    from archiver_pipeline.amounts import duration

    hours = sum(hour.version is not None for hour in done.hours)
    files = f"{done.files:,} of {counted(found.files, 'file')}" if found else counted(done.files, "file")
    share = f" ({100 * done.bytes / max(1, found.bytes):.1f} % of the archive's bytes)" if found else ""
    _say(
        f"{counted(done.messages, 'message')} erased in {counted(hours, 'hour')}: {files}{share} rewritten in "
        f"{duration(done.seconds)}"
    )
    if gone := sum(hour.gone for hour in done.hours):
        _say(f"{counted(gone, 'message')} had been lost and given up meanwhile")
    for fault in _faults(done):
        _say(fault)


def _faults(done: Erased) -> list[str]:
    """A sentence for whatever is left to be done."""
    faults = [hour.fault for hour in done.hours if hour.fault]
    if faults:
        faults.append("some hours are left: mend them, then `archiver erase --resume`")
    if done.busy:
        faults.append(
            f"{', '.join(done.busy)} began before and still has such messages in its hands: `archiver erase --resume` "
            "when it is over"
        )
    faults += [
        f"{path} is known to nobody and may hold such messages: look at it and remove it" for path in done.unknown
    ]
    return faults + [f"{each.name} was not reached in full: {each.error}" for each in done.followers if each.error]


def _say_of_kafka(erasure: Erasure, settings: Settings) -> None:
    """Say what others keep."""
    if erasure.kafka_has() is not False:
        who = (
            "Kafka and the results topic keep what they have until their"
            if settings.results_topic
            else ("Kafka keeps what it has until its")
        )
        _say(f"{who} retention; copies of the archive stay as they are")


def _told(found: Found, predicate: Predicate, done: Erased | None) -> dict[str, Any]:
    nothing = {"erased": 0, "hours": 0, "files_rewritten": 0, "bytes_rewritten": 0, "seconds": 0.0}
    return {
        "good": True,
        "dry_run": False,
        **(_row(done) if done else {**nothing, "followers": [], "faults": [], "predicate_hash": predicate.digest}),
        "files": found.files,
        "bytes": found.bytes,
        "matched": [asdict(item) for item in found.matches.found],
        "unjudged": found.matches.unjudged,
    }


def _row(done: Erased) -> dict[str, Any]:
    return {
        "good": done.good,
        "erased": done.messages,
        "hours": sum(hour.version is not None for hour in done.hours),
        "files_rewritten": done.files,
        "bytes_rewritten": done.bytes,
        "seconds": round(done.seconds, 3),
        "followers": [asdict(each) for each in done.followers],
        "faults": _faults(done),
        "predicate_hash": done.plan.predicate_hash,
    }


def _say(text: str) -> None:
    say(text, file=sys.stderr, flush=True)
