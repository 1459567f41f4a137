"""Rules of aggregates: times, groups and measures of any JSON, exact and approximate."""

from __future__ import annotations

import hashlib
import json
import math
import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver_pipeline.errors import FollowerError, Superseded
from archiver_pipeline.followers.aggregator import Aggregator, watermark
from archiver_pipeline.followers.base import Times
from archiver_pipeline.followers.catch_up import catch_up, replace_hour
from archiver_pipeline.followers.extract import estimate
from archiver_pipeline.followers.feed import Feed
from archiver_pipeline.followers.lag import lags
from archiver_pipeline.hours import parse_hour
from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.settings.aggregates import Aggregate
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.table.archive import Archive
from archiver_pipeline_tests.batches import AUGUST_FIRST_AT_THREE, HOUR_MS, archive
from archiver_pipeline_tests.followers.workload import catch_up_now

AUGUST = AUGUST_FIRST_AT_THREE // 1000


class Counted:
    """An archive without a broker, and aggregates of it."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(BASE_DIR=folder, topics=("orders",), results_topic="")
        self.target = Archive(self.settings.archive_uri)

    def add(self, *payloads: Any, milliseconds: Any = AUGUST_FIRST_AT_THREE, **kinds: Any) -> None:
        """Archive payloads; what is no bytes is written as JSON."""
        content = [item if isinstance(item, bytes | None) else json.dumps(item).encode() for item in payloads]
        archive(self.target, content, milliseconds=milliseconds, **kinds)
        catch_up_now(self.target)

    def rows(self, measures: Mapping[str, str], **definition: Any) -> list[tuple[Any, ...]]:
        """Bring an aggregate `a` up to the archive and read its files: start, groups, measures, revision."""
        aggregate = Aggregate(**{"name": "a", "window": "minute", "measures": dict(measures), **definition})
        with closing(Aggregator(aggregate, self.settings)) as follower:
            catch_up(follower, self.settings)
        return self.read()

    def read(self) -> list[tuple[Any, ...]]:
        """Every row of the files, in order."""
        paths = sorted((self.settings.aggregates_path / "a").glob("dt=*/hr=*/*.parquet"))
        frames = [pl.read_parquet(path, hive_partitioning=False) for path in paths]
        return [row for frame in frames for row in frame.iter_rows()]


@pytest.fixture
def counted(tmp_path: Path) -> Counted:
    """An empty archive."""
    return Counted(tmp_path)


def moment(text: str) -> datetime:
    """A time in UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "minute"),
    [
        ("2019-08-01T03:04:05Z", "2019-08-01T03:04"),
        ("2019-08-01T05:04:05+02:00", "2019-08-01T03:04"),
        ("2019-08-01 03:04:05.678", "2019-08-01T03:04"),
        (AUGUST, "2019-08-01T03:00"),
        (AUGUST + 59.9, "2019-08-01T03:00"),
        (str(AUGUST), "2019-08-01T03:00"),
        (AUGUST * 1000 + 61_000, "2019-08-01T03:01"),
        (AUGUST * 1_000_000, "2019-08-01T03:00"),
        (0, "1970-01-01T00:00"),
        (-1, "1969-12-31T23:59"),
    ],
)
def test_a_time_may_be_text_or_seconds_or_less(counted: Counted, value: Any, minute: str) -> None:
    """ISO text, with or without a zone, and numbers of seconds, milliseconds or microseconds name the same minutes."""
    counted.add({"ts": value})
    assert counted.rows({"n": "count"}, time="$.ts") == [(moment(minute), 1, 1)]


@pytest.mark.parametrize("value", [None, "soon", "", True, {}, [], 1e300, "9" * 400, "2019-13-01", float("nan")])
def test_what_is_no_time_is_in_no_minute(counted: Counted, value: Any) -> None:
    """Nothing that a time field may hold stops an aggregate; such a message is left out."""
    counted.add({"ts": value}, {}, b"{", None, {"ts": AUGUST})
    assert counted.rows({"n": "count"}, time="$.ts") == [(moment("2019-08-01T03:00"), 1, 1)]


def test_groups_and_measures(counted: Counted) -> None:
    """Rows are counted, distinct values told apart by their text, and numbers summed up, whatever else is there."""
    counted.add(
        {"shop": "a", "amount": 2, "user": 1},
        {"shop": "a", "amount": "3.5", "user": "1"},
        {"shop": "a", "amount": "many", "user": 2},
        {"shop": "b", "user": {"x": 1}},
        {"shop": None, "amount": 100},
        {"amount": 100},
    )
    numbers = {"total": "sum $.amount", "most": "max $.amount", "least": "min $.amount"}
    rows = counted.rows(
        {"n": "count", "users": "distinct $.user", **numbers},
        group_by={"shop": "$.shop"},
        window="day",
    )
    day = moment("2019-08-01T00:00")
    assert rows == [(day, "a", 3, 2, 5.5, 3.5, 2.0, 1), (day, "b", 1, 0, None, None, None, 1)]


def test_groups_by_columns_and_headers(counted: Counted) -> None:
    """A group may be a column of the message, its key, or a header."""
    counted.add({"type": "x"}, headers=[("shard", b"1"), ("shard", b"2")])
    groups = {"topic": "topic", "part": "partition", "kind": "type", "who": "key", "shard": "header:shard"}
    ((_, *found),) = counted.rows({"n": "count"}, group_by=groups)
    assert found == ["orders", "0", "x", "key", "2", 1, 1]


def test_a_long_text_of_a_group_is_cut(counted: Counted) -> None:
    """Up to 1,000 characters stay; of more there is the beginning, and a hash that tells texts apart."""
    texts = ["é" * 1000, "é" * 1001, "é" * 1001 + "a"]
    counted.add(*({"url": text} for text in [*texts, texts[2]]))
    hashes = [hashlib.md5(text.encode()).hexdigest() for text in texts]
    expected = {texts[0]: 1, f"{'é' * 967}…{hashes[1]}": 1, f"{'é' * 967}…{hashes[2]}": 2}
    assert {url: n for _, url, n, _ in counted.rows({"n": "count"}, group_by={"url": "$.url"})} == expected


def test_a_sum_past_every_number_stops_nothing(counted: Counted) -> None:
    """It is infinite, stays so whatever comes, and what is counted anew is exact."""
    big, small = {"amount": 1e308}, {"amount": -1e308}
    counted.add(big, big)
    assert counted.rows({"total": "sum $.amount"})[0][1:] == (math.inf, 1)
    counted.add(small, small, small)
    ((_, total, _),) = counted.rows({"total": "sum $.amount"})
    assert total in (math.inf, None)


@pytest.mark.parametrize("users", [0, 10, 3_000, 60_000])
def test_an_approximate_count_is_near(counted: Counted, users: int) -> None:
    """Within four standard errors of 0.8 %, in batches, with users several times; small counts are all but exact."""
    for part in range(3):
        counted.add({"n": part}, *({"uid": f"user {n}"} for n in range(part * users // 5, users)))
    ((_, found, exact, _),) = counted.rows({"near": "approx_distinct $.uid", "exact": "distinct $.uid"})
    assert exact == users
    assert abs(found - users) <= max(1, 0.0325 * users)


def test_an_estimate_of_nothing_and_of_everything_is_finite() -> None:
    """With no register used it is 0, and with all of them full it is a number."""
    assert estimate(0, 0.0) == 0
    assert estimate(1 << 14, (1 << 14) * 2.0**-51) > 10**15


def test_another_definition_counts_again(counted: Counted) -> None:
    """A changed rule counts everything anew from the archive, in further revisions; other columns begin afresh."""
    counted.add({"uid": 1, "who": 1}, {"uid": 1, "who": 2})
    assert counted.rows({"users": "distinct $.uid"})[0][1:] == (1, 1)
    assert counted.rows({"users": "distinct $.who"})[0][1:] == (2, 2)
    assert counted.rows({"users": "distinct $.who"})[0][1:] == (2, 2)
    assert counted.rows({"people": "distinct $.who"})[0][1:] == (2, 1)


def test_events_of_other_hours_stay_when_an_hour_is_counted_anew(counted: Counted) -> None:
    """Where the time is a field, a window has events of several hours of the archive: each hour's part is its own."""
    definition: dict[str, Any] = {"time": "$.ts", "window": "hour"}
    measures = {"n": "count", "users": "distinct $.uid"}
    stamps = [AUGUST_FIRST_AT_THREE, AUGUST_FIRST_AT_THREE + HOUR_MS, AUGUST_FIRST_AT_THREE + HOUR_MS]
    counted.add({"ts": AUGUST, "uid": 1}, {"ts": AUGUST, "uid": 1}, {"ts": AUGUST, "uid": 2}, milliseconds=stamps)
    assert counted.rows(measures, **definition)[0][1:] == (3, 2, 1)
    aggregate = Aggregate(name="a", measures=measures, **definition)
    with closing(Aggregator(aggregate, counted.settings)) as follower:
        for _ in range(2):
            assert replace_hour(follower, counted.settings, parse_hour("2019-08-01T04")) == 2
    assert counted.rows(measures, **definition)[0][1:] == (3, 2, 1)


def test_a_stamp_from_the_future_makes_nothing_final(counted: Counted) -> None:
    """Its own minute waits for its time to come, and it tells nothing of other minutes."""
    future = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp() * 1000)
    counted.add({}, {}, milliseconds=[AUGUST_FIRST_AT_THREE, future])
    assert counted.rows({"n": "count"}) == [(moment("2019-08-01T03:00"), 1, 1)]


TIMES = st.integers(min_value=0, max_value=1000)


@given(
    latest=st.dictionaries(st.integers(0, 3), TIMES),
    idle=st.dictionaries(st.integers(0, 3), TIMES),
    live=st.sets(st.integers(0, 3)),
)
def test_the_watermark_is_that_of_the_slowest_partition(
    latest: dict[int, int], idle: dict[int, int], live: set[int]
) -> None:
    """It passes no live partition, counts one without news by the clock, and waits for one never heard of."""
    at = {n: TopicPartition("orders", "A", n) for n in range(4)}
    times = Times(1000, {at[n]: ms for n, ms in idle.items()}, frozenset(at[n] for n in live))
    found = watermark(times, {at[n]: ms for n, ms in latest.items()})
    if not live:
        assert found == 1000
    elif any(n not in latest and n not in idle for n in live):
        assert found is None
    else:
        assert found == min(max(latest.get(n, 0), idle.get(n, 0)) for n in live)


def test_the_same_counts_in_whatever_order_and_steps(tmp_path: Path) -> None:
    """One batch or many, any order: the windows come out the same."""
    chance = random.Random(5)
    stamps = [AUGUST_FIRST_AT_THREE + chance.randrange(HOUR_MS) for _ in range(300)]
    payloads = [{"uid": chance.randrange(20), "type": chance.choice("ab")} for _ in stamps]
    found = []
    for name, size in (("one", 300), ("many", 37)):
        counted = Counted(tmp_path / name)
        for start in range(0, 300, size):
            counted.add(*payloads[start : start + size], milliseconds=stamps[start : start + size])
            if name == "many":
                counted.rows({"n": "count", "users": "distinct $.uid"}, group_by={"kind": "type"})
        rows = counted.rows({"n": "count", "users": "distinct $.uid"}, group_by={"kind": "type"})
        found.append([row[:-1] for row in rows])
        order = list(range(300))
        chance.shuffle(order)
        stamps, payloads = [stamps[n] for n in order], [payloads[n] for n in order]
    assert found[0] == found[1]


@pytest.mark.parametrize(("count", "size"), [(40, 400_000), (1, 9_000_000)], ids=["many large ones", "a huge one"])
def test_json_that_takes_much_memory_stops_nothing(counted: Counted, count: int, size: int) -> None:
    """Messages whose JSON is many times as large once taken apart are counted, a few at a time."""
    numbers = [1] * (size // 2)
    counted.add(*(json.dumps({"uid": n, "a": numbers}, separators=(",", ":")).encode() for n in range(count)))
    ((_, events, _, _),) = counted.rows({"n": "count", "users": "distinct $.uid"})
    assert events == count


def test_to_ask_how_far_it_is_changes_nothing(counted: Counted) -> None:
    """Status with other settings than those of the runs tells what they would count anew, and leaves the state as it
    is."""
    counted.add({"uid": 1})
    for aggregate in counted.settings.every_aggregate:
        with closing(Aggregator(aggregate, counted.settings)) as follower:
            catch_up(follower, counted.settings)
    other = counted.settings.model_copy(update={"users": "approximate", "user_path": "$.who"})
    for _ in range(2):
        assert {item.lag for item in lags(other, counted.target.ledger())} == {1}
        assert {item.lag for item in lags(counted.settings, counted.target.ledger())} == {0}


def test_a_run_with_the_old_definition_does_not_fill_the_new_state(counted: Counted) -> None:
    """Once a process has begun again with another rule, one at work by the old rule takes nothing more."""
    counted.add({"uid": 1, "who": 1})
    old, new = (Aggregate(name="a", window="minute", measures={"n": f"distinct $.{key}"}) for key in ("uid", "who"))
    with closing(Aggregator(old, counted.settings)) as before, closing(Aggregator(new, counted.settings)) as after:
        with pytest.raises(FollowerError, match="has changed while a run was at work"):
            catch_up(before, counted.settings)
        assert catch_up(after, counted.settings).messages == 1


def test_what_was_seen_to_be_idle_stays_seen(counted: Counted) -> None:
    """A sparse partition whose next message is on its way does not take the watermark back to its last one."""
    counted.add({}, milliseconds=AUGUST_FIRST_AT_THREE)
    aggregate = Aggregate(name="a", window="minute", measures={"n": "count"})
    with closing(Aggregator(aggregate, counted.settings)) as follower:
        catch_up(follower, counted.settings)
        (at,) = counted.target.ledger().committed
        later = AUGUST_FIRST_AT_THREE + HOUR_MS
        follower.settle(Times(later, {at: later}, frozenset({at})))
        follower.settle(Times(later, {}, frozenset({at})))
        assert watermark(Times(later, {}, frozenset({at})), follower.store.latest_ms()) >= later  # type: ignore[operator]


def test_two_that_publish_at_once(counted: Counted) -> None:
    """Two runs that make the first files of an aggregate do not get into each other's way."""
    counted.add({})
    aggregate = Aggregate(name="a", window="minute", measures={"n": "count"})

    def run() -> None:
        with closing(Aggregator(aggregate, counted.settings)) as follower, suppress(Superseded):
            catch_up(follower, counted.settings)

    with ThreadPoolExecutor(4) as pool:
        for each in [pool.submit(run) for _ in range(4)]:
            each.result()
    assert counted.read() == [(moment("2019-08-01T03:00"), 1, 1)]


def test_a_state_put_back_from_a_copy_loses_no_result(counted: Counted) -> None:
    """Versions that wait are numbered behind what was sent before, in their order."""
    counted.add({"type": "a"}, {"type": "b"})
    aggregate = Aggregate(name="a", window="minute", group_by={"kind": "type"}, measures={"n": "count"})
    with closing(Aggregator(aggregate, counted.settings)) as follower:
        store = follower.store
        for step in Feed(counted.target).steps(follower.position()):
            follower.take(Feed(counted.target).frames(step, follower.columns), step.before, step.after)
        with store.transaction():
            store.finish(AUGUST + 3600)
            before = store.results(0, 10)
            store.renumber(1000)
        assert store.results(1000, 10) == [replace(item, seq=item.seq + 1000) for item in before]
        assert store.newest() == 1002
