"""Settings: the environment first, then `archiver.toml`, then defaults; all checked before anything starts."""

from __future__ import annotations

import difflib
import logging
import os
import re
import tomllib
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from archiver_pipeline import properties
from archiver_pipeline.envelope import TypeRule, parse_type_rule
from archiver_pipeline.errors import SettingsError

log = logging.getLogger(__name__)

ENV_PREFIX = "ARCHIVER_"
_TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")


def _split(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _check_topic(pattern: str) -> str:
    if pattern.startswith("^"):
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
    elif not _TOPIC_NAME.fullmatch(pattern):
        raise ValueError("comma-separated topic names (letters, digits, '.', '_', '-') or regexes that start with '^'")
    return pattern


def _check_start(value: str) -> str:
    if value in ("earliest", "latest"):
        return value
    try:
        parse_time(value)
    except ValueError:
        raise ValueError("earliest, latest or an ISO time such as 2019-08-01T00:00:00Z") from None
    return value


def _check_rule(text: str) -> str:
    parse_type_rule(text)
    return text


def parse_time(text: str) -> datetime:
    """Read an ISO time; one without a zone is UTC. Raises ValueError."""
    moment = datetime.fromisoformat(text)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


Topic = Annotated[str, AfterValidator(_check_topic)]
Rule = Annotated[str, AfterValidator(_check_rule)]


class Settings(BaseSettings):
    """Everything that can be set; a field `x` is `ARCHIVER_X` in the environment and `x` in `archiver.toml`."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True)

    topics: Annotated[tuple[Topic, ...], NoDecode, BeforeValidator(_split)] = ()
    start: Annotated[str, AfterValidator(_check_start)] = "earliest"
    base_dir: Path = Field(Path("data"), validation_alias="BASE_DIR")
    uri: str = ""
    interval_seconds: float = Field(10, gt=0, le=86_400)
    batch_messages: int = Field(1_000_000, ge=1)
    batch_bytes: ByteSize = Field(ByteSize(256 * 1024**2), ge=1)
    min_messages: int = Field(1, ge=1)
    max_delay_seconds: float = Field(60, ge=0)
    run_seconds: float = Field(0, ge=0)
    lanes: int = Field(1, ge=1, le=1000)
    type_path: Rule = "$.type"
    types: dict[str, Rule] = Field(default_factory=dict)
    topic_ids: Literal["required", "none"] = "required"
    max_types: int = Field(1000, ge=1)
    seal_grace_minutes: float = Field(15, ge=0)
    keep_replaced_hours: float = Field(1, ge=0)
    user_path: Rule = "$.uid"
    minute_grace_seconds: float = Field(120, ge=0)
    results_topic: str = "events_per_minute"
    mysql_url: SecretStr = SecretStr("")
    search_url: SecretStr = SecretStr("")
    kafka: dict[str, SecretStr] = Field(default_factory=dict, validation_alias="kafka")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take the environment before what `load` read from the file."""
        return env_settings, init_settings

    @cached_property
    def kafka_properties(self) -> dict[str, str]:
        """The librdkafka properties in clear, for a client's constructor only."""
        return {name: value.get_secret_value() for name, value in self.kafka.items()}

    @cached_property
    def archive_uri(self) -> str:
        """Where the table is: `ARCHIVER_URI`, else `$BASE_DIR/archive` as an absolute path."""
        return self.uri or str(self.base_dir.absolute() / "archive")

    @cached_property
    def view_path(self) -> Path:
        """The DuckDB file."""
        return self.base_dir.absolute() / "archive.duckdb"

    @cached_property
    def start_time(self) -> datetime | None:
        """The time of `ARCHIVER_START`, if it is one."""
        return None if self.start in ("earliest", "latest") else parse_time(self.start)

    def type_rule(self, topic: str) -> TypeRule:
        """The type rule of a topic: its own, that of the first matching regex of `types`, or the general one."""
        if topic in self.types:
            return parse_type_rule(self.types[topic])
        for pattern, rule in self.types.items():
            if pattern.startswith("^") and re.match(pattern, topic):
                return parse_type_rule(rule)
        return parse_type_rule(self.type_path)

    def require_kafka(self) -> None:
        """Raise SettingsError unless a broker and a topic are named."""
        if "bootstrap.servers" not in self.kafka:
            raise SettingsError(
                "KAFKA_BOOTSTRAP_SERVERS is not set: it takes the broker's address, such as localhost:9092"
            )
        if not self.topics:
            raise SettingsError(
                "ARCHIVER_TOPICS is not set: it takes topic names or regexes, such as orders,^clicks-.*"
            )

    def mask(self, text: str) -> str:
        """Return `text` with every secret value replaced by `***`."""
        text = properties.mask(text, self.kafka_properties)
        for url in (self.mysql_url, self.search_url):
            password = re.search(r"://[^/@]*:([^@]+)@", url.get_secret_value())
            if password:
                text = text.replace(password.group(1), "***")
        return text


def load() -> Settings:
    """Read and check the settings.

    Raises:
        SettingsError: one line that names the setting, its value and what is allowed.
    """
    given = _from_file()
    from_file = {str(name): str(value) for name, value in given.pop("kafka", {}).items()}
    base_dir = given.pop("base_dir", None)
    _warn_of_typing_errors()
    kafka = _kafka_properties(from_file)
    try:
        return Settings(**given, **({"BASE_DIR": base_dir} if base_dir else {}), kafka=kafka)
    except ValidationError as error:
        raise SettingsError(_one_line(error)) from None


def _from_file() -> dict[str, Any]:
    """Read `archiver.toml`: the path in `ARCHIVER_CONFIG`, else the file in the working directory if there is one."""
    named = os.environ.get("ARCHIVER_CONFIG")
    path = Path(named or "archiver.toml")
    if not path.exists():
        if named:
            raise SettingsError(f"ARCHIVER_CONFIG is {named!r}: there is no such file")
        return {}
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SettingsError(f"{path} cannot be read as TOML: {error}") from None


def _kafka_properties(from_file: dict[str, str]) -> dict[str, SecretStr]:
    """Merge the properties of file and environment; unknown ones of the environment are passed over with a warning."""
    from_env = properties.from_environment(os.environ)
    for name in properties.OWN.keys() & (from_env.keys() | from_file.keys()):
        log.warning("%s is passed over: %s", properties.env_name(name), properties.OWN[name])
        from_env.pop(name, None)
        from_file.pop(name, None)
    accepted, unknown = properties.known({**from_file, **from_env})
    for name in unknown:
        if name in from_file:
            raise SettingsError(f"[kafka] {name!r} in archiver.toml is not a librdkafka property")
        log.warning("%s is passed over: librdkafka has no property %r", properties.env_name(name), name)
    return {name: SecretStr(value) for name, value in accepted.items()}


def _variables() -> dict[str, str]:
    """The environment variable of each field."""
    own = {name: ENV_PREFIX + name.upper() for name in Settings.model_fields}
    return {**own, "base_dir": "BASE_DIR"}


def _warn_of_typing_errors() -> None:
    """Warn of `ARCHIVER_*` variables that are no settings; a service called archiver gets such ones from Kubernetes."""
    known = {*_variables().values(), "ARCHIVER_CONFIG"}
    for name in os.environ:
        if name.startswith(ENV_PREFIX) and name not in known:
            close = difflib.get_close_matches(name, known, 1)
            log.warning("%s is not a setting and is passed over%s", name, f"; is it {close[0]}?" if close else "")


def _one_line(error: ValidationError) -> str:
    """Say the first fault of a pydantic error as setting, value and what is allowed."""
    fault = error.errors(include_url=False)[0]
    field = str(fault["loc"][0])
    if fault["type"] == "extra_forbidden":
        close = difflib.get_close_matches(field, Settings.model_fields, 1)
        return f"{field!r} in archiver.toml is not a setting" + (f"; is it {close[0]!r}?" if close else "")
    name = {"BASE_DIR": "BASE_DIR"}.get(field, _variables().get(field, field))
    value = os.environ.get(name, "as in archiver.toml")
    shown = "***" if field.endswith("_url") or field == "kafka" else repr(value)
    message = str(fault["msg"]).removeprefix("Value error, ")
    return f"{name} is {shown}: allowed is {_allowed(field, message)}"


def _allowed(field: str, message: str) -> str:
    """Turn pydantic's words into what is allowed."""
    message = re.sub(r"^Input should be (a valid )?", "", message)
    message = re.sub(r"^(integer|number), unable to parse.*", r"a \1", message).replace("a integer", "an integer")
    info = Settings.model_fields.get(field)
    default = "" if info is None or info.is_required() or field.endswith("_url") else f" (default {info.get_default()})"
    return message[:1].lower() + message[1:] + (default if info and info.default_factory is None else "")
