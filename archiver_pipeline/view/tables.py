"""The tables of the DuckDB file: files, offsets, gaps, losses, erasures, batches, and the fields of sealed hours."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from functools import reduce
from typing import TYPE_CHECKING, Any

from archiver_pipeline import envelope, fields
from archiver_pipeline.hours import parse_hour
from archiver_pipeline.kafka.look import Look
from archiver_pipeline.plan import life_of
from archiver_pipeline.storage.base import Storage
from archiver_pipeline.table import delta_log
from archiver_pipeline.table.ledger import Ledger
from archiver_pipeline.view import hour_fields
from archiver_pipeline.view.files import ViewFiles, stored_paths
from archiver_pipeline.view.hour_fields import HourFields

if TYPE_CHECKING:
    import duckdb
    import polars as pl

LAYOUT = """
CREATE SCHEMA meta;
CREATE TABLE meta.state (format INTEGER, table_id VARCHAR, version BIGINT, looked DOUBLE, mark VARCHAR);
CREATE TABLE meta.hours (type VARCHAR, dt VARCHAR, hr VARCHAR, files BIGINT, messages BIGINT, bytes BIGINT,
                         sealed BOOLEAN);
CREATE TABLE meta.fresh_hours AS FROM meta.hours;
CREATE TABLE meta.views ("view" VARCHAR, sql VARCHAR);
CREATE TABLE meta.broken (path VARCHAR);
CREATE TABLE meta.fields (type VARCHAR, field VARCHAR, "column" VARCHAR, kind VARCHAR);
CREATE TABLE types (type VARCHAR, "view" VARCHAR);
CREATE TABLE offsets (topic VARCHAR, topic_id VARCHAR, "partition" INTEGER, "first" BIGINT, "next" BIGINT,
                      messages BIGINT, "end" BIGINT, lag BIGINT);
CREATE TABLE gaps ("time" TIMESTAMPTZ, topic VARCHAR, topic_id VARCHAR, "partition" INTEGER, "start" BIGINT,
                   "end" BIGINT, reason VARCHAR);
CREATE TABLE replays ("time" TIMESTAMPTZ, topic VARCHAR, topic_id VARCHAR, "partition" INTEGER, "start" BIGINT,
                      "end" BIGINT);
CREATE TABLE losses (dt VARCHAR, hr VARCHAR, messages BIGINT);
CREATE TABLE erasures ("time" TIMESTAMPTZ, predicate_hash VARCHAR, messages BIGINT);
CREATE TABLE batches (version BIGINT, "time" TIMESTAMPTZ, run_id VARCHAR, lane INTEGER,
                      ranges STRUCT(topic VARCHAR, topic_id VARCHAR, "partition" INTEGER,
                                    "start" BIGINT, "end" BIGINT)[],
                      messages BIGINT, bytes BIGINT, files BIGINT, seconds DOUBLE);
CREATE TABLE fields (type VARCHAR, dt VARCHAR, hr VARCHAR, field VARCHAR, types VARCHAR[], messages BIGINT,
                     present BIGINT, share DOUBLE, first_seen TIMESTAMPTZ, last_seen TIMESTAMPTZ);
CREATE VIEW hours AS SELECT type, dt, hr, sum(files)::BIGINT AS files, sum(messages)::BIGINT AS messages,
    sum(bytes)::BIGINT AS bytes, bool_and(sealed) AS sealed FROM (FROM meta.hours UNION ALL FROM meta.fresh_hours)
    GROUP BY ALL ORDER BY ALL;
CREATE MACRO meta.cold() AS []::VARCHAR[];
CREATE MACRO meta.fresh() AS []::VARCHAR[];
"""

_FOOTERS_AT_ONCE = 1_000
_HOUR = envelope.PARTITION_COLUMNS
_FILE = ("path", *_HOUR, "messages", "sealed")


def replace_files(
    connection: duckdb.DuckDBPyConnection, listed: pl.DataFrame, files: ViewFiles
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Store what the hours have; return the files that are new to the views' lists and those that are gone (path, type,
    dt, hr, messages, sealed).

    A file that could not be read at the last refresh counts as new.
    """
    import polars as pl

    shown = stored_paths(connection).to_frame()
    is_sealed = pl.Series("sealed", [envelope.is_sealed(path) for path in listed["path"]], dtype=pl.Boolean)
    wanted = listed.with_columns(is_sealed)
    added = wanted.join(shown, on="path", how="anti").select(_FILE).sort("path")
    lost = shown.join(wanted, on="path", how="anti")["path"].sort().to_list()
    broken = [path for (path,) in connection.execute("SELECT path FROM meta.broken").fetchall()]
    lost += sorted(set(broken) - set(listed["path"]))
    gone = pl.DataFrame(
        [{"path": path, **envelope.partition_values(path), "sealed": envelope.is_sealed(path)} for path in lost],
        schema={**dict.fromkeys(("path", *_HOUR), pl.String), "messages": pl.Int64, "sealed": pl.Boolean},
    )
    connection.execute("DELETE FROM meta.hours")
    connection.execute("DELETE FROM meta.fresh_hours")
    _insert(connection, "meta.hours", _by_hour(wanted))
    return added, gone


def add_files(connection: duckdb.DuckDBPyConnection, added: pl.DataFrame) -> None:
    """Store the hours of new files beside those of the others."""
    _insert(connection, "meta.fresh_hours", _by_hour(added))


def _by_hour(files: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    return files.group_by(_HOUR).agg(
        pl.len().cast(pl.Int64).alias("files"), pl.col("messages", "bytes").sum(), pl.col("sealed").all()
    )


def _insert(connection: duckdb.DuckDBPyConnection, table: str, rows: pl.DataFrame) -> None:
    connection.register("rows_to_insert", rows.to_arrow())
    connection.execute(f"INSERT INTO {table} FROM rows_to_insert")
    connection.unregister("rows_to_insert")


def store_broken(connection: duckdb.DuckDBPyConnection, files: ViewFiles) -> None:
    """Keep the names of the files that cannot be read, for the next refresh to look at them again."""
    connection.execute("DELETE FROM meta.broken")
    if files.broken:
        connection.executemany("INSERT INTO meta.broken VALUES (?)", [[path] for path in sorted(files.broken)])


def replace_fields(
    connection: duckdb.DuckDBPyConnection,
    files: ViewFiles,
    listed: pl.DataFrame,
    added: pl.DataFrame,
    gone: pl.DataFrame,
) -> tuple[set[str], dict[str, dict[str, str]]]:
    """Bring `fields` up to date for the hours whose sealed files changed.

    Returns:
        The new files that a report speaks for, and by type the fields (name to kind) that new reports have.
    """
    import polars as pl

    hours = pl.concat([added, gone]).filter("sealed").select(_HOUR).unique()
    if hours.is_empty():
        return set(), {}
    connection.register("hours_to_do", hours.to_arrow())
    connection.execute("DELETE FROM fields USING hours_to_do AS h WHERE (fields.type, fields.dt, fields.hr) = "
                       "(h.type, h.dt, h.hr)")  # fmt: skip
    connection.unregister("hours_to_do")
    sealed = listed.join(hours, on=_HOUR, how="semi").filter(
        pl.col("path").map_elements(envelope.is_sealed, return_dtype=pl.Boolean)
    )
    every = sealed.sort(*_HOUR, "path").group_by(_HOUR, maintain_order=True).agg("path").rows()
    new, reported, found = set(added["path"]), set[str](), dict[str, dict[str, str]]()
    for start in range(0, len(every), _FOOTERS_AT_ONCE):
        some = every[start : start + _FOOTERS_AT_ONCE]
        reports = _reports(files, [path for *_, paths in some for path in paths])
        rows = []
        for type_name, dt, hr, paths in some:
            own = {path: reports[path] for path in paths if path in reports}
            rows += _rows((type_name, dt, hr), hour_fields.together(own.values()))
            for path in own.keys() & new:
                _widen(found.setdefault(type_name, {}), own[path])
            if own:  # It speaks for the hour, which may have been cut into several files.
                reported |= new & set(paths)
        _insert_fields(connection, rows)
    return reported, found


def _reports(files: ViewFiles, paths: list[str]) -> dict[str, HourFields]:
    """The reports in the footers of files, by path below the archive."""
    by_path = {files.absolute(path): path for path in paths}
    read = files.ask(paths, lambda cursor, some: hour_fields.read(cursor, [files.absolute(path) for path in some]))
    return {by_path[path]: report for path, report in read.items()}


def _widen(known: dict[str, str], report: HourFields) -> None:
    for item in report.fields:
        known[item.field] = reduce(fields.widen, item.kinds, known.get(item.field, fields.UNKNOWN))


def _rows(hour: tuple[str, str, str], report: HourFields) -> list[tuple[Any, ...]]:
    return [
        (*hour, item.field, list(item.kinds), report.looked_at, item.present, hour_fields.share(item, report),
         item.first, item.last)
        for item in report.fields
    ]  # fmt: skip


def _insert_fields(connection: duckdb.DuckDBPyConnection, rows: list[tuple[Any, ...]]) -> None:
    import polars as pl

    text = dict.fromkeys(("type", "dt", "hr", "field"), pl.String)
    numbers = dict.fromkeys(("messages", "present"), pl.Int64)
    schema: Mapping[str, Any] = {
        **text, "types": pl.List(pl.String), **numbers, "share": pl.Float64, "first": pl.Int64, "last": pl.Int64
    }  # fmt: skip
    connection.register("rows", pl.DataFrame(rows, schema=schema, orient="row").to_arrow())
    connection.execute(
        "INSERT INTO fields "
        "SELECT * REPLACE (make_timestamptz(first) AS first, make_timestamptz(last) AS last) FROM rows"
    )
    connection.unregister("rows")


def replace_offsets(connection: duckdb.DuckDBPyConnection, ledger: Ledger, look: Look | None) -> None:
    """Store how far each partition is archived; without a look, the end seen last stays."""
    rows = connection.execute('SELECT topic, topic_id, "partition", "end" FROM offsets').fetchall()
    ends: dict[tuple[str, str, int], int | None] = {(row[0], row[1], row[2]): row[3] for row in rows}
    present = {} if look is None else {state.topic: state for state in look.topics}
    found = []
    for at, what in sorted(ledger.committed.items()):
        state = present.get(at.topic)
        end = ends.get((at.topic, at.topic_id, at.partition))
        if state is not None and life_of(at.topic_id)[0] == state.topic_id and at.partition in state.partitions:
            end = state.partitions[at.partition].end
        lag = None if end is None else max(0, end - what.next)
        found.append((at.topic, at.topic_id, at.partition, what.first, what.next, what.total, end, lag))
    connection.execute("DELETE FROM offsets")
    _insert_rows(connection, "offsets", found)


def replace_gaps(connection: duckdb.DuckDBPyConnection, ledger: Ledger) -> None:
    """Store the gaps that were found."""
    connection.execute("DELETE FROM gaps")
    gaps = [(found.time, found.gap) for found in ledger.gaps]
    rows = [
        (time, gap.at.topic, gap.at.topic_id, gap.at.partition, gap.start, gap.end, gap.reason) for time, gap in gaps
    ]
    _insert_rows(connection, "gaps", rows)


def replace_replays(connection: duckdb.DuckDBPyConnection, ledger: Ledger) -> None:
    """Store the offsets that replays wrote."""
    connection.execute("DELETE FROM replays")
    found = ledger.replayed
    rows = [(each.time, each.at.topic, each.at.topic_id, each.at.partition, each.start, each.end) for each in found]
    _insert_rows(connection, "replays", rows)


def _insert_rows(connection: duckdb.DuckDBPyConnection, table: str, rows: list[tuple[Any, ...]]) -> None:
    """Insert rows in the order of the table's columns, all at once."""
    import polars as pl

    if rows:
        width = range(len(rows[0]))
        schema = {f"column_{number}": pl.Series([row[number] for row in rows]).dtype for number in width}
        _insert(connection, table, pl.DataFrame(rows, schema=schema, orient="row"))


def replace_losses(connection: duckdb.DuckDBPyConnection, ledger: Ledger) -> None:
    """Store how many messages of which hours were lost with their files and given up."""
    connection.execute("DELETE FROM losses")
    for name, messages in sorted(ledger.lost.items()):
        if messages:
            hour = parse_hour(name)
            connection.execute("INSERT INTO losses VALUES (?, ?, ?)", [hour.dt, hour.hr, messages])


def replace_erasures(connection: duckdb.DuckDBPyConnection, ledger: Ledger) -> None:
    """Store what was erased, and when."""
    connection.execute("DELETE FROM erasures")
    for item in ledger.erasures:
        row = [item.started_ms, item.predicate_hash, item.messages]
        connection.execute("INSERT INTO erasures VALUES (to_timestamp(? / 1000.0), ?, ?)", row)


def add_batches(connection: duckdb.DuckDBPyConnection, storage: Storage, before: int, after: int, oldest: int) -> None:
    """Add the commits since the last time, and drop those that the log no longer has."""
    import polars as pl

    numbers = range(max(before + 1, oldest), after + 1)
    infos = [(number, commit_info(storage, number)) for number in numbers]
    rows = [
        (
            *(number, info["timestamp"], info["run_id"], int(info["lane"]), info["ranges"]),
            *(int(info[name]) for name in ("messages", "bytes", "files")),
            float(info["seconds"]),
        )
        for number, info in infos
        if info
    ]
    if rows:
        names = [name for (name, *_) in connection.execute("DESCRIBE batches").fetchall()]
        connection.register("rows_to_insert", pl.DataFrame(rows, schema=names, orient="row").to_arrow())
        connection.execute(
            'INSERT INTO batches SELECT * REPLACE (to_timestamp("time" / 1000.0) AS "time", from_json(ranges::JSON, '
            '\'[{"topic": "VARCHAR", "topic_id": "VARCHAR", "partition": "INTEGER", "start": "BIGINT", '
            '"end": "BIGINT"}]\') AS ranges) FROM rows_to_insert'
        )
        connection.unregister("rows_to_insert")
    connection.execute("DELETE FROM batches WHERE version < ?", [oldest])


def commit_info(storage: Storage, version: int) -> dict[str, Any] | None:
    """The metadata of a commit if it is that of a batch, and still there."""
    with suppress(FileNotFoundError):
        for line in delta_log.commit(storage, version).splitlines():
            if line.startswith(b'{"commitInfo"'):
                info: dict[str, Any] = json.loads(line)["commitInfo"]
                return info if "ranges" in info else None
    return None
