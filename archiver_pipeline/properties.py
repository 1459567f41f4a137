"""librdkafka properties: which `KAFKA_*` variables are some, which are secret, and which are the archiver's own."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

from archiver_pipeline.errors import SettingsError

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

_SECRET = re.compile(r"password|secret|token|\.pem$|jaas|oauthbearer\.config|assertion\.private|credential")
_UNKNOWN = re.compile(r'No such configuration property: "([^"]+)"|Internal property "([^"]+)" not settable')
_PROBE = {"group.id": "archiver", "log_level": "0"}
"""It tries to connect at once, and what it would say of that belongs to nobody."""

_silent = logging.getLogger("archiver.librdkafka.probe")
_silent.addHandler(logging.NullHandler())
_silent.propagate = False


def is_secret(name: str) -> bool:
    """Tell whether the value of a librdkafka property must never be shown."""
    return bool(_SECRET.search(name))


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
            value = "***" if is_secret(name) else repr(properties[name])
            return SettingsError(f"{env_name(name)} is {value}: {text}")
    return SettingsError(f"the KAFKA_* settings do not fit together: {text}")


def mask(text: str, properties: Mapping[str, str]) -> str:
    """Return `text` with the value of every secret property replaced by `***`."""
    secrets = {value for name, value in properties.items() if value and is_secret(name)}
    for value in sorted(secrets, key=len, reverse=True):  # one may be the beginning of another
        text = text.replace(value, "***")
    return text
