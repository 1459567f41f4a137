"""Rules of `docker-compose.yml`: its services, run outside of containers on real servers, archive what is produced."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pymysql
import pytest
from confluent_kafka.admin import AdminClient, ConfigResource

from archiver_pipeline_tests.debian import installed
from archiver_pipeline_tests.fleet import compose
from archiver_pipeline_tests.fleet.compose import Local
from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.mysql.server import PACKAGES as MARIADB
from archiver_pipeline_tests.mysql.server import MariaDbServer
from archiver_pipeline_tests.objects.gateway import gateway
from archiver_pipeline_tests.postgres.server import PostgresServer
from archiver_pipeline_tests.processes import CHECKOUT, HOST, Processes, environment, free_ports
from archiver_pipeline_tests.server import is_ok, running
from archiver_pipeline_tests.waiting import LIMIT_SECONDS, wait_for

STARTED = ["code", "webserver", "daemon", "producer", "metrics"]
STOPPED = ["metrics", "producer", "daemon", "webserver", "code"]
SOONER = {"ARCHIVER_INTERVAL_SECONDS": "3"}
"""A test need not wait for sensors that take their time."""

PROGRAMS = Path(sys.executable).parent

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass
class Project:
    """The project as `docker compose up` leaves it.

    Attributes:
        services: what the file says, with addresses of this machine.
        folder: holds DAGSTER_HOME, BASE_DIR, buckets and logs.
        children: the services that run.
    """

    services: dict[str, Local]
    folder: Path
    processes: Processes
    mariadb: MariaDbServer
    topics: list[str]
    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str) -> None:
        """Start a service as a process of this machine."""
        service = self.services[name]
        log = self.folder / f"{name}.log"
        self.children[name] = self.processes.start(
            _arguments(service.command), environment({**service.environment, **SOONER}), log
        )

    def check(self, name: str) -> bool:
        """Whether the health check of a service says that it is well."""
        service = self.services[name]
        return self.processes.run(_arguments(service.health), environment(service.environment)).code == 0

    def wait_until_well(self, name: str) -> None:
        """Wait until its health check says so; each is a process that takes seconds of the processor."""
        wait_for(f"the health of {name}", partial(self.check, name), 240, pause=3)

    def stop(self, name: str) -> tuple[int, float]:
        """Send a service the signal that Compose sends first; its exit code, and how many seconds it took."""
        child = self.children.pop(name)
        began = time.monotonic()
        child.terminate()
        return child.wait(self.services[name].grace_seconds), time.monotonic() - began


@pytest.fixture(scope="module")
def project(kafka: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Postgres, MariaDB and the bucket's server as the file wants them, and nothing of ours yet."""
    folder = tmp_path_factory.mktemp("compose")
    mark = uuid.uuid4().hex[:8]
    topics = [f"compose-orders-{mark}", f"compose-clicks-{mark}"]
    variables = {
        "DAGSTER_POSTGRES_PASSWORD": "po:st/g@ré",
        "MYSQL_PASSWORD": "ma-ria_1",
        "BUCKET_ACCESS_KEY": "compose",
        "BUCKET_SECRET_KEY": "a secret/with+signs=42",
        "PRODUCER_TOPICS": ",".join(topics),
        "ARCHIVER_TOPICS": ",".join(topics),
    }
    with (
        Processes() as processes,
        running(PostgresServer(folder / "postgres"), "data") as postgres,
        running(MariaDbServer(folder / "mariadb"), "mysql") as mariadb,
    ):
        ports = dict(zip(("7070", "4000", "3000", "9464"), map(str, free_ports(4)), strict=True))
        content = compose.load(variables)["services"]
        made = content["postgres"]["environment"]
        postgres.ask(f"CREATE ROLE {made['POSTGRES_USER']} LOGIN PASSWORD '{made['POSTGRES_PASSWORD']}'")
        postgres.ask(f"CREATE DATABASE {made['POSTGRES_DB']} OWNER {made['POSTGRES_USER']}")
        made = content["mysql"]["environment"]
        mariadb.ask(f"CREATE DATABASE {made['MARIADB_DATABASE']}")
        mariadb.ask(f"SET PASSWORD FOR '{made['MARIADB_USER']}'@'%' = PASSWORD('{made['MARIADB_PASSWORD']}')")
        home = folder / "home"
        home.mkdir()
        (home / "dagster.yaml").write_text((CHECKOUT / "deploy/compose/dagster.yaml").read_text())
        workspace = folder / "workspace.yaml"
        text = (CHECKOUT / "deploy/compose/workspace.yaml").read_text()
        workspace.write_text(
            text.replace("host: code", f"host: {HOST}").replace("port: 4000", f"port: {ports['4000']}")
        )
        addresses = {
            "kafka:9092": kafka.bootstrap_servers,
            "http://bucket": f"http://{HOST}",
            "mysql/archive": f"{HOST}:{mariadb.port}/archive",
            "postgres": HOST,
            "5432": str(postgres.port),
            "0.0.0.0": HOST,
            "/dagster/workspace.yaml": str(workspace),
            "/dagster": str(home),
            "/data": str(folder / "base"),
            "/buckets": str(folder / "buckets"),
            **ports,
        }
        services = {name: Local(service, addresses) for name, service in content.items()}
        made = Project(services, folder, processes, mariadb, topics)
        (folder / "buckets" / "archive").mkdir(parents=True)
        bucket = services["bucket"]
        log = (folder / "bucket.log").open("ab")
        server = subprocess.Popen(
            [str(gateway()), *bucket.command], env=environment(bucket.environment), stdout=log, stderr=log
        )
        try:
            asked = urlsplit(bucket.health[-1])
            wait_for("the bucket", lambda: is_ok(asked.port or 0, asked.path))
            yield made
        finally:
            processes.kill()
            server.kill()
            server.wait()
            log.close()


def test_it_archives_and_ends_in_time(project: Project) -> None:
    """Every service of ours gets well by its own check, what the producer sends is in bucket and MariaDB, and on the
    signal for the end each service ends within its time, the code location last."""
    for name in STARTED:
        project.start(name)
        if name == "code":
            project.wait_until_well(name)
    database = compose.load()["services"]["mysql"]["environment"]["MARIADB_DATABASE"]

    def rows() -> int:
        try:
            return int(project.mariadb.ask("SELECT COUNT(DISTINCT topic) FROM messages", database)[0][0])
        except pymysql.err.ProgrammingError:
            return 0  # The table is not made yet.

    wait_for("messages of both topics in MariaDB", lambda: rows() == 2, 240)
    for name in ("webserver", "daemon", "metrics"):
        project.wait_until_well(name)
    asked = project.processes.run(
        ["-m", "archiver_pipeline.cli", "sql", "--csv", "SELECT DISTINCT topic FROM messages"],
        environment(project.services["code"].environment),
    )
    assert set(project.topics) < set(asked.out.split()), asked.said
    for name in STOPPED:
        code, took = project.stop(name)
        assert took < project.services[name].grace_seconds
        # Ended by itself, or by the signal; the code location had its runs to wait for.
        assert code in ((0,) if name == "code" else (0, -signal.SIGTERM, 128 + signal.SIGTERM)), (name, code)
    project.processes.wait_until_none_lives(60)


def test_other_servers_take_their_options(project: Project, kafka: KafkaBroker) -> None:
    """Kafka knows each setting that its image makes of a variable, MariaDB and Prometheus each of their options."""
    services = compose.load()["services"]
    named = {name.removeprefix("KAFKA_").lower().replace("_", ".") for name in services["kafka"]["environment"]}
    resource = ConfigResource(ConfigResource.Type.BROKER, "1")
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    answer = admin.describe_configs([resource])
    assert named <= answer[resource].result(LIMIT_SECONDS).keys()
    options = [*services["mysql"]["command"], "--verbose", "--help"]
    said = subprocess.run(
        [installed("mariadbd", *MARIADB), "--no-defaults", "--user=root", *options],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr
    helped = subprocess.run(
        [installed("prometheus", "prometheus"), "--help"], capture_output=True, text=True, check=False
    )
    for option in services["prometheus"]["command"]:
        assert re.search(rf"{re.escape(option.split('=')[0])}\b", helped.stdout + helped.stderr), option


def _arguments(words: list[str]) -> list[str]:
    """The arguments of Python for a command: a program of the image is one beside Python, which reads its script."""
    name, *arguments = words
    return arguments if name == "python" else [str(PROGRAMS / name), *arguments]
