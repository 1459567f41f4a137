"""Days of history, then one more batch, timed: what the aggregate takes for it. Prints seconds of several batches."""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing

from archiver_pipeline.followers.catch_up import catch_up
from archiver_pipeline.followers.registry import followers
from archiver_pipeline.settings.settings import Settings, load
from archiver_pipeline.table.archive import Archive
from archiver_pipeline_tests.batches import AUGUST_FIRST_AT_THREE, HOUR_MS, archive, event
from archiver_pipeline_tests.followers.workload import catch_up_now

AN_HOUR = 5_000
BATCH = 50_000
TURNS = 5


def main(days: str) -> None:
    """Make the history, let the aggregate take it, and time batches after it."""
    settings = load().model_copy(update={"results_topic": ""})
    target = Archive(settings.archive_uri)
    hours = 24 * int(days)
    for hour in range(hours):
        _add(target, hour, AN_HOUR)
    messages = _follow(settings)
    seconds = []
    for turn in range(TURNS):
        _add(target, hours + turn, BATCH)
        began = time.monotonic()
        assert _follow(settings) == BATCH
        seconds.append(round(time.monotonic() - began, 3))
    print(json.dumps({"messages": messages, "seconds": seconds}))


def _add(target: Archive, hour: int, count: int) -> None:
    payloads = [event(f"object.{n % 3}", uid=f"user-{n * 7919 % 20_011}", url=f"/page/{n % 97}") for n in range(count)]
    stamps = [AUGUST_FIRST_AT_THREE + hour * HOUR_MS + n * HOUR_MS // count for n in range(count)]
    archive(target, payloads, milliseconds=stamps)
    catch_up_now(target)


def _follow(settings: Settings) -> int:
    with closing(followers(settings)["events_per_minute"]()) as follower:
        return catch_up(follower, settings).messages


if __name__ == "__main__":
    main(*sys.argv[1:])
