"""The aggregates as the conformance suite sees them: Parquet files, and the same counted by plain Python."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from archiver_pipeline.settings.settings import Settings
from archiver_pipeline_tests.followers.kit import Kit

Counted = dict[tuple[datetime, str, str], tuple[int, int]]


class MinuteKit(Kit):
    """Events and exact users per minute, topic and type."""

    name = "events_per_minute"

    def __init__(self) -> None:
        self.settings: Mapping[str, str] = {"results_topic": ""}

    def content(self, settings: Settings) -> Counted:
        """What the files have."""
        return minutes_in(settings.base_dir / "aggregates" / self.name)

    def expected(self, messages: pl.DataFrame) -> Counted:
        """The same, counted message by message."""
        events: defaultdict[tuple[datetime, str, str], int] = defaultdict(int)
        users: defaultdict[tuple[datetime, str, str], set[str]] = defaultdict(set)
        for row in messages.filter(pl.col("type") != "_erased").iter_rows(named=True):
            key = (row["timestamp"].replace(second=0, microsecond=0), row["topic"], row["type"])
            events[key] += 1
            user = user_of(row["value"])
            if user is not None and row["type"] != "_malformed":
                users[key].add(user)
        return {key: (count, len(users[key])) for key, count in events.items()}


def minutes_in(folder: Path) -> Counted:
    """The newest versions that the files of a folder hold."""
    found: Counted = {}
    for path in folder.glob("dt=*/hr=*/*.parquet"):
        for row in pl.read_parquet(path, hive_partitioning=False).iter_rows(named=True):
            key = (row["minute"].astimezone(UTC), row["topic"], row["type"])
            assert key not in found
            assert path.parent.name == f"hr={row['minute']:%H}"
            found[key] = (row["events"], row["users"])
    return found


def user_of(value: str | None) -> str | None:
    """The text at `$.uid`, if it is a string, number or boolean."""
    try:
        node: Any = json.loads(value or "", parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return None
    user = node.get("uid") if isinstance(node, dict) else None
    return user if isinstance(user, str) else None
