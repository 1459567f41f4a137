"""The balance of an hour that was read again: what is lost, what is new, and what came back."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.rewrites.balance import Balance, balance
from archiver_pipeline.rewrites.hour_rows import Tally

PLACES = [TopicPartition(topic, "A", number) for topic in ("clicks", "orders") for number in range(2)]
START = 100


@dataclass(frozen=True)
class Row:
    """A message of the hour: where it lies, whether a damaged file had it, and whether Kafka still has it."""

    place: int
    early: bool
    damaged: bool
    in_kafka: bool


ROWS = st.lists(st.builds(Row, st.integers(0, 3), st.booleans(), st.booleans(), st.booleans()), max_size=40)


def was_archived(row: Row, filled: set[str]) -> bool:
    """Of topics that are not `filled` the archive has no early messages."""
    return not row.early or PLACES[row.place].topic in filled


def compared(rows: list[Row], filled: set[str]) -> tuple[Tally, int, Counter[tuple[str, str]]]:
    """What a comparison of these messages gives: the tally, the damaged ones, and the early ones of the ledger."""
    tally, damaged, had_early = Tally(), 0, Counter[tuple[str, str]]()
    for number, row in enumerate(rows):
        at, offset = PLACES[row.place], number + (0 if row.early else START)
        archived = was_archived(row, filled)
        sound = archived and not row.damaged
        damaged += archived and row.damaged
        had_early[at.topic, at.topic_id] += archived and row.early
        tally.added += row.in_kafka and not sound
        tally.early[at.topic, at.topic_id] += row.early and (row.in_kafka or sound)
        if row.early and row.in_kafka and not sound:
            count, lowest = tally.before_start.get(at, (0, offset))
            tally.before_start[at] = count + 1, min(lowest, offset)
    return tally, damaged, had_early


@given(ROWS, st.sets(st.sampled_from(["clicks", "orders"])))
def test_every_message_is_accounted_for(rows: list[Row], filled: set[str]) -> None:
    """Lost is what a damaged file had and Kafka has not, new is what lies before the start and was never archived."""
    tally, damaged, early = compared(rows, filled)
    found = balance(tally, damaged, early, 0)
    archived = [row for row in rows if was_archived(row, filled)]
    assert found.lost == sum(row.damaged and not row.in_kafka for row in archived)
    new = Counter(row.place for row in rows if row.in_kafka and not was_archived(row, filled))
    assert {at: count for at, (count, _) in found.filled.items()} == {PLACES[n]: count for n, count in new.items()}
    assert found.early == tally.early
    assert found.returned == 0


def test_what_comes_back_is_no_longer_lost() -> None:
    """Messages that were given up and are in Kafka after all are there again; more than were given up cannot be."""
    assert balance(Tally(added=5), 0, {}, lost=3) == Balance(returned=3)
    assert balance(Tally(added=5), 4, {}, lost=3) == Balance(returned=1)
    assert balance(Tally(added=3), 4, {}, lost=3) == Balance(lost=1)


def test_another_topic_covers_no_loss() -> None:
    """Twenty early messages of one topic come in while as many of another, put in before, are lost: these are lost."""
    at, life = TopicPartition("clicks", "A", 0), ("clicks", "A")
    tally = Tally(added=20, early=Counter({life: 20}), before_start={at: (20, 7)})
    found = balance(tally, 20, {("orders", "A"): 20}, 0)
    assert found == Balance(lost=20, filled={at: (20, 7)}, early={life: 20})
