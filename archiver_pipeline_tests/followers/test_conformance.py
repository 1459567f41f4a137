"""Rules that hold for every follower, whatever is killed, rewritten, sealed or removed under it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import polars as pl
import pytest

from archiver_pipeline.errors import ArchiveDamaged, FollowerUnavailable, Superseded
from archiver_pipeline.followers.base import Follower
from archiver_pipeline.followers.catch_up import CaughtUp, catch_up, replace_hour
from archiver_pipeline.followers.feed import Feed
from archiver_pipeline.hours import Hour
from archiver_pipeline.rewrites.seal import Sealer
from archiver_pipeline.steps import OnStep
from archiver_pipeline_tests.followers.kit import Kit
from archiver_pipeline_tests.followers.workload import Filled
from archiver_pipeline_tests.processes import Processes, environment

KITS: tuple[str, ...] = ("minutes", "mysql", "search")
WITH_SERVER = ("mysql", "search")
KILLED = -9


@pytest.fixture(params=KITS)
def kit(request: pytest.FixtureRequest) -> Kit:
    """Each follower in turn."""
    found = request.getfixturevalue(f"{request.param}_kit")
    assert isinstance(found, Kit)
    return found


@pytest.fixture
def filled(kit: Kit, tmp_path: Path) -> Filled:
    """An archive of nine batches."""
    archive = Filled(tmp_path, kit.settings)
    archive.add(9)
    return archive


@pytest.fixture
def follower(kit: Kit, filled: Filled) -> Iterator[Follower]:
    """The follower, as a run has it."""
    with closing(kit.open(filled.settings)) as opened:
        yield opened


def follow(follower: Follower, filled: Filled, on_step: OnStep = lambda _: None, step_messages: int = 100) -> CaughtUp:
    """One pass in small steps."""
    return catch_up(follower, filled.settings, on_step, step_messages=step_messages)


def assert_right(kit: Kit, filled: Filled) -> None:
    """Assert that the follower has what the archive has."""
    assert kit.content(filled.settings) == kit.expected(filled.messages())


def half_a_step(follower: Follower, filled: Filled) -> None:
    """Let a step fail when all of its messages were handed over."""
    feed = Feed(filled.target)
    step = next(feed.steps(follower.position()))

    def broken() -> Iterator[pl.DataFrame]:
        yield from feed.frames(step, follower.columns)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        follower.take(broken(), step.before, step.after)


def erase_a_user(kit: Kit, filled: Filled, follower: Follower) -> None:
    """Erase messages from the archive, and assert that the follower, which then catches up, has none of them."""
    for hour in filled.hours():
        filled.rewrite(hour, erase=pl.col("value").str.contains("user-3").fill_null(value=False))
    follow(follower, filled)
    assert "user-3" not in str(kit.content(filled.settings))
    assert_right(kit, filled)


def test_everything_is_taken_once(kit: Kit, filled: Filled, follower: Follower) -> None:
    """A follower that comes late takes all that is there; a second pass finds nothing, also from another process."""
    done = follow(follower, filled)
    assert (done.messages, done.lag, done.hours) == (filled.messages().height, 0, ())
    assert_right(kit, filled)
    assert follow(follower, filled).steps == 0
    with closing(kit.open(filled.settings)) as another:
        assert follow(another, filled).steps == 0
    assert_right(kit, filled)


def test_only_what_is_new_is_read(kit: Kit, filled: Filled, follower: Follower) -> None:
    """What was taken is not scanned again: a pass reads the messages of new batches, and late ones reach their hour."""
    follow(follower, filled)
    before = filled.messages().height
    filled.add(2)
    assert follow(follower, filled).messages == filled.messages().height - before
    assert_right(kit, filled)


@pytest.mark.slow
def test_killed_again_and_again(kit: Kit, filled: Filled) -> None:
    """SIGKILL at each step, and at any moment within one: nothing is lost or doubled in the end."""
    chance = random.Random(1)
    traps = [("take", 1, 0.0), ("frame", 1, 0.0), ("take", 2, 0.0), ("settle", 1, 0.0)]
    traps += [("finish", 2, 0.0), ("publish", 2, 0.0)]
    traps += [(chance.choice(("take", "frame")), chance.randint(1, 3), chance.random() ** 2 / 5) for _ in range(8)]
    variables = environment(filled.environment())
    child = ["-m", "archiver_pipeline_tests.followers.child", kit.name, "100"]
    killed = 0
    with Processes() as processes:
        for number, (step, count, delay) in enumerate(traps):
            if number % 3 == 2:
                filled.add(1)
            ended = processes.run([*child, step, str(count), str(delay)], variables)
            assert ended.code in (0, KILLED), ended.said
            killed += ended.code == KILLED
        assert killed >= len(traps) // 3
        ended = processes.run(child, variables)
    assert ended.code == 0, ended.said
    assert_right(kit, filled)


def test_two_runs_at_once(kit: Kit, filled: Filled) -> None:
    """Two runs of one follower from one position: whatever each of them does, no message is taken twice."""

    def run() -> None:
        # One that finds the other faster time and again gives up, as a run would.
        with closing(kit.open(filled.settings)) as own, suppress(Superseded):
            follow(own, filled, step_messages=60)

    with ThreadPoolExecutor(2) as pool:
        for each in [pool.submit(run), pool.submit(run)]:
            each.result()
    with closing(kit.open(filled.settings)) as last:
        follow(last, filled)
    assert_right(kit, filled)


def test_the_same_step_again_is_refused(kit: Kit, filled: Filled, follower: Follower) -> None:
    """Messages that were taken are not taken again from an old position."""
    feed = Feed(filled.target)
    step = next(feed.steps(follower.position()))
    follower.take(feed.frames(step, follower.columns), step.before, step.after)
    with pytest.raises(Superseded):
        follower.take(feed.frames(step, follower.columns), step.before, step.after)
    follow(follower, filled)
    assert_right(kit, filled)


def test_an_error_while_messages_come_undoes_the_step(kit: Kit, filled: Filled, follower: Follower) -> None:
    """Half a step leaves nothing behind: neither messages nor a position."""
    before = follower.position()
    half_a_step(follower, filled)
    assert follower.position() == before
    follow(follower, filled)
    assert_right(kit, filled)


def test_half_a_step_of_what_is_then_erased(kit: Kit, filled: Filled, follower: Follower) -> None:
    """What a step that failed may have left behind does not outlive an erasure in the archive."""
    half_a_step(follower, filled)
    erase_a_user(kit, filled, follower)


def test_files_sealed_and_removed_under_it(kit: Kit, filled: Filled, follower: Follower) -> None:
    """Sealing, and the removal of the small files, in the midst of a step: the messages are found where they went."""
    done: list[Hour] = []

    def seal(step: str) -> None:
        if step == "frame" and not done:
            done.extend(filled.hours())
            for hour in done:
                Sealer(filled.settings).seal(hour)
            Sealer(filled.settings).clean()

    assert follow(follower, filled, seal).lag == 0
    assert done
    assert_right(kit, filled)
    filled.add(2)
    follow(follower, filled)
    assert_right(kit, filled)


def test_a_log_that_no_longer_goes_back(kit: Kit, filled: Filled, follower: Follower) -> None:
    """Where the log has been cleaned up, old messages are found by their offsets, and new ones as ever."""
    filled.target.table().create_checkpoint()
    for path in sorted((Path(filled.target.uri) / "_delta_log").glob("*.json"))[:-1]:
        path.unlink()
    assert follow(follower, filled).lag == 0
    assert_right(kit, filled)


@pytest.mark.parametrize("taken", [False, True], ids=["before it was taken", "after it was taken"])
def test_a_changed_hour(kit: Kit, filled: Filled, follower: Follower, taken: bool) -> None:
    """An hour that a backfill has changed, with messages of other types and values, is replaced."""
    if taken:
        follow(follower, filled)
    value = pl.when(pl.col("offset") % 3 == 0).then(pl.lit('{"uid":"mended","url":"/m"}')).otherwise("value")
    hour = filled.hours()[1]
    filled.rewrite(hour, value.alias("value"))
    filled.rewrite(hour, pl.when(pl.col("type") == "object.1").then(pl.lit("retyped")).otherwise("type").alias("type"))
    done = follow(follower, filled)
    assert hour in done.hours
    assert done.lag == 0
    assert_right(kit, filled)
    assert follow(follower, filled).steps == 0


def test_an_hour_that_changes_again_meanwhile(kit: Kit, filled: Filled, follower: Follower) -> None:
    """An hour that is rewritten once more while a run is at work does not keep the run from its end."""
    hour, changes = filled.hours()[1], 0

    def change(step: str = "take") -> None:
        nonlocal changes
        if step == "take" and changes < 2:
            changes += 1
            filled.rewrite(hour, pl.lit(f'{{"uid":"mended-{changes}"}}').alias("value"))

    change()
    follow(follower, filled)
    filled.add(1)
    changes = 1
    follow(follower, filled, change)
    follow(follower, filled)
    assert_right(kit, filled)


def test_an_erased_message(kit: Kit, filled: Filled, follower: Follower) -> None:
    """What is erased from the archive leaves every follower."""
    follow(follower, filled)
    erase_a_user(kit, filled, follower)


def test_an_hour_on_request(kit: Kit, filled: Filled, follower: Follower) -> None:
    """A backfill of an hour of the follower takes it anew from the archive, and nothing is there twice."""
    follow(follower, filled)
    filled.add(1)
    hour = filled.hours()[1]
    assert replace_hour(follower, filled.settings, hour) > 0
    follow(follower, filled)
    assert_right(kit, filled)


def test_a_damaged_file_is_not_taken(kit: Kit, filled: Filled, follower: Follower) -> None:
    """A file whose content is not what its name says stops the follower with a word on what to do, and no more."""
    (path,) = filled.target.files().sort("added")["path"][:1]
    file = Path(filled.target.uri) / path
    good = file.read_bytes()
    file.write_bytes(good[:40] + bytes([good[40] ^ 1]) + good[41:])
    with pytest.raises(ArchiveDamaged, match="archiver backfill"):
        follow(follower, filled)
    file.write_bytes(good)
    follow(follower, filled)
    assert_right(kit, filled)


@pytest.mark.parametrize("kit", WITH_SERVER, indirect=True)
def test_a_server_that_is_down(kit: Kit, filled: Filled, follower: Follower) -> None:
    """A server that does not answer is said to be so within seconds; once it is back, everything arrives."""
    follow(follower, filled)
    filled.add(3)
    assert kit.down()
    try:
        with closing(kit.open(filled.settings)) as other, pytest.raises(FollowerUnavailable):
            follow(other, filled)
    finally:
        kit.up()
    with closing(kit.open(filled.settings)) as later:
        follow(later, filled)
    assert_right(kit, filled)
