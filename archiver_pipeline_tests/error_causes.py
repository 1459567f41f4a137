"""Faults that a user meets, each brought about for real or by what a library says of it, and what is printed then."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import KafkaError as ClientError
from confluent_kafka import KafkaException
from typer.testing import CliRunner

from archiver_pipeline.cli.main import app
from archiver_pipeline.doctor.deployment import home
from archiver_pipeline.doctor.patient import Patient
from archiver_pipeline.erasure import begun
from archiver_pipeline.errors import ArchiverError
from archiver_pipeline.followers.mysql_server import make_engine, parse_address, translated
from archiver_pipeline.formats.registry import SchemaRegistry
from archiver_pipeline.kafka.client import Complaints, Refused
from archiver_pipeline.metrics.server import Application, serve
from archiver_pipeline.plan import OffsetRange, Position, TopicPartition, check_follows_on
from archiver_pipeline.settings.settings import load
from archiver_pipeline.storage.bucket_errors import refused
from archiver_pipeline.storage.staging import storage_error
from archiver_pipeline.table import delta_log, format_version
from archiver_pipeline.table.archive import Archive, archive_of
from archiver_pipeline_tests.batches import archive, event
from archiver_pipeline_tests.processes import free_port

BROKER = "broker:9093"
_ALL = ("--all", "--format")


class Ground:
    """Where faults are brought about: a folder with a small archive, and no server at all.

    Attributes:
        folder: for whatever is needed.
        base: a `BASE_DIR` whose archive is well.
    """

    def __init__(self, folder: Path) -> None:
        """Archive two messages."""
        self.folder, self.base = folder, folder / "well"
        archive(Archive(str(self.base / "archive")), [event(), b"no JSON"])

    def copy(self) -> Path:
        """A `BASE_DIR` with a copy of the archive, to be damaged."""
        base = self.folder / "damaged"
        shutil.rmtree(base, ignore_errors=True)
        shutil.copytree(self.base, base)
        return base

    @contextmanager
    def environment(self, **variables: str) -> Iterator[None]:
        """The variables of a user who has these settings and no others."""
        before = dict(os.environ)
        for name in list(os.environ):
            if name.startswith(("ARCHIVER_", "KAFKA_", "AWS_", "DAGSTER_HOME")):
                del os.environ[name]
        os.environ.update({"BASE_DIR": str(self.base), "ARCHIVER_CONFIG": os.devnull, **variables})
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)

    def says(self, *arguments: str, **variables: str) -> str:
        """What a command prints on standard error at its end, which is not a good one."""
        with self.environment(**variables):
            done = CliRunner().invoke(app, list(arguments))
        assert done.exit_code in (1, 2), done.output
        assert "Traceback" not in done.stderr
        return done.stderr.rstrip("\n").splitlines()[-1]

    def raised(self, what: Callable[[], object], **variables: str) -> str:
        """What is printed of the error that a call raises."""
        with self.environment(**variables):
            try:
                what()
            except ArchiverError as error:
                return f"archiver: {' '.join(str(error).split())}"
        raise AssertionError("nothing was raised")

    def normal(self, text: str) -> str:
        """A text without what differs from one machine and run to the next."""
        text = text.replace(str(self.folder), "/srv").removeprefix("archiver: ")
        text = re.sub(r"/srv/(well|damaged|none)\b", "/srv/data", text)
        text = re.sub(r"part|lane0-[0-9a-f]+-\S+?\.parquet", "FILE.parquet", text) if "lane0-" in text else text
        text = re.sub(r'(Candidate bindings): ("\w+"(, )?)+', r"\1: …", text)
        return re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:9999", text)


Cause = Callable[[Ground], str]


def _says(*arguments: str, **variables: str) -> Cause:
    return lambda ground: ground.says(*arguments, **variables)


def _setting(name: str, value: str, **more: str) -> Cause:
    return lambda ground: ground.says("status", **{name: value}, **more)


def _in_file(text: str) -> Cause:
    def cause(ground: Ground) -> str:
        path = ground.folder / "archiver.toml"
        path.write_text(text)
        return ground.says("status", ARCHIVER_CONFIG=str(path))

    return cause


def _export(*arguments: str) -> Cause:
    """An export to a place in the folder."""
    return lambda ground: ground.says("export", *(each.replace("FOLDER", str(ground.folder)) for each in arguments))


def _taken(ground: Ground) -> str:
    (ground.folder / "taken.jsonl").write_text("")
    return ground.says("export", *_ALL, "jsonl", "--out", str(ground.folder / "taken.jsonl"))


def _none(*arguments: str) -> Cause:
    return lambda ground: ground.says(*arguments, BASE_DIR=str(ground.folder / "none"))


def _damaged(damage: Callable[[Path], object], *arguments: str) -> Cause:
    def cause(ground: Ground) -> str:
        base = ground.copy()
        damage(base / "archive")
        return ground.says(*arguments, BASE_DIR=str(base))

    return cause


def _cut_commit(path: Path) -> None:
    commit = sorted((path / "_delta_log").glob("*.json"))[-1]
    commit.write_bytes(commit.read_bytes()[:50])


def _remove_log(path: Path) -> None:
    shutil.rmtree(path / "_delta_log")


def _remove_file(path: Path) -> None:
    next(path.glob("type=object.one/**/*.parquet")).unlink()


def _property(value: str) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        state, _ = Archive(str(path)).standing()
        properties = {**state.metadata["configuration"], format_version.PROPERTY: value}
        action = {"metaData": {**state.metadata, "configuration": properties}}
        Path(path, delta_log.commit_name(state.version + 1)).write_text(json.dumps(action) + "\n")

    return write


def _file_for_a_folder(ground: Ground) -> str:
    path = ground.folder / "file"
    path.write_text("")
    return ground.raised(lambda: archive_of(load()).made(), BASE_DIR=str(path))


def _os(number: int) -> Cause:
    error = OSError(number, os.strerror(number), "/srv/data/archive/_staging")
    return lambda ground: ground.raised(lambda: _raise(storage_error(error, "/srv/data/archive")))


def _raise(error: Exception) -> None:
    raise error


def _locked(ground: Ground) -> str:
    with ground.environment(), begun(load()):
        return ground.says("erase", "--yes", "--where", "true")


def _broker_says(
    code: int,
    text: str,
    *,
    acls: tuple[str, ...] = (),
    closed: bool = False,
    properties: Mapping[str, str] | None = None,
) -> Cause:
    """What is made of an error of librdkafka; `closed` where it hung up again and again."""

    def cause(ground: Ground) -> str:
        complaints = Complaints({"bootstrap.servers": BROKER, **(properties or {})})
        error = ClientError(code, text)
        complaints.add(error)
        raised: Exception = Refused() if closed else KafkaException(error)
        return ground.raised(
            lambda: _raise(complaints.translate(raised, "the broker was asked for its topics", acls=acls))
        )

    return cause


def _no_broker(ground: Ground) -> str:
    from archiver_pipeline.kafka.cluster import Cluster

    variables = {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}", "ARCHIVER_TOPICS": "orders"}
    return ground.raised(lambda: Cluster(load(), 1.5).look(), **variables)


def _hole(ground: Ground) -> str:
    at = TopicPartition("orders", "A", 0)
    position = Position(at, 100, 500)
    return ground.raised(lambda: check_follows_on(OffsetRange(at, 200, 300), position))


def _store_says(text: str) -> Cause:
    return lambda ground: ground.raised(lambda: _raise(storage_error(refused(text, "s3://events/archive"), "")))


def _s3(status: str, code: str, message: str) -> Cause:
    said = f"Error performing PUT https://s3/events/x: Server returned non-2xx status code: {status}: "
    return _store_says(f"{said}<Error><Code>{code}</Code><Message>{message}</Message></Error>")


def _no_registry(ground: Ground) -> str:
    url = f"http://127.0.0.1:{free_port()}"
    return ground.raised(lambda: SchemaRegistry(load()).fetch("7"), ARCHIVER_REGISTRY_URL=url)


def _mysql(number: int, text: str) -> Cause:
    def cause(ground: Ground) -> str:
        import pymysql
        from sqlalchemy.exc import OperationalError

        def fail() -> None:
            with translated(parse_address("mysql://archiver:secret-word@db/events")):
                raise OperationalError("SELECT 1", {}, pymysql.err.OperationalError(number, text))

        return ground.raised(fail)

    return cause


def _no_mysql(ground: Ground) -> str:
    address = parse_address(f"mysql://archiver:secret-word@127.0.0.1:{free_port()}/events")

    def connect() -> None:
        with translated(address), make_engine(address).connect():
            pass

    return ground.raised(connect)


def _search(status: int | None) -> Cause:
    def cause(ground: Ground) -> str:
        from archiver_pipeline.followers.search_address import parse_address as address_of
        from archiver_pipeline.followers.search_client import SearchClient

        client = SearchClient(address_of(f"http://archiver:secret-word@127.0.0.1:{free_port()}"))
        if status is None:
            return ground.raised(lambda: client.ask("GET", "/"))
        return ground.raised(lambda: _raise(client.refused("POST /_bulk", status, "security_exception")))

    return cause


def _taken_port(ground: Ground) -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        return re.sub(r"port \d+", "port 9464", ground.raised(lambda: _serve_at(taken.getsockname()[1])))


def _serve_at(port: int) -> None:
    serve(Application({}), "127.0.0.1", port).server_close()


def _dagster(make: Callable[[Path], None]) -> Cause:
    def cause(ground: Ground) -> str:
        path = ground.folder / "dagster_home"
        shutil.rmtree(path, ignore_errors=True)
        make(path)
        return ground.raised(lambda: list(home(Patient(load()))), DAGSTER_HOME=str(path))

    return cause


def _no_view(ground: Ground) -> str:
    base = ground.copy()
    return ground.says("sql", "SELECT 1", BASE_DIR=str(base))


SETTINGS, USAGE, ARCHIVE, DISK, KAFKA, BUCKET, OTHERS = (
    "Settings",
    "The command line",
    "The archive",
    "Disks",
    "Kafka",
    "Buckets",
    "Schema Registry, MySQL, Elasticsearch, Dagster, Prometheus",
)
_HOURS = ("backfill", "--from", "2019-08-01T03:00", "--to", "2019-08-01T04:00")
_ERASE = ("erase", "--yes", "--where")
_TLS = {"KAFKA_BOOTSTRAP_SERVERS": BROKER}

CAUSES: dict[tuple[str, str], Cause] = {
    (SETTINGS, "a number is no number"): _setting("ARCHIVER_LANES", "many"),
    (SETTINGS, "a number is out of its bounds"): _setting("ARCHIVER_INTERVAL_SECONDS", "-1"),
    (SETTINGS, "a size is none"): _setting("ARCHIVER_BATCH_BYTES", "lots"),
    (SETTINGS, "a switch is neither on nor off"): _setting("ARCHIVER_VIEW", "maybe"),
    (SETTINGS, "a topic is no name"): _setting("ARCHIVER_TOPICS", "no topic!"),
    (SETTINGS, "a regex of topics is none"): _setting("ARCHIVER_TOPICS", "^(orders"),
    (SETTINGS, "a start is no time"): _setting("ARCHIVER_START", "soon"),
    (SETTINGS, "the type's path is none"): _setting("ARCHIVER_TYPE_PATH", "type"),
    (SETTINGS, "the archive's address is none"): _setting("ARCHIVER_URI", "ftp://host/archive"),
    (SETTINGS, "the results topic is no name"): _setting("ARCHIVER_RESULTS_TOPIC", "a b"),
    (SETTINGS, "MySQL's URL is none"): _setting("ARCHIVER_MYSQL_URL", "db/events"),
    (SETTINGS, "the address of Elasticsearch is none"): _setting("ARCHIVER_SEARCH_URL", "es"),
    (SETTINGS, "topics of a registry's format, and no registry"): _setting("ARCHIVER_PAYLOAD_FORMAT", "registry"),
    (SETTINGS, "a schema's id is none"): _setting("ARCHIVER_REGISTRY_UNDECODED", "seven"),
    (SETTINGS, "a file of the registry's is not there"): _setting("ARCHIVER_REGISTRY_CA", "no/such"),
    (SETTINGS, "no broker is named"): _says("generate"),
    (SETTINGS, "no topics are named"): _says("tail", "--messages", KAFKA_BOOTSTRAP_SERVERS=BROKER),
    (SETTINGS, "the file of settings is not there"): _setting("ARCHIVER_CONFIG", "no/such.toml"),
    (SETTINGS, "the file of settings is no TOML"): _in_file("lanes ="),
    (SETTINGS, "a setting in the file has another name"): _in_file("lane = 1"),
    (SETTINGS, "a property of Kafka's in the file has another name"): _in_file("[kafka]\n'no.such' = 1"),
    (SETTINGS, "a security protocol is none"): _setting("KAFKA_SECURITY_PROTOCOL", "tls", **_TLS),
    (SETTINGS, "the certificates of Kafka's authority are not there"): _setting(
        "KAFKA_SSL_CA_LOCATION", "/srv/no-ca.pem", KAFKA_SECURITY_PROTOCOL="ssl", **_TLS
    ),
    (SETTINGS, "a login without its mechanism"): _setting("KAFKA_SECURITY_PROTOCOL", "sasl_ssl", **_TLS),
    (SETTINGS, "minutes are followed, and go nowhere"): _says("tail", ARCHIVER_RESULTS_TOPIC=""),
    (USAGE, "no such command"): _says("statuts"),
    (USAGE, "no such option"): _says("status", "--lag"),
    (USAGE, "an option lacks its value"): _says("export", "--out"),
    (USAGE, "an option's number is none"): _says("tail", "--count", "few"),
    (USAGE, "no time"): _says("replay"),
    (USAGE, "a time with --all"): _says("replay", "--all", "--from", "2019-08-01"),
    (USAGE, "a time is none"): _says("replay", "--from", "yesterday"),
    (USAGE, "the end is before the start"): _says("replay", "--from", "2019-08-02", "--to", "2019-08-01"),
    (USAGE, "two paces"): _says("replay", "--all", "--rate", "5", "--original-pace"),
    (USAGE, "another topic's name is none"): _says("replay", "--all", "--to-topic", "no topic!"),
    (USAGE, "no hours"): _says("backfill"),
    (USAGE, "hours are not whole"): _says("backfill", "--from", "2019-08-01T03:30", "--to", "2019-08-01T05:00"),
    (USAGE, "hours in the wrong order"): _says("backfill", "--from", "2019-08-02", "--to", "2019-08-01"),
    (USAGE, "a loss is accepted, and Kafka is not asked"): _says(*_HOURS, "--from-archive", "--accept-loss"),
    (USAGE, "no condition"): _says("erase"),
    (USAGE, "a condition beside --resume"): _says("erase", "--resume", "--where", "true"),
    (USAGE, "nobody is there to confirm an erasure"): _says("erase", "--where", "true"),
    (USAGE, "an erasure of everything"): _says(*_ERASE, "true"),
    (USAGE, "a condition is no SQL"): _says(*_ERASE, "selec"),
    (USAGE, "a condition is neither true nor false"): _says(*_ERASE, "topic"),
    (USAGE, "a condition is two"): _says(*_ERASE, "true; SELECT true"),
    (USAGE, "an unknown format of an export"): _export(*_ALL, "xml", "--out", "x"),
    (USAGE, "a format that cannot be streamed"): _export(*_ALL, "orc", "--out", "-"),
    (USAGE, "an export has no folder"): _export(*_ALL, "jsonl", "--out", "FOLDER/none/x.jsonl"),
    (USAGE, "an export's place is taken"): _taken,
    (USAGE, "an export's name says another format"): _export(*_ALL, "csv", "--out", "FOLDER/x.jsonl"),
    (USAGE, "something is to be left out of whole messages"): _export(
        *_ALL, "jsonl", "--leave-out", "--out", "FOLDER/x"
    ),
    (USAGE, "a summary and messages on one output"): _export(*_ALL, "jsonl", "--json", "--out", "-"),
    (USAGE, "a topic that the archive has not"): _export(*_ALL, "jsonl", "--topics", "order", "--out", "FOLDER/x"),
    (USAGE, "a type that the archive has not"): _export(*_ALL, "jsonl", "--types", "object", "--out", "FOLDER/x"),
    (USAGE, "a share is none"): _says("generate", "--late", "some", KAFKA_BOOTSTRAP_SERVERS=BROKER),
    (USAGE, "a share is over the whole"): _says("generate", "--ugly", "2", KAFKA_BOOTSTRAP_SERVERS=BROKER),
    (USAGE, "a rate is below zero"): _says("generate", "--rate", "-1", KAFKA_BOOTSTRAP_SERVERS=BROKER),
    (USAGE, "the lines of a file to two topics"): _says(
        "generate", "--count", "1", "--topics", "t,u", "--file", "no-such", KAFKA_BOOTSTRAP_SERVERS=BROKER
    ),
    (USAGE, "a result in two forms"): _says("sql", "--csv", "--json", "SELECT 1"),
    (ARCHIVE, "there is none to verify"): _none("verify"),
    (ARCHIVE, "there is none to export"): lambda ground: ground.says(
        "export", *_ALL, "jsonl", "--out", str(ground.folder / "x"), BASE_DIR=str(ground.folder / "none")
    ),
    (ARCHIVE, "there is none to erase from"): _none("erase", "--yes", "--where", "true"),
    (ARCHIVE, "there is none to backfill"): _none(*_HOURS, "--from-archive"),
    (ARCHIVE, "there is none to query"): _none("sql", "SELECT 1"),
    (ARCHIVE, "the DuckDB file is not there"): _no_view,
    (ARCHIVE, "a commit of its log is cut short"): _damaged(_cut_commit, "verify"),
    (ARCHIVE, "its log is gone"): _damaged(_remove_log, "verify"),
    (ARCHIVE, "a newer archiver made it"): _damaged(_property("99"), "status"),
    (ARCHIVE, "its format is no version"): _damaged(_property("x"), "status"),
    (ARCHIVE, "a file is gone when something is erased"): _damaged(_remove_file, *_ERASE, "key = 'x'::BLOB"),
    (ARCHIVE, "a file is gone when messages are exported"): _damaged(
        _remove_file, "export", *_ALL, "jsonl", "--out", "-"
    ),
    (ARCHIVE, "another erasure is at work"): _locked,
    (DISK, "the disk is full"): _os(errno.ENOSPC),
    (DISK, "the disk or folder may only be read"): _os(errno.EROFS),
    (DISK, "the folder is another user's"): _os(errno.EACCES),
    (DISK, "a file stands where the folder is to be"): _file_for_a_folder,
    (KAFKA, "no broker at the address, or it is down"): _no_broker,
    (KAFKA, "the name of the broker is unknown"): _broker_says(
        ClientError._RESOLVE, f"{BROKER}/bootstrap: Failed to resolve '{BROKER}': Name or service not known"
    ),
    (KAFKA, "a wrong password or user"): _broker_says(
        ClientError._AUTHENTICATION,
        f"sasl_ssl://{BROKER}/bootstrap: SASL authentication error: Authentication failed during authentication due to "
        "invalid credentials with SASL mechanism SCRAM-SHA-512 (after 310ms in state AUTH_REQ)",
        properties={"sasl.mechanism": "SCRAM-SHA-512"},
    ),
    (KAFKA, "a mechanism that the listener has not"): _broker_says(
        ClientError._AUTHENTICATION,
        f"sasl_ssl://{BROKER}/bootstrap: SASL PLAIN mechanism handshake failed: Broker: Unsupported SASL mechanism",
        properties={"sasl.mechanism": "PLAIN"},
    ),
    (KAFKA, "plain text to a listener of TLS, or the wrong port"): _broker_says(
        ClientError._TRANSPORT,
        f"{BROKER}/bootstrap: Disconnected while requesting ApiVersion (after 12ms in state APIVERSION_QUERY)",
        closed=True,
    ),
    (KAFKA, "TLS to a listener of plain text"): _broker_says(
        ClientError._SSL, f"ssl://{BROKER}/bootstrap: SSL handshake failed: SSL routines::wrong version number"
    ),
    (KAFKA, "the broker wants a certificate"): _broker_says(
        ClientError._SSL, f"ssl://{BROKER}/bootstrap: SSL routines::tlsv13 alert certificate required"
    ),
    (KAFKA, "an ACL is missing"): _broker_says(
        ClientError.TOPIC_AUTHORIZATION_FAILED,
        "Broker: Topic authorization failed",
        acls=("Read on topic orders",),
        properties={"sasl.username": "archiver"},
    ),
    (KAFKA, "a range would leave a hole"): _hole,
    (BUCKET, "the key or its secret is wrong"): _s3("403 Forbidden", "SignatureDoesNotMatch", "The signature differs."),
    (BUCKET, "the key is unknown"): _s3("403 Forbidden", "InvalidAccessKeyId", "The key does not exist."),
    (BUCKET, "the key may not do that"): _s3("403 Forbidden", "AccessDenied", "Access Denied."),
    (BUCKET, "another region"): _s3("400 Bad Request", "AuthorizationHeaderMalformed", "The region 'x' is wrong."),
    (BUCKET, "there is no such bucket"): _s3("404 Not Found", "NoSuchBucket", "The bucket does not exist."),
    (BUCKET, "the store is overloaded"): _s3("503 Slow Down", "SlowDown", "Please reduce your request rate."),
    (BUCKET, "the store is down"): _store_says(
        'Error performing PUT http://s3:9000/events/x in 5s: error: "Connection refused (os error 111)"'
    ),
    (OTHERS, "the Schema Registry is down"): _no_registry,
    (OTHERS, "MySQL is down"): _no_mysql,
    (OTHERS, "a wrong password of MySQL"): _mysql(
        1045, "Access denied for user 'archiver'@'host' (using password: YES)"
    ),
    (OTHERS, "no such database in MySQL"): _mysql(1049, "Unknown database 'events'"),
    (OTHERS, "MySQL's disk is full"): _mysql(
        1021, "Disk full (/var/lib/mysql); waiting for someone to free some space"
    ),
    (OTHERS, "Elasticsearch is down"): _search(None),
    (OTHERS, "a wrong password of Elasticsearch"): _search(401),
    (OTHERS, "Elasticsearch allows no writing"): _search(403),
    (OTHERS, "DAGSTER_HOME is not there"): _dagster(lambda path: None),
    (OTHERS, "DAGSTER_HOME has no dagster.yaml"): _dagster(lambda path: path.mkdir()),
    (OTHERS, "the port of the metrics is taken"): _taken_port,
}
"""By the heading it stands under, and in words, how each fault is brought about."""
