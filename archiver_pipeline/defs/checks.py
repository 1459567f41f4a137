"""The checks on `messages`: each reads like a sentence, and none of them fails a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from dagster import AssetCheckEvaluation, AssetCheckSeverity, AssetCheckSpec

from archiver_pipeline.amounts import counted
from archiver_pipeline.batch.batch import Batch
from archiver_pipeline.defs.metadata import GAPS, MESSAGES, gap_row
from archiver_pipeline.envelope import MALFORMED, OTHER, UNTYPED
from archiver_pipeline.plan import MADE_AGAIN, OffsetRange
from archiver_pipeline.table.ledger import Ledger, RecordedGap

GAPS_SHOWN_FOR = timedelta(hours=24)
"""How long a gap keeps `nothing_was_lost` failing; the view `gaps` names it for ever."""

UNKNOWN_SHARE = 0.01

_MOST = 20
_MAX_ROWS = 500
_TYPE_ADVICE = {
    MALFORMED: "Is the payload JSON? If not, set `header:NAME` or `constant:NAME` as its type, or its format.",
    UNTYPED: "Is ARCHIVER_TYPE_PATH where these messages have their type?",
    OTHER: "Is the type really an id? If not, raise ARCHIVER_MAX_TYPES.",
}

PAUSE_SECONDS = 10.0
"""A run that stays tells answers that are all yes this often at most."""

SPECS = [
    AssetCheckSpec(
        "offsets_are_contiguous",
        asset=MESSAGES,
        description="Every batch begins where the one before it ended, or behind a gap that is named.",
    ),
    AssetCheckSpec(
        "nothing_was_lost",
        asset=MESSAGES,
        description="Kafka still had every message when it was to be archived. A gap is named, fails this for a day, "
        "and stays in the view `gaps` for ever.",
    ),
    AssetCheckSpec(
        "types_are_known",
        asset=MESSAGES,
        description="At most one message in a hundred is _malformed, _untyped or _other.",
    ),
    AssetCheckSpec(
        "lag_is_bounded",
        asset=MESSAGES,
        description="What is left to read fits into one batch: the archiver keeps up.",
    ),
]


def evaluations(batch: Batch, ledger: Ledger, max_lag: int) -> Iterator[AssetCheckEvaluation]:
    """Judge a batch; `ledger` is the archive after it."""
    yield _offsets_are_contiguous(batch, ledger)
    yield _nothing_was_lost(recent(ledger.gaps, datetime.now(UTC)), len(ledger.gaps))
    yield _types_are_known(batch)
    yield _lag_is_bounded(batch, max_lag)


def recent(gaps: tuple[RecordedGap, ...], now: datetime) -> list[RecordedGap]:
    """The gaps that were found lately."""
    return [found for found in gaps if found.time is None or now - found.time < GAPS_SHOWN_FOR]


def unfollowed(batch: Batch) -> list[OffsetRange]:
    """The ranges of a batch that begin neither where the archive ended nor where a gap of the batch ends."""
    gap_ends = {(gap.at, gap.end) for gap in batch.gaps}
    return [
        item
        for item, before in zip(batch.ranges, batch.committed_before, strict=True)
        if before is not None and item.start != before and (item.at, item.start) not in gap_ends
    ]


def _offsets_are_contiguous(batch: Batch, ledger: Ledger) -> AssetCheckEvaluation:
    wrong = unfollowed(batch)
    reached = {at: what.next for at, what in ledger.committed.items()}
    behind = [item for item in batch.ranges if reached.get(item.at, -1) < item.end]
    if faults := list(dict.fromkeys(map(str, [*wrong, *behind]))):
        text = (
            f"{_some(faults, ', ')} does not follow on from what was archived before. Run `archiver verify "
            "--against-kafka`, which finds what is missing or doubled, and `archiver backfill` of its hours mends it."
        )
    else:
        text = f"All {len(batch.ranges):,} ranges follow on from the ones before."
    return _evaluation("offsets_are_contiguous", not faults, text, ranges=len(batch.ranges))


def _nothing_was_lost(gaps: list[RecordedGap], ever: int) -> AssetCheckEvaluation:
    offsets = sum(found.gap.end - found.gap.start for found in gaps)
    numbers: dict[str, Any] = {"gaps": len(gaps), "offsets_lost": offsets, "gaps_ever": ever}
    if not gaps:
        return _evaluation("nothing_was_lost", True, "Kafka had every message when it was to be archived.", **numbers)
    rows = [gap_row(found.gap, "" if found.time is None else f"{found.time:%Y-%m-%d %H:%M}") for found in gaps]
    numbers["which"] = dg.MetadataValue.table(rows[:_MAX_ROWS], schema=GAPS)
    return _evaluation("nothing_was_lost", False, f"{_loss(gaps, offsets)} {_advice(gaps)}", **numbers)


def _loss(gaps: list[RecordedGap], offsets: int) -> str:
    """What is gone, and why."""
    named = [
        f"{found.gap.at.topic}/{found.gap.at.partition} was made again with all that was in it"
        if found.gap.reason == MADE_AGAIN
        else f"{found.gap.at.topic}/{found.gap.at.partition} [{found.gap.start}, {found.gap.end}): {found.gap.reason}"
        for found in gaps
    ]
    return f"{counted(offsets, 'offset was', 'offsets were')} gone before they could be archived: {_some(named, '; ')}."


def _advice(gaps: list[RecordedGap]) -> str:
    again = "The archive goes on behind them, and this passes again a day after"
    if all(found.gap.reason == MADE_AGAIN for found in gaps):
        return f"{again}. Wait until a topic is archived (`archiver status`) before it is deleted."
    return f"{again}. Raise `retention.ms` of the topic, or archive sooner: see `lag` under Plots."


def _types_are_known(batch: Batch) -> AssetCheckEvaluation:
    counts = {name: batch.types.get(name, 0) for name in (MALFORMED, UNTYPED, OTHER)}
    share = sum(counts.values()) / max(1, batch.messages)
    passed = share <= UNKNOWN_SHARE
    which = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count) or "every one has a known type"
    text = f"{share:.2%} of {counted(batch.messages, 'message')} have no type of their own: {which}."
    if not passed:
        worst = max(counts, key=lambda name: counts[name])
        text += f" {_TYPE_ADVICE[worst]} Then `archiver backfill --from-archive` gives archived messages their types."
    return _evaluation("types_are_known", passed, text, AssetCheckSeverity.WARN, share=round(share, 6), **counts)


def _lag_is_bounded(batch: Batch, max_lag: int) -> AssetCheckEvaluation:
    passed = batch.lag <= max_lag
    left = counted(batch.lag, "message is", "messages are")
    text = f"{left} left to read in lane {batch.lane}; one batch takes {max_lag:,}."
    if not passed:
        text += " If it does not shrink by itself, raise ARCHIVER_LANES, or ARCHIVER_BATCH_MESSAGES."
    return _evaluation("lag_is_bounded", passed, text, AssetCheckSeverity.WARN, lag=batch.lag)


def _some(names: list[str], between: str) -> str:
    more = f"{between}and {len(names) - _MOST:,} more" if len(names) > _MOST else ""
    return between.join(names[:_MOST]) + more


def _evaluation(
    name: str, passed: bool, text: str, severity: AssetCheckSeverity = AssetCheckSeverity.ERROR, **metadata: Any
) -> AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=MESSAGES, check_name=name, passed=passed, severity=severity, description=text, metadata=metadata
    )


class Answers:
    """Logs the answers of the checks for each batch, or those of a run that stays now and then.

    Where a batch comes every two seconds, five events with each would be a sixth of the run's work. No answer that is
    no goes unsaid, nor the first ones after it.
    """

    def __init__(
        self, log: Callable[[AssetCheckEvaluation | dg.AssetMaterialization], None], pause_seconds: float
    ) -> None:
        self._log = log
        self._pause_seconds = pause_seconds
        self._told_at = float("-inf")
        self._passed = True
        self._waiting: list[AssetCheckEvaluation | dg.AssetMaterialization] = []

    def add(self, found: list[AssetCheckEvaluation], shown: dg.AssetMaterialization | None = None) -> None:
        """Take the answers for a batch, in place of those of the one before that nobody needs to know, and that the
        DuckDB file shows it."""
        self._waiting = [*found, *([shown] if shown else [])]
        passed = all(item.passed for item in found)
        if not passed or not self._passed or time.monotonic() - self._told_at >= self._pause_seconds:
            self.tell()
        self._passed = passed

    def tell(self) -> None:
        """Log what was not told yet."""
        for event in self._waiting:
            self._log(event)
        if self._waiting:
            self._told_at = time.monotonic()
        self._waiting = []
