"""The broker: whether it lets the archiver in, and what of its topics is in the way."""

from __future__ import annotations

import time
from collections.abc import Iterator

from archiver_pipeline.amounts import counted
from archiver_pipeline.doctor.finding import Finding, fault, good, of_error, warning
from archiver_pipeline.doctor.patient import BROKER_SECONDS, Patient
from archiver_pipeline.errors import AccessDenied, KafkaError
from archiver_pipeline.kafka import refusals
from archiver_pipeline.kafka.broker import Broker
from archiver_pipeline.kafka.look import EVERY
from archiver_pipeline.plan import positions_of

SHORTEST_RETENTION_SECONDS = 3600.0
"""What Kafka keeps for less than an hour does not outlast a broken evening."""


def broker(patient: Patient) -> Iterator[Finding]:
    """Whether a broker answers and takes the credentials. Raises KafkaError."""
    with patient.cluster.translated("the broker was asked for the cluster"):
        found = patient.cluster.listing()
    protocol = patient.settings.kafka_properties.get("security.protocol", "plaintext").upper()
    ids = "topics have no ids" if patient.settings.topic_ids == "none" else f"cluster {found.cluster_id}"
    count = len(found.brokers)
    yield good("broker", f"{_servers(patient)} answers over {protocol}: {counted(count, 'broker')}, {ids}")


def topics(patient: Patient) -> Iterator[Finding]:
    """Whether each topic is there and may be read. Raises KafkaError."""
    look = patient.look = patient.cluster.look()
    for sentence in look.missing:
        yield fault("topics", sentence, "Make the topic, or check ARCHIVER_TOPICS; the other topics are archived")
    closed = sorted({topic for topic, partition in look.unread if partition == EVERY})
    if closed:
        with patient.cluster.translated("the broker was asked for topics"):
            lacking = patient.cluster.described(closed, reads=True).denied
        for topic in closed:
            acls = [lacking[topic]] if topic in lacking else []
            hint = refusals.grant(acls, patient.settings.kafka_properties) if acls else "Check the ACLs"
            yield fault("topics", look.unread[topic, EVERY], hint)
    for (_, partition), sentence in sorted(look.unread.items()):
        if partition != EVERY:
            yield warning("topics", sentence, "Look at its brokers: a partition without a leader cannot be read")
    lag = sum(each.lag for state in look.topics for each in positions_of(state, patient.ledger.committed, _no_start))
    count = sum(len(state.partitions) for state in look.topics)
    if look.topics:
        yield good(
            "topics",
            f"{counted(len(look.topics), 'topic')} with {counted(count, 'partition')} may be read, "
            f"{counted(lag, 'offset')} waiting",
        )
    elif not look.missing and not closed:
        yield warning("topics", "no topic is there", "Check ARCHIVER_TOPICS")


def _no_start(_: object, marks: object) -> int:
    return int(getattr(marks, "earliest", 0))


def retention(patient: Patient) -> Iterator[Finding]:
    """Whether Kafka keeps messages for longer than it takes to archive them."""
    look = patient.look
    if look is None or not look.topics or patient.settings.topic_ids == "none":
        return
    yield from _lost(patient)
    try:
        configs = patient.cluster.configuration([state.topic for state in look.topics])
    except AccessDenied as error:
        unknown = of_error("retention", error)
        yield warning("retention", f"for how long Kafka keeps messages is not known: {unknown.what}", unknown.remedy)
        return
    waiting = _behind_seconds(patient)
    shortest = float("inf")
    for state in look.topics:
        config = configs[state.topic]
        policy, kept = config.get("cleanup.policy") or "", int(config.get("retention.ms") or -1) / 1000
        if "compact" in policy:
            told = f"topic {state.topic} is compacted: of messages with the same key only the last one may be archived"
            yield warning("retention", told, "Nothing, if that is meant; else set cleanup.policy=delete")
        if "delete" not in policy or kept < 0:
            continue
        shortest = min(shortest, kept)
        if waiting > kept / 2:
            told = f"topic {state.topic} keeps messages for {_span(kept)}, and some have waited for {_span(waiting)}"
            yield fault("retention", told, "Raise its retention.ms at once, and see why archiving is behind")
        elif kept < SHORTEST_RETENTION_SECONDS:
            told = f"topic {state.topic} keeps messages for {_span(kept)} only: a longer fault loses messages"
            yield warning("retention", told, f"Raise its retention.ms, to {_span(7 * 86400)} for example")
    if shortest < float("inf"):
        yield good("retention", f"Kafka keeps messages for {_span(shortest)} or longer")


def _lost(patient: Patient) -> Iterator[Finding]:
    """Messages that Kafka has deleted and the archive lacks."""
    look = patient.look
    for state in look.topics if look else ():
        for item in positions_of(state, patient.ledger.committed, _no_start):
            for gap in item.gaps:
                if gap.end > gap.start:
                    told = f"{gap.at.topic}/{gap.at.partition}: Kafka has deleted [{gap.start}, {gap.end}) before it "
                    hint = "Raise the topic's retention.ms; the next batch records the gap and goes on"
                    yield fault("retention", f"{told}was archived", hint)


def _behind_seconds(patient: Patient) -> float:
    """For how long messages have waited at most, 0 where none waits."""
    look, known = patient.look, patient.ledger
    positions = [
        item for state in (look.topics if look else ()) for item in positions_of(state, known.committed, _no_start)
    ]
    if not known.caught_up or not any(item.lag for item in positions):
        return 0.0
    return max(0.0, time.time() - min(known.caught_up.values()) / 1000)


def results(patient: Patient) -> Iterator[Finding]:
    """Whether finished minutes may be sent to their topic. Raises AccessDenied, which names the ACLs."""
    settings = patient.settings
    if not settings.results_topic or settings.topic_ids == "none":
        return
    try:
        needed = {settings.results_topic: ("Write",), settings.positions_topic: ("Read", "Write")}
        Broker(settings, BROKER_SECONDS).require(f"results were to be sent to {settings.results_topic}", needed)
    except AccessDenied as error:
        told = of_error("results", error)
        yield fault("results", told.what, f"{told.remedy}; or ARCHIVER_RESULTS_TOPIC='' for none")
    except KafkaError as error:
        yield of_error("results", error)
    else:
        yield good("results", f"topics {settings.results_topic} and {settings.positions_topic} may be written, or made")


def _servers(patient: Patient) -> str:
    return patient.settings.kafka_properties.get("bootstrap.servers", "")


def _span(seconds: float) -> str:
    """A span of time, roughly."""
    for unit, name in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} seconds"
