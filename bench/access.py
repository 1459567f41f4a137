"""What a user is told whom a secured broker does not let in or forbids something, after how long, and what leaks.

Every row is a command as a user runs it, a process of its own, on a broker with TLS, SCRAM users and ACLs. In the end
all that they printed and left on disk is searched for the secrets that they were given.
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import SecretStr

from archiver_pipeline.errors import KafkaError
from archiver_pipeline.kafka.cluster import Cluster
from archiver_pipeline.settings.secrets import forms_of
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline_tests import leaks
from archiver_pipeline_tests.access import Access, Properties, access_to
from archiver_pipeline_tests.archived import Archived
from archiver_pipeline_tests.conftest import PLAIN_PASSWORD
from archiver_pipeline_tests.kafka.produce import create_topic, produce
from archiver_pipeline_tests.kafka.secured import SecuredBroker
from archiver_pipeline_tests.processes import CHECKOUT, Processes, environment
from archiver_pipeline_tests.samples import numbered
from bench.results import record

WRONG = ("wrong-password", "wrong-secret")
CLI = ("-m", "archiver_pipeline.cli")
DAGSTER = ("-m", "dagster", "job", "execute", "-m", "archiver_pipeline.definitions", "-j")


@dataclass(frozen=True)
class Row:
    """A case: the command, its exit code, the seconds that it took in all, and the line that it said in the end; where
    a login is refused, also the seconds from the first question to the error, without the start of Python."""

    case: str
    command: str
    code: int
    seconds: float
    says: str
    refused_after_seconds: float | None = None


class Table:
    """Runs commands and keeps what they say."""

    def __init__(self, processes: Processes, folder: Path, topic: str) -> None:
        self.rows: list[Row] = []
        self.said = ""
        self._processes = processes
        self._folder, self.topic = folder, topic
        (folder / "home").mkdir()

    def run(
        self, case: str, properties: Properties, arguments: Sequence[str], topics: str = "", after: float | None = None
    ) -> None:
        """Run a command with a client's properties, and add what came of it."""
        kafka = {f"KAFKA_{name.upper().replace('.', '_')}": value for name, value in properties.items()}
        own = {"BASE_DIR": str(self._folder / "data"), "DAGSTER_HOME": str(self._folder / "home")}
        own |= {"ARCHIVER_TOPICS": topics or self.topic, "ARCHIVER_RESULTS_TOPIC": f"{self.topic}-results"}
        is_dagster = "dagster" in arguments
        began = time.monotonic()
        command = list(arguments) if is_dagster else [*CLI, *arguments]
        ended = self._processes.run(command, environment({**own, **kafka}))
        seconds = time.monotonic() - began
        self.said += ended.said
        lines = [
            line for line in ended.said.splitlines() if " refused access when " in line or "cannot be read" in line
        ]
        says = "-" if not (ended.code or lines) else (lines or ended.said.strip().splitlines())[-1]
        says = re.sub(r"^.*?(?=(?:127\.0\.0\.1|localhost):\d+ refused access)", "", says).removeprefix("archiver: ")
        shown = f"dagster job execute -j {arguments[-1]}" if is_dagster else f"archiver {' '.join(arguments)}"
        self.rows.append(Row(case, shown, ended.code, round(seconds, 1), says, after))
        within = "" if after is None else f" ({after:.1f} s)"
        print(f"{case:45} {shown:45.45} exit {ended.code}  {seconds:5.1f} s{within}  {says}", flush=True)


def refused_after(properties: Properties) -> float:
    """The seconds from a question to the error."""
    kafka = {name: SecretStr(value) for name, value in properties.items()}
    cluster = Cluster(Settings(topics=("orders",), kafka=kafka))
    began = time.monotonic()
    with suppress(KafkaError):
        cluster.look()
    return round(time.monotonic() - began, 1)


def logins(table: Table, access: Access) -> None:
    """Right and wrong ways to log in."""
    for way, properties in access.right().items():
        access.broker.allow(access.user_of(way), f"Read on Topic {table.topic}")
        table.run(f"right: {way}", properties(), ["status"])
    for case, refusal in access.wrong().items():
        table.run(case, refusal.properties, ["status"], after=refused_after(refusal.properties))
    certificate, key = access.broker.authority.sign(access.user)
    mutual = access.broker.mutual(certificate, key)
    table.run("an authority that is not there", {**mutual, "ssl.ca.location": "/nowhere/ca.pem"}, ["status"])
    table.run("a key that is not there", {**mutual, "ssl.key.location": "/nowhere/key.pem"}, ["status"])
    scram = {**access.broker.scram(access.user, "wrong-password")}
    for arguments in (["verify", "--against-kafka"], ["generate"], ["replay", "--all"], ["tail", "--messages"]):
        table.run("wrong password", scram, arguments)
    hours = ["backfill", "--from", "2019-08-01T03:00", "--to", "2019-08-01T04:00"]
    table.run("wrong password", scram, hours)
    table.run("wrong password", scram, [*DAGSTER, "archive"])


def acls(table: Table, access: Access) -> None:
    """ACLs that are missing, one after the other."""
    broker, topic = access.broker, table.topic
    user = f"{access.user}-acls"
    broker.add_user(user, access.password)
    scram, again = broker.scram(user, access.password), f"{topic}-again"
    create_topic(broker.bootstrap_servers, again)

    def each(command: Sequence[str], *steps: tuple[str, str]) -> None:
        for missing, granted in steps:
            table.run(f"ACL missing: {missing}", scram, command)
            broker.allow(user, granted)

    each(
        ["status"],
        ("Describe on the topic", f"Describe on Topic {topic}"),
        ("Read on the topic", f"Read on Topic {topic}"),
    )
    table.run("ACL missing: on one of two topics", scram, ["status"], f"{topic},{again}")
    table.run("nothing is missing", scram, [*DAGSTER, "archive"])
    each(
        [*DAGSTER, "follow"],
        ("Create on the results topics", f"Create on Topic {topic}-results*"),
        ("Write on the results topics", f"Write on Topic {topic}-results*"),
        ("Read on the positions topic", f"Read on Topic {topic}-results-positions"),
        ("Write on the transactional ids", "Write on TransactionalId archiver-*"),
    )
    table.run("nothing is missing", scram, [*DAGSTER, "follow"])
    each(
        ["replay", "--all", "--to-topic", again],
        ("Describe on the topic to send to", f"Describe on Topic {again}"),
        ("Create on archiver-replays", "Create on Topic archiver-replays"),
        ("Read on archiver-replays", "Read on Topic archiver-replays"),
        ("Write on archiver-replays", "Write on Topic archiver-replays"),
        ("Write on the topic to send to", f"Write on Topic {again}"),
    )
    table.run("nothing is missing", scram, ["replay", "--all", "--to-topic", again])
    each(["generate", "--count", "5", "--topics", f"{topic}-new"], ("Create", f"Create on Topic {topic}-new"))
    each(["generate", "--count", "5", "--topics", topic], ("Write", f"Write on Topic {topic}"))
    table.run("nothing is missing", scram, ["generate", "--count", "5", "--topics", topic])


def leaked(table: Table, folder: Path, hidden: Sequence[str]) -> Iterator[str]:
    """Where a secret was found."""
    forms = [form for secret in hidden for form in forms_of(secret)]
    yield from ("output" for form in forms if form in table.said)
    yield from leaks.in_command_lines(hidden)
    yield from leaks.in_files(folder, hidden)


def main() -> int:
    """Measure, print and record."""
    topic = f"access-{uuid.uuid4().hex[:8]}"
    with tempfile.TemporaryDirectory() as name, SecuredBroker(Path(name) / "kafka", PLAIN_PASSWORD) as broker:
        folder = Path(name) / "archiver"
        folder.mkdir()
        create_topic(broker.bootstrap_servers, topic)
        produce(broker.bootstrap_servers, topic, numbered(range(1000)))
        Archived(folder / "data", broker.bootstrap_servers, topic).run()
        with access_to(broker, Path(name), PLAIN_PASSWORD) as access, Processes() as processes:
            table = Table(processes, folder, topic)
            logins(table, access)
            acls(table, access)
            hidden = (*WRONG, access.password, PLAIN_PASSWORD)
            found = list(leaked(table, folder, hidden))
            files = sum(path.is_file() for path in folder.rglob("*"))
    where = f"{files} files, all output and all command lines"
    print(f"\n{len(hidden)} secrets looked for in {where}: {found or 'none found'}")
    figures = {"rows": [asdict(row) for row in table.rows], "files_searched": files, "secrets_found": found}
    print(record("access", "python -m bench.access", figures).relative_to(CHECKOUT))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
