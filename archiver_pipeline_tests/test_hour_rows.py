"""An hour of Kafka beside the same hour of the archive: which message stays, and what has to be written anew."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from archiver_pipeline import envelope
from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.rewrites.hour_rows import Tally, compare, judge
from archiver_pipeline.stored.parquet import frame_schema
from archiver_pipeline.stored.runs import BUFFER_BYTES, Runs, merged

Headers = tuple[tuple[str, bytes | None], ...] | None
Content = tuple[int | None, bytes | None, str | None, bytes | None, Headers]
"""Timestamp, key, value, value_bytes and headers."""

SCHEMA = {**frame_schema(), "type": pl.String(), "was": pl.String()}
PLACES = [TopicPartition("orders", "A", 0), TopicPartition("orders", "A#2", 0), TopicPartition("clicks", "-", 1)]
TYPES = ["a", "b", "c"]
PLAIN: Content = (0, b"k", "{}", None, None)


@dataclass(frozen=True)
class Row:
    """A message: where it lies, what is in it, its type by the present rules, and that of the archive (None: Kafka)."""

    at: TopicPartition
    offset: int
    content: Content = PLAIN
    type: str = "a"
    was: str | None = None

    @property
    def identity(self) -> tuple[TopicPartition, int]:
        """What tells it from every other message."""
        return self.at, self.offset

    def cells(self) -> tuple[object, ...]:
        """It as a row of the archive."""
        timestamp, key, value, value_bytes, headers = self.content
        listed = None if headers is None else [{"key": name, "value": each} for name, each in headers]
        stamp = None if timestamp is None else timestamp * 1000
        kind = "none" if timestamp is None else "create"
        at = (self.at.topic, self.at.topic_id, self.at.partition)
        return (*at, self.offset, stamp, kind, key, value, value_bytes, listed, self.type, self.was)


@dataclass
class Expected:
    """What a comparison has to come to."""

    verdicts: Counter[str] = field(default_factory=Counter)
    read: int = 0
    doubled: int = 0
    types: Counter[str] = field(default_factory=Counter)
    dirty: set[str] = field(default_factory=set)
    early: dict[TopicPartition, list[int]] = field(default_factory=dict)
    stays: list[Row] = field(default_factory=list)


def reference(kafka: list[Row], archive: list[Row], first: Mapping[TopicPartition, int]) -> Expected:
    """The same in plain Python, message by message."""
    found = Expected(read=len(kafka))
    by_kafka = {row.identity: row for row in kafka}
    by_archive: dict[tuple[TopicPartition, int], list[Row]] = {}
    for row in archive:
        by_archive.setdefault(row.identity, []).append(row)
    for identity in sorted(by_kafka.keys() | by_archive.keys()):
        fresh, old = by_kafka.get(identity), by_archive.get(identity, [])
        after = type_after(fresh, old)
        content = old[0].content if fresh is None or after == envelope.ERASED else fresh.content
        found.stays.append(Row(*identity, content, after))
        found.types[after] += 1
        found.doubled += max(0, len(old) - 1)
        found.verdicts[verdict_of(fresh, old, after)] += 1
        # A type has to be written anew if its messages are not the same ones as before.
        before = Counter((str(row.was), row.content) for row in old)
        present = Counter([(after, content)])
        found.dirty |= {name for name, _ in (before - present) + (present - before)}
        if not old and fresh is not None and identity[1] < first.get(identity[0], 0):
            found.early.setdefault(identity[0], []).append(identity[1])
    return found


def type_after(fresh: Row | None, old: list[Row]) -> str:
    """The type that a message has in the end."""
    if any(row.was == envelope.ERASED for row in old):
        return envelope.ERASED
    return fresh.type if fresh is not None else old[0].type


def verdict_of(fresh: Row | None, old: list[Row], after: str) -> str:
    """What is to be said of a message."""
    if after == envelope.ERASED:
        return "kept"
    if not old:
        return "added"
    if fresh is not None and fresh.content != old[0].content:
        return "changed"
    if after != old[0].was:
        return "retyped"
    return "same" if fresh is not None else "kept"


def frame_of(rows: list[Row]) -> pl.DataFrame:
    """Messages as a frame."""
    return pl.DataFrame([row.cells() for row in rows], schema=SCHEMA, orient="row")


def runs_of(folder: Path, rows: list[Row], buffer_bytes: int = BUFFER_BYTES) -> Runs:
    """Messages as runs, some at a time."""
    runs = Runs(folder, buffer_bytes)
    for start in range(0, len(rows), 5):
        runs.add(frame_of(rows[start : start + 5]))
    runs.close()
    return runs


contents = st.tuples(
    st.sampled_from([0, 1, None]),
    st.sampled_from([None, b"", b"k"]),
    st.sampled_from([None, "", "{}"]),
    st.sampled_from([None, b"\xff"]),
    st.sampled_from([None, (("h", None),), (("h", b""),), (("h", b"x"), ("h", None))]),
)
identities = st.tuples(st.sampled_from(PLACES), st.integers(0, 9))


@st.composite
def hours(draw: st.DrawFn) -> tuple[list[Row], list[Row]]:
    """What Kafka has and what the archive has of an hour: one after the other, beside each other, or not at all.

    Doubles in the archive are alike but for their type, as they would be; an erased message has none.
    """
    kafka, archive = [], []
    for at, offset in draw(st.lists(identities, unique=True, max_size=15)):
        content, new_type = draw(contents), draw(st.sampled_from(TYPES))
        where = draw(st.sampled_from(["both", "Kafka", "archive"]))
        if where != "archive":
            kafka.append(Row(at, offset, content, new_type))
        if where == "Kafka":
            continue
        if draw(st.integers(0, 5)) == 0:
            archive.append(Row(at, offset, (content[0], None, None, None, None), envelope.ERASED, envelope.ERASED))
            continue
        old = draw(contents) if draw(st.integers(0, 3)) == 0 else content
        was = draw(st.sampled_from(TYPES))
        archive += [Row(at, offset, old, new_type, was)] * draw(st.sampled_from([1, 1, 1, 2, 3]))
    return draw(st.permutations(kafka)), draw(st.permutations(archive))


@given(hours(), st.sampled_from([1, BUFFER_BYTES]), st.dictionaries(st.sampled_from(PLACES), st.integers(0, 10)))
def test_as_in_plain_python(
    both: tuple[list[Row], list[Row]], buffer_bytes: int, first: dict[TopicPartition, int]
) -> None:
    """Kafka's message counts, what is erased stays so, what only the archive has is kept, doubles become one.

    Every count is that of plain Python, and exactly those types are written anew whose messages are others.
    """
    kafka, archive = both
    expected = reference(kafka, archive, first)
    with tempfile.TemporaryDirectory() as folder:
        runs = [runs_of(Path(folder) / name, rows, buffer_bytes) for name, rows in (("k", kafka), ("a", archive))]
        tally = compare(merged(*runs), first)
        frames = [judge(frame).filter("stays") for frame in merged(*runs)]
    verdicts = expected.verdicts
    assert (tally.read, tally.added, tally.kept) == (expected.read, verdicts["added"], verdicts["kept"])
    assert (tally.changed, tally.retyped) == (verdicts["changed"] + expected.doubled, verdicts["retyped"])
    assert +tally.types == expected.types
    assert tally.dirty == expected.dirty
    assert tally.before_start == {at: (len(offsets), min(offsets)) for at, offsets in expected.early.items()}
    stamp = pl.col("timestamp").cast(pl.Int64)
    rows = [row for frame in frames for row in frame.select(*SCHEMA).with_columns(stamp).iter_rows()]
    assert rows == [(*row.cells()[:-1], found[-1]) for row, found in zip(expected.stays, rows, strict=True)]


def compared(kafka: list[Row], archive: list[Row], tmp_path: Path) -> Tally:
    """Compare two small hours."""
    return compare(merged(runs_of(tmp_path / "k", kafka), runs_of(tmp_path / "a", archive)), {})


AT = PLACES[0]


def test_a_good_hour_needs_nothing(tmp_path: Path) -> None:
    """Where both sides have the same, nothing is to be written."""
    tally = compared([Row(AT, n) for n in range(5)], [Row(AT, n, was="a") for n in range(5)], tmp_path)
    assert tally == Tally(read=5, types=Counter(a=5))


def test_nothing_beside_nothing(tmp_path: Path) -> None:
    """An hour that neither side has is no difference."""
    assert compared([], [], tmp_path) == Tally()


def test_a_neighbour_is_not_written_anew(tmp_path: Path) -> None:
    """A message that comes in makes its own type be written, and not that of the message which follows it."""
    tally = compared([Row(AT, 5, type="a")], [Row(AT, 6, type="b", was="b"), Row(AT, 7, type="c", was="c")], tmp_path)
    assert (tally.added, tally.kept, tally.dirty) == (1, 2, {"a"})
    tally = compared([], [Row(AT, 6, type="a", was="b"), Row(AT, 7, type="c", was="c")], tmp_path)
    assert (tally.retyped, tally.kept, tally.dirty) == (1, 1, {"a", "b"})


def test_the_same_offset_elsewhere_is_another_message(tmp_path: Path) -> None:
    """Offsets of another topic, life or partition are never taken for one's own."""
    others = [TopicPartition("orders", "A", 1), TopicPartition("orders", "B", 0), TopicPartition("clicks", "A", 0)]
    tally = compared([Row(AT, 3)], [Row(at, 3, was="a") for at in others], tmp_path)
    assert (tally.added, tally.kept, tally.changed) == (1, 3, 0)


def test_what_is_erased_stays_erased(tmp_path: Path) -> None:
    """Kafka may still have what was erased: it does not come back, and its type need not be written."""
    erased = Row(AT, 1, (0, None, None, None, None), envelope.ERASED, envelope.ERASED)
    tally = compared([Row(AT, 0), Row(AT, 1), Row(AT, 2)], [Row(AT, 0, was="a"), erased, Row(AT, 2, was="a")], tmp_path)
    assert tally == Tally(read=3, kept=1, types=Counter({"a": 2, envelope.ERASED: 1}))


def test_a_double_under_two_types_becomes_one(tmp_path: Path) -> None:
    """A message that the archive has under two types stays once, under the type that it has by the present rules."""
    archive = [Row(AT, 1, was="a"), Row(AT, 1, was="b"), Row(AT, 2, was="a")]
    for kafka in ([], [Row(AT, 1)]):
        tally = compared(kafka, archive, tmp_path / str(len(kafka)))
        assert tally.types == Counter(a=2)
        assert "b" in tally.dirty
        assert tally.changed == 1


def test_every_column_counts(tmp_path: Path) -> None:
    """A difference in any one column is a change, and so is a null beside something empty."""
    others: list[Content] = [
        (1, b"k", "{}", None, None),
        (None, b"k", "{}", None, None),
        (0, None, "{}", None, None),
        (0, b"", "{}", None, None),
        (0, b"k", "", None, None),
        (0, b"k", None, None, None),
        (0, b"k", "{}", b"{}\n", None),
        (0, b"k", "{}", None, (("h", None),)),
    ]
    kafka = [Row(AT, number) for number in range(len(others))]
    archive = [Row(AT, number, content, was="a") for number, content in enumerate(others)]
    assert compared(kafka, archive, tmp_path).changed == len(others)
    headers: list[Headers] = [(("h", None),), (("h", b""),), (("h", None), ("h", None)), (("g", None),), None]
    pairs = [(one, other) for one in headers for other in headers]
    kafka = [Row(AT, number, (0, None, None, None, one)) for number, (one, _) in enumerate(pairs)]
    archive = [Row(AT, number, (0, None, None, None, other), was="a") for number, (_, other) in enumerate(pairs)]
    assert compared(kafka, archive, tmp_path / "headers").changed == len(pairs) - len(headers)


def test_what_is_decoded_now_and_was_not_is_written_anew(tmp_path: Path) -> None:
    """Of one payload, JSON in place of nothing is no other message, and still counts; JSON in other words does not."""
    kafka = [Row(AT, 1, (0, None, "{}", b"\0", None)), Row(AT, 2, (0, None, '{"a":1}', b"\1", None)), Row(AT, 3)]
    archive = [
        Row(AT, 1, (0, None, None, b"\0", None), was="a"),
        Row(AT, 2, (0, None, '{"a": 1}', b"\1", None), was="a"),
        Row(AT, 3, was="a"),
    ]
    tally = compared(kafka, archive, tmp_path)
    assert (tally.changed, tally.retyped, tally.dirty) == (0, 1, {"a"})


def test_messages_before_the_start_are_counted(tmp_path: Path) -> None:
    """Of those that come in, the ones below the first archived offset are told by partition, with the lowest."""
    kafka = [Row(at, offset) for at in PLACES for offset in range(6)]
    tally = compare(merged(runs_of(tmp_path / "k", kafka)), {PLACES[0]: 4, PLACES[1]: 0, PLACES[2]: 1})
    assert tally.before_start == {PLACES[0]: (4, 0), PLACES[2]: (1, 0)}
    archive = [Row(PLACES[0], 0, was="a"), Row(PLACES[0], 2, was="a")]
    tally = compare(merged(runs_of(tmp_path / "l", kafka[:6]), runs_of(tmp_path / "a", archive)), {PLACES[0]: 4})
    assert tally.before_start == {PLACES[0]: (2, 1)}
