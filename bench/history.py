"""Dagster's record in PostgreSQL without history and with 10,000 runs: the sensors' ticks, a run from request to
first step and to its end, and bytes a run."""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

import dagster as dg
from rich.console import Console

from archiver_pipeline_tests.dagster_side.ticks import Ticks
from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.produce import Sent, create_topic, produce
from archiver_pipeline_tests.postgres.server import PostgresServer
from archiver_pipeline_tests.waiting import wait_for
from bench.dev import Dev, prepare
from bench.results import record

TOPIC = "history"
TICKS = 15
SLOW_MS = 50
SENSORS = ("archive", "follow", "seal")


def main() -> None:
    """Measure both, print them, and record them."""
    parser = argparse.ArgumentParser(prog="python -m bench.history", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="of the history (default 10,000)")
    parser.add_argument("--turns", type=int, default=8, help="runs measured, with and without it (default 8)")
    given = parser.parse_args()
    console = Console()
    with (
        KafkaBroker() as broker,
        PostgresServer(options={"log_min_duration_statement": SLOW_MS}) as postgres,
        tempfile.TemporaryDirectory(prefix="archiver-bench-") as folder,
    ):
        create_topic(broker.bootstrap_servers, TOPIC)
        base = Path(folder)
        idle = {"ARCHIVER_INTERVAL_SECONDS": 86_400, "ARCHIVER_FOLLOW_SECONDS": 0}
        environment = prepare(base, broker.bootstrap_servers, TOPIC, **idle)
        database = postgres.new_database()
        postgres.write_settings(Path(environment["DAGSTER_HOME"]), database)
        os.environ.update(environment)
        figures: dict[str, Any] = {"runs": given.runs}
        with (
            Dev(environment, base / "dev.log") as dev,
            dg.DagsterInstance.from_config(environment["DAGSTER_HOME"]) as made,
        ):
            _turn(broker.bootstrap_servers, dev, made)  # The first one warms up.
            figures["without"] = _measure(broker.bootstrap_servers, dev, made, given.turns)
            before = _bytes(postgres, database)
            _multiply(postgres, database, given.runs)
            figures["bytes_per_1000_runs"] = round((_bytes(postgres, database) - before) / given.runs * 1000)
            slow = _slow(postgres)
            figures["with"] = _measure(broker.bootstrap_servers, dev, made, given.turns)
            figures[f"statements_over_{SLOW_MS}_ms"] = _slow(postgres) - slow
    console.print(figures)
    record("history", f"python -m bench.history --runs {given.runs} --turns {given.turns}", figures)


def _measure(servers: str, dev: Dev, instance: dg.DagsterInstance, turns: int) -> dict[str, float]:
    """Medians: seconds of a tick of each sensor, and of a run until its first step and in all."""
    from archiver_pipeline.definitions import defs

    found: dict[str, float] = {}
    for name in SENSORS:
        sensor = Ticks(defs, instance, name)
        seconds = []
        for _ in range(TICKS + 1):
            sensor.tick()
            seconds.append(sensor.seconds)
        found[f"tick_{name}"] = round(statistics.median(seconds[1:]), 4)
    stages = [_turn(servers, dev, instance) for _ in range(turns)]
    return found | {name: round(statistics.median(each[name] for each in stages), 3) for name in stages[0]}


def _turn(servers: str, dev: Dev, instance: dg.DagsterInstance) -> dict[str, float]:
    """Archive some messages by a run: seconds from its request to its first step and to its end."""
    produce(servers, TOPIC, [Sent(b'{"type": "object.one", "uid": "u1"}')] * 100)
    run_id = dev.launch("archive")
    wait_for(f"the end of run {run_id}", lambda: _is_finished(instance, run_id), 120)
    at = {
        entry.dagster_event.event_type_value: entry.timestamp
        for entry in reversed(instance.all_logs(run_id))
        if entry.dagster_event is not None
    }
    asked = at["PIPELINE_ENQUEUED"]
    return {
        "to_first_step": at["STEP_START"] - asked,
        "launched_to_first_step": at["STEP_START"] - at["PIPELINE_STARTING"],
        "first_step_to_end": at["PIPELINE_SUCCESS"] - at["STEP_START"],
    }


def _is_finished(instance: dg.DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)
    if run is not None and run.is_finished and not run.is_success:
        raise RuntimeError(f"run {run_id} failed")
    return run is not None and run.is_finished


def _multiply(postgres: PostgresServer, database: str, runs: int) -> None:
    """Put the newest run on record so many times more, with its tags and events."""
    ((run_id,),) = postgres.ask("SELECT run_id FROM runs WHERE status = 'SUCCESS' ORDER BY id DESC LIMIT 1", database)
    copies = f"(SELECT md5('{run_id}' || n)::uuid::text AS copy FROM generate_series(1, {runs}) n) c"
    for table, text in (("runs", "run_body"), ("run_tags", None), ("event_logs", "event")):
        names = [
            name
            for (name,) in postgres.ask(
                f"SELECT column_name FROM information_schema.columns WHERE table_name = '{table}' "
                "AND column_name <> 'id' ORDER BY ordinal_position",
                database,
            )
        ]
        values = [
            "c.copy"
            if name == "run_id"
            else f"replace(t.{name}, '{run_id}', c.copy)"
            if name == text
            else f't."{name}"'
            for name in names
        ]
        listed = ", ".join(f'"{name}"' for name in names)
        postgres.ask(
            f"INSERT INTO {table} ({listed}) SELECT {', '.join(values)} FROM {table} t, {copies} "
            f"WHERE t.run_id = '{run_id}'",
            database,
        )
    postgres.ask("VACUUM ANALYZE", database)


def _slow(postgres: PostgresServer) -> int:
    """How many statements have taken longer than `SLOW_MS`."""
    return (postgres.data / "server.log").read_text().count("  statement: ")


def _bytes(postgres: PostgresServer, database: str) -> int:
    return int(postgres.ask(f"SELECT pg_database_size('{database}')")[0][0])


if __name__ == "__main__":
    main()
