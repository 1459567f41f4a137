"""The stack of `bench.soak` as processes of this machine: what docker-compose.yml runs, each stopped and watched."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import yaml

from archiver_pipeline_tests.debian import installed
from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.produce import create_topic
from archiver_pipeline_tests.mysql.server import MariaDbServer
from archiver_pipeline_tests.objects.gateway import Gateway
from archiver_pipeline_tests.postgres.server import PostgresServer
from archiver_pipeline_tests.processes import CHECKOUT, HOST, environment, free_ports
from archiver_pipeline_tests.prometheus.server import PACKAGES
from archiver_pipeline_tests.server import is_ok
from archiver_pipeline_tests.waiting import wait_for

TOPICS = ("orders", "clicks")
PARTITIONS = 4
START_SECONDS = 120.0
STOP_SECONDS = 30.0
MIB = 2**20


class Stack:
    """Kafka, an S3 server, MariaDB and PostgreSQL, and the archiver with all that it has.

    Attributes:
        kafka, store, mysql, postgres: the servers.
        database: the database of MariaDB.
        storage: that of PostgreSQL.
        base: `BASE_DIR`.
        variables: the environment of the archiver's processes.
        programs: these processes by name.
        folder: where everything is, with a log of each program.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        """Choose folders and ports; `running` starts it."""
        self.folder, self.base = folder, folder / "base"
        self.kafka = KafkaBroker(heap="1g")
        self.store = Gateway(folder / "store")
        self.mysql = MariaDbServer(options={"innodb-buffer-pool-size": "512M", "innodb-log-file-size": "512M"})
        self.postgres = PostgresServer()
        self.programs: dict[str, psutil.Popen] = {}
        self._settings = settings
        self._ports = dict(zip(("code", "webserver", "metrics", "prometheus"), free_ports(4), strict=True))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Everything started and answering, and at the end gone."""
        with ExitStack() as stack:
            for server in (self.kafka, self.store, self.mysql, self.postgres):
                stack.enter_context(server)
            for topic in TOPICS:
                create_topic(self.kafka.bootstrap_servers, topic, PARTITIONS, {"retention.ms": -1})
            self._prepare()
            stack.callback(self.stop)
            self._start("code", "dagster", "api", "grpc", "-m", "archiver_pipeline.definitions", *self._at("code"))
            workspace = ["-w", str(self.folder / "workspace.yaml")]
            self._start("webserver", "dagster-webserver", *self._at("webserver"), *workspace)
            self._start("daemon", "dagster-daemon", "run", *workspace)
            self._start("metrics", "archiver", "metrics", "--listen", HOST, "--port", str(self._ports["metrics"]))
            self._start_prometheus()
            self._wait("the UI", lambda: is_ok(self._ports["webserver"], "/server_info"))
            self._wait("metrics", lambda: is_ok(self._ports["metrics"], "/metrics"))
            yield

    @property
    def prometheus(self) -> str:
        """The address of Prometheus."""
        return f"http://{HOST}:{self._ports['prometheus']}"

    def memory(self) -> dict[str, float]:
        """MiB in memory by program, of all runs together and of the largest one."""
        found = {name: _mib(process) for name, process in self.programs.items()}
        runs = [child for child in self.programs["code"].children(recursive=True) if "spawn_main" in _line(child)]
        sizes = [_mib(run) for run in runs]
        found |= {"runs": sum(sizes), "largest_run": max(sizes, default=0.0)}
        for name, server in (("kafka", self.kafka), ("store", self.store), ("mysql", self.mysql)):
            if server.process is not None:
                found[name] = _mib(psutil.Process(server.process.pid))
        return found

    def cpu_seconds(self) -> float:
        """User and system time so far of the archiver's programs, all runs included."""
        total = 0.0
        for process in self.programs.values():
            for each in (process, *process.children(recursive=True)):
                try:
                    times = each.cpu_times()
                except psutil.Error:
                    continue
                total += times.user + times.system + times.children_user + times.children_system
        return total

    def disk(self) -> dict[str, float]:
        """MiB on the disk: Dagster's storage, the archive, and what is in `BASE_DIR`."""
        size = self.postgres.ask(f"SELECT pg_database_size('{self.storage}')")[0][0]
        return {"dagster": size / MIB, "archive": _tree(self.store.buckets), "base": _tree(self.base)}

    def runs(self) -> dict[str, int]:
        """Dagster's runs by outcome."""
        return dict(self.postgres.ask("SELECT status, count(*) FROM runs GROUP BY 1", self.storage))

    def archiver(self, *arguments: str, seconds: float = 600) -> subprocess.CompletedProcess[str]:
        """Run the console script to its end."""
        return subprocess.run(
            [_script("archiver"), *arguments], env=self.variables, cwd=CHECKOUT, capture_output=True, text=True,
            timeout=seconds, check=False,
        )  # fmt: skip

    def stop(self) -> None:
        """End every program in order, and kill what does not."""
        for process in reversed(self.programs.values()):
            if process.is_running():
                process.terminate()
        _, left = psutil.wait_procs(self.programs.values(), STOP_SECONDS)
        for process in left:
            for each in (*process.children(recursive=True), process):
                each.kill()

    def _prepare(self) -> None:
        """Write what the programs read: settings of Dagster, workspace, those of Prometheus."""
        self.database, self.storage = self.mysql.new_database(), self.postgres.new_database()
        home = self.base / "dagster_home"
        home.mkdir(parents=True)
        self.postgres.write_settings(home, self.storage)
        server = {"grpc_server": {"host": HOST, "port": self._ports["code"], "location_name": "archiver"}}
        (self.folder / "workspace.yaml").write_text(yaml.safe_dump({"load_from": [server]}))
        self.variables = environment(
            {
                "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
                "ARCHIVER_TOPICS": ",".join(TOPICS),
                "ARCHIVER_URI": self.store.make_bucket("events") + "/archive",
                "ARCHIVER_MYSQL_URL": self.mysql.url(self.database),
                "BASE_DIR": str(self.base),
                "DAGSTER_HOME": str(home),
                **self.store.environment(),
                **self._settings,
            }
        )

    def _start(self, name: str, program: str, *arguments: str) -> None:
        self._spawn(name, [_script(program), *arguments])

    def _start_prometheus(self) -> None:
        """Prometheus with the rules and settings that ship, but for the addresses."""
        shipped = CHECKOUT / "deploy" / "prometheus"
        settings = yaml.safe_load((shipped / "prometheus.yml").read_text())
        settings["rule_files"] = [str(shipped / name) for name in settings["rule_files"]]
        target = {"targets": [f"{HOST}:{self._ports['metrics']}"]}
        settings["scrape_configs"] = [{"job_name": "archiver", "scrape_interval": "10s", "static_configs": [target]}]
        path = self.folder / "prometheus.yml"
        path.write_text(yaml.safe_dump(settings))
        line = [installed("prometheus", *PACKAGES), f"--config.file={path}"]
        line += [f"--storage.tsdb.path={self.folder / 'tsdb'}"]
        self._spawn("prometheus", [*line, f"--web.listen-address={HOST}:{self._ports['prometheus']}"])

    def _spawn(self, name: str, line: list[str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.programs[name] = psutil.Popen(
                line, env=self.variables, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def _at(self, name: str) -> list[str]:
        return ["--host", HOST, "--port", str(self._ports[name])]

    def _wait(self, what: str, answers: Callable[[], bool]) -> None:
        wait_for(f"{what}; the logs are in {self.folder}", answers, START_SECONDS)


def _script(name: str) -> str:
    """A console script of this Python's environment."""
    return str(Path(sys.executable).with_name(name))


def _mib(process: psutil.Process) -> float:
    """MiB in memory, 0 for one that is gone."""
    try:
        return float(process.memory_info().rss) / MIB
    except psutil.Error:
        return 0.0


def _line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _tree(folder: Path) -> float:
    """MiB of the files below a folder that others write to and remove from meanwhile."""
    done = subprocess.run([shutil.which("du") or "du", "-sk", str(folder)], capture_output=True, text=True, check=False)
    return int(done.stdout.split()[0]) / 1024 if done.stdout else 0.0
