"""Set-ups that are not well, each broken for real, and what the doctor is to say of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from email.utils import format_datetime, parsedate_to_datetime
from functools import cached_property
from pathlib import Path

import dagster as dg
from dagster._daemon.types import DaemonHeartbeat

from archiver_pipeline.table import delta_log, format_version
from archiver_pipeline.table.archive import Archive
from archiver_pipeline_tests.batches import archive, event
from archiver_pipeline_tests.disk import mounted
from archiver_pipeline_tests.kafka.broker import KafkaBroker
from archiver_pipeline_tests.kafka.produce import create_topic
from archiver_pipeline_tests.kafka.secured import SecuredBroker
from archiver_pipeline_tests.mysql.server import MariaDbServer
from archiver_pipeline_tests.objects.gateway import Gateway
from archiver_pipeline_tests.objects.proxy import PASS, proxy
from archiver_pipeline_tests.postgres.server import PostgresServer
from archiver_pipeline_tests.processes import CHECKOUT, free_port

PASSWORD = "right-password"
Variables = dict[str, str]


class Servers:
    """Servers and folders that set-ups are made of; each server is started when it is first needed.

    Attributes:
        kafka: a broker.
        folder: for everything else.
    """

    def __init__(self, kafka: KafkaBroker, secured: SecuredBroker, folder: Path) -> None:
        self.kafka, self.secured, self.folder = kafka, secured, folder
        self._stack = ExitStack()
        self._count = 0

    def close(self) -> None:
        """Stop every server."""
        self._stack.close()

    @cached_property
    def gateway(self) -> Gateway:
        """An S3 server."""
        return self._stack.enter_context(Gateway(self.folder / "gateway"))

    @cached_property
    def mariadb(self) -> MariaDbServer:
        """A MariaDB server."""
        return self._stack.enter_context(MariaDbServer())

    @cached_property
    def postgres(self) -> PostgresServer:
        """A PostgreSQL server."""
        return self._stack.enter_context(PostgresServer())

    def well(self) -> Variables:
        """The variables of a set-up with which nothing is wrong: a topic, a folder, and Dagster's own."""
        self._count += 1
        base, topic = self.folder / f"base-{self._count}", f"setup-{self._count}-{self.folder.name}"
        create_topic(self.kafka.bootstrap_servers, topic)
        home = base / "dagster_home"
        home.mkdir(parents=True)
        (home / "dagster.yaml").write_text((CHECKOUT / "deploy" / "dagster.yaml").read_text())
        return {
            "BASE_DIR": str(base),
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers,
            "ARCHIVER_TOPICS": topic,
            "DAGSTER_HOME": str(home),
        }

    def logged_in(self, password: str = PASSWORD, *rules: str) -> Variables:
        """A set-up on the secured broker, whose user is allowed these rules on the topic."""
        variables = self.well()
        user = f"user-{variables['ARCHIVER_TOPICS']}"
        create_topic(self.secured.bootstrap_servers, variables["ARCHIVER_TOPICS"])
        self.secured.add_user(user, PASSWORD)
        if rules:
            self.secured.allow(user, *(rule.replace("TOPIC", variables["ARCHIVER_TOPICS"]) for rule in rules))
        scram = self.secured.scram(user, password)
        return variables | {f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in scram.items()}

    def in_bucket(self, bucket: str = "") -> Variables:
        """A set-up whose archive lies in a bucket of the S3 server, a new one unless it is named."""
        variables = self.well()
        uri = f"s3://{bucket}" if bucket else self.gateway.make_bucket(f"bucket-{self._count}")
        return variables | {"ARCHIVER_URI": f"{uri}/archive"} | self.gateway.environment()


@dataclass(frozen=True)
class Setup:
    """A set-up.

    Attributes:
        make: yields its variables while it is as it is to be.
        checks: the checks that it is about.
        says: a regular expression for `mark check what remedy` of a finding.
        code: the exit code.
    """

    make: Callable[[Servers], Iterator[Variables]]
    checks: tuple[str, ...]
    says: str
    code: int = 1


def _nothing(servers: Servers) -> Iterator[Variables]:
    yield servers.well()


def _no_broker(servers: Servers) -> Iterator[Variables]:
    yield {**servers.well(), "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"}


def _wrong_password(servers: Servers) -> Iterator[Variables]:
    yield servers.logged_in("wrong-password", "Read on Topic TOPIC")


def _no_acl(servers: Servers) -> Iterator[Variables]:
    yield servers.logged_in(PASSWORD, "Describe on Topic TOPIC")


def _no_topic(servers: Servers) -> Iterator[Variables]:
    variables = servers.well()
    yield {**variables, "ARCHIVER_TOPICS": f"{variables['ARCHIVER_TOPICS']},not-there"}


def _short_retention(servers: Servers) -> Iterator[Variables]:
    variables = servers.well()
    topic = f"{variables['ARCHIVER_TOPICS']}-short"
    create_topic(servers.kafka.bootstrap_servers, topic, config={"retention.ms": 600_000})
    yield {**variables, "ARCHIVER_TOPICS": topic}


def _no_bucket(servers: Servers) -> Iterator[Variables]:
    yield servers.in_bucket("no-such-bucket")


def _read_only_store(servers: Servers) -> Iterator[Variables]:
    variables = servers.in_bucket()
    servers.gateway.read_only = True
    servers.gateway.restart()
    try:
        yield variables
    finally:
        servers.gateway.read_only = False
        servers.gateway.restart()


def _frozen_store(servers: Servers) -> Iterator[Variables]:
    variables = servers.in_bucket()
    servers.gateway.pause()
    try:
        yield variables
    finally:
        servers.gateway.resume()


def _read_only_folder(servers: Servers) -> Iterator[Variables]:
    variables = servers.well()
    with mounted(Path(variables["BASE_DIR"]) / "disk", 20) as disk, disk.read_only():
        yield {**variables, "ARCHIVER_URI": str(disk.path / "archive")}


def _full_disk(servers: Servers) -> Iterator[Variables]:
    variables = servers.well()
    with mounted(Path(variables["BASE_DIR"]) / "disk", 20) as disk:
        disk.fill()
        yield {**variables, "ARCHIVER_URI": str(disk.path / "archive")}


def _behind(headers: dict[str, str]) -> dict[str, str]:
    """What a store says whose clock is two minutes behind."""
    for name in {"Last-Modified", "Date"} & headers.keys():
        headers[name] = format_datetime(parsedate_to_datetime(headers[name]) - timedelta(minutes=2), usegmt=True)
    return headers


def _clock(servers: Servers) -> Iterator[Variables]:
    variables = servers.in_bucket()
    with proxy(servers.gateway.endpoint, lambda *_: PASS, _behind) as address:
        yield {**variables, "AWS_ENDPOINT_URL": address}


def _no_dagster_yaml(servers: Servers) -> Iterator[Variables]:
    variables = servers.well()
    (Path(variables["DAGSTER_HOME"]) / "dagster.yaml").unlink()
    yield variables


def _stopped_postgres(servers: Servers) -> Iterator[Variables]:
    variables, server = servers.well(), servers.postgres
    config = Path(variables["DAGSTER_HOME"]) / "dagster.yaml"
    config.write_text(json.dumps(server.storage(server.new_database())))
    server.stop()
    try:
        yield variables
    finally:
        server.start()


def _no_daemon(servers: Servers) -> Iterator[Variables]:
    variables = servers.well()
    with dg.DagsterInstance.from_config(variables["DAGSTER_HOME"]) as instance:
        for kind in instance.get_required_daemon_types():
            instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - 600, kind, None, []))
    yield variables


def _filled(variables: Variables) -> Archive:
    found = Archive(f"{variables['BASE_DIR']}/archive")
    archive(found, [event()])
    return found


def _newer_format(servers: Servers) -> Iterator[Variables]:
    variables = servers.well()
    state, _ = _filled(variables).standing()
    properties = {**state.metadata["configuration"], format_version.PROPERTY: str(format_version.KNOWN + 1)}
    action = {"metaData": {**state.metadata, "configuration": properties}}
    path = Path(variables["BASE_DIR"], "archive", delta_log.commit_name(state.version + 1))
    path.write_text(json.dumps(action) + "\n")
    yield variables


def _no_types(servers: Servers) -> Iterator[Variables]:
    variables = servers.well()
    archive(_filled(variables), [b'{"kind": "a"}', b'{"kind": "b"}', b"{"])
    yield variables


def _future(servers: Servers) -> Iterator[Variables]:
    variables = servers.well()
    found = _filled(variables)
    path = Path(found.uri, delta_log.commit_name(found.standing()[0].version))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        if "commitInfo" in line:
            line["commitInfo"]["timestamp"] += 600_000
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    yield variables


def _mysql_password(servers: Servers) -> Iterator[Variables]:
    url = servers.mariadb.url(servers.mariadb.new_database())
    yield {**servers.well(), "ARCHIVER_MYSQL_URL": url.replace("s3cret", "wrong")}


def _no_mysql(servers: Servers) -> Iterator[Variables]:
    yield {**servers.well(), "ARCHIVER_MYSQL_URL": f"mysql://archiver:secret-word@127.0.0.1:{free_port()}/archive"}


def _no_search(servers: Servers) -> Iterator[Variables]:
    yield {**servers.well(), "ARCHIVER_SEARCH_URL": f"http://archiver:secret-word@127.0.0.1:{free_port()}"}


def _no_registry(servers: Servers) -> Iterator[Variables]:
    yield {**servers.well(), "ARCHIVER_REGISTRY_URL": f"http://127.0.0.1:{free_port()}"}


def _wrong_setting(servers: Servers) -> Iterator[Variables]:
    yield {**servers.well(), "ARCHIVER_LANES": "none"}


def _no_topics(servers: Servers) -> Iterator[Variables]:
    yield {**servers.well(), "ARCHIVER_TOPICS": ""}


_DAGSTER = ("dagster home", "dagster")
_TOPICS = ("broker", "archive", "topics", "retention")

SETUPS: dict[str, Setup] = {
    "nothing is wrong": Setup(
        _nothing, (*_TOPICS, "storage", "results", *_DAGSTER), "ok storage .* can be written, listed, read", 0
    ),
    "no broker at the address": Setup(
        _no_broker, ("broker",), "fault broker .*did not answer.*Connection refused.*Check KAFKA_BOOTSTRAP_SERVERS"
    ),
    "a wrong password": Setup(_wrong_password, ("broker",), "fault broker .*invalid credentials.*KAFKA_SASL_PASSWORD"),
    "an ACL is missing": Setup(
        _no_acl, ("broker", "archive", "topics"), "fault topics .*lack the ACL Read on topic (.*)kafka-acls.sh --add .*"
    ),
    "a topic is missing": Setup(_no_topic, _TOPICS, "fault topics topic not-there does not exist Make the topic"),
    "Kafka keeps messages for ten minutes": Setup(
        _short_retention, _TOPICS, "warning retention .*keeps messages for 10 minutes only.*retention.ms", 0
    ),
    "no such bucket": Setup(_no_bucket, ("storage",), "fault storage .*NoSuchBucket.*Make the bucket"),
    "a store that may only be read": Setup(
        _read_only_store, ("storage",), "fault storage .*refused: AccessDenied.*Put"
    ),
    "a store that hangs": Setup(_frozen_store, ("storage",), "fault storage .*(does not|no) answer|come to an end"),
    "a folder that may only be read": Setup(
        _read_only_folder, ("storage",), "fault storage .*Read-only file system.*Make the folder writable"
    ),
    "a full disk": Setup(_full_disk, ("storage", "disk"), "fault storage .*No space left on device.*Free space"),
    "a clock that is two minutes ahead": Setup(
        _clock, ("storage",), "fault clock .* 1(19|2.) s ahead of that of the storage.*NTP"
    ),
    "a commit of ten minutes from now": Setup(
        _future, ("archive",), "fault clock the clock of this machine is (600|59.) s behind that of whoever made"
    ),
    "messages without a type": Setup(
        _no_types,
        ("archive", "types"),
        "warning types no type was found for 3 of 4 messages in the newest hour: _malformed 1, _untyped 2 "
        ".*ARCHIVER_TYPE_PATH.* backfill --from-archive",
        0,
    ),
    "DAGSTER_HOME without dagster.yaml": Setup(
        _no_dagster_yaml, _DAGSTER, "fault dagster home there is no dagster.yaml.*cp -n deploy/dagster.yaml"
    ),
    "PostgreSQL is down": Setup(
        _stopped_postgres, _DAGSTER, "fault dagster PostgreSQL of Dagster does not answer at .*refused.*Is the storage"
    ),
    "the daemon does not run": Setup(_no_daemon, _DAGSTER, "fault daemon .*is not running.*make dev"),
    "an archive of a newer format": Setup(
        _newer_format, ("archive", "view"), "fault archive .*has format 2, this archiver knows up to 1.*Upgrade"
    ),
    "a wrong password of MySQL": Setup(
        _mysql_password, ("mysql",), "fault mysql .*Access denied.*Check user and password in ARCHIVER_MYSQL_URL"
    ),
    "MySQL is down": Setup(_no_mysql, ("mysql",), "fault mysql MySQL does not answer.*refused"),
    "Elasticsearch is down": Setup(_no_search, ("search",), "fault search the search cluster does not answer"),
    "the Schema Registry is down": Setup(_no_registry, ("registry",), "fault registry .*Check ARCHIVER_REGISTRY_URL"),
    "a wrong setting": Setup(_wrong_setting, (), "fault settings ARCHIVER_LANES is 'none': allowed is", 2),
    "no topics": Setup(_no_topics, (), "fault settings ARCHIVER_TOPICS is not set", 2),
}


@contextmanager
def made(servers: Servers, name: str) -> Iterator[Variables]:
    """The variables of a set-up while it is as it is to be."""
    making = contextmanager(SETUPS[name].make)
    with making(servers) as variables:
        yield variables
