"""Topics that wait for the Schema Registry while others go on."""

from __future__ import annotations

from collections.abc import Callable

from archiver_pipeline.errors import RegistryError, RegistryUnavailable


class Held:
    """What could not be decoded in this run, and the topics that are left out for it."""

    def __init__(self, is_registry: Callable[[str], bool]) -> None:
        """Begin; `is_registry` tells which topics need the registry."""
        self._is_registry = is_registry
        self._errors: list[RegistryError] = []

    def add(self, error: RegistryError) -> None:
        """Take an error down: its topic is left out from now on. Raises it where that is so already."""
        if self.has(str(error.topic)):
            raise error
        self._errors.append(error)

    def has(self, topic: str) -> bool:
        """Whether a topic is left out: it waits for a schema, or needs a registry that is not there."""
        gone = any(isinstance(error, RegistryUnavailable) for error in self._errors)
        return (gone and self._is_registry(topic)) or any(error.topic == topic for error in self._errors)

    def raise_first(self) -> None:
        """Raise the first error, if there is one."""
        if self._errors:
            raise self._errors[0]
