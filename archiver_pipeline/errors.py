"""The errors of the archiver: one tree, and every error says what failed, where, and what to do next.

ArchiverError
├── SettingsError           a setting is wrong; nothing was started
│   └── WrongUsage          an option of a command is wrong; nothing was done
├── PredicateRefused        the condition of an erasure is no SQL condition over messages; nothing was done
├── KafkaError              the broker refused or failed
│   ├── BrokerUnavailable   no broker answered in time
│   ├── AccessDenied        authentication or authorization refused
│   ├── BatchUnreadable     what the broker has at an offset cannot be unpacked; its partition waits, others go on
│   └── TopicChanged        a topic was deleted or made again while it was read
├── RegistryError           a message needs a schema that cannot be had; nothing was committed
│   ├── RegistryUnavailable the Schema Registry does not answer, fails, or refuses access
│   ├── SchemaUnknown       it knows no schema of that id
│   └── SchemaUnusable      what it has is no schema that can be read
├── ArchiveError            the archive could not be read or written
│   ├── StorageError        the folder is read-only, full or gone
│   ├── ArchiveDamaged      the table's log cannot be read
│   ├── FormatTooNew        a newer archiver made the archive, or upgraded it
│   ├── Superseded          another run of the same lane, hour or follower committed first
│   └── RangeRefused        an explicit range does not follow on from what is archived, or has no partition
├── FollowerError           what follows the archive could not take its messages
│   └── FollowerUnavailable its server does not answer, or asks to wait
└── ExportError             messages could not be written for others; nothing was left where they were to go
"""

from __future__ import annotations

SUPERSEDED = "Nothing is lost or doubled: the next run goes on from what is committed"
"""The hint of a run that another one has overtaken."""


class ArchiverError(Exception):
    """Base of every error that the archiver raises on purpose.

    Attributes:
        what: what failed and why, one sentence.
        topic, partition, start, end: where in Kafka, as far as known; `end` is exclusive.
        path: the file or folder concerned.
        hint: what to do next.
        lasting: whether it stays until somebody does something, or was waited for already: the same again at once is of
            no use.
    """

    lasting = False

    def __init__(
        self,
        what: str,
        *,
        topic: str | None = None,
        partition: int | None = None,
        start: int | None = None,
        end: int | None = None,
        path: str | None = None,
        hint: str | None = None,
    ) -> None:
        self.what = what
        self.topic = topic
        self.partition = partition
        self.start = start
        self.end = end
        self.path = path
        self.hint = hint
        super().__init__(str(self))

    def __str__(self) -> str:
        where = [
            f"topic {self.topic}" if self.topic is not None else "",
            f"partition {self.partition}" if self.partition is not None else "",
            f"offsets [{self.start}, {'…' if self.end is None else self.end})" if self.start is not None else "",
            self.path or "",
        ]
        place = ", ".join(part for part in where if part)
        text = self.what + (f" ({place})" if place else "")
        return text + (f". {self.hint}" if self.hint else "")


class SettingsError(ArchiverError):
    """A setting is wrong or missing; the text is one line with its name, the value and what is allowed."""

    lasting = True


class WrongUsage(SettingsError):
    """An option of a command is wrong or missing; the text is one line with its name, the value and what is allowed."""


class PredicateRefused(ArchiverError):
    """The condition of an erasure is not SQL, no condition, or fails on a message; nothing was done."""

    lasting = True


class KafkaError(ArchiverError):
    """The broker refused a request or a read failed."""


class BrokerUnavailable(KafkaError):
    """No broker answered within the time limit, or a read made no progress."""


class AccessDenied(KafkaError):
    """The broker refused the credentials, or they do not allow the request."""

    lasting = True


class BatchUnreadable(KafkaError):
    """What the broker has at an offset cannot be unpacked: broken, or too large for the limit; its partition waits."""

    lasting = True


class TopicChanged(KafkaError):
    """A topic was deleted or made again while a batch read it; nothing was committed, the next run sorts it out."""


class RegistryError(ArchiverError):
    """A message cannot be decoded, for its schema cannot be had; nothing was committed, the next run tries again."""

    lasting = True


class RegistryUnavailable(RegistryError):
    """The Schema Registry does not answer, fails, or refuses access."""


class SchemaUnknown(RegistryError):
    """The Schema Registry knows no schema of the id that a message has."""


class SchemaUnusable(RegistryError):
    """What the Schema Registry has under an id, or what that refers to, is no schema that can be read."""


class ArchiveError(ArchiverError):
    """The archive could not be read or written; what it held before is untouched."""


class StorageError(ArchiveError):
    """The archive's folder refused a write: read-only, full, or gone."""

    lasting = True


class ArchiveDamaged(ArchiveError):
    """The table's log or a file it lists cannot be read."""

    lasting = True


class FormatTooNew(ArchiveError):
    """The archive has a format that only a newer archiver knows; nothing of it was read or written."""

    lasting = True


class Superseded(ArchiveError):
    """Another run of the same lane, hour or follower committed first; what this run did was never part of anything."""


class RangeRefused(ArchiveError):
    """An explicit range begins past the committed offset, which would leave a hole, or its partition is not there."""

    lasting = True


class FollowerError(ArchiverError):
    """What follows the archive could not take messages: nothing of that step was done, and its position stands."""


class FollowerUnavailable(FollowerError):
    """The follower's server does not answer, or asks to wait; the next run goes on from where it is."""


class ExportError(ArchiverError):
    """Messages could not be written out of the archive: nothing was left where they were to go."""
