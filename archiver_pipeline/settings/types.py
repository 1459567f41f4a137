"""The types of settings: what text each takes, and what it becomes."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, date, datetime, time
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, SecretStr, ValidationInfo

from archiver_pipeline.envelope import parse_type_rule

Value = TypeVar("Value")

POSITIONS_SUFFIX = "-positions"
REPLAYS_TOPIC = "archiver-replays"
"""The compacted topic that says how far replays to its cluster are."""

"""What the name of the topic of positions has more than that of the results topic."""

# As Kafka has it (`Topic.validate`): `.` and `..` would be folders.
_TOPIC_NAME = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,249}")

# With these in its path a library takes the folder for another one, or every message to be of that type, date or hour.
_UNREADABLE = re.compile(r"[\\?\x00-\x1f]|%[0-9A-Fa-f]{2}|(?:^|/)(?:type|dt|hr)=")


_ADDRESS = re.compile(r"[A-Za-z0-9]{2,}:/")

# Of what else a bucket may take in a key, some reader makes a wildcard or an escape.
_BUCKET = re.compile(r"(?:s3|gs|az)://[A-Za-z0-9][A-Za-z0-9._-]*(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~@+-]+)*/?")


def split(value: Any) -> Any:
    """Read a comma-separated list."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def is_topic(name: str) -> bool:
    """Whether a topic may have such a name."""
    return _TOPIC_NAME.fullmatch(name) is not None


def check_topic(pattern: str) -> str:
    """Check a topic name or regex. Raises ValueError."""
    if pattern.startswith("^"):
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is no regex: {error}") from None
    elif not is_topic(pattern):
        raise ValueError(f"{pattern!r} is neither")
    return pattern


def check_results_topic(name: str, others: ValidationInfo) -> str:
    """Check a topic name whose topic of positions can be named as well, or no name at all. Raises ValueError."""
    both = (name, name + POSITIONS_SUFFIX)
    if name and not all(map(_TOPIC_NAME.fullmatch, both)):
        raise ValueError
    if name and not set(both).isdisjoint(others.data.get("topics", ())):
        raise ValueError("ARCHIVER_TOPICS names it, too: results would be archived and counted in their turn")
    return name


def check_start(value: str) -> str:
    """Check `earliest`, `latest` or an ISO time. Raises ValueError."""
    try:
        return value if value in ("earliest", "latest") or parse_time(value) else ""
    except (ValueError, OverflowError):
        raise ValueError from None


def check_url(pattern: str) -> Callable[[SecretStr], SecretStr]:
    """A check that a URL begins like this, or is empty. It raises ValueError."""

    def check(url: SecretStr) -> SecretStr:
        if url.get_secret_value() and not re.match(pattern, url.get_secret_value()):
            raise ValueError
        return url

    return check


def check_folder(folder: Any) -> Any:
    """Check that every reader takes a folder's path as it is. Raises ValueError."""
    if found := _UNREADABLE.search(os.path.abspath(folder)):
        raise ValueError(f"{found.group().lstrip('/')!r} in its path keeps some reader from it")
    return folder


def check_uri(uri: Any) -> Any:
    """Check the address of an archive: a folder, or below a bucket. Raises ValueError."""
    if not _ADDRESS.match(str(uri)):
        return check_folder(uri)
    if not _BUCKET.fullmatch(uri):
        raise ValueError("this is none of them")
    return uri.rstrip("/")


def check_file(path: str) -> str:
    """Check that a file or folder is there, or none is named. Raises ValueError."""
    if path and not os.path.exists(path):
        raise ValueError("there is no such file")
    return path


def is_among(names: Iterable[str], topic: str) -> bool:
    """Whether a topic is one of names, or of those that regexes which begin with `^` match."""
    return any(re.match(name, topic) is not None if name.startswith("^") else name == topic for name in names)


def of_topic(table: Mapping[str, Value], topic: str, default: Value) -> Value:
    """What a table by topic says of one: what stands under its name, else under the first regex that matches."""
    if topic in table:
        return table[topic]
    return next((found for name, found in table.items() if name.startswith("^") and re.match(name, topic)), default)


def as_text(value: Any) -> Any:
    """TOML has dates and times of its own."""
    return value.isoformat() if isinstance(value, date | time) else value


def parse_time(text: str) -> datetime:
    """Read an ISO time; one without a zone is UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


ArchiveUri = Annotated[str, AfterValidator(check_uri)]
Topic = Annotated[str, AfterValidator(check_topic)]
ResultsName = Annotated[str, AfterValidator(check_results_topic)]
Rule = Annotated[str, AfterValidator(lambda text: parse_type_rule(text) and text)]
OptionalRule = Annotated[str, AfterValidator(lambda text: text and parse_type_rule(text) and text)]
_USER, _HOST = r"(?:[^/?@]*@)?", r"(?:\[[^\]]*\]|[^/?@:]*)(?::\d+)?"
MySqlUrl = Annotated[SecretStr, AfterValidator(check_url(rf"(?:mysql|mariadb)(?:\+pymysql)?://{_USER}{_HOST}/[^/?]+"))]
SearchUrl = Annotated[SecretStr, AfterValidator(check_url(rf"https?://{_USER}(?=[^/?]){_HOST}(?:[/?]|$)"))]
