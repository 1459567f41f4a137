"""One user erased out of a million sealed messages, while batches go on: how long, and how much is written anew.

Two users are erased one after the other: one of about ten messages, and a busy one, with messages in every hour. Each
time it is checked that no byte on the disk tells of the user, that `verify --against-kafka` is good, and that the batch
that ran meanwhile lost nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.compute
import pyarrow.parquet
from rich.console import Console
from rich.table import Table

from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.produce import Sent, create_topic, produce
from archiver_pipeline_tests.kafka.topics import end_offsets
from bench.load import TYPES, fill_apart
from bench.process import Measured, measure, measure_command
from bench.results import record

BUSY = "busy-user"
RARE = "u4711"
PARTITIONS = 4
COMMAND = [sys.executable, "-m", "archiver_pipeline.cli"]


def main() -> None:
    """Measure both and record the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.erase", description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--hours", type=int, default=100)
    parser.add_argument("--types", type=int, default=3, choices=range(1, len(TYPES) + 1))
    parser.add_argument("--bytes", type=int, default=250, help="bytes of a message")
    parser.add_argument("--more", type=int, default=50_000, help="messages of the batch that runs meanwhile")
    parser.add_argument("--keep", action="store_true", help="record the figures")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="archiver-erase-") as folder, KafkaBroker() as broker:
        environment = {
            "BASE_DIR": folder,
            "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
            "ARCHIVER_TOPICS": "bench",
            "ARCHIVER_RESULTS_TOPIC": "",
        }
        create_topic(broker.bootstrap_servers, "bench", PARTITIONS)
        numbers = (PARTITIONS, given.messages, given.bytes, given.hours, given.types)
        fill_apart(broker.bootstrap_servers, "bench", *numbers)
        produce(broker.bootstrap_servers, "bench", _of_busy(given))
        measure("bench.archive", environment=environment)
        _seal(environment)
        found = {
            name: _erased(given, broker, environment, user)
            for name, user in (("a_rare_user", RARE), ("a_busy_user", BUSY))
        }
    Console().print(_table(found))
    if given.keep:
        record("erase", " ".join(["python -m bench.erase", *sys.argv[1:]]), {**_given(given), **found})


def _of_busy(given: argparse.Namespace) -> list[Sent]:
    """Ten messages an hour of the busy user, of all types."""
    now = int(time.time() * 1000)
    count = 10 * given.hours
    values = [json.dumps({"type": TYPES[n % given.types], "uid": BUSY, "seq": n}).encode() for n in range(count)]
    return [
        Sent(value, BUSY.encode(), (), now - (count - n) * given.hours * 3_600_000 // count, n % PARTITIONS)
        for n, value in enumerate(values)
    ]


def _seal(environment: Mapping[str, str]) -> None:
    """Seal all hours."""
    code = (
        "from archiver_pipeline import view; from archiver_pipeline.hours import Hour; "
        "from archiver_pipeline.rewrites.seal import Sealer; from archiver_pipeline.settings.settings import load; "
        "s = load(); sealer = Sealer(s); "
        "[sealer.seal(Hour(*row)) for row in sealer.archive.files().select('dt', 'hr').unique().iter_rows()]; "
        "view.refresh(s.view_path, sealer.archive)"
    )
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **environment}, check=True)


def _erased(
    given: argparse.Namespace, broker: KafkaBroker, environment: Mapping[str, str], user: str
) -> dict[str, Any]:
    """Erase a user while a batch runs, check all that has to be so then, and return the figures."""
    folder = Path(environment["BASE_DIR"])
    if not _traces(folder, user):
        raise SystemExit(f"there is nothing of {user} to erase")
    more = [Sent(b'{"type": "late", "seq": %d}' % n, None, (), int(time.time() * 1000), 0) for n in range(given.more)]
    produce(broker.bootstrap_servers, "bench", more)
    batch = subprocess.Popen(
        [sys.executable, "-m", "bench.archive"], env={**os.environ, **environment}, stdout=subprocess.DEVNULL
    )
    done = measure_command(
        [*COMMAND, "erase", "--yes", "--json", "--where", f"value->>'$.uid' = '{user}'"], environment
    )
    if batch.wait():
        raise SystemExit("the batch that ran meanwhile failed")
    checked = measure_command([*COMMAND, "verify", "--against-kafka", "--json"], environment)
    sent = sum(end_offsets(broker.bootstrap_servers, "bench").values())
    _check(done, checked, sent, _traces(folder, user))
    told = done.report
    return {
        "messages_erased": told["erased"],
        "hours": told["hours"],
        "files": told["files"],
        "files_rewritten": told["files_rewritten"],
        "share_of_bytes_rewritten": round(told["bytes_rewritten"] / told["bytes"], 4),
        "seconds": round(done.seconds, 2),
        "seconds_of_rewriting": told["seconds"],
        "cpu_seconds": round(done.cpu_seconds, 2),
        "peak_mib": done.peak_bytes // 1024**2,
    }


def _check(done: Measured, checked: Measured, sent: int, traces: list[str]) -> None:
    if not done.report["good"] or not checked.report["good"]:
        raise SystemExit(f"not good: {done.report} {checked.report['faults'][:5]}")
    if checked.report["messages"] != sent:
        raise SystemExit(f"{checked.report['messages']:,} messages in place of {sent:,}")
    if traces:
        raise SystemExit(f"these files still tell of the user: {traces[:5]}")


def _traces(folder: Path, user: str) -> list[str]:
    """The files below a folder with the user's name in quotes: as bytes, or in a column of a Parquet file."""
    text = f'"{user}"'
    return [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (text.encode() in path.read_bytes() or _in_columns(path, text))
    ]


def _in_columns(path: Path, text: str) -> bool:
    if path.suffix != ".parquet" or "type=" not in str(path):
        return False
    values = pyarrow.parquet.ParquetFile(path).read(["value"])["value"]
    return bool(pyarrow.compute.any(pyarrow.compute.match_substring(values, text)).as_py())


def _given(given: argparse.Namespace) -> dict[str, Any]:
    return {"messages": given.messages, "hours_of_the_archive": given.hours, "bytes_of_a_message": given.bytes}


def _table(found: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table("", *found, title="Erasing one user, beside a batch")
    for name in next(iter(found.values())):
        table.add_row(name.replace("_", " "), *(f"{each[name]:,}" for each in found.values()))
    return table


if __name__ == "__main__":
    main()
