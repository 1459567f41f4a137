"""The fields of a sealed hour: which JSON fields its messages have, kept in the footer of the sealed file itself."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from archiver_pipeline import fields
from archiver_pipeline.view import field_sample

if TYPE_CHECKING:
    import duckdb

log = logging.getLogger(__name__)

KEY = "archiver.fields"
"""Key of the report in a Parquet file's key-value metadata."""

ENOUGH = 10
"""So many messages with a field must have been expected in an hour for their absence to say anything."""

_FORMAT = 1
_BIGINT_LIMIT = 2**63 - 1


@dataclass(frozen=True)
class FieldSeen:
    """An outermost JSON field, as the messages that were looked at have it.

    Attributes:
        field: its name.
        present: messages that have it, also those where it is null.
        kinds: messages by kind of the value, most frequent first; kinds as in `fields.Field`, NULL for null.
        first, last: the earliest and the latest message time with it, in microseconds since 1970; None if unknown.
    """

    field: str
    present: int
    kinds: Mapping[str, int]
    first: int | None = None
    last: int | None = None

    @property
    def values(self) -> dict[str, int]:
        """The kinds but for NULL."""
        return {kind: count for kind, count in self.kinds.items() if kind != fields.UNKNOWN}


@dataclass(frozen=True)
class HourFields:
    """The report of one sealed file, or of several together.

    Attributes:
        messages: how many there are.
        looked_at: how many of them were looked at, whatever is in them.
        fields: most frequent first, at most `fields.MAX_FIELDS`.
        complete: no field that was found had to be left out.
    """

    messages: int
    looked_at: int
    fields: tuple[FieldSeen, ...]
    complete: bool = True


@dataclass(frozen=True)
class Change:
    """What is different in a field of a type between one hour and the one before it.

    Attributes:
        type: the type of the messages.
        field: the field's name.
        what: what happened to it.
        before, after: the field in either hour, None where no message has it.
        share_before, share_after: the share of messages that have it, 0 to 1.
    """

    type: str
    field: str
    what: Literal["appeared", "disappeared", "changed type"]
    before: FieldSeen | None
    after: FieldSeen | None
    share_before: float
    share_after: float

    def sentence(self) -> str:
        """Say it to people."""
        if self.what == "appeared":
            how = f"{_percent(self.share_after)} of the messages have it, none had it in the hour before"
        elif self.what == "disappeared":
            how = f"no message has it, {_percent(self.share_before)} had it in the hour before"
        else:
            how = (
                f"{_kinds(self.before)} in the hour before (in {_percent(self.share_before)} of the messages), "
                f"{_kinds(self.after)} now (in {_percent(self.share_after)})"
            )
        return f"{self.type}: field {self.field!r} {self.what}: {how}"


def report(connection: duckdb.DuckDBPyConnection, select: str, messages: int | None = None) -> str:
    """Look at the messages of one type and hour, and return the report that belongs into their file's footer.

    What is looked at, and how much of it: `field_sample.look`.

    Args:
        connection: where `select` can be run; a temporary table is made meanwhile.
        select: gives `value` (VARCHAR, null and not JSON possible) and `timestamp` (TIMESTAMPTZ, null possible).
        messages: how many the hour has, where `select` gives but a sample of them.

    Returns:
        JSON in ASCII, for `parse`.
    """
    sample = field_sample.look(connection, select)
    by_name: dict[str, list[FieldSeen]] = {}
    for name, kind, count, first, last in sample.counts:
        by_name.setdefault(name, []).append(FieldSeen(name, count, {kind: count}, first, last))
    found = tuple(_summed(name, items) for name, items in by_name.items())
    return _text(_most_frequent(HourFields(messages or sample.messages, sample.looked_at, found, sample.complete)))


def parse(text: str) -> HourFields:
    """Read a report; what a later release may have added to it is passed over. Raises ValueError."""
    try:
        found = json.loads(text)
        seen = [_field(item) for item in found["fields"]]
        return HourFields(
            _count(found["messages"]),
            _count(found["looked_at"]),
            tuple(item for item in seen if item is not None),
            found.get("complete") is not False,
        )
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise ValueError(f"no report of fields: {error}") from error


def read(connection: duckdb.DuckDBPyConnection, paths: Sequence[str]) -> dict[str, HourFields]:
    """Read the reports in the footers of Parquet files; files without one, or with one that is no JSON, are left out.

    Raises:
        duckdb.Error: a file cannot be read.
    """
    if not paths:
        return {}
    rows = connection.execute(
        "SELECT file_name, value FROM parquet_kv_metadata(?) WHERE key = ?::BLOB",
        [[fields.no_glob(path) for path in paths], KEY.encode()],
    ).fetchall()
    reports = {}
    for path, text in rows:
        try:
            reports[path] = parse(text.decode())
        except ValueError as error:
            log.warning("%s: %s", path, error)
    return reports


def together(reports: Iterable[HourFields]) -> HourFields:
    """Sum up the reports of several files of one type and hour."""
    every = list(reports)
    if len(every) == 1:
        return every[0]
    by_name: dict[str, list[FieldSeen]] = {}
    for one in every:
        for item in one.fields:
            by_name.setdefault(item.field, []).append(item)
    return _most_frequent(
        HourFields(
            sum(one.messages for one in every),
            sum(one.looked_at for one in every),
            tuple(_summed(name, items) for name, items in by_name.items()),
            all(one.complete for one in every),
        )
    )


def changes(before: HourFields, after: HourFields, type_name: str = "") -> list[Change]:
    """Compare an hour of a type with the one sealed before it, most frequent fields first.

    A field, or a kind of its values, counts as new only if, at its present share, at least `ENOUGH` messages with it
    would have been expected among those looked at in the hour before, and there was none; gone the other way round.
    Kinds are compared among the values that are not null, so null alone changes no kind.

    Args:
        before: the hour before.
        after: the hour.
        type_name: for the sentences.
    """
    was, now = ({item.field: item for item in hour.fields} for hour in (before, after))
    found: list[Change] = []
    for name in dict.fromkeys((*now, *was)):
        old, new = was.get(name), now.get(name)
        what: Literal["appeared", "disappeared", "changed type"]
        if old is None and new is not None:
            # Where fields had to be left out, nobody knows that there was none.
            if not before.complete or not _enough(new.present, after.looked_at, before.looked_at):
                continue
            what = "appeared"
        elif new is None and old is not None:
            if not after.complete or not _enough(old.present, before.looked_at, after.looked_at):
                continue
            what = "disappeared"
        elif old is not None and new is not None and (_came(old, new) or _came(new, old)):
            what = "changed type"
        else:
            continue
        found.append(Change(type_name, name, what, old, new, share(old, before), share(new, after)))
    return sorted(found, key=lambda change: -max(change.share_before, change.share_after))


def share(item: FieldSeen | None, hour: HourFields) -> float:
    """The share of the messages looked at that have a field, 0 to 1."""
    return item.present / hour.looked_at if item is not None and hour.looked_at else 0.0


def _summed(name: str, items: Sequence[FieldSeen]) -> FieldSeen:
    kinds: Counter[str] = Counter()
    for item in items:
        kinds.update(item.kinds)
    firsts = [item.first for item in items if item.first is not None]
    lasts = [item.last for item in items if item.last is not None]
    present = sum(item.present for item in items)
    return FieldSeen(name, present, dict(kinds.most_common()), min(firsts, default=None), max(lasts, default=None))


def _most_frequent(hour: HourFields) -> HourFields:
    ordered = sorted(hour.fields, key=lambda item: -item.present)
    complete = hour.complete and len(ordered) <= fields.MAX_FIELDS
    return HourFields(hour.messages, hour.looked_at, tuple(ordered[: fields.MAX_FIELDS]), complete)


def _text(hour: HourFields) -> str:
    found = [
        {"field": item.field, "present": item.present, "kinds": item.kinds, "first": item.first, "last": item.last}
        for item in hour.fields
    ]
    head = {"format": _FORMAT, "messages": hour.messages, "looked_at": hour.looked_at, "complete": hour.complete}
    return json.dumps({**head, "fields": found}, separators=(",", ":"))


def _field(item: Any) -> FieldSeen | None:
    """One field of a report; None if its name is none that a text can hold."""
    name = item["field"]
    if not isinstance(name, str) or (not name.isascii() and name != name.encode(errors="replace").decode()):
        return None
    kinds = {str(kind): _count(count) for kind, count in item["kinds"].items()}
    return FieldSeen(name, _count(item["present"]), kinds, _moment(item.get("first")), _moment(item.get("last")))


def _count(number: Any) -> int:
    if not isinstance(number, int) or not 0 <= number <= _BIGINT_LIMIT:
        raise ValueError(f"{number!r:.40} is no number of messages")
    return number


def _moment(number: Any) -> int | None:
    return number if isinstance(number, int) and abs(number) < _BIGINT_LIMIT else None


def _enough(present: int, looked_at: int, among: int) -> bool:
    """Whether at this share at least `ENOUGH` were to be expected among so many others."""
    return looked_at > 0 and present * among >= ENOUGH * looked_at


def _came(old: FieldSeen, new: FieldSeen) -> bool:
    """Whether values of a kind are there that were not there before, and would have been."""
    all_old, all_new = sum(old.values.values()), sum(new.values.values())
    return any(kind not in old.values and _enough(count, all_new, all_old) for kind, count in new.values.items())


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _kinds(item: FieldSeen | None) -> str:
    values = item.values if item else {}
    total = sum(values.values())
    if len(values) == 1:
        return next(iter(values))
    return " and ".join(f"{kind} ({_percent(count / total)})" for kind, count in values.items())
