"""The settings of the Schema Registry: which topics are decoded, where the registry is, and how one logs in."""

from __future__ import annotations

import re
import uuid
from typing import Annotated, Literal
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo
from pydantic_settings import BaseSettings, NoDecode

from archiver_pipeline.settings.secrets import without_user
from archiver_pipeline.settings.types import Topic, check_file, check_url, of_topic, split

Format = Literal["json", "registry"]
_FORMATS = "json or registry"

_ADDRESS = r"https?://(?:[^/?@,]*@)?(?:\[[^\]]*\]|[^/?@:,]+)(?::\d+)?(?:/[^,]*)?"


def _check_format(chosen: Format, others: ValidationInfo) -> Format:
    """Check that there is a registry to ask. Raises ValueError."""
    url = others.data.get("registry_url")
    if chosen == "registry" and url is not None and not url.get_secret_value():
        raise ValueError("ARCHIVER_REGISTRY_URL is not set")
    return chosen


def _check_schema_id(text: str) -> str:
    """Check a number or GUID, and write it as messages are compared with it. Raises ValueError."""
    if re.fullmatch(r"\d{1,10}", text) and int(text) < 2**32:
        return str(int(text))
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise ValueError(f"{text!r} is neither") from None


_File = Annotated[str, AfterValidator(check_file)]
_TopicFormat = Annotated[Format, AfterValidator(_check_format)]
_SchemaId = Annotated[str, BeforeValidator(str), AfterValidator(_check_schema_id)]
_RegistryUrl = Annotated[SecretStr, AfterValidator(check_url(rf"{_ADDRESS}(?:,{_ADDRESS})*\Z"))]


class RegistrySettings(BaseSettings):
    """What of `Settings` the Schema Registry is about."""

    registry_url: _RegistryUrl = Field(
        SecretStr(""),
        description="a URL such as https://user:password@host:8081; of the password, @ is %40 and / is %2F",
    )
    registry_token: SecretStr = Field(SecretStr(""), description="a bearer token")
    registry_ca: _File = Field("", description="a file or folder of certificates in PEM")
    registry_certificate: _File = Field("", description="a file in PEM")
    registry_key: _File = Field("", description="a file in PEM")
    registry_key_password: SecretStr = Field(SecretStr(""), description="the password of the key")
    registry_wait_seconds: float = Field(60, ge=0, le=600, description="a number from 0 to 600")
    registry_undecoded: Annotated[tuple[_SchemaId, ...], NoDecode, BeforeValidator(split)] = Field(
        (), description="ids of schemas, numbers or GUIDs, comma-separated"
    )
    payload_format: _TopicFormat = Field("json", description=_FORMATS)
    formats: dict[Topic, _TopicFormat] = Field(
        {}, description=f"topics, or regexes that start with '^', and their formats: {_FORMATS}"
    )

    def is_registry(self, topic: str) -> bool:
        """Whether the payloads of a topic are of the Schema Registry's formats."""
        return of_topic(self.formats, topic, self.payload_format) == "registry"

    @property
    def registry_address(self) -> str:
        """The URLs of the registry without user and password."""
        return ",".join(without_user(url) for url in self._urls)

    @property
    def registry_user(self) -> str:
        """User and password of the first URL that has some as `user:password`, empty without."""
        found = (urlsplit(url) for url in self._urls)
        return next((f"{unquote(url.username)}:{unquote(url.password or '')}" for url in found if url.username), "")

    @property
    def registry_secrets(self) -> list[str]:
        """What must never be shown, both as it is set and as it is sent."""
        set_ = [urlsplit(url).password or "" for url in self._urls]
        more = [self.registry_token.get_secret_value(), self.registry_key_password.get_secret_value()]
        return [text for text in (*set_, *map(unquote, set_), *more) if text]

    @property
    def _urls(self) -> list[str]:
        return [url for url in self.registry_url.get_secret_value().split(",") if url]
