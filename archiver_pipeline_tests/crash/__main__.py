"""The crash test at length: batches, seals and backfills killed over and over while messages come in, then the table
against Kafka.

Prints the kills per step and what was lost, doubled or differs; ends with exit code 1 unless all of it is 0.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from archiver_pipeline_tests.against_kafka import Comparison
from archiver_pipeline_tests.archived import Archived, wait_until_stable
from archiver_pipeline_tests.crash.rewriting import clean, environment
from archiver_pipeline_tests.crash.run import Run, Trap
from archiver_pipeline_tests.crash.workload import Workload
from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.produce import create_topic
from archiver_pipeline_tests.objects.conftest import in_bucket
from archiver_pipeline_tests.objects.gateway import Gateway
from archiver_pipeline_tests.waiting import wait_for

ARCHIVE, SEAL, BACKFILL = "archive", "seal", "backfill"
STEPS = {
    ARCHIVE: ("plan", "read", "frame", "write", "sync", "place", "check", "commit", "clean", "done", "view", "shown"),
    SEAL: ("plan", "read", "frame", "write", "sync", "place", "commit", "clean", "done", "view", "remove"),
    BACKFILL: ("read", "plan", "compare", "frame", "write", "sync", "place", "commit", "clean", "done", "remove"),
}
TYPE_PATHS = ("$.type", "$.fill", "constant:all")
"""The rules that a backfill goes by, one or another: so it has always something to do."""

TOPICS = ("orders", "payments", "shipments")
PARTITIONS = 3
RUN_SECONDS = 600.0

_AT, _IN, _ANY = "as it begins", "in the midst", "at random"


class Killer:
    """Starts runs of one lane after the other and kills each, at moments spread evenly over all steps.

    Attributes:
        kills: what a run did, the step it was in when it ended, and how its moment was chosen, to the number of kills.
        failures: what runs said that ended in another way than by SIGKILL or in order.
    """

    def __init__(self, environment: dict[str, str], wanted: int, workload: Workload, seed: int) -> None:
        self.kills: Counter[tuple[str, str, str]] = Counter()
        self.failures: list[str] = []
        self._environment = environment
        self._wanted = wanted
        self._workload = workload
        self._seed = seed
        self._lock = threading.Lock()
        self._begun = 0
        self._durations: dict[tuple[str, str], list[float]] = defaultdict(list)

    def kill_runs(self, lane: int) -> None:
        """Start and kill runs of a lane until all lanes together have had as many kills as are wanted."""
        chance = random.Random(self._seed + lane)
        for work, step, how in _moments(chance):
            with self._lock:
                if self._begun >= self._wanted:
                    return
                self._begun += 1
            while not self._one_kill(lane, work, step, how, chance):
                self._workload.allow_more()
                if work != ARCHIVE:
                    self._archive(lane)

    def _archive(self, lane: int) -> None:
        """Archive without a kill what has come, so that there is something to seal."""
        run = Run(self._environment, lane)
        if code := run.wait(RUN_SECONDS):
            self.failures.append(f"lane {lane}, not killed: exit code {code}\n{run.errors}")

    def _one_kill(self, lane: int, work: str, step: str, how: str, chance: random.Random) -> bool:
        """Start one run and kill it; False if it was over before."""
        number = 2 if chance.random() < 0.15 else 1
        environment = self._environment
        if work == BACKFILL:
            environment = {**environment, "ARCHIVER_TYPE_PATH": chance.choice(TYPE_PATHS)}
        if how == _ANY:
            run = Run(environment, lane, work=work)
            threading.Event().wait(chance.uniform(0, self._typical(work, "start") + self._typical(work, "all")))
            code = run.kill()
        else:
            delay = chance.uniform(0, self._typical(work, step)) if how == _IN else 0.0
            run = Run(environment, lane, Trap("KILL", step, number, delay), work)
            code = run.wait(RUN_SECONDS)
        with self._lock:
            self._learn(run)
            if code == -9:
                self.kills[work, run.step, how] += 1
                self._workload.allow(sum(self.kills.values()) / self._wanted)
            elif code != 0:
                self.failures.append(f"lane {lane}, {work} killed {how} of {step}: exit code {code}\n{run.errors}")
        return code != 0

    def _typical(self, work: str, step: str) -> float:
        """How long a step takes as a rule, in seconds; a guess until runs have shown it."""
        with self._lock:
            seen = self._durations[work, step]
            return median(seen) if seen else 1.0

    def _learn(self, run: Run) -> None:
        if run.times:
            self._durations[run.work, "start"].append(max(0.0, run.times[0] - run.started))
            self._durations[run.work, "all"].append(run.times[-1] - run.times[0])
        for name, since, until in zip(run.steps, run.times, run.times[1:], strict=False):
            self._durations[run.work, name].append(until - since)


def _moments(chance: random.Random) -> Iterator[tuple[str, str, str]]:
    """Every step at its beginning and in its midst, and a few moments at random, in another order each time."""
    while True:
        deck = [(work, step, how) for work, steps in STEPS.items() for step in steps for how in (_AT, _IN)]
        deck += [(work, "", _ANY) for work in STEPS] * 2
        chance.shuffle(deck)
        yield from deck


def main(
    messages: Annotated[int, typer.Option(help="Messages to commit to Kafka; aborted ones come on top.")] = 1_000_000,
    kills: Annotated[int, typer.Option(help="Runs to kill.")] = 100,
    lanes: Annotated[int, typer.Option(help="Lanes that run side by side.")] = 1,
    abort_share: Annotated[float, typer.Option(help="Share of the transactions that are aborted.")] = 0.3,
    seed: Annotated[int, typer.Option(help="Makes the same choices again.")] = 1,
    bucket: Annotated[bool, typer.Option("--bucket", help="Archive to a bucket of a real S3 server.")] = False,
) -> None:
    """Kill runs of the archiver at every step, then compare its table with Kafka message by message."""
    console = Console()
    began = time.monotonic()
    with ExitStack() as held:
        folder = held.enter_context(tempfile.TemporaryDirectory(prefix="crash-"))
        broker = held.enter_context(KafkaBroker(heap="1g"))
        for topic in TOPICS:
            create_topic(broker.bootstrap_servers, topic, PARTITIONS)
        workload = Workload(broker.bootstrap_servers, TOPICS, PARTITIONS, messages, abort_share, seed)
        workload.start()
        workload.wait_for_first_half()
        batch_messages = max(100, 2 * messages // kills)
        limits: dict[str, Any] = {"lanes": lanes, "batch_messages": batch_messages, "keep_replaced_hours": 0}
        if bucket:
            gateway = held.enter_context(Gateway())
            os.environ.update(gateway.environment())
            archived = in_bucket(Path(folder), broker.bootstrap_servers, TOPICS, gateway, **limits)
        else:
            archived = Archived(Path(folder), broker.bootstrap_servers, *TOPICS, **limits)
        console.print(f"{workload.sent:,} messages sent; killing {kills} runs, batches of {batch_messages:,} offsets")
        killer = Killer(environment(archived), kills, workload, seed)
        threads = [threading.Thread(target=killer.kill_runs, args=(lane,)) for lane in range(lanes)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        workload.finish()
        wait_until_stable(broker.bootstrap_servers, *TOPICS)
        before = len(archived.stray_files())
        storage = archived.archiver().archive.storage
        wait_for("the last killed run to be taken for dead", lambda: not storage.living(lambda _: True))
        for _ in range(2):
            for lane in range(lanes):
                archived.run(lane=lane)
        clean(archived)
        console.print(f"{before:,} files that the table does not list before the last clean-up")
        console.print(kill_table(killer))
        console.print(f"{workload.sent:,} messages sent, {workload.committed:,} of them in committed transactions")
        ((batches, largest),) = archived.sql("SELECT count(*), max(messages) FROM batches WHERE messages > 0")
        files = len(archived.listed_files())
        console.print(f"{batches:,} batches, the largest of {largest:,} messages, {files:,} files")
        good = report(console, archived.compare(*TOPICS), workload.committed, archived, killer)
        console.print(f"{'good' if good else 'NOT GOOD'}, after {time.monotonic() - began:.0f} s")
    sys.exit(0 if good else 1)


def kill_table(killer: Killer) -> Table:
    """Kills by work, step and moment."""
    table = Table("run", "step", _AT, _IN, _ANY, "kills", title="Runs ended by SIGKILL")
    for work in STEPS:
        steps = dict.fromkeys(("start", *STEPS[work], *(step for kind, step, _ in killer.kills if kind == work)))
        for step in steps:
            counts = [killer.kills[work, step, how] for how in (_AT, _IN, _ANY)]
            table.add_row(work, step, *map(str, counts), str(sum(counts)))
    totals = [sum(count for (*_, how), count in killer.kills.items() if how == wanted) for wanted in (_AT, _IN, _ANY)]
    table.add_row("all", "", *map(str, totals), str(sum(totals)), style="bold")
    return table


def report(console: Console, found: Comparison, committed: int, archived: Archived, killer: Killer) -> bool:
    """Print what the archive has wrong and return whether that is nothing."""
    stray = archived.stray_files()
    missing = {path for path in archived.listed_files() if not (archived.path / path).is_file()}
    faults = {
        "lost": found.lost,
        "doubled": found.doubled,
        "differing": found.differing,
        "not Kafka's": found.extra,
        "files nobody lists": len(stray),
        "files missing": len(missing),
        "gaps": len(archived.gaps()),
        "failed runs": len(killer.failures),
    }
    console.print(f"{found.messages:,} messages compared with the table and with the view, byte for byte")
    for name, count in faults.items():
        console.print(f"{name}: {count:,}", style="red" if count else "green")
    for line in [*found.examples, *sorted(stray)[:20], *killer.failures[:5]]:
        console.print(line, markup=False)
    return found.messages == committed and not any(faults.values())


if __name__ == "__main__":
    typer.run(main)
