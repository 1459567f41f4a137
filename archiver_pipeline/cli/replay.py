"""`archiver replay`."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archiver_pipeline.amounts import counted
from archiver_pipeline.cli.output import say

if TYPE_CHECKING:
    from archiver_pipeline.replay.check import Checked
    from archiver_pipeline.replay.replayer import Replayer, Summary

_STEPS = {"survey": "messages looked at", "messages": "messages sent", "check": "messages compared"}


def command(
    start: Annotated[str, typer.Option("--from", metavar="TIME", help="First message time, ISO; UTC.")] = "",
    end: Annotated[str, typer.Option("--to", metavar="TIME", help="End of message times, not included.")] = "",
    every: Annotated[
        bool, typer.Option("--all", help="All of the archive, also messages without a usable time.")
    ] = False,
    topics: Annotated[
        str | None, typer.Option("--topics", metavar="NAMES", help="Of these topics, comma-separated; all by default.")
    ] = None,
    types: Annotated[
        str | None, typer.Option("--types", metavar="NAMES", help='Of these types; one with a comma in "quotes".')
    ] = None,
    to_topic: Annotated[
        str, typer.Option(metavar="NAME", help="Send all there, instead of to the topics that they came from.")
    ] = "",
    bootstrap_servers: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Another cluster; other KAFKA_* properties stay.")
    ] = "",
    by_key: Annotated[
        bool, typer.Option("--by-key", help="Choose the partition by key, as Java's clients do, not the same one.")
    ] = False,
    rate: Annotated[float, typer.Option(min=0, help="Messages per second; 0 is as fast as possible.")] = 0,
    original_pace: Annotated[
        bool, typer.Option("--original-pace", help="Keep the distances in time between messages.")
    ] = False,
    create_topics: Annotated[
        bool, typer.Option("--create-topics", help="Make missing topics, which take and keep these messages.")
    ] = False,
    despite_retention: Annotated[
        bool, typer.Option("--despite-retention", help="Send also what Kafka would soon delete by its age or size.")
    ] = False,
    without_times: Annotated[
        bool, typer.Option("--without-times", help="Send messages whose time no client can send without one.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be sent, and what of the topics is in the way.")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="Send once more what was sent whole before.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Afterwards read all back and compare it with the archive, in order.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Send archived messages back to Kafka: key, payload, headers, time and order as they were, to the same partition.

    Run the same command again after a kill or an error: it goes on where it stopped, and sends nothing twice. How far
    it is lies in the topic `archiver-replays` of the cluster that it sends to. Whether the topics take and keep every
    message is said before the first one is sent. What goes to a topic that is archived is recorded as archived: it is
    not archived a second time. Erased messages are never sent. Consumers have to read `read_committed`.

    The pace is no part of the command: another run may have another one. At the original pace late messages go at once,
    for they are behind those around them.

    **JSON**: good, id, messages, before, sent, seconds, rate, topics, recorded, newer, partitions (with --check: topic,
    partition, equal, and messages and digest of archive and kafka).

    **Examples**

        archiver replay --from 2019-08-01T03:00 --to 2019-08-01T04:00 --topics orders --to-topic orders-again
        archiver replay --all --create-topics --check
        archiver replay --from 2019-08-01 --to 2019-08-02 --bootstrap-servers staging:9092 --rate 500
        archiver replay --from 2019-08-01 --to 2019-08-02 --types object.one --to-topic demo --original-pace
    """
    from archiver_pipeline.cli.output import print_json, times
    from archiver_pipeline.cli.progress import progress
    from archiver_pipeline.envelope import ERASED
    from archiver_pipeline.errors import WrongUsage
    from archiver_pipeline.export.target import names
    from archiver_pipeline.replay import check as checks
    from archiver_pipeline.replay.replayer import Replayer
    from archiver_pipeline.replay.wanted import Wanted
    from archiver_pipeline.settings.settings import load
    from archiver_pipeline.settings.types import is_topic
    from archiver_pipeline.stored.selected import Selected
    from archiver_pipeline.stored.selection import Selection
    from archiver_pipeline.table.archive import archive_of

    if rate and original_pace:
        raise WrongUsage("--original-pace is given with --rate: allowed is one of --rate and --original-pace")
    if to_topic and not is_topic(to_topic):
        raise WrongUsage(f"--to-topic is {to_topic!r}: allowed is a topic's name")
    first, last = times(start, end, every=every)
    settings = load()
    moment = Selected(archive_of(settings), Selection())
    selection = Selection(
        first,
        last,
        names("--topics", topics, {at.topic for at in moment.places}, "topic"),
        names("--types", types, moment.types - {ERASED}, "type"),
    )
    if not bootstrap_servers:
        settings.require_broker()
    wanted = Wanted(
        selection,
        to_topic,
        by_key=by_key,
        rate=rate,
        original_pace=original_pace,
        create_topics=create_topics,
        despite_retention=despite_retention,
        without_times=without_times,
        again=again,
    )
    going_on = "nothing was sent" if dry_run else "the same command goes on behind them, and sends nothing twice"
    with progress(_STEPS, going_on) as on_progress:
        replayer = Replayer(settings, wanted, bootstrap_servers, on_progress)
        if dry_run:
            _print_look(replayer, as_json=as_json)
            return
        done = replayer.run()
        if not as_json:
            _print(done)
        compared = checks.check(replayer, done.position, on_progress) if check else []
    good = all(item.equal for item in compared)
    if as_json:
        print_json(_document(done, compared, good))
    else:
        _print_compared(compared)
    if not good:
        raise typer.Exit(1)


def _print_look(replayer: Replayer, *, as_json: bool) -> None:
    from archiver_pipeline.cli.output import print_json

    survey = replayer.look()
    rows = []
    for topic in sorted({at.topic for at in survey.places}):
        target, found = replayer.wanted.target(topic), survey.measures(topic)
        rows.append({"topic": topic, "to_topic": target, "messages": found.messages, "bytes": found.bytes})
        if not as_json:
            say(f"{counted(found.messages, 'message')} of topic {topic} would go to topic {target}")
    if as_json:
        print_json({"good": True, "dry_run": True, "topics": rows})
    say("nothing was sent", file=sys.stderr)


def _document(done: Summary, compared: list[Checked], good: bool) -> dict[str, Any]:
    fields = {name: value for name, value in vars(done).items() if name != "position"}
    rate = round(done.sent / done.seconds, 1) if done.seconds else 0.0
    rows = [{**asdict(item), "equal": item.equal} for item in compared]
    return {"good": good, **fields, "seconds": round(done.seconds, 3), "rate": rate, "partitions": rows}


def _print(done: Summary) -> None:
    topics = ", ".join(done.topics) or "no topic"
    if not done.messages:
        say("nothing was sent: the archive has no such messages")
    elif not done.sent:
        newer = "all of it once more, and what was archived since" if done.newer else "it once more"
        say(
            f"nothing was sent: all {counted(done.messages, 'message')} were sent to {topics} before; --again sends "
            f"{newer}"
        )
    else:
        before = f" after {done.before:,} that were sent before" if done.before else ""
        rate = done.sent / done.seconds if done.seconds else 0
        say(f"{counted(done.sent, 'message')} sent to {topics}{before}, in {done.seconds:.1f} s, {rate:,.0f} a second")
    if done.recorded:
        say(f"recorded as archived already: {', '.join(done.recorded)}")
    sys.stdout.flush()


def _print_compared(compared: list[Checked]) -> None:
    for item in compared:
        place = f"topic {item.topic}" + ("" if item.partition is None else f", partition {item.partition}")
        order = " in any order" if item.partition is None else ""
        if item.equal:
            say(f"{place}: equal{order}, {counted(item.in_kafka, 'message')}, digest {item.kafka_digest[:16]}")
        else:
            say(
                f"{place}: NOT equal{order}: the archive has {counted(item.in_archive, 'message')} "
                f"({item.archive_digest[:16]}),"
                f" Kafka {item.in_kafka:,} ({item.kafka_digest[:16]})"
            )
    sys.stdout.flush()
