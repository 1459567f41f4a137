"""Bad messages among good ones: does each of them go on, and whose payloads are there byte for byte afterwards?

Each copies a topic as it does for speed. One that has not ended after `LIMIT_SECONDS` is ended, and what is there by
then is read back with DuckDB and compared with what was produced, offset by offset.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
from rich import box
from rich.table import Table

from archiver_pipeline_tests.kafka.produce import Sent, produce
from bench.peers.listed import listed
from bench.peers.systems import TOPIC, Job, Maker, Task, started
from bench.results import recorded

GOOD = 200

LIMIT_SECONDS = 120.0

BAD: Mapping[str, Sent] = {
    "not UTF-8": Sent(b'{"type": "a", "x": "\xff\xfe"}'),
    "broken JSON": Sent(b'{"type": "a", "x": '),
    "tombstone": Sent(None, key=b"k"),
    "empty": Sent(b""),
    "no type": Sent(b'{"x": 1}'),
    "an array": Sent(b"[1, 2, 3]"),
    "another type of a field": Sent(b'{"type": "a", "seq": {"deep": [1]}}'),
    "a type that is a path": Sent(b'{"type": "../../a/b=c"}'),
    "a header of 1 MB": Sent(b'{"type": "a", "seq": 1}', headers=(("h", b"h" * 1024**2),)),
}
"""By what is bad about it: a message in the middle of the topic."""


def fill(servers: str) -> list[bytes | None]:
    """Produce good messages with the bad ones in the middle, into partition 0; return the payload of each offset."""
    good = [Sent(b'{"type": "a", "uid": "u1", "ts": 1, "url": "/", "seq": %d, "pad": ""}' % seq) for seq in range(GOOD)]
    messages = [*good[: GOOD // 2], *BAD.values(), *good[GOOD // 2 :]]
    now = int(time.time() * 1000)
    placed = [Sent(each.value, each.key, each.headers, now, partition=0) for each in messages]
    produce(servers, TOPIC, placed)
    return [each.value for each in placed]


def poisoned(makers: Mapping[str, Maker], servers: str, scratch: Path) -> dict[str, Any]:
    """Let each copy the topic; return what `bench.results` records."""
    sent = fill(servers)
    found = {}
    for name, maker in makers.items():
        folder = scratch / f"{name}-poisoned"
        folder.mkdir()
        ended = _run(maker(Task(servers, folder, len(sent))), folder)
        found[name] = {"ended": ended, "said": _said(folder), **_kept(folder / "archive", sent)}
        print(name, found[name], flush=True)
    before = recorded("peers_poison") or {}
    others = before["systems"] if before.get("bad") == list(BAD) else {}
    return {"good": GOOD, "bad": list(BAD), "systems": {**others, **found}}


def _run(job: Job, folder: Path) -> str:
    """Run the job: `by itself`, `failed`, or `not at all` where it did not end in time."""
    with started(job, folder / "output") as process:
        try:
            return "by itself" if process.wait(LIMIT_SECONDS) == 0 else "failed"
        except subprocess.TimeoutExpired:
            return "not at all"


def _said(folder: Path) -> str:
    """The first line of what it printed, or of its log, that names an error; empty where none does."""
    for path in (*sorted(folder.glob("*/*.log")), folder / "output"):
        for line in path.read_text(errors="replace").splitlines():
            if "Exception" in line or "Error" in line:
                return line.strip()[:300]
    return ""


def _kept(folder: Path, sent: Sequence[bytes | None]) -> dict[str, Any]:
    """How many good messages are there, and what became of each bad one: `same bytes`, `row` or `missing`."""
    try:
        paths = [str(path) for path in listed(folder)]
    except (OSError, AssertionError):
        paths = []
    rows = _payloads(paths) if paths else {}
    first = GOOD // 2
    good = sum(offset in rows for offset in range(len(sent)) if not first <= offset < first + len(BAD))
    fates = {}
    for number, (what, message) in enumerate(BAD.items(), first):
        same = number in rows and rows[number] == (message.value,)
        fates[what] = "same bytes" if same else "row" if number in rows else "missing"
    return {"good_there": good, "bad_there": fates}


def _payloads(paths: Sequence[str]) -> dict[int, tuple[bytes | None, ...]]:
    """The payload of each offset, alone in a tuple; an empty tuple where the table has fields in its place."""
    read = "FROM read_parquet(?, hive_partitioning = true, hive_types_autocast = false, union_by_name = true)"
    connection = duckdb.connect()
    names = {row[0] for row in connection.execute(f"DESCRIBE SELECT * {read}", [paths]).fetchall()}
    if "value" not in names:
        return {row[0]: () for row in connection.execute(f'SELECT "offset" {read}', [paths]).fetchall()}
    payload = "coalesce(value_bytes, encode(value))" if "value_bytes" in names else "encode(value)"
    return {row[0]: (row[1],) for row in connection.execute(f'SELECT "offset", {payload} {read}', [paths]).fetchall()}


def table(found: Mapping[str, Any]) -> Table:
    """What became of the messages, by peer."""
    shown = Table(
        "", *found["systems"], title=f"{found['good']} good messages and {len(found['bad'])} bad ones", box=box.SIMPLE
    )
    systems = found["systems"].values()
    shown.add_row("it ended", *(each["ended"] for each in systems))
    shown.add_row("good ones there", *(str(each["good_there"]) for each in systems))
    for what in found["bad"]:
        shown.add_row(what, *(each["bad_there"][what] for each in systems))
    return shown
