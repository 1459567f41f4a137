"""Rules of the status page that need no broker: the verdict, the calendar of hours, charts, and text of others."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archiver_pipeline.amounts import duration, short
from archiver_pipeline.followers.lag import FollowerLag
from archiver_pipeline.formats.waits import Wait
from archiver_pipeline.hours import DueHour, HourTotal, hour_at
from archiver_pipeline.page.calendar import DAYS, LEVELS, calendar, level_of
from archiver_pipeline.page.charts import bars_of, round_up
from archiver_pipeline.page.document import HEADER_POLICY, POLICY, Links, document
from archiver_pipeline.page.hours_table import title_of
from archiver_pipeline.page.lag_history import MOST_SAMPLES, SLOT_SECONDS, LagHistory
from archiver_pipeline.page.standing import FilesState, PartitionLag, SourceState, Standing
from archiver_pipeline.page.verdict import DUE_SECONDS, OFF_SECONDS, RECENT_SECONDS, verdict
from archiver_pipeline.plan import MADE_AGAIN, RETENTION, Gap, TopicPartition
from archiver_pipeline.run_history import Daemon, FailedRun
from archiver_pipeline.status import BatchStatus
from archiver_pipeline.table.ledger import Ledger, RecordedGap
from archiver_pipeline_tests.standings import HOUR, NOW, at_night, empty, standing

PRESENT = int(NOW // HOUR)
EVIL = '<script>alert("x")</script>\u202eotpyrc\U0001f98a\x00"\'&<img src=x onerror=alert(1)>'


def _total(back: int, messages: int = 10, *, sealed: bool = True, added: float = NOW) -> HourTotal:
    return HourTotal(hour_at(PRESENT - back), 1, messages, 100, sealed, int(added * 1000))


def _gap(age: float, reason: str = RETENTION) -> RecordedGap:
    at = TopicPartition("orders", "A", 0)
    return RecordedGap(Gap(at, 10, 14, reason), datetime.fromtimestamp(NOW - age, UTC))


def _archive(state: Standing, **changes: object) -> Standing:
    assert state.archive is not None
    ledger = replace(state.archive.ledger, **{k: v for k, v in changes.items() if k in ("gaps", "lost")})  # type: ignore[arg-type]
    rest = {k: v for k, v in changes.items() if k not in ("gaps", "lost")}
    return replace(state, archive=replace(state.archive, ledger=ledger, **rest))  # type: ignore[arg-type]


def _dagster(state: Standing, **changes: object) -> Standing:
    assert state.history is not None
    return replace(state, history=replace(state.history, **changes))  # type: ignore[arg-type]


def _broken(name: str) -> Standing:
    state = standing()
    return replace(state, sources={**state.sources, name: SourceState("it is gone", answered=NOW - 60)})


def _silent(age: float) -> Standing:
    return _dagster(standing(), daemons=(Daemon("SENSOR", healthy=False, heartbeat=NOW - age),))


def _waiting(age: float) -> Standing:
    files = FilesState(1, 1, 1, (_total(30, added=NOW - age, sealed=False),), (DueHour(hour_at(PRESENT - 30), 1, 1),))
    return replace(standing(), files=files)


FAILED = FailedRun("abc", "archive", NOW - 5, "the disk is full", "", "")
WAIT = Wait("orders", "A", 3, 17, "42", "https://registry", "nobody knows it", "2026-11-20T01:00:00Z")


@pytest.mark.parametrize(
    ("state", "level", "words"),
    [
        (standing(), "ok", "All is well: 20 messages on the way, the oldest for 2.5 s."),
        (standing(lag=0), "ok", "All is well: the archive has everything that Kafka has."),
        (_broken("archive"), "fault", "The archive cannot be read."),
        (_broken("broker"), "fault", "The broker does not answer."),
        (_broken("dagster"), "warning", "Dagster's record cannot be read."),
        (replace(standing(), reasons=("9 offsets wait",)), "fault", "Messages are not archived in time."),
        (_archive(standing(), gaps=(_gap(60.0),)), "fault", "Kafka deleted 4 offsets of orders before"),
        (_archive(standing(), gaps=(_gap(RECENT_SECONDS + 1),)), "ok", "All is well"),
        (_archive(standing(), gaps=(_gap(60.0, MADE_AGAIN),)), "ok", "All is well"),
        (_archive(standing(), waits=(WAIT,)), "fault", "orders/3 waits at offset 17 for schema 42."),
        (_archive(standing(), interrupted=(datetime.now(UTC),)), "warning", "An erasure was interrupted."),
        (replace(standing(), followers=(FollowerLag("mysql", None, None, "no"),)), "warning", "The follower mysql"),
        (_silent(300.0), "fault", "Dagster's daemon is silent"),
        (_silent(OFF_SECONDS + 1), "ok", "All is well"),  # Passes come from cron.
        (_dagster(standing(), failures=(FAILED,)), "warning", "The last run of the job archive failed."),
        (_dagster(standing(), failures=(replace(FAILED, ended=NOW - 60),)), "ok", "All is well"),
        (_waiting(DUE_SECONDS + 60), "warning", "1 closed hour waits for sealing."),
        (_waiting(60.0), "ok", "All is well"),
        (empty(), "pending", "Nothing is archived yet."),
        (replace(standing(), sources={"archive": SourceState("not yet", pending=True)}), "pending", "Looking:"),
        (at_night(), "fault", "The broker does not answer, and 4 more concerns."),
    ],
)  # fmt: skip
def test_the_verdict(state: Standing, level: str, words: str) -> None:
    """What is worst comes first, in a sentence; what is over, or somebody wanted so, is no concern."""
    found = verdict(state)
    assert (found.level, found.sentence[: len(words)]) == (level, words)
    assert level in ("ok", "pending") or found.concerns[0].level == level


def test_each_concern_says_what_to_do_or_why() -> None:
    """Nobody is left alone with a fault."""
    for concern in verdict(at_night()).concerns:
        assert concern.do
        assert concern.since is None or concern.since <= NOW


def test_the_calendar_ends_today_whatever_stamps_say() -> None:
    """Stamps from the future and without a time are told of apart, and older days are summed up."""
    totals = (
        _total(400),
        _total(30),
        _total(0, sealed=False),
        _total(-50_000, 7),
        HourTotal(hour_at(None), 1, 3, 1, True, 0),
    )
    found = calendar(FilesState(5, 1, 1, totals), Ledger(1), (), NOW)
    assert len(found.days) == DAYS
    assert found.days[0][0] == "2026-11-20"
    cells = {cell.hour: cell for _, day in found.days for cell in day}
    assert cells[hour_at(PRESENT)].state == "open"
    assert (cells[hour_at(PRESENT - 30)].state, cells[hour_at(PRESENT - 29)].state) == ("sealed", "empty")
    assert cells[hour_at(PRESENT + 1)].state == "ahead"
    assert (found.older.hours, found.older.messages, found.future.messages, found.unknown.messages) == (1, 10, 7, 3)


def test_an_archive_of_long_ago_has_its_own_last_days() -> None:
    """With no message of today the newest days with messages are shown, and no more days than there are."""
    found = calendar(FilesState(1, 1, 1, (_total(24 * 901), _total(24 * 900))), Ledger(1), (), NOW)
    assert [sum(cell.total is not None for cell in day) for _, day in found.days] == [1, 1]
    assert calendar(FilesState(), Ledger(1), (), NOW).days == ()


def test_what_went_wrong_stands_out_in_its_hour() -> None:
    """Lost messages, gaps and failed runs mark their hours, until a file was added after the run."""
    day = hour_at(PRESENT - 10).dt
    key = f"{day}-{hour_at(PRESENT - 10).hr}:00"
    failed = FailedRun("0123456789", "backfill", NOW - 100, "", key, key)
    totals = (_total(10, added=NOW - 200), _total(9), _total(0, sealed=False))
    ledger = Ledger(1, lost={hour_at(PRESENT - 9).name: 5, "2019-08-01T03": 1}, gaps=(_gap(10.0),))
    found = calendar(FilesState(3, 1, 1, totals), ledger, (failed,), NOW)
    told = {cell.hour: title_of(cell) for _, cells in found.days for cell in cells if cell.troubles}
    assert told.keys() == {hour_at(PRESENT - back) for back in (10, 9, 0)}
    assert told[hour_at(PRESENT - 10)].endswith("the run 01234567 of backfill failed for it")
    assert told[hour_at(PRESENT - 9)].endswith("sealed; 5 messages lost with a file and given up")
    assert told[hour_at(PRESENT)].endswith("a gap in orders/0 was found then: 4 offsets lost")
    assert found.troubles == ("2019-08-01T03: 1 message lost with a file and given up",)
    later = (replace(totals[0], added=int(NOW * 1000)), *totals[1:])
    found = calendar(FilesState(3, 1, 1, later), Ledger(1), (failed,), NOW)
    assert not any(cell.troubles for _, cells in found.days for cell in cells)


@given(st.integers(1, 10**12), st.integers(1, 10**12))
def test_shades_are_fifths_of_the_busiest_hour(one: int, other: int) -> None:
    """More messages are never lighter, the busiest hour is darkest, and one message is seen."""
    less, more = sorted((one, other))
    assert 1 <= level_of(less, more) <= level_of(more, more) == LEVELS
    assert level_of(0, more) == 0
    assert level_of(less, more) == -(-LEVELS * less // more)


@given(st.lists(st.tuples(st.floats(0, 80_000), st.integers(0, 10**6)), min_size=1, max_size=50))
def test_no_message_is_missing_from_the_chart(batches: list[tuple[float, int]]) -> None:
    """Each batch is in one bar, none is higher than the axis, and the last bar ends now."""
    rows = [
        BatchStatus(1, datetime.fromtimestamp(NOW, UTC) - timedelta(seconds=age), messages, 1, 1, 1.0, "run")
        for age, messages in batches
    ]
    found = bars_of(rows, NOW)
    assert sum(found.messages) == sum(messages for _, messages in batches)
    assert sum(found.batches) == len(batches)
    assert max(found.messages) / found.step <= found.top * (1 + 1e-9)
    assert found.start + found.step * len(found.messages) == pytest.approx(NOW)


@pytest.mark.parametrize(("value", "top"), [(0, 1), (0.3, 0.5), (1, 1), (1.01, 2), (47, 50), (501, 1000)])
def test_an_axis_ends_in_a_round_number(value: float, top: float) -> None:
    """It is 1, 2 or 5 with zeros, and at least as large."""
    assert round_up(value) == pytest.approx(top)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0"), (999, "999"), (1000, "1.0k"), (9_960, "10k"), (999_600, "1.0M"), (38_123_456, "38M")]
)
def test_a_short_count_has_four_characters_at_most(count: int, text: str) -> None:
    """So that it fits into the cell of an hour."""
    assert short(count) == text


def test_the_history_of_lag_is_bounded() -> None:
    """It keeps the peaks of the last samples, forgets topics that are gone, and takes in one that comes later."""
    history = LagHistory()
    for number in range(4 * MOST_SAMPLES):
        lags = {"old": number, **({"new": 7} if number > 4 * MOST_SAMPLES - 3 else {})}
        history.see(number * SLOT_SECONDS / 2, lags)
    samples = history.of("old")
    assert len(samples) == MOST_SAMPLES
    assert samples[-1][1] == 4 * MOST_SAMPLES - 1
    assert all(lag % 2 for _, lag in samples)
    assert [lag for _, lag in history.of("new")] == [7]
    history.see(1e6, {"new": 1})
    assert history.of("old") == []


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.attributes += attrs


def _evil() -> Standing:
    state = at_night()
    assert state.broker is not None
    assert state.history is not None
    lag = PartitionLag(EVIL, 0, 5, 1.0)
    return _archive(
        replace(
            state,
            address=EVIL,
            sources={**state.sources, "files": SourceState(EVIL, answered=NOW)},
            broker=replace(state.broker, partitions=(lag, replace(lag, partition=1)), unreadable=(EVIL,)),
            followers=(FollowerLag(EVIL, None, None, EVIL),),
            history=replace(state.history, failures=(FailedRun(EVIL, EVIL, NOW, EVIL * 50, EVIL, EVIL),)),
            settings={"ARCHIVER_TOPICS": EVIL},
        ),
        gaps=(RecordedGap(Gap(TopicPartition(EVIL, "A", 0), 1, 2, EVIL), datetime.fromtimestamp(NOW, UTC)),),
        waits=(replace(WAIT, topic=EVIL, schema=EVIL, why=EVIL),),
    )


def test_text_of_others_is_text() -> None:
    """Whatever a topic, an error or a follower is called, no element, attribute or direction of writing comes of it."""
    page = document(_evil(), Links((("/metrics", "there"),), 10))
    found = _Elements()
    found.feed(page)
    assert found.names.count("script") == 1
    assert "img" not in found.names
    assert not [name for name, _ in found.attributes if name.startswith("on") or name == "style"]
    assert "\u202e" not in page
    assert "\x00" not in page
    assert "\U0001f98a" in page
    assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt;\\u202eotpyrc" in page


@pytest.mark.parametrize("state", [standing(), at_night(), empty(), _evil()])
def test_the_page_asks_for_nothing_else(state: Standing) -> None:
    """There is no address in it but its own paths, and its policy has the hashes of its style and its script."""
    page = document(state, Links((("/metrics", "there"),), 10))
    found = _Elements()
    found.feed(page)
    addresses = {value for name, value in found.attributes if name in ("href", "src", "action", "srcset", "data")}
    assert {value for value in addresses if value and not value.startswith("data:image/svg+xml,")} == {"/metrics"}
    assert "url(" not in page
    assert "@import" not in page
    for name in ("style", "script"):
        content = re.findall(f"<{name}>(.*?)</{name}>", page, re.DOTALL)
        assert len(content) == 1
        digest = base64.b64encode(hashlib.sha256(content[0].encode()).digest()).decode()
        assert f"{name}-src 'sha256-{digest}'" in POLICY
    assert HEADER_POLICY.startswith(POLICY)


def test_a_file_does_not_look_for_a_newer_one() -> None:
    """What is written once stays as it is, with or without scripts."""
    page = document(standing())
    assert 'http-equiv="refresh"' not in page
    assert "data-refresh" not in page
    assert f'data-now="{NOW:.3f}"' in page


def test_much_stays_small() -> None:
    """With 300 topics of three partitions, two years of hours and 500 gaps the page is bounded."""
    state = standing(300, 3, 800)
    page = document(_archive(state, gaps=tuple(_gap(60.0 * number) for number in range(500))))
    assert len(page) < 400_000
    assert "200 more topics" in page or "more topics without a lag" in page
    assert "and 450 older" in page


def test_very_many_concerns_stay_small() -> None:
    """With thousands of topics that cannot be read, gaps in as many and all of one hour, the page says how many more
    there are."""
    state = standing(10, 1, 10)
    assert state.broker is not None
    gaps = tuple(RecordedGap(replace(_gap(0.0).gap, at=TopicPartition(f"t{number}", "A", 0)), _gap(60.0).time)
                 for number in range(5_000))  # fmt: skip
    unreadable = tuple(f"topic t{number} cannot be read" for number in range(5_000))
    many = _archive(replace(state, broker=replace(state.broker, unreadable=unreadable)), gaps=gaps)
    found = verdict(many)
    assert found.sentence.endswith("and 9,999 more concerns.")
    assert [item.what for item in found.concerns if "like these" in item.what] == ["4,980 more concerns like these"] * 2
    page = document(many)
    assert "4,990 more gaps, too" in page
    assert len(page) < 200_000


def test_old_numbers_are_marked() -> None:
    """What a source told before it went away is shown as old, with the time of its last answer."""
    page = document(at_night())
    assert "245,000 (old)" in page
    assert "No answer; it answered last " in page
    assert duration(1_500) in page
