"""What is printed where something is wrong: by cause the text, without what differs from one machine to the next.

`python -m archiver_pipeline_tests.errors_table` writes docs/errors.md.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import groupby

from archiver_pipeline_tests.processes import CHECKOUT

DOCUMENT = CHECKOUT / "docs" / "errors.md"

_HEAD = """# Errors

What the archiver says when something is wrong, by what is wrong: each sentence names what failed and where, and the
next one what to do. Commands print `archiver: ` and the text in one line on standard error; a run of Dagster fails
with the same text. `archiver doctor` looks for most of these before they happen.

The exit code is 2 for a wrong setting, option or condition, where nothing was done, and 1 for all else. Of a setting
the text says what is allowed; of an option, `--help` shows how it is used. After any of them the archive is as it
was, or further: what is committed stays, and the next run goes on behind it.

This page is written by `python -m archiver_pipeline_tests.errors_table`, and the tests bring about every line of it.
"""


@dataclass(frozen=True)
class Row:
    """One fault.

    Attributes:
        group: the heading that it stands under.
        cause: what is wrong.
        says: what failed, where and why.
        remedy: what to do; empty where `says` names what is allowed.
    """

    group: str
    cause: str
    says: str
    remedy: str = ""

    @property
    def text(self) -> str:
        """The whole of what is printed, but for `archiver: `."""
        return f"{self.says}{'' if self.says.endswith('?') else '.'} {self.remedy}" if self.remedy else self.says


TABLE = (
    Row(
        "Settings",
        "a number is no number",
        "ARCHIVER_LANES is 'many': allowed is a whole number from 1 to 1000 (default 1)",
        "",
    ),
    Row(
        "Settings",
        "a number is out of its bounds",
        "ARCHIVER_INTERVAL_SECONDS is '-1': allowed is a number above 0 and up to 86400 (default 10)",
        "",
    ),
    Row(
        "Settings",
        "a size is none",
        "ARCHIVER_BATCH_BYTES is 'lots': allowed is a size such as 64MiB or 67108864 (default 256MiB)",
        "",
    ),
    Row(
        "Settings", "a switch is neither on nor off", "ARCHIVER_VIEW is 'maybe': allowed is on or off (default on)", ""
    ),
    Row(
        "Settings",
        "a topic is no name",
        "ARCHIVER_TOPICS is 'no topic!': allowed is topic names (letters, digits, '.', '_', '-') or "
        "regexes that start with '^', comma-separated, but 'no topic!' is neither",
        "",
    ),
    Row(
        "Settings",
        "a regex of topics is none",
        "ARCHIVER_TOPICS is '^(orders': allowed is topic names (letters, digits, '.', '_', '-') or regexes "
        "that start with '^', comma-separated, but '^(orders' is no regex: missing ), unterminated "
        "subpattern at position 1",
        "",
    ),
    Row(
        "Settings",
        "a start is no time",
        "ARCHIVER_START is 'soon': allowed is earliest, latest or an ISO time such as 2019-08-01T00:00:00Z "
        "(default earliest)",
        "",
    ),
    Row(
        "Settings",
        "the type's path is none",
        "ARCHIVER_TYPE_PATH is 'type': allowed is a JSON path such as $.type, $.meta.kind or $['event "
        "type'], or header:NAME, or constant:NAME (default $.type)",
        "",
    ),
    Row(
        "Settings",
        "the archive's address is none",
        "ARCHIVER_URI is 'ftp://host/archive': allowed is a folder, or s3://bucket/archive, gs://… or "
        "az://…, but this is none of them",
        "",
    ),
    Row(
        "Settings",
        "the results topic is no name",
        "ARCHIVER_RESULTS_TOPIC is 'a b': allowed is a topic name of up to 239 letters, digits, '.', '_' "
        "and '-', or '' (default events_per_minute)",
        "",
    ),
    Row(
        "Settings",
        "MySQL's URL is none",
        "ARCHIVER_MYSQL_URL is ***: allowed is a URL such as mysql://user:password@host/database; of the "
        "password, @ is %40 and / is %2F",
        "",
    ),
    Row(
        "Settings",
        "the address of Elasticsearch is none",
        "ARCHIVER_SEARCH_URL is ***: allowed is a URL such as https://user:password@host:9200; of the "
        "password, @ is %40 and / is %2F",
        "",
    ),
    Row(
        "Settings",
        "topics of a registry's format, and no registry",
        "ARCHIVER_PAYLOAD_FORMAT is 'registry': allowed is json or registry (default json), but "
        "ARCHIVER_REGISTRY_URL is not set",
        "",
    ),
    Row(
        "Settings",
        "a schema's id is none",
        "ARCHIVER_REGISTRY_UNDECODED is 'seven': allowed is ids of schemas, numbers or GUIDs, "
        "comma-separated, but 'seven' is neither",
        "",
    ),
    Row(
        "Settings",
        "a file of the registry's is not there",
        "ARCHIVER_REGISTRY_CA is 'no/such': allowed is a file or folder of certificates in PEM, but there "
        "is no such file",
        "",
    ),
    Row(
        "Settings",
        "no broker is named",
        "KAFKA_BOOTSTRAP_SERVERS is not set: it takes the broker's address, such as localhost:9092",
        "",
    ),
    Row(
        "Settings",
        "no topics are named",
        "ARCHIVER_TOPICS is not set: it takes topic names or regexes, such as orders,^clicks-.*",
        "",
    ),
    Row(
        "Settings", "the file of settings is not there", "ARCHIVER_CONFIG is 'no/such.toml': there is no such file", ""
    ),
    Row(
        "Settings",
        "the file of settings is no TOML",
        "/srv/archiver.toml cannot be read as TOML: Invalid value (at end of document)",
        "",
    ),
    Row(
        "Settings",
        "a setting in the file has another name",
        "'lane' in /srv/archiver.toml is not a setting; is it 'lanes'?",
        "",
    ),
    Row(
        "Settings",
        "a property of Kafka's in the file has another name",
        "'no.such' below [kafka] in /srv/archiver.toml is not a librdkafka property",
        "",
    ),
    Row(
        "Settings",
        "a security protocol is none",
        "KAFKA_SECURITY_PROTOCOL is 'tls': allowed is plaintext, ssl, sasl_plaintext or sasl_ssl",
        "",
    ),
    Row(
        "Settings",
        "the certificates of Kafka's authority are not there",
        "KAFKA_SSL_CA_LOCATION is '/srv/no-ca.pem': there is no such file",
        "",
    ),
    Row(
        "Settings",
        "a login without its mechanism",
        "KAFKA_SASL_MECHANISM is not set: with this KAFKA_SECURITY_PROTOCOL it takes PLAIN, SCRAM-SHA-256, "
        "SCRAM-SHA-512 or OAUTHBEARER",
        "",
    ),
    Row(
        "Settings",
        "minutes are followed, and go nowhere",
        "ARCHIVER_RESULTS_TOPIC is empty, so finished minutes go nowhere: name a topic, or use tail --messages",
        "",
    ),
    Row(
        "The command line",
        "no such command",
        "no such command 'statuts'; did you mean 'status'?",
        "Try 'archiver --help'",
    ),
    Row("The command line", "no such option", "no such option: --lag", "Try 'archiver status --help'"),
    Row(
        "The command line",
        "an option lacks its value",
        "option '--out' requires an argument",
        "Try 'archiver export --help'",
    ),
    Row(
        "The command line",
        "an option's number is none",
        "--count is wrong: it has to be a valid integer",
        "Try 'archiver tail --help'",
    ),
    Row(
        "The command line",
        "no time",
        "no time is given: allowed is --from, --to or both, or --all",
        "Try 'archiver replay --help'",
    ),
    Row(
        "The command line",
        "a time with --all",
        "--all is given with a time: allowed is --all alone, or --from, --to or both",
        "Try 'archiver replay --help'",
    ),
    Row(
        "The command line",
        "a time is none",
        "--from is 'yesterday': allowed is an ISO time such as 2019-08-01T03:00",
        "Try 'archiver replay --help'",
    ),
    Row(
        "The command line",
        "the end is before the start",
        "--to is '2019-08-01': it has to be after --from, '2019-08-02'",
        "Try 'archiver replay --help'",
    ),
    Row(
        "The command line",
        "two paces",
        "--original-pace is given with --rate: allowed is one of --rate and --original-pace",
        "Try 'archiver replay --help'",
    ),
    Row(
        "The command line",
        "another topic's name is none",
        "--to-topic is 'no topic!': allowed is a topic's name",
        "Try 'archiver replay --help'",
    ),
    Row(
        "The command line",
        "no hours",
        "--from and --to are not both given: give both times, or --unknown-time alone",
        "Try 'archiver backfill --help'",
    ),
    Row(
        "The command line",
        "hours are not whole",
        "--from is '2019-08-01T03:30' and --to is '2019-08-01T05:00': both have to be whole hours",
        "Try 'archiver backfill --help'",
    ),
    Row(
        "The command line",
        "hours in the wrong order",
        "--from is '2019-08-02' and --to is '2019-08-01': the end has to be after the start",
        "Try 'archiver backfill --help'",
    ),
    Row(
        "The command line",
        "a loss is accepted, and Kafka is not asked",
        "--accept-loss is given with --from-archive: without asking Kafka nobody knows what is lost",
        "Try 'archiver backfill --help'",
    ),
    Row(
        "The command line",
        "no condition",
        "--where is not given: give a condition, or --resume alone",
        "Try 'archiver erase --help'",
    ),
    Row(
        "The command line",
        "a condition beside --resume",
        "--resume is given with another option: give a condition, or --resume alone",
        "Try 'archiver erase --help'",
    ),
    Row(
        "The command line",
        "nobody is there to confirm an erasure",
        "--yes is not given, and there is no terminal to ask at: give it, or --dry-run to look",
        "Try 'archiver erase --help'",
    ),
    Row(
        "The command line",
        "an erasure of everything",
        "--where matches every message, 2 in all: give --everything if that is meant",
        "Try 'archiver erase --help'",
    ),
    Row(
        "The command line",
        "a condition is no SQL",
        '--where is no SQL condition over messages: Referenced column "selec" not found in '
        "FROM clause! Candidate bindings: …",
        "Give one such as --where \"value->>'$.uid' = '…'\" or --where \"key = '…'::BLOB\"; nothing was changed",
    ),
    Row(
        "The command line",
        "a condition is neither true nor false",
        "--where is no condition that is true or false of a message",
        "Give one such as --where \"value->>'$.uid' = '…'\" or --where \"key = '…'::BLOB\"; nothing was changed",
    ),
    Row(
        "The command line",
        "a condition is two",
        "--where is no single condition",
        "Give one such as --where \"value->>'$.uid' = '…'\" or --where \"key = '…'::BLOB\"; nothing was changed",
    ),
    Row(
        "The command line",
        "an unknown format of an export",
        "--format is 'xml': allowed is jsonl, csv, orc, parquet",
        "Try 'archiver export --help'",
    ),
    Row(
        "The command line",
        "a format that cannot be streamed",
        "--out is '-': orc cannot go to standard output; name a file, or take jsonl or csv",
        "Try 'archiver export --help'",
    ),
    Row(
        "The command line",
        "an export has no folder",
        "--out is '/srv/data/x.jsonl': there is no folder /srv/data",
        "Try 'archiver export --help'",
    ),
    Row(
        "The command line",
        "an export's place is taken",
        "--out is '/srv/taken.jsonl': it exists; --overwrite replaces it",
        "Try 'archiver export --help'",
    ),
    Row(
        "The command line",
        "an export's name says another format",
        "--out is '/srv/x.jsonl': its name says jsonl, --format says csv",
        "Try 'archiver export --help'",
    ),
    Row(
        "The command line",
        "something is to be left out of whole messages",
        "--leave-out is given without --payloads: in any other form nothing has to be left out",
        "Try 'archiver export --help'",
    ),
    Row(
        "The command line",
        "a summary and messages on one output",
        "--json is given, but standard output has the messages: name a file in --out",
        "Try 'archiver export --help'",
    ),
    Row(
        "The command line",
        "a topic that the archive has not",
        "--topics is 'order': the archive has no such topic; it has orders",
        "Try 'archiver export --help'",
    ),
    Row(
        "The command line",
        "a type that the archive has not",
        "--types is 'object': the archive has no such type; it has object.one and 1 more",
        "Try 'archiver export --help'",
    ),
    Row(
        "The command line",
        "a share is none",
        "--late is 'some': allowed is a share such as 0.1 or 10%",
        "Try 'archiver generate --help'",
    ),
    Row(
        "The command line",
        "a share is over the whole",
        "--ugly is 2: allowed is a share between 0 and 1, or between 0% and 100%",
        "Try 'archiver generate --help'",
    ),
    Row(
        "The command line",
        "a rate is below zero",
        "--rate is -1: allowed is a number from 0 up",
        "Try 'archiver generate --help'",
    ),
    Row(
        "The command line",
        "the lines of a file to two topics",
        "--file is given, and its lines go to one topic: name it with --topics",
        "Try 'archiver generate --help'",
    ),
    Row(
        "The command line",
        "a result in two forms",
        "--csv is given with --json: a result is one or the other",
        "Try 'archiver sql --help'",
    ),
    Row(
        "The archive",
        "there is none to verify",
        "there is no archive yet (/srv/data/archive)",
        "Check BASE_DIR and ARCHIVER_URI, or archive something first",
    ),
    Row(
        "The archive",
        "there is none to export",
        "there is no archive yet (/srv/data/archive)",
        "Check BASE_DIR and ARCHIVER_URI, or archive something first",
    ),
    Row(
        "The archive",
        "there is none to erase from",
        "there is no archive yet (/srv/data/archive)",
        "Check BASE_DIR and ARCHIVER_URI, or archive something first",
    ),
    Row(
        "The archive",
        "there is none to backfill",
        "there is nothing archived yet, and a backfill only mends what is (/srv/data/archive)",
        "Archive something first: `dagster job execute -m archiver_pipeline.definitions -j archive`",
    ),
    Row(
        "The archive",
        "there is none to query",
        "there is no archive to query yet (/srv/data/archive.duckdb)",
        "The first batch makes it; check BASE_DIR",
    ),
    Row(
        "The archive",
        "the DuckDB file is not there",
        "there is no DuckDB file of the archive (/srv/data/archive.duckdb)",
        "`archiver sql --refresh` makes it",
    ),
    Row(
        "The archive",
        "a commit of its log is cut short",
        "a file of the table's log cannot be read: it is cut short "
        "(/srv/data/archive/_delta_log/00000000000000000001.json)",
        "Restore this file from a copy; nothing was changed",
    ),
    Row(
        "The archive",
        "its log is gone",
        "the archive has files but its log is gone (/srv/data/archive/_delta_log)",
        "Restore the log's folder from a copy, or move the files away to begin a new archive",
    ),
    Row(
        "The archive",
        "a newer archiver made it",
        "archive /srv/data/archive has format 99, this archiver knows up to 1",
        "Upgrade the archiver; nothing was read or written",
    ),
    Row(
        "The archive",
        "its format is no version",
        "the table's property archiver.formatVersion is 'x', which is no version (/srv/data/archive)",
        "Set it to the format that the archive has; nothing was changed. This archiver knows up to 1",
    ),
    Row(
        "The archive",
        "a file is gone when something is erased",
        "a file is missing or damaged, so nobody can tell whose messages it has: "
        "/srv/data/archive/type=object.one/dt=2019-08-01/hr=03/FILE.parquet",
        "Nothing was changed. `archiver backfill` of its hour mends it; then erase again",
    ),
    Row(
        "The archive",
        "a file is gone when messages are exported",
        "a file of hour 2019-08-01T03 is missing or damaged, and its messages can go nowhere: listed by "
        "the table's log (version 1) but not there "
        "(/srv/data/archive/type=object.one/dt=2019-08-01/hr=03/FILE.parquet)",
        "`archiver backfill` of its hour brings back what Kafka still has; else restore it from a copy of the archive",
    ),
    Row(
        "The archive",
        "another erasure is at work",
        "another erasure of this archive is at work (/srv/data/archive)",
        "Run again when it is done",
    ),
    Row(
        "Disks",
        "the disk is full",
        "the archive cannot be written: No space left on device (/srv/data/archive/_staging)",
        "Free space, or make the folder writable, and run again: what is archived is untouched",
    ),
    Row(
        "Disks",
        "the disk or folder may only be read",
        "the archive cannot be written: Read-only file system (/srv/data/archive/_staging)",
        "Free space, or make the folder writable, and run again: what is archived is untouched",
    ),
    Row(
        "Disks",
        "the folder is another user's",
        "the archive cannot be written: Permission denied (/srv/data/archive/_staging)",
        "Free space, or make the folder writable, and run again: what is archived is untouched",
    ),
    Row(
        "Disks",
        "a file stands where the folder is to be",
        "the archive cannot be reached: Not a directory (/srv/file/archive/_delta_log/_last_checkpoint)",
        "A file stands where a folder has to be: move it away, or check BASE_DIR and ARCHIVER_URI",
    ),
    Row(
        "Kafka",
        "no broker at the address, or it is down",
        "127.0.0.1:9999 did not answer when the broker was asked for its topics: 127.0.0.1:9999/bootstrap: "
        "Connection refused",
        "Check KAFKA_BOOTSTRAP_SERVERS and that the broker is up; nothing is lost: the next run goes on",
    ),
    Row(
        "Kafka",
        "the name of the broker is unknown",
        "broker:9093 did not answer when the broker was asked for its topics: broker:9093/bootstrap: "
        "Failed to resolve 'broker:9093': Name or service not known",
        "Check KAFKA_BOOTSTRAP_SERVERS and that the broker is up; nothing is lost: the next run goes on",
    ),
    Row(
        "Kafka",
        "a wrong password or user",
        "broker:9093 refused access when the broker was asked for its topics: "
        "sasl_ssl://broker:9093/bootstrap: SASL authentication error: Authentication failed during "
        "authentication due to invalid credentials with SASL mechanism SCRAM-SHA-512",
        "Check KAFKA_SASL_USERNAME, KAFKA_SASL_PASSWORD and KAFKA_SASL_MECHANISM",
    ),
    Row(
        "Kafka",
        "a mechanism that the listener has not",
        "broker:9093 refused access when the broker was asked for its topics: "
        "sasl_ssl://broker:9093/bootstrap: SASL PLAIN mechanism handshake failed: Broker: Unsupported SASL "
        "mechanism",
        "Check KAFKA_SASL_MECHANISM, and that KAFKA_BOOTSTRAP_SERVERS names a listener that takes it",
    ),
    Row(
        "Kafka",
        "plain text to a listener of TLS, or the wrong port",
        "broker:9093 refused access when the broker was asked for its topics: it closes each connection at "
        "once: broker:9093/bootstrap: Disconnected while requesting ApiVersion",
        "Check KAFKA_SECURITY_PROTOCOL and the port in KAFKA_BOOTSTRAP_SERVERS: a listener closes "
        "connections that are not of its own protocol",
    ),
    Row(
        "Kafka",
        "TLS to a listener of plain text",
        "broker:9093 refused access when the broker was asked for its topics: ssl://broker:9093/bootstrap: "
        "SSL handshake failed: SSL routines::wrong version number",
        "Check KAFKA_SECURITY_PROTOCOL and the port in KAFKA_BOOTSTRAP_SERVERS: a listener closes "
        "connections that are not of its own protocol",
    ),
    Row(
        "Kafka",
        "the broker wants a certificate",
        "broker:9093 refused access when the broker was asked for its topics: ssl://broker:9093/bootstrap: "
        "SSL routines::tlsv13 alert certificate required",
        "Check KAFKA_SSL_CERTIFICATE_LOCATION and KAFKA_SSL_KEY_LOCATION: the broker wants a certificate "
        "that has not expired, signed by an authority that it trusts",
    ),
    Row(
        "Kafka",
        "an ACL is missing",
        "broker:9093 refused access when the broker was asked for its topics: the credentials lack the ACL "
        "Read on topic orders",
        "Grant it, for example by kafka-acls.sh --add --allow-principal User:archiver --operation Read --topic orders",
    ),
    Row(
        "Kafka",
        "a range would leave a hole",
        "the range begins past the next offset to archive, which is 100 (topic orders, partition 0, "
        "offsets [200, 300))",
        "Begin the range at 100 or below",
    ),
    Row(
        "Buckets",
        "the key or its secret is wrong",
        "the object store refused: SignatureDoesNotMatch: The signature differs (s3://events/archive)",
        "Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, and that they allow s3:ListBucket "
        "on the bucket and s3:GetObject, s3:PutObject and s3:DeleteObject on the archive; what is archived "
        "is untouched",
    ),
    Row(
        "Buckets",
        "the key is unknown",
        "the object store refused: InvalidAccessKeyId: The key does not exist (s3://events/archive)",
        "Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, and that they allow s3:ListBucket "
        "on the bucket and s3:GetObject, s3:PutObject and s3:DeleteObject on the archive; what is archived "
        "is untouched",
    ),
    Row(
        "Buckets",
        "the key may not do that",
        "the object store refused: AccessDenied: Access Denied (s3://events/archive)",
        "Check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, and that they allow s3:ListBucket "
        "on the bucket and s3:GetObject, s3:PutObject and s3:DeleteObject on the archive; what is archived "
        "is untouched",
    ),
    Row(
        "Buckets",
        "another region",
        "the object store refused: AuthorizationHeaderMalformed: The region 'x' is wrong (s3://events/archive)",
        "Check that AWS_REGION is that of the bucket, and AWS_ENDPOINT_URL; what is archived is untouched",
    ),
    Row(
        "Buckets",
        "there is no such bucket",
        "the object store refused: NoSuchBucket: The bucket does not exist (s3://events/archive)",
        "Make the bucket, or check ARCHIVER_URI; what is archived is untouched",
    ),
    Row(
        "Buckets",
        "the store is overloaded",
        "the object store refused: SlowDown: Please reduce your request rate (s3://events/archive)",
        "It is overloaded or has a fault; the next run goes on; what is archived is untouched",
    ),
    Row(
        "Buckets",
        "the store is down",
        "the object store at s3:9000 does not answer: Connection refused (os error 111) (s3://events/archive)",
        "Check that it is up, and AWS_ENDPOINT_URL; the next run goes on; what is archived is untouched",
    ),
    Row(
        "Schema Registry, MySQL, Elasticsearch, Dagster, Prometheus",
        "the Schema Registry is down",
        "http://127.0.0.1:9999 gave no schema 7: Connection refused",
        "Check ARCHIVER_REGISTRY_URL and that the registry is up; nothing is lost, the next run tries again",
    ),
    Row(
        "Schema Registry, MySQL, Elasticsearch, Dagster, Prometheus",
        "MySQL is down",
        "MySQL does not answer (database events on 127.0.0.1:9999): no connection: Connection refused",
        "Nothing of this step was done; the next run goes on from where it was",
    ),
    Row(
        "Schema Registry, MySQL, Elasticsearch, Dagster, Prometheus",
        "a wrong password of MySQL",
        "MySQL refused (database events on db:3306): Access denied for user 'archiver'@'host' (using password: YES)",
        "Check user and password in ARCHIVER_MYSQL_URL, and from which hosts the user may come",
    ),
    Row(
        "Schema Registry, MySQL, Elasticsearch, Dagster, Prometheus",
        "no such database in MySQL",
        "MySQL refused (database events on db:3306): Unknown database 'events'",
        "Make the database: CREATE DATABASE … CHARACTER SET utf8mb4",
    ),
    Row(
        "Schema Registry, MySQL, Elasticsearch, Dagster, Prometheus",
        "MySQL's disk is full",
        "MySQL refused (database events on db:3306): Disk full (/var/lib/mysql); waiting for someone to "
        "free some space",
        "Its disk is full: make room",
    ),
    Row(
        "Schema Registry, MySQL, Elasticsearch, Dagster, Prometheus",
        "Elasticsearch is down",
        "the search cluster does not answer: Failed to establish a new connection: Connection refused "
        "(http://127.0.0.1:9999)",
        "Is it running, and is ARCHIVER_SEARCH_URL right?",
    ),
    Row(
        "Schema Registry, MySQL, Elasticsearch, Dagster, Prometheus",
        "a wrong password of Elasticsearch",
        "the search cluster refused POST /_bulk: security_exception (http://127.0.0.1:9999)",
        "Check user and password in ARCHIVER_SEARCH_URL",
    ),
    Row(
        "Schema Registry, MySQL, Elasticsearch, Dagster, Prometheus",
        "Elasticsearch allows no writing",
        "the search cluster refused POST /_bulk: security_exception (http://127.0.0.1:9999)",
        "Let its user write, refresh, search and delete in archive-*, or lift the block",
    ),
    Row(
        "Schema Registry, MySQL, Elasticsearch, Dagster, Prometheus",
        "DAGSTER_HOME is not there",
        "DAGSTER_HOME is no folder (/srv/dagster_home)",
        "Copy deploy/dagster.yaml there: mkdir -p $DAGSTER_HOME && cp -n deploy/dagster.yaml $DAGSTER_HOME",
    ),
    Row(
        "Schema Registry, MySQL, Elasticsearch, Dagster, Prometheus",
        "DAGSTER_HOME has no dagster.yaml",
        "there is no dagster.yaml: runs would not be watched, queued or forgotten (/srv/dagster_home)",
        "Copy deploy/dagster.yaml there: mkdir -p $DAGSTER_HOME && cp -n deploy/dagster.yaml $DAGSTER_HOME",
    ),
    Row(
        "Schema Registry, MySQL, Elasticsearch, Dagster, Prometheus",
        "the port of the metrics is taken",
        "metrics cannot be served at port 9464 of 127.0.0.1: address already in use",
        "Name another address in --listen or another port in --port, or end what uses it",
    ),
)


def document() -> str:
    """The page with all of them."""
    parts = [_HEAD]
    for group, rows in groupby(TABLE, key=lambda row: row.group):
        parts.append(f"\n## {group}\n\n| what is wrong | what it says | what to do |\n| --- | --- | --- |\n")
        parts += [f"| {row.cause} | {_code(row.says)} | {_cell(row.remedy)} |\n" for row in rows]
    return "".join(parts)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


def _code(text: str) -> str:
    return f"`{text.replace('|', chr(92) + '|')}`"


if __name__ == "__main__":
    DOCUMENT.write_text(document(), "utf-8")
    print(f"{DOCUMENT.relative_to(CHECKOUT)}: {len(TABLE)} errors", file=sys.stderr)
