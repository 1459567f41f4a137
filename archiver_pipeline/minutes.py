"""Finished minutes as they come from the results topic, and the rate of what comes in."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from archiver_pipeline.errors import KafkaError, SettingsError
from archiver_pipeline.kafka.cluster import Cluster
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.tail import echoes

log = logging.getLogger(__name__)

_WAIT_SECONDS = 2.0


@dataclass(frozen=True)
class Minute:
    """A version of a finished minute.

    Attributes:
        minute: its start in ISO form, UTC.
        topic, type: of the events.
        events, users: how many events there were, of how many distinct users; None where a sum of one's own is null.
        revision: 1, or more where late events have corrected it.
    """

    minute: str
    topic: str
    type: str
    events: float | None
    users: float | None
    revision: int

    def line(self) -> str:
        """The minute as one line."""
        corrected = f"  (revision {self.revision})" if self.revision > 1 else ""
        events, users = (_amount(*pair) for pair in ((self.events, "event"), (self.users, "user")))
        return f"{self.minute} {self.topic} {self.type}: {events}, {users}{corrected}"


def _amount(count: float | None, noun: str) -> str:
    # A sum of one's own may be no whole number.
    return f"{'-' if count is None else f'{count:,}'} {noun}{'s' * (count != 1)}"


def minutes(settings: Settings, from_beginning: bool = False) -> Iterator[Minute | None]:
    """Yield finished minutes as they come, and None each time when nothing came for a moment.

    Raises:
        SettingsError: there is no results topic.
        KafkaError: the broker refused or failed.
    """
    if not settings.results_topic:
        raise SettingsError(
            "ARCHIVER_RESULTS_TOPIC is empty, so finished minutes go nowhere: name a topic, or use tail --messages"
        )
    settings.require_broker()
    results = settings.model_copy(update={"topics": (settings.results_topic,)})
    was_missing = False
    while not Cluster(results).look().topics:
        if not was_missing:
            log.warning("waiting for the first finished minute: there is no topic %s yet", settings.results_topic)
        was_missing = True
        yield None
        time.sleep(_WAIT_SECONDS)
    for echo in echoes(results, from_beginning or was_missing):
        found = None if echo is None else _minute(echo.value)
        if echo is None or found is not None:
            yield found


def _minute(value: bytes | None) -> Minute | None:
    """Read a record; None for one that is no minute."""
    try:
        content: dict[str, Any] = json.loads(value or b"")
        return Minute(**content)
    except (ValueError, TypeError):
        return None


class InputRate:
    """Tells how many messages a second come into the archived topics, by their end offsets."""

    def __init__(self, settings: Settings) -> None:
        self._cluster = Cluster(settings)
        self._ends: dict[tuple[str, int], int] = {}
        self._since = 0.0

    def measure(self) -> float | None:
        """The rate since the last time; None the first time, and where the broker does not answer."""
        try:
            ends = self._cluster.look().end_offsets()
        except KafkaError:
            return None
        now, before, since = time.monotonic(), self._ends, self._since
        self._ends, self._since = ends, now
        if not before:
            return None
        return sum(max(0, end - before.get(at, end)) for at, end in ends.items()) / (now - since)
