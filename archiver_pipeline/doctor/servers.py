"""Other servers that the settings name: MySQL, Elasticsearch, the Schema Registry, and how far followers are behind."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from archiver_pipeline.doctor import clock
from archiver_pipeline.doctor.finding import Finding, fault, good, of_error, warning
from archiver_pipeline.doctor.patient import Patient
from archiver_pipeline.errors import SchemaUnknown

if TYPE_CHECKING:
    from sqlalchemy import Connection

_GRANTS = ("SELECT", "INSERT", "DELETE", "CREATE")
_QUICK_SECONDS = 1.0


def followers(patient: Patient) -> Iterator[Finding]:
    """How far what follows the archive is behind it, and who does not tell."""
    from archiver_pipeline.followers.lag import lags

    if patient.standing is None:
        return
    if patient.settings.follow_seconds == 0:
        yield warning("followers", "ARCHIVER_FOLLOW_SECONDS is 0: no sensor starts them", "Run the job follow by cron")
    behind = []
    for each in lags(patient.settings, patient.ledger):
        if each.error:
            yield fault("followers", f"{each.name}: {each.error}", "The archive and the other followers go on")
        else:
            behind.append(f"{each.name} {each.lag:,}")
    if behind:
        yield good("followers", f"offsets behind the archive: {', '.join(behind)}")


def mysql(patient: Patient) -> Iterator[Finding]:
    """Whether MySQL or MariaDB takes the login and allows what is needed, and its clock. Raises FollowerError."""
    from archiver_pipeline.followers.mysql_server import check_server, make_engine, parse_address, translated

    url = patient.settings.mysql_url.get_secret_value()
    if not url:
        return
    address = parse_address(url)
    engine = make_engine(address)
    try:
        with translated(address), engine.connect() as connection:
            check_server(connection)
            before = time.time()
            said: datetime = connection.exec_driver_sql("SELECT UTC_TIMESTAMP(6)").scalar_one()
            after = time.time()
            lacking = _lacking(connection, address.database)
    finally:
        engine.dispose()
    if lacking:
        told = f"the user lacks {', '.join(lacking)} on {address}"
        yield warning("mysql", told, f"GRANT {', '.join(_GRANTS)} ON {address.database}.* TO the user")
    else:
        yield good("mysql", f"{address} takes the login, and allows what is needed")
    yield from clock.compared("MySQL", before, after, said.replace(tzinfo=UTC).timestamp())


def _lacking(connection: Connection, database: str) -> list[str]:
    """Which privileges the server's own list of grants does not name; roles are not looked into."""
    given: set[str] = set()
    for (line,) in connection.exec_driver_sql("SHOW GRANTS").all():
        found = re.match(r"GRANT (.*) ON (\S+) TO", line)
        if found is None:
            return []  # A role: what it allows is not in this list.
        place = found[2].replace("`", "").replace("\\", "")
        if place in ("*.*", f"{database}.*"):
            given |= {item.strip() for item in found[1].split(",")}
    if any(item.startswith("ALL PRIVILEGES") for item in given):
        return []
    return [name for name in _GRANTS if name not in given]


def search(patient: Patient) -> Iterator[Finding]:
    """Whether Elasticsearch or OpenSearch takes the login and is in health. Raises FollowerError."""
    from archiver_pipeline.followers.search_address import parse_address
    from archiver_pipeline.followers.search_client import SearchClient

    url = patient.settings.search_url.get_secret_value()
    if not url:
        return
    client = SearchClient(parse_address(url), _QUICK_SECONDS)
    try:
        body = client.ask("GET", "/_cluster/health?timeout=1s", expected=(200, 408), seconds=5.0).body
    finally:
        client.close()
    told = f"{client.address.url} takes the login; the cluster is {body.get('status')}"
    if body.get("status") == "red":
        yield fault("search", told, "Look at its shards: an index that is not there takes no documents")
    else:
        yield good("search", told)


def registry(patient: Patient) -> Iterator[Finding]:
    """Whether the Schema Registry answers and takes the login. Raises RegistryUnavailable."""
    from archiver_pipeline.errors import RegistryUnavailable
    from archiver_pipeline.formats.registry import SchemaRegistry

    if not patient.settings.registry_address:
        return
    try:
        SchemaRegistry(patient.settings).fetch("1")
    except SchemaUnknown:
        pass  # It answers, and that is what was asked.
    except RegistryUnavailable as error:
        yield of_error("registry", error)
        return
    yield good("registry", f"{patient.settings.registry_address} answers")
