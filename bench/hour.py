"""One hour of one type, sealed and backfilled: how long, how fast, and in how much memory; or the planning of many.

The hour is written as batches write it, 62,500 messages a commit unless told otherwise. Each step is a process of its
own, so that its peak memory is its own. No broker is needed: what is measured begins behind Kafka.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

from bench.load import TYPES, texts
from bench.process import Measured, measure
from bench.results import record, recorded

if TYPE_CHECKING:
    import polars as pl

    from archiver_pipeline.settings.settings import Settings

FIRST_MS = 1_564_628_400_000
HOUR = "2019-08-01T03"
HOUR_MS = 3_600_000
SEALED_TYPES = 3
COMMIT_HOURS = 100
"""So many hours' seals in one commit where only planning is measured: the same table, a hundred times as fast."""


def main() -> None:
    """Measure what is asked for and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.hour", description=__doc__)
    parser.add_argument("--rows", type=int, default=50_000_000)
    parser.add_argument("--bytes", type=int, default=280, help="bytes of a message")
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--text", action="store_true", help="messages as `bench.load` makes them, instead of digits")
    parser.add_argument("--files", type=int, default=800, help="files, each in a commit of its own")
    parser.add_argument("--backfill", action="store_true", help="then apply another type rule, without Kafka")
    parser.add_argument("--planning", action="store_true", help="only: find what is due among 10,000 sealed hours")
    parser.add_argument("--hours", type=int, default=10_000, help="sealed hours for --planning")
    parser.add_argument("--folder", help="where to work; a new folder in it is made, and removed afterwards")
    given = parser.parse_args()
    folder = tempfile.mkdtemp(prefix="archiver-hour-", dir=given.folder)
    environment = {"BASE_DIR": folder, "ARCHIVER_TOPICS": "bench", "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    try:
        if given.planning:
            _show("write", measure(__spec__.name, "many", str(given.hours), environment=environment))
            _show("plan", measure(__spec__.name, "plan", environment=environment))
            return
        _show("write", measure(__spec__.name, "write", *map(str, _sizes(given)), environment=environment))
        before = _show("look", measure(__spec__.name, "look", environment=environment))
        sealed = measure(__spec__.name, "seal", environment=environment)
        _show("seal", sealed)
        after = _show("look", measure(__spec__.name, "look", environment=environment))
        good = _content(before) == _content(after)
        if given.backfill:
            environment["ARCHIVER_TYPE_PATH"] = "$.kind"
            _show("backfill", measure(__spec__.name, "backfill", environment=environment))
            last = _show("look", measure(__spec__.name, "look", environment=environment))
            good = good and _content(before) == _content(last)
        print("the messages are the same before and after:", good)
        if good:
            _record(given, sealed)
        sys.exit(0 if good else 1)
    finally:
        shutil.rmtree(folder)


def _sizes(given: argparse.Namespace) -> tuple[int, ...]:
    return given.rows, given.bytes, -(-given.rows // given.files), given.partitions, int(given.text)


def _record(given: argparse.Namespace, sealed: Measured) -> None:
    """Keep the figures of the seal beside those of other sizes of messages."""
    found = {"CPU_seconds": round(sealed.cpu_seconds, 1), "peak_MiB": sealed.peak_bytes >> 20, **sealed.report}
    line = f"python -m bench.hour --rows {given.rows} --bytes {given.bytes} --files {given.files}"
    line += f" --partitions {given.partitions}" * (given.partitions != 4) + " --text" * given.text
    record("sealing", "python -m bench.hour", {**(recorded("sealing") or {}), line: found})


def _show(name: str, measured: Measured) -> dict[str, Any]:
    figures = {"peak MiB": measured.peak_bytes >> 20, "CPU s": round(measured.cpu_seconds, 1), **measured.report}
    print(name, json.dumps(figures), flush=True)
    return dict(measured.report)


def _content(looked: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in looked.items() if name not in ("files", "bytes", "seconds", "types")}


def write(settings: Settings, rows: int, size: int, batch: int, partitions: int, text: int) -> dict[str, Any]:
    """Archive the hour, batch after batch."""
    from archiver_pipeline.batch.classifier import Classifier
    from archiver_pipeline.batch.writer import BatchWriter
    from archiver_pipeline.plan import Committed, OffsetRange, TopicPartition
    from archiver_pipeline.table.archive import Archive
    from archiver_pipeline.table.attempt import batch_of
    from archiver_pipeline.table.batch_info import BatchInfo
    from archiver_pipeline.table.ledger import caught_up_transaction, offset_transactions

    archive = Archive(settings.archive_uri)
    places = [TopicPartition("bench", "A", number) for number in range(partitions)]
    files = payload_bytes = 0
    for start in range(0, rows, batch):
        attempt = batch_of(archive, 0)
        writer = BatchWriter(attempt.take, attempt.staging.scratch)
        end = min(rows, start + batch)
        step = max(1, min(10_000, 8 * 1024**2 // size))
        raw = [
            messages(first, min(end, first + step), rows, size, partitions, text) for first in range(start, end, step)
        ]
        payload_bytes += sum(int(frame["payload"].bin.size().sum()) for frame in raw)
        for frame in Classifier(places, settings.type_rule, {"event", *TYPES}, 10).over(raw):
            writer.add(frame)
        writer.close()
        attempt.staging.sync()
        attempt.staging.place()
        ranges = [
            OffsetRange(at, *(_offset(number, at.partition, partitions) for number in (start, end))) for at in places
        ]
        info = BatchInfo("", 0, tuple(ranges), end - start, 0, writer.files, 0.0)
        offsets = [item for part in ranges for item in offset_transactions(part.at, Committed(part.end, 0, part.end))]
        attempt.commit([*offsets, caught_up_transaction(0, int(time.time() * 1000))], info.metadata())
        attempt.clean()
        files += writer.files
    return {"messages": rows, "payload MiB": payload_bytes >> 20, "files": files}


def _offset(number: int, partition: int, partitions: int) -> int:
    """How many of the first `number` messages are of a partition: they go round."""
    return (number + partitions - 1 - partition) // partitions


def messages(first: int, end: int, rows: int, size: int, partitions: int, text: int) -> pl.DataFrame:
    """Messages `[first, end)` of the hour as `RangeReader.frames` has them."""
    import polars as pl

    number = pl.col("number")
    frame = pl.DataFrame({"number": pl.arange(first, end, eager=True)})
    payload = pl.Series(texts(range(first, end), size, FIRST_MS)) if text else _digits(frame, size)
    return frame.select(
        range=(number % partitions).cast(pl.UInt32),
        offset=number // partitions,
        timestamp_ms=FIRST_MS + number * HOUR_MS // rows,
        timestamp_type=pl.lit("create"),
        key=pl.lit(None, pl.Binary) if text else pl.concat_str(pl.lit("key-"), number % 100_000).cast(pl.Binary),
        payload=payload.cast(pl.Binary),
        headers=pl.lit(None, pl.List(pl.Struct({"key": pl.String, "value": pl.Binary}))),
    )


def _digits(frame: pl.DataFrame, size: int) -> pl.Series:
    """JSON that compresses to half its size."""
    import polars as pl

    number = pl.col("number")
    fixed = 62
    words = max(0, (min(size, 1000) - fixed) // 19)
    text = pl.concat_str(
        [pl.lit('{"type":"event","kind":"'), pl.when(number % 8 == 0).then(pl.lit("rare")).otherwise(pl.lit("event"))]
        + [pl.lit('","number":'), number.cast(pl.String), pl.lit(',"text":"')]
        + [number.hash(seed).cast(pl.String).str.slice(0, 19) for seed in range(words)]
    )
    payload = frame.select(payload=text)["payload"]
    if size > 1000:
        noise = _noise(size)
        payload = pl.Series([value + noise[n % 4096 : n % 4096 + size - 1000] for n, value in enumerate(payload)])
    return payload + '"}'


def _noise(size: int, kept: dict[int, str] = {}) -> str:  # noqa: B006, made once
    return kept.setdefault(size, os.urandom((size + 4096) // 2 + 1).hex())


def look(settings: Settings) -> dict[str, Any]:
    """What the table holds, read by DuckDB: numbers that any lost, doubled or changed message would change."""
    import duckdb

    from archiver_pipeline.table.archive import Archive

    files = Archive(settings.archive_uri).files()
    paths = [f"{settings.archive_uri}/{path}" for path in files["path"]]
    with duckdb.connect(config={"memory_limit": "2GB", "temp_directory": str(settings.base_dir / "duckdb")}) as db:
        db.execute("SET preserve_insertion_order = false")
        found = db.execute(
            'SELECT count(*), sum("offset")::VARCHAR, '
            'bit_xor(hash("partition", "offset", timestamp, key, value))::VARCHAR FROM read_parquet(?)',
            [paths],
        ).fetchone()
    assert found is not None
    kinds = files.group_by("type").len().sort("type")
    sums = dict(zip(("messages", "offsets", "hash"), found, strict=True))
    return {**sums, "files": files.height, "bytes": int(files["bytes"].sum()), "types": dict(kinds.iter_rows())}


def seal(settings: Settings) -> dict[str, Any]:
    """Seal the hour."""
    from archiver_pipeline.hours import parse_hour
    from archiver_pipeline.rewrites.seal import Sealer

    done = Sealer(settings).seal(parse_hour(HOUR))
    assert done is not None
    return {
        "messages": done.messages,
        "messages/s": round(done.messages / done.seconds),
        "MiB before": done.bytes_before >> 20,
        "MiB after": done.bytes_after >> 20,
        "files": [done.files_before, done.files_after],
    }


def backfill(settings: Settings) -> dict[str, Any]:
    """Give the messages of the hour the types of the present rule."""
    from archiver_pipeline.hours import parse_hour
    from archiver_pipeline.rewrites.backfill import Backfiller

    (done,) = Backfiller(settings, from_kafka=False).run([parse_hour(HOUR)])
    return {
        "said": done.sentence(),
        "messages": done.messages,
        "messages/s": round(done.messages / done.seconds),
        "files": [done.files_before, done.files_after],
    }


def many(settings: Settings, hours: int) -> dict[str, Any]:
    """Make a table of sealed hours, its files only in the log, and 300 small files behind them."""
    import deltalake
    from deltalake.transaction import AddAction

    from archiver_pipeline import envelope
    from archiver_pipeline.hours import hour_at
    from archiver_pipeline.table.archive import Archive
    from archiver_pipeline.table.ledger import caught_up_transaction
    from archiver_pipeline.table.schema import delta_schema

    archive = Archive(settings.archive_uri)
    now = int(time.time() * 1000)
    stats = {"numRecords": 1000, "minValues": {"offset": 0}, "maxValues": {"offset": 1000}}

    def add(name: str, number: int, kind: int) -> AddAction:
        hour = hour_at(number)
        values = {"type": f"type.{kind}", "dt": hour.dt, "hr": hour.hr}
        path = f"{envelope.folder(values)}/{name}-{os.urandom(6).hex()}-00000-{os.urandom(8).hex()}.parquet"
        return AddAction(path, 1_000_000, values, now, True, json.dumps(stats))

    def commit(actions: list[AddAction], numbers: dict[str, int]) -> None:
        archive.table().create_write_transaction(
            actions,
            mode="append",
            schema=delta_schema(),
            partition_by=list(envelope.PARTITION_COLUMNS),
            commit_properties=deltalake.CommitProperties(
                app_transactions=[deltalake.Transaction(name, value, now) for name, value in numbers.items()]
            ),
        )

    first = FIRST_MS // HOUR_MS
    for start in range(first, first + hours, COMMIT_HOURS):
        some = range(start, min(first + hours, start + COMMIT_HOURS))
        sealed = [add(f"seal-{hour_at(n).name}", n, kind) for n in some for kind in range(SEALED_TYPES)]
        commit(sealed, {f"rewrite/{hour_at(n).name}": 1 for n in some})
    caught_up = caught_up_transaction(0, now)
    for number in range(100):
        commit(
            [add("lane0", first + hours - 1 - number % 50, kind) for kind in range(SEALED_TYPES)],
            {"bench/A/0": number + 1, caught_up.app_id: now + number},
        )
    return {"version": archive.table().version(), "files": archive.files().height}


def plan(settings: Settings) -> dict[str, Any]:
    """Find what is due, as the sensor and every seal do."""
    from archiver_pipeline import hours
    from archiver_pipeline.table.archive import Archive

    archive = Archive(settings.archive_uri)
    archive.files(archive.snapshot()[0])  # A first time, for the imports.
    clock = [time.monotonic()]
    table, ledger = archive.snapshot()
    clock.append(time.monotonic())
    files = archive.files(table)
    clock.append(time.monotonic())
    now = int(time.time() * 1000)
    found = hours.due(files, ledger.caught_up[0], now, 0.0)
    clock.append(time.monotonic())
    removed = archive.removed()
    clock.append(time.monotonic())
    names = ("snapshot s", "files s", "due s", "removed s")
    spent = {name: round(until - since, 3) for name, since, until in zip(names, clock, clock[1:], strict=False)}
    return {**spent, "files": files.height, "due": len(found), "removed": len(removed)}


def _child(name: str, *arguments: str) -> None:
    from archiver_pipeline.settings.settings import load

    steps = {"write": write, "look": look, "seal": seal, "backfill": backfill, "many": many, "plan": plan}
    settings = load()
    began = time.monotonic()
    report = steps[name](settings, *map(int, arguments))  # type: ignore[operator]
    print(json.dumps({"seconds": round(time.monotonic() - began, 2), **report}))


if __name__ == "__main__":
    if sys.argv[1:2] and not sys.argv[1].startswith("-"):
        _child(*sys.argv[1:])
    else:
        main()
