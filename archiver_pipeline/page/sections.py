"""The sections of the page, each from what one source told; one that tells nothing any more is marked as old."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from archiver_pipeline.amounts import counted, duration, size
from archiver_pipeline.page.calendar import calendar
from archiver_pipeline.page.charts import sparkline, throughput
from archiver_pipeline.page.hours_table import hours_table
from archiver_pipeline.page.markup import Html, at, joined, listed, shown, table, tag
from archiver_pipeline.page.standing import PartitionLag, Standing, TopicLag, topics_of
from archiver_pipeline.plan import RETENTION

MOST_ROWS = 50
"""So many topics, gaps or followers are shown; how many more there are is said."""

_FIRST_TOPICS = 8
_MOST_PARTITIONS = 20
_BATCHES = 5

_MEANINGS = {
    RETENTION: "Kafka deleted them before they were archived: they are lost",
    "topic made again": "the topic was deleted and made again: its messages go on under a new id",
}


def sections(standing: Standing) -> Html:
    """All sections, in the order in which one asks: figures, lag, throughput, hours, gaps, followers, runs."""
    return joined(_figures(standing), *(_section(standing, *told) for told in _SECTIONS))


def _section(standing: Standing, name: str, title: str, source: str, body: Callable[[Standing], Html]) -> Html:
    state = standing.sources.get(source)
    notes = []
    if state is not None and state.pending:
        notes.append(tag("p", "The first look at it has not ended.", class_="note"))
    elif state is not None and state.fault is not None:
        told: list[object] = ["No answer since this began to look, ", at(standing.began, standing.now), "."]
        if state.answered is not None:
            told = ["No answer; it answered last ", at(state.answered, standing.now), ". What is shown is from then."]
        notes.append(tag("p", *told, class_="note old"))
    content = body(standing)
    return tag("section", tag("h2", title, id=name), *notes, content, aria_labelledby=name)


def _figures(standing: Standing) -> Html:
    old = " (old)" if standing.fault("broker") else ""
    figures: list[tuple[object, object]] = []
    if standing.lag is not None:
        figures.append(("Lag, messages", f"{standing.lag:,}{old}"))
        figures.append(("Oldest waits", f"{_wait(standing, standing.waited, standing.lag)}{old}"))
    archive, files = standing.archive, standing.files
    if archive is not None and archive.batches:
        age = standing.now - archive.batches[-1].time.timestamp()
        figures.append(("Last batch", tag("span", f"{duration(max(0.0, age))} ago", class_="ago",
                                          data_at=f"{archive.batches[-1].time.timestamp():.0f}")))  # fmt: skip
    if archive is not None and archive.version >= 0:
        figures.append(("Archived, messages", f"{archive.ledger.messages:,}"))
    if files is not None and files.files:
        figures.append(("Files", f"{files.files:,}, {size(files.bytes)}"))
        sealed = sum(item.sealed for item in files.hours)
        figures.append(("Hours", f"{len(files.hours):,}, {sealed:,} sealed"))
        figures.append(("Types", f"{files.types:,}"))
    return listed(figures, class_="figures") if figures else Html("")


def _wait(standing: Standing, waited: float | None, lag: int) -> str:
    if not lag:
        return "nothing waits"
    if waited is None:
        return "not known"
    # One look does not see when a message came, only that it was after the archive had everything.
    return f"{'at most ' if standing.once else ''}{duration(waited)}"


def _lag(standing: Standing) -> Html:
    topics = topics_of(standing)
    if not topics:
        why = "The broker has not told of a topic yet." if standing.broker is None else "No topic is there yet."
        return tag("p", why if "broker" in standing.sources else "The broker was not asked.", class_="nothing")
    heads = ["topic", "lag, messages", "oldest waits", "last hour", "archived, messages", "partitions"]
    rows = [_topic_row(standing, item) for item in topics]
    if standing.once:
        # What the lag was before, nobody has seen.
        heads, rows = heads[:3] + heads[4:], [row[:3] + row[4:] for row in rows]
    numbers = [number for number, head in enumerate(heads) if head not in ("topic", "last hour")]
    first = min(MOST_ROWS, max(_FIRST_TOPICS, sum(item.lag > 0 for item in topics)))
    seen, folded = rows[:first], rows[first : first + MOST_ROWS]
    left = len(topics) - len(seen) - len(folded)
    words = (
        f"{counted(len(topics) - first, 'more topic')}, each with a lag of {topics[-1].lag:,} to {topics[first].lag:,}"
        if folded
        else ""
    )
    if folded and not topics[first].lag:
        words = f"{counted(len(topics) - first, 'more topic')} without a lag"
    more = tag("p", f"… and {left:,} more with a lag of that or less; /metrics has all.") if left else ""
    return joined(
        table("Lag of each topic, the largest first", heads, seen, numbers),
        _folded("topics", words, joined(table("More topics", heads, folded, numbers), more)) if folded else "",
        _partitions(standing),
    )


def _folded(key: str, words: str, content: Html) -> Html:
    return tag("details", tag("summary", words, data_key=key), content)


def _topic_row(standing: Standing, item: TopicLag) -> list[object]:
    behind = f"{item.partitions:,}" if not item.behind else f"{item.behind:,} of {item.partitions:,} behind"
    waited = _wait(standing, item.waited, item.lag) if item.lag else "–"
    return [item.topic, f"{item.lag:,}", waited, sparkline(item.history, standing.now), f"{item.archived:,}", behind]


def _partitions(standing: Standing) -> Html:
    every = standing.broker.partitions if standing.broker else ()
    behind = sorted((item for item in every if item.lag), key=lambda item: -item.lag)
    if not behind or len(every) == 1:
        return Html("")

    def row(item: PartitionLag) -> list[object]:
        return [f"{item.topic}/{item.partition}", f"{item.lag:,}", _wait(standing, item.waited, item.lag)]

    heads = ("partition", "lag, messages", "oldest waits")
    shown_rows = [row(item) for item in behind[:_MOST_PARTITIONS]]
    inner = table("Partitions that are behind, the largest lag first", heads, shown_rows, (1, 2))
    which = f"the {_MOST_PARTITIONS} furthest behind of {len(behind):,}" if len(behind) > _MOST_PARTITIONS else "all"
    words = f"{counted(len(behind), 'partition')} behind ({which})" if which == "all" else f"Partitions: {which}"
    return _folded("partitions", words, inner)


def _throughput(standing: Standing) -> Html:
    batches = standing.archive.batches if standing.archive else ()
    if not batches:
        return tag("p", "No batch has been committed yet.", class_="nothing")
    heads = ("committed", "messages", "payload", "files", "seconds", "messages/s", "run")
    rows = [
        (at(batch.time.timestamp(), standing.now), f"{batch.messages:,}", size(batch.bytes), f"{batch.files:,}",
         f"{batch.seconds:.1f}", f"{batch.rate:,.0f}", batch.run_id[:8] or "–")
        for batch in reversed(batches[-_BATCHES:])
    ]  # fmt: skip
    newest = table("The newest batches, the newest first", heads, rows, (1, 2, 3, 4, 5))
    words = f"The newest {counted(len(rows), 'batch', 'batches')}"
    return joined(throughput(batches, standing.now), _folded("batches", words, newest))


def _hours(standing: Standing) -> Html:
    if standing.files is None or standing.archive is None or not standing.files.hours:
        return tag("p", "No hour has a message yet.", class_="nothing")
    failures = standing.history.failures if standing.history else ()
    return hours_table(calendar(standing.files, standing.archive.ledger, failures, standing.now))


def _gaps(standing: Standing) -> Html:
    if standing.archive is None:
        return tag("p", "Not known yet.", class_="nothing")
    ledger = standing.archive.ledger
    told = []
    if ledger.given_up:
        hours = counted(sum(1 for lost in ledger.lost.values() if lost), "hour")
        lost = counted(ledger.given_up, "message")
        told.append(tag("p", f"{lost} of {hours} were lost with damaged files and given up; "
                             "the view losses has the hours."))  # fmt: skip
    if not ledger.gaps:
        return joined(tag("p", "None: every offset that was to be archived is there.", class_="nothing"), *told)
    newest = heapq.nlargest(MOST_ROWS, ledger.gaps, key=lambda item: item.time.timestamp() if item.time else 0.0)
    rows = [
        (f"{item.gap.at.topic}/{item.gap.at.partition}",
         at(item.time.timestamp(), standing.now) if item.time else "not known",
         f"{item.gap.start:,} to {max(item.gap.start, item.gap.end - 1):,}", f"{item.gap.end - item.gap.start:,}",
         item.gap.reason, _MEANINGS.get(item.gap.reason, ""))
        for item in newest
    ]  # fmt: skip
    heads = ("partition", "found", "offsets", "how many", "reason", "what it means")
    left = len(ledger.gaps) - MOST_ROWS
    more = tag("p", f"… and {left:,} older; the view gaps has all of them.") if left > 0 else ""
    return joined(table("Gaps, the newest first", heads, rows, (2, 3)), more, *told)


def _followers(standing: Standing) -> Html:
    if not standing.followers:
        return tag("p", "Nobody has told yet." if standing.followers is None else "None.", class_="nothing")
    rows = [
        (item.name, "–" if item.lag is None else f"{item.lag:,}", "–" if item.hours is None else f"{item.hours:,}",
         item.error or ("has everything" if not item.lag and not item.hours else "catches up"))
        for item in standing.followers[:MOST_ROWS]
    ]  # fmt: skip
    heads = ("follower", "lag, messages", "changed hours", "how it is")
    return table("What follows the archive, and how far it is behind", heads, rows, (1, 2))


def _runs(standing: Standing) -> Html:
    found = standing.history
    if "dagster" not in standing.sources:
        return tag("p", "DAGSTER_HOME is not set, and make dev has never run here.", class_="nothing")
    if found is None:
        return tag("p", "Nobody has told yet.", class_="nothing")
    now = ", ".join(f"{count:,} {state}" for state, count in found.active.items() if count) or "none"
    rows = [(run.job, at(run.ended, standing.now), run.run_id[:8], run.error or "–") for run in found.failures]
    failed = (
        table("Runs that failed, the newest first", ("job", "failed", "run", "error"), rows)
        if rows
        else tag("p", "No run on record has failed.", class_="nothing")
    )
    good = [(job, at(moment, standing.now)) for job, moment in sorted(found.successes.items())]
    beats: list[tuple[object, object]] = [
        (item.name, joined("alive" if item.healthy else "silent", ", ", at(item.heartbeat, standing.now)))
        for item in found.daemons
    ]
    return joined(
        failed,
        table("Runs that succeeded last", ("job", "succeeded"), good) if good else "",
        tag("p", f"Under way: {now}."),
        _folded("daemon", "Dagster's daemon, part by part", listed(beats)) if beats else "",
    )


def _about(standing: Standing) -> Html:
    archive = standing.archive
    told: list[tuple[object, object]] = [("archive", standing.address)]
    if archive is not None and archive.version >= 0:
        told.append(("table version, format", f"{archive.version:,}, {archive.format}"))
    told += [*standing.settings.items(), *standing.versions.items()]
    return listed(((name, shown(value)) for name, value in told), class_="about")


_SECTIONS: tuple[tuple[str, str, str, Callable[[Standing], Html]], ...] = (
    ("lag", "Lag", "broker", _lag),
    ("throughput", "Throughput", "archive", _throughput),
    ("hours", "Hours", "files", _hours),
    ("gaps", "Gaps and losses", "archive", _gaps),
    ("followers", "Followers", "followers", _followers),
    ("runs", "Runs", "dagster", _runs),
    ("about", "Settings and versions", "", _about),
)
