"""`docker-compose.yml` as Compose takes it, and its services as processes of this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from archiver_pipeline_tests.processes import CHECKOUT

_VARIABLE = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


def load(variables: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The file with its anchors merged and its variables filled in. Raises KeyError for one without a value."""
    given = variables or {}

    def value(found: re.Match[str]) -> str:
        name, default = found.groups()
        return given[name] if name in given or default is None else default

    text = (CHECKOUT / "docker-compose.yml").read_text("utf-8")
    content: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(value, text))
    return content


def seconds(duration: str) -> float:
    """A duration of Compose such as `1m30s` in seconds."""
    units = {"h": 3600.0, "m": 60.0, "s": 1.0}
    parts = re.findall(r"(\d+)([hms])", duration)
    assert "".join(number + unit for number, unit in parts) == duration, duration
    return sum(int(number) * units[unit] for number, unit in parts)


class Local:
    """A service's command, environment and health check with the names of services as addresses of this machine."""

    def __init__(self, service: Mapping[str, Any], addresses: Mapping[str, str]) -> None:
        """Rewrite.

        Args:
            service: what the file says of it.
            addresses: what stands in the place of which text.
        """
        self._service = service
        self._addresses = addresses

    @property
    def command(self) -> list[str]:
        """Its command."""
        return [self._local(word) for word in self._service["command"]]

    @property
    def environment(self) -> dict[str, str]:
        """Its variables."""
        return {name: self._local(value) for name, value in self._service["environment"].items()}

    @property
    def health(self) -> list[str]:
        """The command that checks its health."""
        kind, *words = self._service["healthcheck"]["test"]
        assert kind == "CMD"
        return [self._local(word) for word in words]

    @property
    def grace_seconds(self) -> float:
        """How long it has to end."""
        return seconds(self._service.get("stop_grace_period", "10s"))

    def _local(self, text: str) -> str:
        for there, here in self._addresses.items():
            text = here.join(re.split(rf"(?<![\w.]){re.escape(there)}(?![\w.])", text))
        return text
