"""The condition of an erasure: SQL over the messages of one snapshot, and the messages that it finds."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from archiver_pipeline import envelope
from archiver_pipeline.errors import ArchiveError, PredicateRefused, StorageError
from archiver_pipeline.fields import literal
from archiver_pipeline.storage.base import Storage
from archiver_pipeline.view.files import COLUMNS
from archiver_pipeline.view.macros import FIELD

if TYPE_CHECKING:
    import duckdb

IDENTITY = ("topic", "topic_id", "partition", "offset")

_KIND = re.compile(r"^[A-Z][a-z]+ Error: ")
_MEMORY_LIMIT = "512MB"
_NO_TRY = ("TRY can not be used", "not allowed inside the TRY", "not allowed in try")
_EXAMPLES = "Give one such as --where \"value->>'$.uid' = '…'\" or --where \"key = '…'::BLOB\"; nothing was changed"


@dataclass(frozen=True)
class Found:
    """What matches of a topic and type: messages, and the first and last of their times (UTC), None without one."""

    topic: str
    type: str
    messages: int
    first: str | None
    last: str | None


@dataclass(frozen=True)
class Matches:
    """What a predicate finds.

    Attributes:
        found: by topic and type.
        hours: how many hours these messages are of.
        judged: messages that it was put to.
        unjudged: messages of these on which it failed, such as malformed JSON; they do not match.
    """

    found: tuple[Found, ...]
    hours: int
    judged: int
    unjudged: int

    @property
    def messages(self) -> int:
        """How many messages match."""
        return sum(item.messages for item in self.found)

    @property
    def everything(self) -> bool:
        """Whether every message matches that could be judged."""
        return 0 < self.messages == self.judged - self.unjudged


@dataclass(frozen=True)
class Predicate:
    """A condition in SQL over the columns of the view `messages`, where the macro `field` is there, too. Its text names
    a person: it is kept nowhere."""

    text: str

    @cached_property
    def digest(self) -> str:
        """The SHA-256 of its text, without spaces around it, as 64 hex digits."""
        return hashlib.sha256(self.text.strip().encode()).hexdigest()

    def find(self, storage: Storage, paths: Iterable[str], target: Path, scratch: Path) -> Matches:
        """Find what matches, and write it to a Parquet file: `IDENTITY`, timestamp, type, dt and hr, in the order of
        hours.

        What is erased already never matches. A message on which the predicate fails does not either, and is counted.

        Args:
            storage: the archive's files.
            paths: those of the snapshot, below the archive.
            target: the file to be written.
            scratch: a folder for what does not fit into memory.

        Raises:
            PredicateRefused: it is no condition, or fails in a way that cannot be passed over.
            StorageError: the disk is full.
            ArchiveError, FileNotFoundError: a file cannot be read.
            OSError: the object store does not answer.
        """
        with self._database(scratch) as connection, storage.attach(connection).told():
            connection.execute(f"CREATE VIEW messages AS {_select([storage.pattern(path) for path in paths])}")
            self._check(connection)
            bytes_ = "value IS NULL AND value_bytes IS NOT NULL AS undecoded"
            names = ", ".join(f'"{name}"' for name in (*IDENTITY, "timestamp", *envelope.PARTITION_COLUMNS))
            live = f"messages WHERE type <> {literal(envelope.ERASED)}"
            # On lines of its own: a comment in it must not swallow the rest.
            tried = f"SELECT {names}, {bytes_}, TRY({{'hit': (\n{self.text}\n)}}) AS hit FROM {live}"
            plain = f"SELECT {names}, {bytes_}, {{'hit': (\n{self.text}\n)}} AS hit FROM {live}"
            # Of bytes that are no text a condition on the text is neither true nor false.
            unjudged = "(hit IS NULL OR (hit.hit IS NULL AND undecoded))"
            wanted = f"SELECT {names}, {unjudged} AS failed FROM ({{}}) WHERE {unjudged} OR hit.hit"
            try:
                connection.execute("CREATE TABLE found AS " + wanted.format(tried))
            except Exception as error:
                if not any(text in str(error) for text in _NO_TRY):
                    raise
                connection.execute("CREATE TABLE found AS " + wanted.format(plain))
            self._refuse_what_always_fails(connection, f"SELECT count(hit) FROM ({plain})")
            connection.execute(
                f"COPY (SELECT {names} FROM found WHERE NOT failed ORDER BY dt, hr, type, {', '.join(IDENTITY[:2])}, "
                f'"partition", "offset") TO {literal(str(target))} (FORMAT parquet, COMPRESSION zstd)'
            )
            return _summed_up(connection)

    def _refuse_what_always_fails(self, connection: duckdb.DuckDBPyConnection, query: str) -> None:
        """Let the database say why, where the predicate could be put to no message at all."""
        ((failed, matched),) = connection.execute(
            "SELECT count(*) FILTER (failed), count(*) FILTER (NOT failed) FROM found"
        ).fetchall()
        live = f"SELECT count(*) FROM messages WHERE type <> {literal(envelope.ERASED)}"
        if failed and not matched and connection.execute(live).fetchall() == [(failed,)]:
            connection.execute(query).fetchall()

    def _check(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Raise PredicateRefused unless it is true or false of a message."""
        statements = connection.extract_statements(f"SELECT\n{self.text}\nAS hit FROM messages")
        if len(statements) != 1 or statements[0].named_parameters:
            raise PredicateRefused("--where is no single condition", hint=_EXAMPLES)
        (_, kind, *_), *others = connection.execute(
            # Without brackets around it, or one too many in it would go unnoticed.
            f"DESCRIBE SELECT\n{self.text}\nAS hit FROM messages"
        ).fetchall()
        if kind != "BOOLEAN" or others:
            raise PredicateRefused("--where is no condition that is true or false of a message", hint=_EXAMPLES)

    @contextmanager
    def _database(self, scratch: Path) -> Iterator[duckdb.DuckDBPyConnection]:
        import duckdb

        threads = min(4, os.cpu_count() or 1)
        try:
            with duckdb.connect(
                config={"memory_limit": _MEMORY_LIMIT, "temp_directory": str(scratch), "threads": threads}
            ) as connection:
                connection.execute("SET enable_progress_bar = false")  # It would be drawn on standard output.
                connection.execute("SET TimeZone = 'UTC'; SET preserve_insertion_order = false")
                # What stands twice in a TRY would be worked out once, before it, and so outside of it.
                connection.execute("SET disabled_optimizers = 'common_subexpressions'")
                connection.execute(f"CREATE MACRO {FIELD}")
                yield connection
        except duckdb.Error as error:
            raise _translated(error, scratch) from error


def _select(patterns: list[str]) -> str:
    names = ", ".join(f'"{name}"' for name in COLUMNS)
    if not patterns:
        return "SELECT " + ", ".join(f'NULL::{kind} AS "{name}"' for name, kind in COLUMNS.items()) + " WHERE false"
    listed = ", ".join(map(literal, patterns))
    return f"SELECT {names} FROM read_parquet([{listed}], hive_partitioning = true, hive_types_autocast = false)"


def _summed_up(connection: duckdb.DuckDBPyConnection) -> Matches:
    rows = connection.execute(
        'SELECT topic, type, count(*), min("timestamp")::TIMESTAMP::VARCHAR, max("timestamp")::TIMESTAMP::VARCHAR '
        "FROM found WHERE NOT failed GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    ((hours, unjudged),) = connection.execute(
        "SELECT count(DISTINCT (dt, hr)) FILTER (NOT failed), count(*) FILTER (failed) FROM found"
    ).fetchall()
    ((judged,),) = connection.execute(
        f"SELECT count(*) FROM messages WHERE type <> {literal(envelope.ERASED)}"
    ).fetchall()
    return Matches(tuple(Found(*row) for row in rows), hours, judged, unjudged)


def _translated(error: duckdb.Error, scratch: Path) -> Exception:
    """Say whether the predicate, a file or the disk is the trouble."""
    import duckdb

    text = str(error)
    line = _KIND.sub("", " ".join(text.split("\n\nLINE ")[0].split()))
    if "No space left" in text or "Could not write" in text:
        return StorageError(
            f"the condition cannot be evaluated: {line}",
            path=str(scratch),
            hint="Free space and run again: nothing was changed",
        )
    if isinstance(error, duckdb.OutOfMemoryException):
        return ArchiveError(
            f"the condition needs more memory than {_MEMORY_LIMIT}: {line}",
            hint="Nothing was changed. A condition without a subquery needs none to speak of",
        )
    if isinstance(error, duckdb.IOException) and ".parquet" in text:
        return ArchiveError(f"a file cannot be read: {line}", hint="Run `archiver verify`; nothing was changed")
    if isinstance(error, (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException)):
        return PredicateRefused(f"--where is no SQL condition over messages: {line}", hint=_EXAMPLES)
    return PredicateRefused(
        f"--where fails on a message: {line}",
        hint="Put what may fail into TRY(…), which is null then, such as TRY(value->>'$.uid'); nothing was changed",
    )
