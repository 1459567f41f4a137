"""The SQL of an aggregate's state: tables and statements, with a column for each group and each measure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from archiver_pipeline.settings.aggregates import NUMBERS, WHOLE, Aggregate


@dataclass(frozen=True)
class StoreSql:
    """The statements of one aggregate.

    `groups` has a row for each window and group, with its newest version; `parts` and `members` what each hour of the
    archive contributes to it; `results` the versions that others have yet to take.

    Attributes:
        kinds: the kind of each measure; measure n is column `vn` of a version, and `mn` of a part where it is a number.
        groups: the columns that windows are grouped by, each with a comma before it.
    """

    kinds: tuple[str, ...]
    groups: str

    @classmethod
    def of(cls, aggregate: Aggregate) -> StoreSql:
        """The statements of an aggregate."""
        groups = "".join(f", g{number}" for number in range(len(aggregate.group_by)))
        return cls(tuple(aggregate.kinds.values()), groups)

    @property
    def numbers(self) -> list[int]:
        """The measures that are a number of each part."""
        return [number for number, kind in enumerate(self.kinds) if kind in NUMBERS]

    @property
    def values(self) -> str:
        """The columns of a version, each with a comma before it."""
        return "".join(f", v{number}" for number in range(len(self.kinds)))

    def tables(self) -> Iterator[str]:
        """Everything that a new file needs."""
        values = "".join(f", v{n} {'INTEGER' if kind in WHOLE else 'REAL'}" for n, kind in enumerate(self.kinds))
        yield (
            "CREATE TABLE offsets (topic TEXT, topic_id TEXT, partition INTEGER, next INTEGER NOT NULL, "
            "latest_ms INTEGER, PRIMARY KEY (topic, topic_id, partition)) WITHOUT ROWID"
        )
        yield "CREATE TABLE changed (hour TEXT PRIMARY KEY, count INTEGER) WITHOUT ROWID"
        yield (
            f"CREATE TABLE groups (id INTEGER PRIMARY KEY, start INTEGER NOT NULL{self.groups}, "
            f"dirty INTEGER DEFAULT 1, revision INTEGER DEFAULT 0, total INTEGER DEFAULT 0{values}, "
            f"UNIQUE (start{self.groups}))"
        )
        yield "CREATE INDEX groups_dirty ON groups (start) WHERE dirty = 1"
        numbers = "".join(f", m{number} REAL" for number in self.numbers)
        columns = f"id INTEGER, source TEXT, n INTEGER{numbers}"
        yield f"CREATE TABLE parts ({columns}, PRIMARY KEY (id, source)) WITHOUT ROWID"
        yield "CREATE INDEX parts_source ON parts (source)"
        yield (
            "CREATE TABLE members (id INTEGER, measure INTEGER, key, source TEXT, rank INTEGER, "
            "PRIMARY KEY (id, measure, key, source)) WITHOUT ROWID"
        )
        yield f"CREATE TABLE results (seq INTEGER PRIMARY KEY AUTOINCREMENT, id INTEGER, revision INTEGER{values})"
        yield "CREATE TABLE unpublished (hour INTEGER PRIMARY KEY)"

    def incoming(self) -> Iterator[str]:
        """The temporary tables that rows are put into first: of counts, of members, and of the groups that are due."""
        numbers = "".join(f", m{number}" for number in self.numbers)
        yield f"CREATE TEMP TABLE IF NOT EXISTS counts_in (source, start{self.groups}, n{numbers})"
        yield f"CREATE TEMP TABLE IF NOT EXISTS members_in (source, start{self.groups}, measure, key, rank)"
        yield "CREATE TEMP TABLE IF NOT EXISTS due (id INTEGER PRIMARY KEY)"

    def add_groups(self) -> str:
        """Make a row of each group that is new."""
        return f"INSERT OR IGNORE INTO groups (start{self.groups}) SELECT start{self.groups} FROM counts_in"

    def add_parts(self) -> str:
        """Add what came in to the parts."""
        columns = "".join(f", m{number}" for number in self.numbers)
        found = "".join(f", i.m{number}" for number in self.numbers)
        sums = "".join(f", m{number} = {self._sum(number)}" for number in self.numbers)
        return (
            f"INSERT INTO parts (id, source, n{columns}) SELECT g.id, i.source, i.n{found} FROM counts_in i "
            f"JOIN groups g USING (start{self.groups}) WHERE true ON CONFLICT DO UPDATE SET n = n + excluded.n{sums}"
        )

    def touch(self) -> str:
        """Mark the groups of what came in."""
        found = f"SELECT g.id FROM counts_in i JOIN groups g USING (start{self.groups})"
        return f"UPDATE groups SET dirty = 1 WHERE dirty = 0 AND id IN ({found})"

    def add_members(self) -> str:
        """Add the members that came in; of a register the highest rank stays."""
        return (
            "INSERT INTO members (id, measure, key, source, rank) SELECT g.id, i.measure, i.key, i.source, i.rank "
            f"FROM members_in i JOIN groups g USING (start{self.groups}) WHERE true ORDER BY 1, 2, 3 "
            "ON CONFLICT DO UPDATE SET rank = excluded.rank WHERE excluded.rank > rank"
        )

    def due(self) -> str:
        """Id, start, revision and newest version of each group that is due, then the count and numbers it has now."""
        totals = "".join(f", {self.kinds[n]}(m{n}) AS t{n}" for n in self.numbers)
        found = "".join(f", t{number}" for number in self.numbers)
        return (
            f"SELECT g.id, g.start, g.revision{self.values}, coalesce(now, 0){found} "
            f"FROM due JOIN groups g USING (id) LEFT JOIN (SELECT id, sum(n) AS now{totals} "
            "FROM parts JOIN due USING (id) GROUP BY id) USING (id) ORDER BY g.start, g.id"
        )

    def set_version(self) -> str:
        """Set the newest version of a group: values, revision, number of messages, id."""
        values = "".join(f"v{number} = ?, " for number in range(len(self.kinds)))
        return f"UPDATE groups SET {values}revision = ?, total = ? WHERE id = ?"

    def add_result(self) -> str:
        """Add a version: values, revision, id."""
        marks = ", ".join("?" * (len(self.kinds) + 2))
        return f"INSERT INTO results ({self.values[2:]}, revision, id) VALUES ({marks})"

    def forget_empty(self) -> str:
        """Delete the groups that have no part, but for those with a version that waits to be made or sent."""
        return (
            "DELETE FROM groups WHERE id NOT IN (SELECT id FROM parts) AND id NOT IN (SELECT id FROM results) "
            "AND (revision = 0 OR (dirty = 0 AND total = 0))"
        )

    def hour(self) -> str:
        """Start, groups, newest version and revision between two times; those whose messages are all gone left out."""
        return (
            f"SELECT start{self.groups}{self.values}, revision FROM groups WHERE start >= ? AND start < ? "
            f"AND revision > 0 AND total > 0 ORDER BY start{self.groups}"
        )

    def results(self) -> str:
        """Seq, start, revision, groups and values of versions after a seq."""
        values = "".join(f", r.v{number}" for number in range(len(self.kinds)))
        return (
            f"SELECT r.seq, g.start, r.revision{self.groups}{values} FROM results r JOIN groups g USING (id) "
            "WHERE r.seq > ? ORDER BY r.seq LIMIT ?"
        )

    def _sum(self, number: int) -> str:
        kind, column = self.kinds[number], f"m{number}"
        both = f"{column} + excluded.{column}" if kind == "sum" else f"{kind}({column}, excluded.{column})"
        return f"coalesce({both}, {column}, excluded.{column})"
