"""The sources that metrics are taken from: archive, broker, files, followers, and Dagster's own history."""

from __future__ import annotations

import time
from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING

from archiver_pipeline import envelope
from archiver_pipeline.dagster_home import home_of
from archiver_pipeline.errors import ArchiveError
from archiver_pipeline.followers.lag import lags
from archiver_pipeline.formats.waits import Waits
from archiver_pipeline.hours import due, hour_totals
from archiver_pipeline.kafka.cluster import Cluster
from archiver_pipeline.metrics.arrivals import Arrivals
from archiver_pipeline.metrics.catalogue import Families
from archiver_pipeline.metrics.commits import CommitTotals
from archiver_pipeline.metrics.source import Shared, Source
from archiver_pipeline.page.lag_history import LagHistory
from archiver_pipeline.page.standing import ArchiveState, BrokerState, FilesState, PartitionLag
from archiver_pipeline.plan import MADE_AGAIN, RETENTION, Position, TopicPartition, lane_of, positions_of
from archiver_pipeline.rewrites.seal import Sealer
from archiver_pipeline.run_history import RunHistory
from archiver_pipeline.status import BROKER_TIMEOUT_SECONDS
from archiver_pipeline.stored import erasure_plan
from archiver_pipeline.table.format_version import version_of
from archiver_pipeline.table.ledger import Ledger

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

ONCE_COMMITS = 1_000
"""Without a start to count from, counters of commits are over so many of the newest ones."""

_HISTORY_SECONDS = 300.0


class ArchiveSource(Source):
    """The ledger and the commits."""

    name = "archive"

    def __init__(self, shared: Shared, back: int = 0) -> None:
        self._shared = shared
        self._totals = CommitTotals(back)

    def look(self) -> tuple[Metric, ...]:
        """Read the commits since the last look."""
        archive, families = self._shared.archive, Families()
        state, ledger = archive.standing()
        with archive.reached():
            self._totals.read_on(archive.storage, state)
        self._shared.health.last_batch = self._totals.last
        families.add("archiver_table_version", state.version)
        _tell_messages(families, ledger)
        for lane, milliseconds in ledger.caught_up.items():
            families.add("archiver_caught_up_timestamp_seconds", milliseconds / 1000, str(lane))
        interrupted = erasure_plan.interrupted(archive.storage) if state.version >= 0 else []
        families.add("archiver_interrupted_erasures", len(interrupted))
        waits = tuple(Waits(self._shared.settings).present(ledger.committed))
        waiting = Counter(wait.topic for wait in waits)
        for topic in {at.topic for at in ledger.committed} | waiting.keys():
            families.add("archiver_schema_waits", waiting[topic], topic)
        self._totals.tell(families)
        self._shared.findings.archive = ArchiveState(
            version=state.version,
            format=version_of(state.metadata, archive.uri) if state.version >= 0 else None,
            ledger=ledger,
            batches=self._totals.recent,
            waits=waits,
            interrupted=tuple(plan.started for plan in interrupted),
        )
        return families.all()


def _tell_messages(families: Families, ledger: Ledger) -> None:
    """Tell of messages and gaps; a topic without a gap has a zero, so that its first one is an increase."""
    messages: Counter[tuple[str, int]] = Counter()
    for at, what in ledger.committed.items():
        messages[at.topic, at.partition] += what.total
    for (topic, partition), count in sorted(messages.items()):
        families.add("archiver_archived_messages", count, topic, str(partition))
    every = [
        (topic, reason) for topic in sorted({topic for topic, _ in messages}) for reason in (RETENTION, MADE_AGAIN)
    ]
    gaps, lost = Counter(dict.fromkeys(every, 0)), Counter(dict.fromkeys(every, 0))
    for found in ledger.gaps:
        gaps[found.gap.at.topic, found.gap.reason] += 1
        lost[found.gap.at.topic, found.gap.reason] += found.gap.end - found.gap.start
    for key in gaps:
        families.add("archiver_gaps", gaps[key], *key)
        families.add("archiver_lost_offsets", lost[key], *key)
    families.add("archiver_given_up_messages", ledger.given_up)


class BrokerSource(Source):
    """The broker's offsets beside those of the ledger."""

    name = "broker"

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._cluster = Cluster(shared.settings, BROKER_TIMEOUT_SECONDS)
        self._arrivals: Arrivals[TopicPartition] = Arrivals()
        self._history = LagHistory()

    def look(self) -> tuple[Metric, ...]:
        """Ask for the end offsets; where the archive cannot be read, only they are told."""
        families, health = Families(), self._shared.health
        look = self._cluster.look()
        now = look.asked_ms / 1000
        health.look, health.looked = look, now
        families.add("archiver_unreadable_topics", len(look.missing) + len(look.unread))
        try:
            ledger = self._shared.archive.ledger()
        except ArchiveError:
            for (topic, partition), end in sorted(look.end_offsets().items()):
                families.add("archiver_end_offset", end, topic, str(partition))
            return families.all()
        start = self._cluster.start_offset
        positions = [item for state in look.topics for item in positions_of(state, ledger.committed, start)]
        told = [self._tell(families, item, ledger, now) for item in positions]
        self._arrivals.keep(item.at for item in positions)
        health.lag, health.waited = (
            sum(item.lag for item in told),
            max((item.waited or 0.0 for item in told), default=0.0),
        )
        self._keep(told, look.warnings, now)
        recent = [item for item in health.lags if now - item[0] <= _HISTORY_SECONDS]
        health.lags = [*recent, (now, health.lag)]
        return families.all()

    def _keep(self, told: list[PartitionLag], warnings: tuple[str, ...], now: float) -> None:
        lags: Counter[str] = Counter()
        for item in told:
            lags[item.topic] += item.lag
        self._history.see(now, lags)
        self._shared.findings.broker = BrokerState(tuple(told), warnings, self._history)

    def _tell(self, families: Families, item: Position, ledger: Ledger, now: float) -> PartitionLag:
        place = (item.at.topic, str(item.at.partition))
        self._arrivals.see(item.at, item.end, item.next, now)
        caught_up = ledger.caught_up.get(lane_of(item.at.topic, item.at.partition, self._shared.settings.lanes))
        seconds = None if caught_up is None else caught_up / 1000
        waited = self._arrivals.waited(item.at, item.next, now, seconds) if item.lag else 0.0
        families.add("archiver_end_offset", item.end, *place)
        families.add("archiver_committed_offset", item.next, *place)
        families.add("archiver_lag_messages", item.lag, *place)
        families.add("archiver_lag_seconds", waited, *place)
        # Of an archive that never had everything, the first look does not tell.
        known = not item.lag or waited > 0 or seconds is not None
        return PartitionLag(item.at.topic, item.at.partition, item.lag, waited if known else None)


class FilesSource(Source):
    """The files that the table lists, and its hours."""

    name = "files"
    costly = True

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._sealer = Sealer(shared.settings)

    def look(self) -> tuple[Metric, ...]:
        """List the table's files."""
        families, archive = Families(), self._shared.archive
        if not archive.exists():
            self._shared.findings.files = FilesState()
            return ()
        table, ledger = archive.snapshot()
        files = archive.files(table)
        hours = hour_totals(files)
        sealed = sum(item.sealed for item in hours)
        now_ms = int(time.time() * 1000)
        grace_ms = self._shared.settings.seal_grace_minutes * 60_000
        look = self._shared.health.recent_look()
        caught_up_ms = min(now_ms, self._sealer.caught_up_ms(ledger, ask=look is not None, look=look))
        waiting = due(files, caught_up_ms, now_ms, grace_ms)
        families.add("archiver_table_files", files.height)
        families.add("archiver_table_bytes", int(files["bytes"].sum()))
        families.add("archiver_unsealed_files", _unsealed(files["path"].to_list()))
        families.add("archiver_hours", len(hours) - sealed, "open")
        families.add("archiver_hours", sealed, "sealed")
        families.add("archiver_due_hours", len(waiting))
        ends = [(item.hour.number + 1) * 3600 for item in waiting if item.hour.number is not None]
        if ends:
            families.add("archiver_oldest_due_hour_timestamp_seconds", min(ends))
        types = files["type"].n_unique()
        state = FilesState(files.height, int(files["bytes"].sum()), types, tuple(hours), tuple(waiting))
        self._shared.findings.files = state
        return families.all()


def _unsealed(paths: list[str]) -> int:
    return sum(not envelope.is_sealed(path) for path in paths)


class FollowersSource(Source):
    """What follows the archive."""

    name = "followers"

    def __init__(self, shared: Shared) -> None:
        self._shared = shared

    def look(self) -> tuple[Metric, ...]:
        """Ask all followers at once; one that does not answer has no lag."""
        families = Families()
        found = lags(self._shared.settings, self._shared.archive.ledger())
        self._shared.findings.followers = tuple(found)
        for item in found:
            families.add("archiver_follower_up", item.error is None, item.name)
            if item.lag is not None and item.hours is not None:
                families.add("archiver_follower_lag_messages", item.lag, item.name)
                families.add("archiver_follower_changed_hours", item.hours, item.name)
        return families.all()


class DagsterSource(Source):
    """Dagster's history of runs, and its daemons."""

    name = "dagster"

    def __init__(self, shared: Shared, home: str, back_seconds: float = 0.0) -> None:
        self._shared, self._home, self._back_seconds = shared, home, back_seconds
        self._began = time.time()

    @cached_property
    def _history(self) -> RunHistory:
        return RunHistory(self._home, self._began - self._back_seconds, mask=self._shared.settings.mask)

    def look(self) -> tuple[Metric, ...]:
        """Read the runs that ended since the last look."""
        families, found = Families(), self._history.read_on()
        self._shared.findings.history = found
        for (job, outcome), count in sorted(found.ended.items()):
            families.add("archiver_runs", count, job, outcome)
        for state, count in found.active.items():
            families.add("archiver_active_runs", count, state)
        for job, moment in sorted(found.successes.items()):
            families.add("archiver_run_success_timestamp_seconds", moment, job)
        for daemon in found.daemons:
            families.add("archiver_daemon_up", daemon.healthy, daemon.name)
            families.add("archiver_daemon_heartbeat_timestamp_seconds", daemon.heartbeat, daemon.name)
        return families.all()


def sources_of(shared: Shared, *, once: bool = False, ask: bool = True, commits: int = ONCE_COMMITS) -> list[Source]:
    """The sources of these settings; Dagster's only where it has a folder: DAGSTER_HOME, or that of `make dev`.

    Args:
        shared: what they share.
        once: count what is past, as far as that is bounded, instead of beginning at zero.
        ask: whether to ask the broker.
        commits: over how many of the newest commits counters are with `once`.
    """
    found: list[Source] = [
        ArchiveSource(shared, commits if once else 0),
        *([BrokerSource(shared)] if ask else []),
        FilesSource(shared),
        FollowersSource(shared),
    ]
    if home := home_of(shared.settings.base_dir):
        found.append(DagsterSource(shared, str(home), 86_400.0 if once else 0.0))
    return found
