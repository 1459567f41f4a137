"""librdkafka properties: which `KAFKA_*` variables are some, which are the archiver's own, and which are refused."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping

from archiver_pipeline.errors import SettingsError
from archiver_pipeline.settings.secrets import HIDDEN, is_secret, mask

ENV_PREFIX = "KAFKA_"
OWN = {
    "group.id": "offsets live in the archive, not in a consumer group",
    "enable.auto.commit": "offsets live in the archive, not in a consumer group",
    "enable.auto.offset.store": "offsets live in the archive, not in a consumer group",
    "auto.offset.reset": "every read has an explicit range",
    "isolation.level": "reads are read_committed",
    "enable.partition.eof": "the end of a range is told by it",
}
"""Properties that carry the archiver's promises and cannot be set from outside, with the reason."""

_TLS_FILE = re.compile(r"^ssl\..*\.location$")
_TOKEN_FILE = re.compile(r"^https\.ca\.location$|^sasl\.oauthbearer\.assertion\..*file$")
_PASSWORD_OF = {
    "ssl.key.location": "ssl.key.password",
    "ssl.key.pem": "ssl.key.password",
    "ssl.keystore.location": "ssl.keystore.password",
}
_UNKNOWN = re.compile(r'No such configuration property: "([^"]+)"|Internal property "([^"]+)" not settable')
_PROBE = {"group.id": "archiver", "log_level": "0"}
"""It tries to connect at once, and what it would say of that belongs to nobody."""

_silent = logging.getLogger("archiver.librdkafka.probe")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False

_ALLOWED = {"security.protocol": "allowed is plaintext, ssl, sasl_plaintext or sasl_ssl"}
"""Where librdkafka only says that a value is invalid."""


def env_name(name: str) -> str:
    """Return the environment variable of a librdkafka property: `sasl.password` is `KAFKA_SASL_PASSWORD`."""
    return ENV_PREFIX + name.upper().replace(".", "_")


def from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Collect the `KAFKA_*` variables as candidate properties; `KAFKA_SASL_PASSWORD` becomes `sasl.password`."""
    return {
        name[len(ENV_PREFIX) :].lower().replace("_", "."): value
        for name, value in environment.items()
        if name.startswith(ENV_PREFIX) and len(name) > len(ENV_PREFIX)
    }


def known(candidates: Mapping[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Ask librdkafka itself which candidates it knows, and return those and the names of the others.

    Raises:
        SettingsError: librdkafka knows a property but refuses its value.
    """
    from confluent_kafka import Consumer, KafkaException

    _check_files(candidates)
    properties = dict(candidates)
    unknown: list[str] = []
    while True:
        try:
            Consumer({**_PROBE, **properties}, logger=_silent).close()
            return properties, tuple(unknown)
        except KafkaException as error:
            text = error.args[0].str()
            refused = _UNKNOWN.search(text)
            name = (refused.group(1) or refused.group(2)) if refused else None
            if name not in properties:
                raise _refused(properties, text) from None
            del properties[name]
            unknown.append(name)


def _refused(properties: Mapping[str, str], text: str) -> SettingsError:
    """Name the property that librdkafka's sentence speaks of, with its value unless that is secret."""
    text = " ".join(mask(text, properties).split())
    for name in sorted(properties, key=len, reverse=True):
        if name in text or name.replace(".", " ") in text.lower():
            value = HIDDEN if is_secret(name) else repr(mask(properties[name], properties))
            why = _locked(name, properties) or _ALLOWED.get(name) or text
            return SettingsError(f"{env_name(name)} is {value}: {why}")
    if "GSSAPI" in text and "sasl.mechanism" not in properties:
        return SettingsError(
            "KAFKA_SASL_MECHANISM is not set: with this KAFKA_SECURITY_PROTOCOL it takes PLAIN, SCRAM-SHA-256, "
            "SCRAM-SHA-512 or OAUTHBEARER"
        )
    return SettingsError(f"the KAFKA_* settings do not fit together: {text}")


def _check_files(properties: Mapping[str, str]) -> None:
    """Raise SettingsError for a file that is to be used and cannot be read; librdkafka would not say which or why."""
    used = []
    if properties.get("security.protocol", "").lower() in ("ssl", "sasl_ssl"):
        used.append(_TLS_FILE)
    if properties.get("sasl.oauthbearer.method", "").lower() == "oidc":
        used.append(_TOKEN_FILE)
    for name, path in properties.items():
        if path in ("", "probe") or not any(pattern.search(name) for pattern in used):
            continue
        why = ""
        if not os.path.exists(path):
            why = "there is no such file"
        elif not os.access(path, os.R_OK):
            why = "this user may not read it"
        elif os.path.isdir(path) and not name.endswith("ca.location"):
            why = "it is a folder"
        if why:
            raise SettingsError(f"{env_name(name)} is {path!r}: {why}")


def _locked(name: str, properties: Mapping[str, str]) -> str:
    """Say what is wrong with a key that cannot be opened; nothing where that is not the fault."""
    password = _PASSWORD_OF.get(name)
    if password is None:
        return ""
    content = properties[name].encode()
    if name.endswith(".location"):
        with open(properties[name], "rb") as file:
            content = file.read()
    if name == "ssl.keystore.location" or b"ENCRYPTED" in content:
        how = "does not open it" if properties.get(password) else "is not set"
        return f"it is locked by a password, and {env_name(password)} {how}"
    return "it holds no private key in PEM format"
