"""What waits in a run, for the Schema Registry or because it cannot be unpacked, while everything else goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from archiver_pipeline.errors import BatchUnreadable, RegistryError, RegistryUnavailable
from archiver_pipeline.plan import Position

_MOST = 8
"""A topic with so many partitions that wait is left out as a whole: each costs a batch that is read in vain."""


class Held:
    """Messages that could not be decoded or unpacked in this run, and how far their partitions may go."""

    def __init__(self, is_registry: Callable[[str], bool]) -> None:
        """Begin; `is_registry` tells which topics need the registry."""
        self._is_registry = is_registry
        self._errors: list[RegistryError | BatchUnreadable] = []

    def add(self, error: RegistryError | BatchUnreadable) -> None:
        """Take an error down: nothing at or past its message is planned from now on.

        Raises:
            RegistryError, BatchUnreadable: the error itself, where it has no place, or that was taken down before.
        """
        if any((error.topic, error.partition, error.start) == (e.topic, e.partition, e.start) for e in self._errors):
            raise error
        if error.topic is None or error.start is None:
            raise error
        self._errors.append(error)

    def within(self, positions: Iterable[Position]) -> Iterator[Position]:
        """Yield the positions that a batch may have, each ending before the message that it waits for.

        Where the registry itself is not there, no topic that needs it is among them.
        """
        gone = any(isinstance(error, RegistryUnavailable) for error in self._errors)
        for item in positions:
            waiting = [error for error in self._errors if error.topic == item.at.topic]
            if len(waiting) >= _MOST or (gone and self._is_registry(item.at.topic)):
                continue
            ends = [
                error.start for error in waiting if error.partition == item.at.partition and error.start is not None
            ]
            yield replace(item, end=min([item.end, *ends]))

    def raise_first(self) -> None:
        """Raise the first error, if there is one."""
        if self._errors:
            raise self._errors[0]
