"""The balance of an hour that was read again: what is lost, what is new, and what came back."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from archiver_pipeline.balance import Balance, balance
from archiver_pipeline.hour_rows import Tally
from archiver_pipeline.plan import Committed, TopicPartition

PLACES = [TopicPartition("orders", "A", number) for number in range(3)]
START = 100


@dataclass(frozen=True)
class Row:
    """A message of the hour: where it lies, whether a damaged file had it, and whether Kafka still has it."""

    place: int
    early: bool
    damaged: bool
    in_kafka: bool


ROWS = st.lists(st.builds(Row, st.integers(0, 2), st.booleans(), st.booleans(), st.booleans()), max_size=40)


def compared(rows: list[Row], filled: set[int]) -> tuple[Tally, int, dict[TopicPartition, Committed], int]:
    """What a comparison of these messages gives: of partitions that are not `filled` the archive has no early ones."""
    tally, damaged, had_early = Tally(), 0, 0
    added = Counter[int]()
    for number, row in enumerate(rows):
        at, offset = PLACES[row.place], number + (0 if row.early else START)
        archived = not row.early or row.place in filled
        sound = archived and not row.damaged
        damaged += archived and row.damaged
        had_early += archived and row.early
        added[row.place] += archived and row.early
        tally.added += row.in_kafka and not sound
        tally.early += row.early and (row.in_kafka or sound)
        if row.early and row.in_kafka and not sound:
            count, lowest = tally.before_start.get(at, (0, offset))
            tally.before_start[at] = count + 1, min(lowest, offset)
    committed = {at: Committed(1000, START, 0, 0, added[number]) for number, at in enumerate(PLACES)}
    return tally, damaged, committed, had_early


@given(ROWS, st.sets(st.integers(0, 2)))
def test_every_message_is_accounted_for(rows: list[Row], filled: set[int]) -> None:
    """Lost is what a damaged file had and Kafka has not, new is what lies before the start and was never archived."""
    tally, damaged, committed, early = compared(rows, filled)
    found = balance(tally, damaged, committed, early, 0)
    archived = [row for row in rows if not row.early or row.place in filled]
    assert found.lost == sum(row.damaged and not row.in_kafka for row in archived)
    new = Counter(row.place for row in rows if row.early and row.in_kafka and row.place not in filled)
    assert {at: count for at, (count, _) in found.filled.items()} == {PLACES[n]: count for n, count in new.items()}
    assert found.early == tally.early
    assert found.returned == 0


def test_what_comes_back_is_no_longer_lost() -> None:
    """Messages that were given up and are in Kafka after all are there again; more than were given up cannot be."""
    assert balance(Tally(added=5), 0, {}, 0, lost=3) == Balance(returned=3)
    assert balance(Tally(added=5), 4, {}, 0, lost=3) == Balance(returned=1)
    assert balance(Tally(added=3), 4, {}, 0, lost=3) == Balance(lost=1)


def test_another_hour_that_was_filled_covers_no_loss() -> None:
    """The partition has messages from before its start, but none in this hour: what is lost stays lost."""
    at = PLACES[0]
    tally = Tally(added=20, early=20, before_start={at: (20, 7)})
    committed = {at: Committed(1000, START, 0, 0, 50)}
    assert balance(tally, 20, committed, 0, 0) == Balance(lost=20, filled={at: (20, 7)}, early=20)
