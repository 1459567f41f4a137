"""The verdict: how things stand in one sentence, and for each concern since when it is so, and what to do. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from archiver_pipeline.amounts import counted, duration
from archiver_pipeline.page.standing import Standing
from archiver_pipeline.plan import RETENTION
from archiver_pipeline.run_history import FailedRun, History

RECENT_SECONDS = 86_400.0
"""For so long a gap counts as news."""

DUE_SECONDS = 7_200.0
"""So long after its newest message came a closed hour may wait for sealing."""

OFF_SECONDS = 7 * 86_400.0
"""A daemon that is silent for so long was switched off on purpose: passes may come from cron."""

MANY_WAITS = 5
MANY_CONCERNS = 20
"""So many concerns of one kind are shown, such as topics that cannot be read; how many more there are is said."""

Level = Literal["fault", "warning", "quiet"]

_LOST = (
    "Raise `retention.ms` and `retention.bytes` of the topic, so that it outlasts any outage. The archive goes on "
    "behind the gap"
)
_DAEMON = "Start it again: `make dev`, `docker compose restart daemon`, or the service that runs it"
_RUNS = "Mend what the error names; the next run goes on from the committed offsets, and nothing is lost or doubled"


@dataclass(frozen=True)
class Concern:
    """Something that somebody should know.

    Attributes:
        level: `fault`, for somebody to look at now; `warning`, for the day; `quiet`, nothing is wrong.
        what: what is wrong, one sentence without a full stop.
        why: what was said of it, in the words of others; empty where there are none.
        since: since when, in seconds since 1970; None where nobody knows.
        do: what to do, with commands between backticks.
    """

    level: Level
    what: str
    why: str = ""
    since: float | None = None
    do: str = ""


@dataclass(frozen=True)
class Verdict:
    """How things stand.

    Attributes:
        level: that of the worst concern, `ok` without one, `pending` where nobody knows yet.
        sentence: one sentence.
        concerns: faults first, then warnings.
    """

    level: Literal["fault", "warning", "ok", "pending"]
    sentence: str
    concerns: tuple[Concern, ...]


def verdict(standing: Standing) -> Verdict:
    """Judge how things stand."""
    found = [_worst_first(look(standing)) for look in _LOOKS]
    loud = _worst_first(concern for every in found for concern in every if concern.level != "quiet")
    concerns = tuple(_worst_first(concern for every in found for concern in _bounded(every)))
    if loud:
        level: Literal["fault", "warning"] = "fault" if loud[0].level == "fault" else "warning"
        more = f", and {counted(len(loud) - 1, 'more concern')}" if len(loud) > 1 else ""
        return Verdict(level, f"{loud[0].what}{more}.", concerns)
    if standing.pending:
        return Verdict("pending", "Looking: the first answers are on their way.", concerns)
    if standing.archive is None or standing.archive.version < 0:
        return Verdict("pending", "Nothing is archived yet.", concerns)
    return Verdict("ok", f"All is well{_how_far(standing)}.", concerns)


def _worst_first(concerns: Iterable[Concern]) -> list[Concern]:
    order = ("fault", "warning", "quiet")
    return sorted(concerns, key=lambda concern: order.index(concern.level))


def _bounded(concerns: list[Concern]) -> list[Concern]:
    """The first of some concerns, and one that says how many more there are."""
    left = concerns[MANY_CONCERNS:]
    if not left:
        return concerns
    more = Concern(left[0].level, f"{counted(len(left), 'more concern')} like these", do="`archiver status` has all")
    return [*concerns[:MANY_CONCERNS], more]


def _how_far(standing: Standing) -> str:
    if standing.lag is None:
        return " with the archive; the broker was not asked"
    if standing.lag == 0:
        return ": the archive has everything that Kafka has"
    waited = f", the oldest for {duration(standing.waited)}" if standing.waited else ""
    return f": {counted(standing.lag, 'message')} on the way{waited}"


def _sources(standing: Standing) -> Iterator[Concern]:
    told: dict[str, tuple[Level, str, str]] = {
        "archive": (
            "fault",
            "The archive cannot be read",
            "Look at its disk or bucket and the credentials for it; `archiver doctor` says which of them it is",
        ),
        "broker": (
            "fault",
            "The broker does not answer",
            "`archiver doctor` tries address, TLS and login one by one. Nothing is lost as long as Kafka keeps its "
            "messages: archiving goes on by itself once it answers",
        ),
        "files": ("warning", "The table's files cannot be listed", "`archiver verify` names what is damaged"),
        "followers": ("warning", "Nobody tells how far the followers are", "`archiver status` asks each of them"),
        "dagster": (
            "warning",
            "Dagster's record cannot be read",
            "`DAGSTER_HOME` has to be that of the Dagster that runs the archiver, and its database reachable",
        ),
    }
    for name, (level, what, do) in told.items():
        if (fault := standing.fault(name)) is not None:
            began = None if standing.once else standing.began
            yield Concern(level, what, fault, standing.sources[name].answered or began, do)


def _progress(standing: Standing) -> Iterator[Concern]:
    since = standing.now - standing.waited if standing.waited else None
    for reason in standing.reasons:
        what = "Messages are not archived in time"
        do = "Look at the runs below, then at `archiver doctor`. If runs go through, more `ARCHIVER_LANES` read faster"
        yield Concern("fault", what, reason, since, do)
    if standing.broker is not None and not standing.fault("broker"):
        for sentence in standing.broker.unreadable:
            yield Concern("warning", "A topic cannot be read; the others go on", sentence)


def _waits(standing: Standing) -> Iterator[Concern]:
    waits = standing.archive.waits if standing.archive else ()
    for wait in waits[:MANY_WAITS]:
        what = f"{wait.topic}/{wait.partition} waits at offset {wait.offset:,} for schema {wait.schema}"
        do = "Bring the registry or the schema back: the next run goes on. Nothing is skipped meanwhile"
        yield Concern("fault", what, wait.why, datetime.fromisoformat(wait.since).timestamp(), do)
    if len(waits) > MANY_WAITS:
        yield Concern("fault", f"{counted(len(waits) - MANY_WAITS, 'more partition')} wait for schemas")


def _gaps(standing: Standing) -> Iterator[Concern]:
    recent: dict[str, list[tuple[float, int]]] = {}
    for recorded in standing.archive.ledger.gaps if standing.archive else ():
        gap, found = recorded.gap, recorded.time.timestamp() if recorded.time else 0.0
        if gap.reason == RETENTION and standing.now - found <= RECENT_SECONDS:
            recent.setdefault(gap.at.topic, []).append((found, gap.end - gap.start))
    for topic, every in recent.items():
        lost = counted(sum(offsets for _, offsets in every), "offset")
        what = f"Kafka deleted {lost} of {topic} before they were archived"
        yield Concern("fault", what, since=min(found for found, _ in every), do=_LOST)


def _erasures(standing: Standing) -> Iterator[Concern]:
    for began in standing.archive.interrupted if standing.archive else ():
        do = "`archiver erase --resume` finishes it"
        yield Concern("warning", "An erasure was interrupted", since=began.timestamp(), do=do)


def _followers(standing: Standing) -> Iterator[Concern]:
    for item in standing.followers or ():
        if item.error:
            do = "Mend its server: it catches up by itself, and the archive does not wait for it"
            yield Concern("warning", f"The follower {item.name} does not answer", item.error, do=do)


def _hours(standing: Standing) -> Iterator[Concern]:
    if standing.files is None or not standing.files.due:
        return
    added = {item.hour: item.added / 1000 for item in standing.files.hours}
    # Not since the hour's end: one of long ago may have come just now.
    waits = [added.get(item.hour, standing.now) for item in standing.files.due]
    late = [begun for begun in waits if standing.now - begun > DUE_SECONDS]
    if late:
        what = f"{counted(len(late), 'closed hour')} wait{'s' if len(late) == 1 else ''} for sealing"
        do = "`seal_sensor` says why it skips; `dagster job execute -m archiver_pipeline.definitions -j seal` seals all"
        yield Concern("warning", what, since=min(late), do=do)


def _dagster(standing: Standing) -> Iterator[Concern]:
    found = standing.history
    if found is None or standing.fault("dagster"):
        return
    silent = [daemon for daemon in found.daemons if not daemon.healthy]
    if silent:
        newest = max(daemon.heartbeat for daemon in silent)
        names = ", ".join(daemon.name for daemon in silent)
        level: Level = "fault" if standing.now - newest < OFF_SECONDS else "quiet"
        yield Concern(level, "Dagster's daemon is silent, so no run begins by itself", names, newest, _DAEMON)
    for sensor in found.sensors:
        if sensor.stopped:
            yield Concern("warning", f"The sensor {sensor.name} is switched off", do="Switch it on in Dagster's UI")
        elif sensor.error:
            yield Concern(
                "warning", f"The last tick of {sensor.name} failed", sensor.error, do="See its ticks in the UI"
            )
    for run in lasting_failures(found):
        yield Concern("warning", f"The last run of the job {run.job} failed", run.error, run.ended, _RUNS)


def lasting_failures(found: History) -> list[FailedRun]:
    """For each job the newest run that failed, unless one has succeeded since."""
    newest: dict[str, FailedRun] = {}
    for run in found.failures:
        if run.ended > max(found.successes.get(run.job, 0.0), newest[run.job].ended if run.job in newest else 0.0):
            newest[run.job] = run
    return list(newest.values())


def _nothing_yet(standing: Standing) -> Iterator[Concern]:
    if standing.archive is not None and standing.archive.version < 0:
        do = "The first run makes the archive: start `make dev`, or `make demo` to see it work"
        yield Concern("quiet", f"There is no archive yet at {standing.address}", do=do)
    if "broker" not in standing.sources:
        do = "Set `ARCHIVER_TOPICS` and `KAFKA_BOOTSTRAP_SERVERS`, and the lag is shown, too"
        yield Concern("quiet", "No topics are named, so no broker was asked", do=do)


_LOOKS: tuple[Callable[[Standing], Iterator[Concern]], ...] = (
    _sources, _progress, _waits, _gaps, _dagster, _erasures, _followers, _hours, _nothing_yet
)  # fmt: skip
