"""Start-up, next to that of an empty Dagster job, in turns: `dagster job execute` with nothing to archive, and a run
under `dagster dev` from its request to the first message."""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from rich.console import Console

from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.produce import Sent, create_topic, produce
from bench.dev import LOCATION, Dev, prepare
from bench.process import measure_saying
from bench.results import record
from bench.targets import Target, table

TOPIC, EMPTY, FROZEN = "startup", "bench.empty", "bench.empty_frozen"
MESSAGES = 100
QUEUE_SECONDS = 1.0
"""How often the queue of runs is looked at, by deploy/dagster.yaml."""

EXECUTE = ("job", "execute", "-m")
STAGES = ("request", "launched", "process", "step", "reading", "read")
"""Moments of a run: requested, taken from the queue, its process at work, its step begun, Kafka asked for messages (or
the empty job's first line), and the first messages read."""

ENDS = {"empty": "reading", "archive": "read"}
"""Up to which moment each job is measured."""


def main() -> None:
    """Measure both, print them next to their targets, and record them."""
    parser = argparse.ArgumentParser(prog="python -m bench.startup", description=__doc__)
    parser.add_argument("--turns", type=int, default=12, help="of each (default 12)")
    given = parser.parse_args()
    console = Console()
    with KafkaBroker() as broker, tempfile.TemporaryDirectory(prefix="archiver-bench-") as folder:
        create_topic(broker.bootstrap_servers, TOPIC)
        base = Path(folder)
        # No sensor starts anything of its own: archive and seal tick once a day, and followers never.
        idle = {"ARCHIVER_INTERVAL_SECONDS": 86_400, "ARCHIVER_FOLLOW_SECONDS": 0}
        environment = prepare(base, broker.bootstrap_servers, TOPIC, **idle)
        _send(broker.bootstrap_servers)
        execute = _execute(environment, given.turns)
        runs = _runs(broker.bootstrap_servers, environment, base, given.turns)
    queue_apart = Target("the same without the time in the queue", runs["ratio_without_queue"], None, "×")
    figures = {"job_execute": execute, "dagster_dev": runs}
    targets = [
        Target("dagster job execute, nothing to do ÷ empty job", execute["ratio"], 1.5, "×"),
        Target(
            "the same ÷ empty job that skips taking modules apart at exit, too", execute["ratio_to_frozen"], 1.5, "×"
        ),
        Target("dagster dev, request to first messages ÷ to first line", runs["ratio"], 1.2, "×"),
        queue_apart,
    ]
    console.print(table("start-up; medians of turns", targets))
    console.print(figures)
    record("startup", f"python -m bench.startup --turns {given.turns}", figures)


def _send(servers: str) -> None:
    produce(servers, TOPIC, [Sent(b'{"type": "object.one", "uid": "u1"}')] * MESSAGES)


def _execute(environment: Mapping[str, str], turns: int) -> dict[str, Any]:
    """`dagster job execute`, the whole process: seconds and CPU seconds."""
    places = {"empty": EMPTY, "empty, frozen": FROZEN, "archive": LOCATION}
    jobs = {name: (*EXECUTE, place, "-j", name.split(",")[0]) for name, place in places.items()}
    said = {"empty": "first line", "empty, frozen": "first line", "archive": "nothing to archive"}
    for name, words in jobs.items():  # What there is gets archived, and byte code and caches are made.
        first = f"{MESSAGES} messages in" if name == "archive" else said[name]
        measure_saying(first, "dagster", *words, environment=environment)
    found: dict[str, list[Any]] = {name: [] for name in jobs}
    for _ in range(turns):
        for name, words in jobs.items():
            found[name].append(measure_saying(said[name], "dagster", *words, environment=environment))
    seconds = {name: [run.seconds for run in runs] for name, runs in found.items()}
    cpu = {name: [run.cpu_seconds for run in runs] for name, runs in found.items()}
    frozen = _median(seconds["archive"]) / _median(seconds["empty, frozen"])
    return {
        **_compared(seconds),
        "ratio_to_frozen": round(frozen, 3),
        "cpu_seconds": {name: _median(each) for name, each in cpu.items()},
    }


def _runs(servers: str, environment: Mapping[str, str], base: Path, turns: int) -> dict[str, Any]:
    """Runs under `dagster dev`: seconds from the request to each stage."""
    stages: dict[str, list[dict[str, float]]] = {"empty": [], "archive": []}
    home = environment["DAGSTER_HOME"]
    draw = random.Random(1)
    with Dev(environment, base / "dev.log", EMPTY) as dev, dg.DagsterInstance.from_config(home) as instance:
        _wait_for_quiet(instance)
        for turn in range(turns + 1):
            for name, location in (("empty", EMPTY), ("archive", LOCATION)):
                _send(servers)
                # The queue is looked at each second. Launched in step with it, one of the two would always wait longer.
                time.sleep(draw.uniform(0, QUEUE_SECONDS))
                run_id = dev.launch(name, location)
                found = _stages(instance, run_id, MESSAGES * (2 if name == "archive" else 0))
                if turn:  # The first of each warms up.
                    stages[name].append(found)
    seconds = {name: [run[last] for run in stages[name]] for name, last in ENDS.items()}
    medians = {
        name: {stage: _median([run[stage] for run in runs]) for stage in STAGES if stage in runs[0]}
        for name, runs in stages.items()
    }
    after = {name: [run[last] - run["launched"] for run in stages[name]] for name, last in ENDS.items()}
    ratio = round(_median(after["archive"]) / _median(after["empty"]), 3)
    return {**_compared(seconds), "ratio_without_queue": ratio, "seconds_until": medians}


def _wait_for_quiet(instance: dg.DagsterInstance, seconds: float = 60) -> None:
    """Wait until the sensors have had their first tick and what they asked for is done."""
    time.sleep(15)
    deadline = time.monotonic() + seconds
    while any(not run.is_finished for run in instance.get_runs()):
        if time.monotonic() > deadline:
            raise TimeoutError("a run of a sensor does not end")
        time.sleep(0.5)


def _stages(instance: dg.DagsterInstance, run_id: str, messages: int) -> dict[str, float]:
    """Wait for the end of a run, check what it archived, and read when it came to each stage from its event log."""
    deadline = time.monotonic() + 60
    while (run := instance.get_run_by_id(run_id)) is None or not run.is_finished:
        if time.monotonic() > deadline:
            raise TimeoutError(f"run {run_id} does not end")
        time.sleep(0.25)
    if not run.is_success:
        raise RuntimeError(f"run {run_id} failed")
    at: dict[str, float] = {}
    archived = 0
    for entry in instance.all_logs(run_id):
        event = entry.dagster_event
        kind = event.event_type_value if event is not None else ""
        said = entry.user_message
        if kind == "PIPELINE_ENQUEUED":
            at["request"] = entry.timestamp
        elif kind == "PIPELINE_STARTING":
            at["launched"] = entry.timestamp
        elif kind == "PIPELINE_START":
            at["process"] = entry.timestamp
        elif kind == "STEP_START":
            at["step"] = entry.timestamp
        elif event is None and said.startswith(("reading ", "first line")):
            at["reading"] = entry.timestamp
        elif entry.asset_materialization is not None and entry.asset_materialization.asset_key.path == ["messages"]:
            metadata = entry.asset_materialization.metadata
            archived += int(metadata["messages"].value)  # type: ignore[arg-type]
            # Asked for and read: so few messages come in one go.
            at["read"] = at["reading"] + metadata["seconds per step"].value["read"]  # type: ignore[index, call-overload]
    if archived != messages:
        raise RuntimeError(f"run {run_id} archived {archived:,} messages of {messages:,}")
    return {stage: moment - at["request"] for stage, moment in at.items()}


def _compared(seconds: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    medians = {name: _median(each) for name, each in seconds.items()}
    every = {name: [round(one, 3) for one in each] for name, each in seconds.items()}
    return {
        "ratio": round(medians["archive"] / medians["empty"], 3),
        "median_seconds": medians,
        "every_turn_seconds": every,
    }


def _median(values: Sequence[float]) -> float:
    return round(statistics.median(values), 3)


if __name__ == "__main__":
    main()
