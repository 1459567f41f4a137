"""The state of an aggregate: an SQLite file with counts, members, results and the position, in one transaction."""

from __future__ import annotations

import json
import sqlite3
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archiver_pipeline.durable import locked
from archiver_pipeline.errors import FollowerError
from archiver_pipeline.followers.base import FollowerPosition
from archiver_pipeline.followers.extract import Partial, estimate
from archiver_pipeline.followers.peek import position_in
from archiver_pipeline.followers.store_disk import cut_log, refused, set_up
from archiver_pipeline.followers.store_sql import StoreSql
from archiver_pipeline.plan import TopicPartition
from archiver_pipeline.settings.aggregates import Aggregate
from archiver_pipeline.storage.staging import translated

_FORMAT = 1
_BUSY_SECONDS = 60.0
_DUE_AT_ONCE = _PAGE = 50_000
"""So many windows and groups become final in one transaction."""


@dataclass(frozen=True)
class Result:
    """A version of a window and group that became final.

    Attributes:
        seq: counts up with every version.
        start: the window's start, in seconds since 1970.
        groups, values: by the aggregate's columns; counts of 0 where all of its messages are gone.
        revision: 1 for the first version, and one more with each correction.
    """

    seq: int
    start: int
    groups: tuple[str, ...]
    values: tuple[Any, ...]
    revision: int


class Store:
    """The state of one aggregate, in a file that processes may share: one writes at a time, readers never wait.

    Attributes:
        path: the file.
        id: made anew with the file, and where the columns of the definition change.
    """

    def __init__(self, path: Path, aggregate: Aggregate) -> None:
        """Open it, made if it is not there. Where the definition has changed, all is counted again from the archive."""
        self.path = path
        self._aggregate = aggregate
        self._sql = StoreSql.of(aggregate)
        with self._translated(), translated(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        # Two that open a new file at once would not wait for each other: SQLite refuses the second one at once.
        with self._translated(), translated(path), locked(path):
            set_up(self._db)
            self._prepare()
            self.id = self._meta("id")
            self._definition = self._meta("definition")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Do everything within or nothing; nobody else writes meanwhile.

        Raises:
            FollowerUnavailable: another process holds the file for too long.
            FollowerError: the file cannot be written, or has begun again with another definition meanwhile.
        """
        with self._translated():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._check_definition()
                yield
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise

    def position(self) -> FollowerPosition:
        """Read the position."""
        with self._translated():
            return position_in(self._db)

    def move(self, after: FollowerPosition, latest_ms: dict[TopicPartition, int]) -> None:
        """Set the position, and the latest time seen of each partition where it is later than before."""
        self._db.executemany(
            "INSERT INTO offsets (topic, topic_id, partition, next) VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO UPDATE SET next = excluded.next",
            [(at.topic, at.topic_id, at.partition, following) for at, following in after.offsets.items()],
        )
        self.note(latest_ms)
        self._db.executemany("REPLACE INTO changed VALUES (?, ?)", after.changed.items())

    def note(self, latest_ms: Mapping[TopicPartition, int]) -> None:
        """Note up to which time partitions have been seen; what is later already stays."""
        self._db.executemany(
            "UPDATE offsets SET latest_ms = max(coalesce(latest_ms, ?1), ?1) "
            "WHERE topic = ?2 AND topic_id = ?3 AND partition = ?4",
            [(ms, at.topic, at.topic_id, at.partition) for at, ms in latest_ms.items()],
        )

    def latest_ms(self) -> dict[TopicPartition, int]:
        """The latest time that was seen of each partition, in milliseconds since 1970."""
        query = "SELECT topic, topic_id, partition, latest_ms FROM offsets WHERE latest_ms IS NOT NULL"
        return {TopicPartition(*at): ms for *at, ms in self._db.execute(query)}

    def add(self, partial: Partial) -> None:
        """Add what a frame has."""
        self._fill("counts_in", partial.counts)
        self._fill("members_in", partial.members)
        for statement in (self._sql.add_groups(), self._sql.add_parts(), self._sql.touch(), self._sql.add_members()):
            self._db.execute(statement)

    def remove(self, source: str) -> None:
        """Take out what an hour of the archive has contributed."""
        of_hour = "SELECT id FROM parts WHERE source = ?1"
        self._db.execute(f"UPDATE groups SET dirty = 1 WHERE dirty = 0 AND id IN ({of_hour})", [source])
        self._db.execute(f"DELETE FROM members WHERE id IN ({of_hour}) AND source = ?1", [source])
        self._db.execute("DELETE FROM parts WHERE source = ?", [source])

    def finish(self, until: int, most: int = _DUE_AT_ONCE) -> tuple[int, int]:
        """Make a version of windows that ended before `until` (seconds since 1970) and have changed.

        Returns:
            How many windows and groups were looked at, up to `most`, and how many versions were made.
        """
        self._db.execute("DELETE FROM due")
        last = until - self._aggregate.seconds
        query = "INSERT INTO due SELECT id FROM groups WHERE dirty = 1 AND start <= ? ORDER BY start LIMIT ?"
        looked_at = self._db.execute(query, [last, most]).rowcount
        distinct, kinds = self._distinct(), self._sql.kinds
        changed, hours = [], set()
        for group, start, revision, *rest in self._db.execute(self._sql.due()).fetchall():
            old, (total, *numbers) = tuple(rest[: len(kinds)]), rest[len(kinds) :]
            found = {**dict(zip(self._sql.numbers, numbers, strict=True)), **distinct.get(group, {})}
            empty = {"count": total, "distinct": 0, "approx_distinct": 0}
            new = tuple(found.get(number, empty.get(kind)) for number, kind in enumerate(kinds))
            # A group whose messages all went before anyone saw a version of it never was.
            if new != old and (revision or total):
                changed.append((*new, revision + 1, total, group))
                hours.add((start // 3600,))
        self._db.executemany(self._sql.set_version(), changed)
        self._db.executemany(self._sql.add_result(), [(*row[:-2], row[-1]) for row in changed])
        self._db.executemany("INSERT OR IGNORE INTO unpublished VALUES (?)", hours)
        self._db.execute("UPDATE groups SET dirty = 0 WHERE id IN (SELECT id FROM due)")
        return looked_at, len(changed)

    def unpublished(self) -> list[int]:
        """The hours since 1970 whose Parquet file lacks a version."""
        return [hour for (hour,) in self._db.execute("SELECT hour FROM unpublished ORDER BY hour")]

    def published(self, hour: int) -> None:
        """Note that an hour's file has every version."""
        self._db.execute("DELETE FROM unpublished WHERE hour = ?", [hour])

    def unpublish(self) -> None:
        """Note that no hour has a file."""
        starts = self._db.execute("SELECT DISTINCT start FROM groups WHERE revision > 0").fetchall()
        self._db.executemany("INSERT OR IGNORE INTO unpublished VALUES (?)", {(start // 3600,) for (start,) in starts})

    def hour(self, hour: int) -> Iterator[list[tuple[Any, ...]]]:
        """The newest version of each window and group of an hour, in pages: start, groups, values, revision."""
        found = self._db.execute(self._sql.hour(), [hour * 3600, (hour + 1) * 3600])
        return iter(lambda: found.fetchmany(_PAGE), [])

    def results(self, after: int, limit: int) -> list[Result]:
        """Versions in the order in which they were made, those after a `seq`."""
        count = len(self._aggregate.group_by)
        return [
            Result(seq, start, tuple(rest[:count]), tuple(rest[count:]), revision)
            for seq, start, revision, *rest in self._db.execute(self._sql.results(), [after, limit])
        ]

    def forget(self, seq: int) -> None:
        """Drop versions up to a `seq`, which nobody needs any more."""
        self._db.execute("DELETE FROM results WHERE seq <= ?", [seq])

    def forget_empty(self) -> None:
        """Drop groups whose messages are all gone, once no version of them is waiting: their names may tell of them."""
        self._db.execute(self._sql.forget_empty())

    def scrub(self) -> None:
        """Leave nothing on the disk of what was deleted.

        Raises:
            FollowerUnavailable: a reader holds the file.
        """
        with self._translated():
            if not self._meta("scrubbed"):
                self._db.execute("VACUUM")  # What was deleted before `set_up` made it certain may still be there.
                self._set({"scrubbed": "1"})
            cut_log(self._db, self._aggregate.name, self.path)

    def renumber(self, after: int) -> None:
        """Put the waiting versions behind a `seq` that was reached before this state was put back from a copy."""
        self._db.execute("UPDATE results SET seq = -seq - ?", [after])
        self._db.execute("UPDATE results SET seq = -seq")
        self._db.execute("UPDATE sqlite_sequence SET seq = (SELECT max(seq) FROM results) WHERE name = 'results'")

    def has_sent(self, token: str) -> bool:
        """Whether this state knows of a sending; one that was put back from a copy may not."""
        return token in (self._meta("sent"), self._meta("sending"))

    def begin_sending(self, last: str) -> str:
        """Note that versions are about to be sent, after the sending `last`, and return the token of this one."""
        token = uuid.uuid4().hex
        self._set({"sent": last, "sending": token})
        return token

    def newest(self) -> int:
        """The `seq` of the newest version."""
        ((seq,),) = self._db.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence").fetchall()
        return int(seq)

    def _distinct(self) -> dict[int, dict[int, int]]:
        """The numbers of distinct members of the groups that are due, by group and measure."""
        found: defaultdict[int, dict[int, int]] = defaultdict(dict)
        if "distinct" in self._sql.kinds:
            query = "SELECT id, measure, count(DISTINCT key) FROM due JOIN members USING (id) GROUP BY id, measure"
            for group, measure, count in self._db.execute(query):
                found[group][measure] = count
        if "approx_distinct" in self._sql.kinds:
            query = (
                "SELECT id, measure, count(*), sum(1.0 / (1 << rank)) FROM (SELECT id, measure, max(rank) AS rank "
                "FROM due JOIN members USING (id) GROUP BY id, measure, key) GROUP BY id, measure"
            )
            for group, measure, used, total in self._db.execute(query):
                if self._sql.kinds[measure] == "approx_distinct":
                    found[group][measure] = estimate(used, total)
        return found

    def _fill(self, table: str, rows: Sequence[tuple[Any, ...]]) -> None:
        self._db.execute(f"DELETE FROM {table}")
        if rows:
            self._db.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(rows[0]))})", rows)

    def _meta(self, name: str) -> str:
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", [name]).fetchone()
        return "" if row is None else str(row[0])

    def _prepare(self) -> None:
        """Make the tables; where the file was made for another definition, begin again."""
        names = [*self._aggregate.group_by, *self._aggregate.measures]
        shape = json.dumps([_FORMAT, names, self._sql.kinds, self._aggregate.window])
        definition = self._aggregate.model_dump_json()
        for statement in self._sql.incoming():
            self._db.execute(statement)
        made = self._db.execute("SELECT count(*) FROM sqlite_master WHERE name = 'meta'").fetchone()[0]
        if made and (self._meta("shape"), self._meta("definition")) == (shape, definition):
            return  # Without a lock: a run at work may hold it for long.
        self._db.execute("BEGIN IMMEDIATE")
        self._db.execute("CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT)")
        if self._meta("shape") != shape:
            query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' AND name <> 'meta'"
            for (name,) in self._db.execute(query).fetchall():
                self._db.execute(f"DROP TABLE {name}")
            for statement in self._sql.tables():
                self._db.execute(statement)
            self._set({"shape": shape, "id": uuid.uuid4().hex})
        elif self._meta("definition") != definition:
            # Revisions go on from where they are, so that nobody who reads them sees one of them twice.
            for table in ("parts", "members", "offsets", "changed"):
                self._db.execute(f"DELETE FROM {table}")
            self._db.execute("UPDATE groups SET dirty = 1")
        self._set({"definition": definition})
        self._db.execute("COMMIT")

    def _check_definition(self) -> None:
        """Raise FollowerError if another process has begun again: what this one knows is of another state."""
        if (self._meta("id"), self._meta("definition")) != (self.id, self._definition):
            raise FollowerError(
                f"the definition of {self._aggregate.name} has changed while a run was at work",
                path=str(self.path),
                hint="The next run counts by the new one; make sure that all runs have the same settings",
            )

    def _set(self, values: dict[str, str]) -> None:
        self._db.executemany("REPLACE INTO meta VALUES (?, ?)", values.items())

    def _translated(self) -> AbstractContextManager[None]:
        return refused(self._aggregate.name, self.path, _BUSY_SECONDS)
