"""Settings: the environment first, then `archiver.toml`, then defaults; all checked before anything starts."""

from __future__ import annotations

import difflib
import logging
import os
import re
import tomllib
from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import unquote

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, SettingsConfigDict
from pydantic_settings import PydanticBaseSettingsSource as Source

from archiver_pipeline.envelope import TYPE_RULES, TypeRule, parse_type_rule
from archiver_pipeline.errors import SettingsError
from archiver_pipeline.settings import properties, secrets
from archiver_pipeline.settings.aggregates import Aggregate, built_in, check_names
from archiver_pipeline.settings.operation import OperationSettings
from archiver_pipeline.settings.registry import RegistrySettings
from archiver_pipeline.settings.types import (
    POSITIONS_SUFFIX,
    ArchiveUri,
    MySqlUrl,
    OptionalRule,
    ResultsName,
    Rule,
    SearchUrl,
    Topic,
    as_text,
    check_folder,
    check_start,
    of_topic,
    parse_time,
    split,
)

log = logging.getLogger(__name__)

ENV_PREFIX = "ARCHIVER_"
_ONLY_IN_FILE = ("kafka", "types", "formats", "aggregates", "run_tags")


class _Environment(EnvSettingsSource):
    """The environment without what only the file may hold: a variable `KAFKA` or `ARCHIVER_TYPES` is no setting."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        if field_name in _ONLY_IN_FILE:
            return None, field_name, False
        return super().get_field_value(field, field_name)


class Settings(RegistrySettings, OperationSettings):
    """Everything that can be set; a field `x` is `ARCHIVER_X` in the environment and `x` in `archiver.toml`.

    The description of a field is what it allows, as the error for a wrong value has it.
    """

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False
    )

    topics: Annotated[tuple[Topic, ...], NoDecode, BeforeValidator(split)] = Field(
        (), description="topic names (letters, digits, '.', '_', '-') or regexes that start with '^', comma-separated"
    )
    start: Annotated[str, AfterValidator(check_start), BeforeValidator(as_text)] = Field(
        "earliest", description="earliest, latest or an ISO time such as 2019-08-01T00:00:00Z"
    )
    base_dir: Annotated[Path, AfterValidator(check_folder)] = Field(
        Path("data"), validation_alias="BASE_DIR", description="a folder"
    )
    uri: ArchiveUri = Field("", description="a folder, or s3://bucket/archive, gs://… or az://…")
    interval_seconds: float = Field(10, gt=0, le=86_400, description="a number above 0 and up to 86400")
    batch_messages: int = Field(1_000_000, ge=1, description="a whole number from 1 on")
    batch_bytes: ByteSize = Field(ByteSize(256 * 1024**2), ge=1, description="a size such as 64MiB or 67108864")
    min_messages: int = Field(1, ge=1, description="a whole number from 1 on")
    max_delay_seconds: float = Field(60, ge=0, description="a number from 0 on")
    run_seconds: float = Field(0, ge=0, description="a number from 0 on")
    lanes: int = Field(1, ge=1, le=1000, description="a whole number from 1 to 1000")
    type_path: Rule = Field("$.type", description=TYPE_RULES)
    types: dict[Topic, Rule] = Field({}, description="topics, or regexes that start with '^', and their rules")
    topic_ids: Literal["required", "none"] = Field("required", description="required or none")
    max_types: int = Field(1000, ge=1, description="a whole number from 1 on")
    seal_grace_minutes: float = Field(15, ge=0, description="a number from 0 on")
    # Tombstones of replaced files stay in the table's log for 14 days; later nothing would find those files.
    keep_replaced_hours: float = Field(1, ge=0, le=240, description="a number from 0 to 240")
    user_path: Rule = Field("$.uid", description=TYPE_RULES)
    follow_seconds: float = Field(30, ge=0, le=86_400, description="a number from 0 to 86400")
    users: Literal["exact", "approximate"] = Field("exact", description="exact or approximate")
    time_path: OptionalRule = Field("", description=f"{TYPE_RULES}, or '' for the message's own time")
    aggregates: Annotated[tuple[Aggregate, ...], AfterValidator(check_names)] = Field(
        (), description="tables with name, window, group_by and measures"
    )
    minute_grace_seconds: float = Field(120, ge=0, description="a number from 0 on")
    results_topic: ResultsName = Field(
        "events_per_minute", description="a topic name of up to 239 letters, digits, '.', '_' and '-', or ''"
    )
    mysql_url: MySqlUrl = Field(
        SecretStr(""),
        description="a URL such as mysql://user:password@host/database; of the password, @ is %40 and / is %2F",
    )
    search_url: SearchUrl = Field(
        SecretStr(""),
        description="a URL such as https://user:password@host:9200; of the password, @ is %40 and / is %2F",
    )
    kafka: dict[str, SecretStr] = Field({}, validation_alias="kafka")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: Source,
        env_settings: Source,
        dotenv_settings: Source,
        file_secret_settings: Source,
    ) -> tuple[Source, ...]:
        """Take the environment before what `load` read from the file."""
        return _Environment(settings_cls), init_settings

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with other values, and nothing that was worked out from those before."""
        copied = super().model_copy(update=update, deep=deep)
        for name in copied.__dict__.keys() - Settings.model_fields.keys():
            del copied.__dict__[name]
        return copied

    @cached_property
    def kafka_properties(self) -> dict[str, str]:
        """The librdkafka properties in clear, for a client's constructor only."""
        return {name: value.get_secret_value() for name, value in self.kafka.items()}

    @cached_property
    def archive_uri(self) -> str:
        """Where the table is: `ARCHIVER_URI`, else `$BASE_DIR/archive`; a folder as an absolute path."""
        return self.uri if "://" in self.uri else os.path.abspath(self.uri or self.base_dir / "archive")

    @cached_property
    def view_path(self) -> Path:
        """The DuckDB file."""
        return self.base_dir.absolute() / "archive.duckdb"

    @property
    def kept_view(self) -> Path | None:
        """The DuckDB file if it is kept up to date on this machine: a worker whose disk nobody asks needs none."""
        return self.view_path if self.view == "on" else None

    @cached_property
    def aggregates_path(self) -> Path:
        """The folder of the aggregates, a folder each."""
        return self.base_dir.absolute() / "aggregates"

    @cached_property
    def start_time(self) -> datetime | None:
        """The time of `ARCHIVER_START`, if it is one."""
        return None if self.start in ("earliest", "latest") else parse_time(self.start)

    @property
    def positions_topic(self) -> str:
        """The compacted topic that says how far the results topic is."""
        return self.results_topic + POSITIONS_SUFFIX

    @cached_property
    def every_aggregate(self) -> tuple[Aggregate, ...]:
        """The aggregates that ship, and those of `archiver.toml`, which may take the place of one by its name."""
        own = {item.name: item for item in built_in(self.user_path, self.users, self.time_path)}
        return tuple((own | {item.name: item for item in self.aggregates}).values())

    def type_rule(self, topic: str) -> TypeRule:
        """The type rule of a topic: its own, that of the first matching regex of `types`, or the general one."""
        return parse_type_rule(of_topic(self.types, topic, self.type_path))

    def require_kafka(self) -> None:
        """Raise SettingsError unless a broker and a topic are named."""
        self.require_broker()
        if not self.topics:
            raise SettingsError(
                "ARCHIVER_TOPICS is not set: it takes topic names or regexes, such as orders,^clicks-.*"
            )

    def require_broker(self) -> None:
        """Raise SettingsError unless a broker is named."""
        if not self.kafka_properties.get("bootstrap.servers"):
            raise SettingsError(
                "KAFKA_BOOTSTRAP_SERVERS is not set: it takes the broker's address, such as localhost:9092"
            )

    def mask(self, text: str) -> str:
        """Return `text` with every secret value replaced by `***`."""
        urls = (re.search(r"://[^/:@]*:(.+)@", url.get_secret_value()) for url in (self.mysql_url, self.search_url))
        passwords = (form for found in urls if found for form in (found.group(1), unquote(found.group(1))))
        return secrets.hide(secrets.mask(text, self.kafka_properties), [*passwords, *self.registry_secrets])


def load() -> Settings:
    """Read and check the settings.

    Raises:
        SettingsError: one line that names the setting, its value and what is allowed.
    """
    given = _from_file()
    from_file = _flat(given.pop("kafka", {}))
    base_dir = given.pop("base_dir", None)
    _warn_of_typing_errors()
    kafka = _kafka_properties(from_file)
    try:
        return Settings(**given, **({} if base_dir is None else {"BASE_DIR": base_dir}), kafka=kafka)
    except ValidationError as error:
        raise SettingsError(_one_line(error)) from None


def _file() -> Path:
    """The settings file: the path in `ARCHIVER_CONFIG`, else `archiver.toml` in the working directory."""
    return Path(os.environ.get("ARCHIVER_CONFIG") or "archiver.toml")


def _from_file() -> dict[str, Any]:
    """Read the settings file if there is one; one that is named must be there."""
    path = _file()
    if not path.exists():
        if os.environ.get("ARCHIVER_CONFIG"):
            raise SettingsError(f"ARCHIVER_CONFIG is '{path}': there is no such file")
        return {}
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise SettingsError(f"{path} cannot be read as TOML: {error}") from None


def _flat(table: Any, prefix: str = "") -> dict[str, str]:
    """Read `[kafka]`: TOML takes the dots of `bootstrap.servers = …` for tables within tables."""
    if not isinstance(table, dict):
        raise SettingsError(f"kafka in {_file()} is not a table: allowed is [kafka] with librdkafka properties")
    properties: dict[str, str] = {}
    for name, value in table.items():
        if isinstance(value, dict):
            properties |= _flat(value, f"{prefix}{name}.")
        else:
            properties[prefix + name] = str(value).lower() if isinstance(value, bool) else str(value)
    return properties


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
            raise SettingsError(f"{name!r} below [kafka] in {_file()} is not a librdkafka property")
        log.warning("%s is passed over: librdkafka has no property %r", properties.env_name(name), name)
    return {name: SecretStr(value) for name, value in accepted.items()}


def _variables() -> dict[str, str]:
    """The environment variable of each field."""
    own = {name: ENV_PREFIX + name.upper() for name in Settings.model_fields if name not in _ONLY_IN_FILE}
    return {**own, "base_dir": "BASE_DIR"}


def _warn_of_typing_errors() -> None:
    """Warn of `ARCHIVER_*` variables that are no settings; a service called archiver gets such ones from Kubernetes."""
    known = {name.removeprefix(ENV_PREFIX) for name in (*_variables().values(), "ARCHIVER_CONFIG")}
    for name in os.environ:
        if name.startswith(ENV_PREFIX) and (rest := name.removeprefix(ENV_PREFIX)) not in known:
            close = [ENV_PREFIX + match for match in difflib.get_close_matches(rest, known - {"BASE_DIR"}, 1)]
            log.warning("%s is not a setting and is passed over%s", name, f"; is it {close[0]}?" if close else "")


def _one_line(error: ValidationError) -> str:
    """Say the first fault of a pydantic error as setting, value and what is allowed."""
    fault = error.errors(include_url=False)[0]
    field, *within = (str(part) for part in fault["loc"])
    field = field.replace("BASE_DIR", "base_dir")
    if fault["type"] == "extra_forbidden" and not within:
        close = difflib.get_close_matches(field, Settings.model_fields, 1)
        return f"{field!r} in {_file()} is not a setting" + (f"; is it {close[0]!r}?" if close else "")
    info, variable = Settings.model_fields[field], _variables().get(field, "")
    if variable in os.environ:
        name, value = variable, os.environ[variable]
    else:
        deep = within if field == "aggregates" else within[:1]
        name, value = f"{'.'.join([field, *deep])} in {_file()}", fault["input"]
    shown = "***" if info.annotation is SecretStr else re.sub(r"://[^/@]*@", "://***@", f"{value!r:.200}")
    default = info.default.human_readable().replace(".0", "") if isinstance(info.default, ByteSize) else info.default
    why = str(fault["ctx"]["error"]) if fault["type"] == "value_error" else ""
    if field == "aggregates" and not why:
        why = fault["msg"][:1].lower() + fault["msg"][1:]
    allowed, why = (why, "") if why == TYPE_RULES else (info.description, why)
    allowed = f"{allowed}" + (f" (default {default})" if default or default == 0 else "")
    return f"{name} is {shown}: allowed is {allowed}" + (f", but {why}" if why else "")
