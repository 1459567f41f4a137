"""What archiving waits for at the Schema Registry: a note for each partition, for whoever asks how things stand."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from archiver_pipeline.plan import NO_TOPIC_ID, Committed, TopicPartition, life_of
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.settings.types import is_among


@dataclass(frozen=True)
class Wait:
    """A message that cannot be decoded yet.

    Attributes:
        topic, topic_id, partition, offset: which one.
        schema: the id or GUID of its schema.
        registry: the URL that is asked.
        why: what came of it, and what to do.
        since: when it was asked for the first time, ISO, UTC.
    """

    topic: str
    topic_id: str
    partition: int
    offset: int
    schema: str
    registry: str
    why: str
    since: str

    def __str__(self) -> str:
        return (
            f"{self.topic}/{self.partition} waits since {self.since} at offset {self.offset} for schema {self.schema} "
            f"of {self.registry}: {self.why}"
        )


class Waits:
    """The notes of an archive. They are reports only: nothing goes by them, and one that cannot be written is none."""

    def __init__(self, settings: Settings) -> None:
        # Archives may share a folder for what is not in a bucket.
        own = hashlib.sha256(settings.archive_uri.encode()).hexdigest()[:16]
        self._folder = settings.base_dir.absolute() / "registry_waits" / own
        self._topics = settings.topics

    def note(self, at: TopicPartition, offset: int, schema: str, registry: str, why: str) -> None:
        """Put down what a partition waits for; since when stays as long as it is the same message."""
        since = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        path = self._path(at)
        before = _read(path)
        if before is not None and (before.topic_id, before.offset, before.schema) == (at.topic_id, offset, schema):
            since = before.since
        wait = Wait(at.topic, at.topic_id, at.partition, offset, schema, registry, why, since)
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            scratch = path.with_suffix(f".{os.getpid()}")
            scratch.write_text(json.dumps(asdict(wait)), "utf-8")
            scratch.replace(path)

    def forget(self, at: TopicPartition) -> None:
        """Take the note of a partition away."""
        with suppress(OSError):
            self._path(at).unlink()

    def forget_others(self, topic_ids: Mapping[str, str]) -> None:
        """Take the notes of topics away that were made again: nobody will ever read what they waited for.

        Args:
            topic_ids: by topic the id that Kafka has for it now.
        """
        for path in sorted(self._folder.glob("*.json")):
            wait = _read(path)
            present = topic_ids.get(wait.topic) if wait is not None else None
            if wait is not None and present is not None and life_of(wait.topic_id)[0] not in (present, NO_TOPIC_ID):
                with suppress(OSError):
                    path.unlink()

    def present(self, committed: Mapping[TopicPartition, Committed]) -> Iterator[Wait]:
        """Yield what is still waited for, in order: no message that was archived since, and none of a topic that is no
        longer wanted."""
        for path in sorted(self._folder.glob("*.json")):
            wait = _read(path)
            if wait is None or (self._topics and not is_among(self._topics, wait.topic)):
                continue
            known = committed.get(TopicPartition(wait.topic, wait.topic_id, wait.partition))
            if known is None or wait.offset >= known.next:
                yield wait

    def _path(self, at: TopicPartition) -> Path:
        return self._folder / f"{at.topic}-{at.partition}.json"


def _read(path: Path) -> Wait | None:
    """The note in a file; None where it is none that `note` has written: nothing may fail at it."""
    try:
        wait = Wait(**json.loads(path.read_text("utf-8")))
        datetime.fromisoformat(wait.since).timestamp()
    except (OSError, ValueError, TypeError, OverflowError):
        return None
    texts = (wait.topic, wait.topic_id, wait.schema, wait.registry, wait.why)
    is_sound = all(isinstance(text, str) for text in texts) and type(wait.partition) is type(wait.offset) is int
    return wait if is_sound else None
