"""What grows with the archive and the cluster: a batch, a tick of the sensor, Dagster's storage.

`batches`: a batch of 100,000 messages, from plan to visible in DuckDB, in archives of 10 to 100,000 files. `tick`: the
sensors over 10,000 partitions and 20,000 commits. `runs`: what a run of one batch leaves in Dagster's storage.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.produce import create_topic
from bench.growth_cluster import LIMIT_SECONDS, make_topics
from bench.load import fill
from bench.process import measure
from bench.results import record

PARTITIONS = 4
TOPIC = "bench"
CHILD, CLUSTER = "bench.growth_batch", "bench.growth_cluster"
Environment = Mapping[str, str]


def main() -> None:
    """Measure what is asked for, print tables, and record the figures; exit with 1 where a count is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.growth", description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("parts", nargs="*", default=["batches", "tick", "runs"], help="which parts")
    parser.add_argument("--files", type=int, nargs="+", default=[10, 100, 1_000, 10_000, 100_000], help="archive sizes")
    parser.add_argument("--per-commit", type=int, default=50, help="files of a commit while archives are filled")
    parser.add_argument("--messages", type=int, default=100_000, help="messages of a batch")
    parser.add_argument("--size", type=int, default=300, help="bytes of a message")
    parser.add_argument("--turns", type=int, default=5, help="batches per archive, in turns")
    parser.add_argument("--topics", type=int, default=100, help="topics, of 100 partitions each, for `tick`")
    parser.add_argument("--commits", type=int, default=20_000, help="commits of the archive for `tick`")
    parser.add_argument("--runs", type=int, default=10, help="runs of one batch each for `runs`")
    parser.add_argument("--folder", help="where filled archives are kept for another time; by default nowhere")
    parser.add_argument("--only-fill", action="store_true", help="fill the archives in --folder, and measure nothing")
    given = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory(prefix="archiver-growth-") as temporary:
        kept = Path(given.folder or temporary)
        for part in given.parts:
            figures = PARTS[part](given, Path(temporary), kept, console)
            if not given.only_fill:
                record(f"growth_{part}", f"python -m bench.growth {part}", figures)


def batches(given: argparse.Namespace, work: Path, kept: Path, console: Console) -> Any:
    """A batch in archives of different sizes, in turns: in a run that stays, and in a process of its own."""
    bases = {files: _filled(files, given, kept, console) for files in sorted(given.files)}
    if given.only_fill:
        return None
    with KafkaBroker(heap="1g") as broker:
        create_topic(broker.bootstrap_servers, TOPIC, PARTITIONS)
        every = given.messages * (2 * given.turns + 1)
        console.print(f"Producing {every:,} messages of {given.size} bytes ...")
        fill(broker.bootstrap_servers, TOPIC, PARTITIONS, every, given.size)
        folders = {}
        for files, base in bases.items():
            folders[files] = work / str(files)
            shutil.copytree(base, folders[files], copy_function=_link)
        environments = {files: _environment(folder, broker, given) for files, folder in folders.items()}
        staying = _staying(environments, given.turns, console)
        alone = {files: [] for files in folders}  # type: dict[int, list[Any]]
        for _ in range(given.turns):
            for files, environment in environments.items():
                run = measure(CHILD, "stay", environment={**environment, "TURNS": "1"})
                alone[files].append({**run.report, "process": run.seconds})
        for environment in environments.values():
            found = measure(CHILD, "check", environment=environment).report
            if (found["messages"], found["lag"]) != (every, 0):
                raise SystemExit(f"{every:,} messages were sent, but there are {found}")
    figures = [_figures(files, staying[files], alone[files]) for files in folders]
    console.print(_table(figures))
    return figures


def _filled(files: int, given: argparse.Namespace, kept: Path, console: Console) -> Path:
    """An archive of that many small files, made of the next smaller one; one that was interrupted is gone on with."""
    folder, building = kept / f"filled-{files}", kept / f"filling-{files}"
    if not folder.exists():
        smaller = [path for path in kept.glob("filled-*") if int(path.name.split("-")[1]) < files]
        if smaller and not building.exists():
            base = max(smaller, key=lambda path: int(path.name.split("-")[1]))
            shutil.copytree(base, building, copy_function=_link)
        console.print(f"Filling an archive with {files:,} files ...")
        measure(CHILD, "fill", str(files), str(given.per_commit), environment=_base(building))
        building.rename(folder)
    return folder


def _link(source: str, target: str) -> None:
    """Parquet files and commits are never written again, so a link is a copy of them."""
    if source.endswith((".parquet", ".json")):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def _base(folder: Path) -> dict[str, str]:
    return {"BASE_DIR": str(folder), "ARCHIVER_TOPICS": TOPIC, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}


def _environment(folder: Path, broker: KafkaBroker, given: argparse.Namespace) -> dict[str, str]:
    return {
        **_base(folder),
        "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "ARCHIVER_BATCH_MESSAGES": str(given.messages),
        "ARCHIVER_START": "earliest",
    }


def _staying(environments: Mapping[int, Environment], turns: int, console: Console) -> dict[int, list[Any]]:
    """A process for each archive that stays, and takes its turn at a batch when it is told to; the first warms up."""
    taken: dict[int, list[Any]] = {files: [] for files in environments}
    with ExitStack() as stack:
        processes = {}
        for files, environment in environments.items():
            line = [sys.executable, "-m", CHILD, "stay"]
            process = subprocess.Popen(
                line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
            )
            processes[files] = stack.enter_context(process)
            stack.callback(process.kill)
        for turn in range(turns + 1):
            for files, process in processes.items():
                assert process.stdin is not None
                assert process.stdout is not None
                process.stdin.write("\n")
                process.stdin.flush()
                report = json.loads(process.stdout.readline())
                if turn:
                    taken[files].append(report)
            console.print(f"turn {turn}: {[round(each[-1]['seconds'], 2) for each in taken.values() if each]}")
    return taken


def _figures(files: int, staying: list[Any], alone: list[Any]) -> dict[str, Any]:
    def middle(reports: list[Any], name: str) -> float:
        return round(statistics.median(report[name] for report in reports), 4)

    steps = {name: [report["steps"][name] for report in staying] for name in staying[0]["steps"]}
    return {
        "files": files,
        "batch_seconds": middle(staying, "seconds"),
        "batch_seconds_each": [round(report["seconds"], 4) for report in staying],
        "cpu_seconds": middle(staying, "cpu"),
        "step_seconds": {name: round(statistics.median(each), 4) for name, each in steps.items()},
        "own_process_batch_seconds": middle(alone, "seconds"),
        "own_process_seconds": middle(alone, "process"),
        "view_mib": round(staying[-1]["view_bytes"] / 1024**2, 2),
        "log_commits": staying[-1]["version"],
    }


def _table(figures: list[dict[str, Any]]) -> Table:
    names = ("files", "commits", "batch", "ratio", "CPU", "process of its own: batch", "all", "DuckDB file, MiB")
    table = Table(*names, title="a batch, from plan to visible; seconds, medians of turns")
    for each in figures:
        first = figures[0]["batch_seconds"]
        numbers = (each["batch_seconds"], each["batch_seconds"] / first, each["cpu_seconds"])
        own = (each["own_process_batch_seconds"], each["own_process_seconds"], each["view_mib"])
        shown = [f"{number:.2f}" for number in (*numbers, *own)]
        table.add_row(f"{each['files']:,}", f"{each['log_commits']:,}", *shown)
    return table


def tick(given: argparse.Namespace, work: Path, kept: Path, console: Console) -> Any:
    """The sensors over many partitions and commits, as Dagster's code server evaluates them."""
    folder = work / "tick"
    with KafkaBroker(heap="2g", properties={"log.retention.check.interval.ms": 300_000}) as broker:
        console.print(f"Making {given.topics} topics of 100 partitions ...")
        make_topics(broker.bootstrap_servers, given.topics)
        environment = {**_base(folder), "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers, "ARCHIVER_TOPICS": "^grow"}
        console.print(f"Writing {given.commits:,} commits ...")
        measure(CLUSTER, "commits", str(given.commits), environment=environment)
        home = work / "tick-dagster"
        home.mkdir()
        (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        run = measure(CLUSTER, "tick", str(given.turns), environment={**environment, "DAGSTER_HOME": str(home)})
    figures = {**run.report, "peak_mib": run.peak_bytes >> 20}
    table = Table("sensor", "first", "median", "largest", title="seconds of a tick")
    for name, ticks in figures["ticks"].items():
        table.add_row(name, *(f"{each:.2f}" for each in (ticks[0], statistics.median(ticks[1:]), max(ticks[1:]))))
    console.print(table)
    console.print(f"partitions {figures['partitions']:,}, commits {figures['commits']:,}, {figures['reason'][:200]}")
    return figures


def runs(given: argparse.Namespace, work: Path, kept: Path, console: Console) -> Any:
    """What runs of one batch each leave in Dagster's storage."""
    home, sizes = work / "runs-dagster", []
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    with KafkaBroker() as broker:
        create_topic(broker.bootstrap_servers, TOPIC, PARTITIONS)
        environment = {**os.environ, **_environment(work / "runs", broker, given), "DAGSTER_HOME": str(home)}
        line = [
            sys.executable,
            "-m",
            "dagster",
            "job",
            "execute",
            "-m",
            "archiver_pipeline.definitions",
            "-j",
            "archive",
        ]
        for _ in range(given.runs + 1):
            fill(broker.bootstrap_servers, TOPIC, PARTITIONS, 1_000, given.size)
            subprocess.run(line, env=environment, check=True, capture_output=True, timeout=LIMIT_SECONDS)
            sizes.append(sum(path.stat().st_size for path in home.rglob("*") if path.is_file()))
    per_run = (sizes[-1] - sizes[0]) / given.runs
    figures = {
        "runs": given.runs,
        "bytes_per_run": round(per_run),
        "mib_per_1000_runs": round(per_run * 1000 / 2**20, 1),
    }
    console.print(f"Dagster's storage: {figures['mib_per_1000_runs']} MiB per 1,000 runs of one batch")
    return figures


PARTS = {"batches": batches, "tick": tick, "runs": runs}

if __name__ == "__main__":
    main()
