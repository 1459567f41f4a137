"""The catalogue: every metric by its name, with its kind, its labels and what it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

Kind = Literal["gauge", "counter", "histogram", "info"]
_SUFFIXES: Mapping[Kind, str] = {"counter": "_total", "info": "_info"}
_PLACE = ("topic", "partition")


@dataclass(frozen=True)
class Definition:
    """A metric.

    Attributes:
        name: its name without the suffix that its kind gives it.
        kind: what it is.
        text: what it says, and in what unit.
        labels: the names of its labels.
        source: which source tells it, `exporter` for the exporter itself.
    """

    name: str
    kind: Kind
    text: str
    labels: tuple[str, ...] = ()
    source: str = "exporter"

    @property
    def exported(self) -> str:
        """The name in Prometheus: `archiver_gaps_total`; of a histogram without `_bucket`, `_sum` and `_count`."""
        return self.name + _SUFFIXES.get(self.kind, "")


def _of(source: str, *rows: tuple[str, Kind, tuple[str, ...], str]) -> list[Definition]:
    return [Definition(name, kind, text, labels, source) for name, kind, labels, text in rows]


DEFINITIONS: tuple[Definition, ...] = (
    *_of(
        "exporter",
        ("archiver_build", "info", ("version", "python"), "The archiver's version and Python's."),
        (
            *("archiver_collector_up", "gauge", ("source",)),
            "1 while a source answers. At 0 its metrics are not shown; before the first look at it there is none.",
        ),
        (
            *("archiver_collector_last_success_timestamp_seconds", "gauge", ("source",)),
            "When a source answered last.",
        ),
        ("archiver_collector_duration_seconds", "gauge", ("source",), "How long the newest look at a source took."),
    ),
    *_of(
        "broker",
        ("archiver_lag_messages", "gauge", _PLACE, "Offsets that Kafka has and the archive has not."),
        (
            *("archiver_lag_seconds", "gauge", _PLACE),
            "How long the oldest message that is not archived has waited; 0 where none waits.",
        ),
        ("archiver_end_offset", "gauge", _PLACE, "The last stable offset of a partition."),
        ("archiver_committed_offset", "gauge", _PLACE, "The next offset to archive."),
        (
            *("archiver_unreadable_topics", "gauge", ()),
            "Wanted topics and partitions that are missing, forbidden or without a leader.",
        ),
    ),
    *_of(
        "archive",
        ("archiver_table_version", "gauge", (), "The table's version, -1 before its first commit."),
        ("archiver_archived_messages", "counter", _PLACE, "Messages that were archived, by the ledger."),
        ("archiver_gaps", "counter", ("topic", "reason"), "Gaps that were found, by the ledger."),
        ("archiver_lost_offsets", "counter", ("topic", "reason"), "Offsets in gaps: Kafka had them no longer."),
        ("archiver_given_up_messages", "counter", (), "Messages lost with damaged files and given up."),
        (
            *("archiver_caught_up_timestamp_seconds", "gauge", ("lane",)),
            "When a lane last had all that Kafka had, by its newest commit.",
        ),
        ("archiver_interrupted_erasures", "gauge", (), "Erasures that were confirmed and not finished."),
        ("archiver_schema_waits", "gauge", ("topic",), "Partitions that wait for a schema of the registry."),
        ("archiver_batches", "counter", (), "Batches committed since the exporter began."),
        ("archiver_payload_bytes", "counter", (), "Payload archived since the exporter began, in bytes."),
        ("archiver_written_files", "counter", (), "Files that batches have written since the exporter began."),
        ("archiver_batch_seconds", "histogram", (), "Seconds of a batch from plan to commit."),
        ("archiver_batch_step_seconds", "counter", ("step",), "Seconds of batches in each step before the commit."),
        (
            *("archiver_classified_messages", "counter", ("kind",)),
            "Messages archived since the exporter began: typed, malformed, untyped, other or tombstone.",
        ),
        (
            *("archiver_newest_message_timestamp_seconds", "gauge", ()),
            "The newest time of a message in the newest batches, never past the time of its commit.",
        ),
        ("archiver_last_batch_timestamp_seconds", "gauge", (), "When the newest batch was committed."),
    ),
    *_of(
        "files",
        ("archiver_table_files", "gauge", (), "Files that the table lists."),
        ("archiver_table_bytes", "gauge", (), "Size of the files that the table lists, in bytes."),
        ("archiver_unsealed_files", "gauge", (), "Files of batches that no sealing has put together yet."),
        ("archiver_hours", "gauge", ("state",), "Hours of the archive: open, or sealed."),
        ("archiver_due_hours", "gauge", (), "Closed hours that wait for sealing."),
        ("archiver_oldest_due_hour_timestamp_seconds", "gauge", (), "The end of the oldest hour that waits for it."),
    ),
    *_of(
        "followers",
        ("archiver_follower_up", "gauge", ("follower",), "1 while a follower tells where it is."),
        ("archiver_follower_lag_messages", "gauge", ("follower",), "Archived offsets that a follower lacks."),
        ("archiver_follower_changed_hours", "gauge", ("follower",), "Rewritten hours that a follower has yet to take."),
    ),
    *_of(
        "dagster",
        ("archiver_runs", "counter", ("dagster_job", "outcome"), "Runs that ended since the exporter began."),
        ("archiver_active_runs", "gauge", ("state",), "Runs that are queued, or under way."),
        ("archiver_run_success_timestamp_seconds", "gauge", ("dagster_job",), "When a run of a job succeeded last."),
        ("archiver_daemon_up", "gauge", ("daemon",), "1 while a daemon of Dagster says often enough that it lives."),
        ("archiver_daemon_heartbeat_timestamp_seconds", "gauge", ("daemon",), "When a daemon of Dagster said so last."),
    ),
)  # fmt: skip

BY_NAME: Mapping[str, Definition] = {item.name: item for item in DEFINITIONS}

BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""The bounds of `archiver_batch_seconds`, in seconds."""


class Families:
    """Metrics that a source has found, ready to be shown."""

    def __init__(self) -> None:
        self._found: dict[str, Metric] = {}

    def add(self, name: str, value: float, *labels: str) -> None:
        """Add a sample of a gauge or a counter, with its labels in the order of the catalogue."""
        family = self._found.get(name)
        if family is None:
            family = self._found[name] = _family(BY_NAME[name])
        family.add_metric(labels, value)  # type: ignore[attr-defined]

    def histogram(self, name: str, counts: Sequence[int], total: float) -> None:
        """Add a histogram: how many fell into each of `BUCKETS` and past the last one, and the sum of all."""
        from prometheus_client.metrics_core import HistogramMetricFamily

        bounds = [*(str(bound) for bound in BUCKETS), "+Inf"]
        upto = [sum(counts[: number + 1]) for number in range(len(bounds))]
        family = HistogramMetricFamily(name, BY_NAME[name].text)
        family.add_metric([], list(zip(bounds, upto, strict=True)), total)
        self._found[name] = family

    def info(self, name: str, **labels: str) -> None:
        """Add an info metric."""
        from prometheus_client.metrics_core import InfoMetricFamily

        family = InfoMetricFamily(name, BY_NAME[name].text)
        family.add_metric([], labels)
        self._found[name] = family

    def all(self) -> tuple[Metric, ...]:
        """Everything that was added."""
        return tuple(self._found.values())


def _family(definition: Definition) -> Metric:
    from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

    make = CounterMetricFamily if definition.kind == "counter" else GaugeMetricFamily
    family: Metric = make(definition.name, definition.text, labels=definition.labels)
    return family
