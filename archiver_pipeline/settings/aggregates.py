"""Aggregates: what is counted, by what, and over which window of time; as `archiver.toml` defines them."""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from archiver_pipeline.envelope import TypeRule, parse_type_rule
from archiver_pipeline.settings.types import OptionalRule

EVENTS_PER_MINUTE = "events_per_minute"
PAGE_VIEWS = "page_views"

VIEWS = ("messages", "offsets", "batches", "gaps", "replays", "losses", "erasures", "hours", "fields", "types")
"""The views of the archive itself."""

SECONDS = {"minute": 60, "hour": 3600, "day": 86_400}
"""The seconds of each window."""

COLUMNS = ("topic", "partition", "type", "key")
"""Columns of a message that an aggregate may be grouped by, beside JSON paths."""

WHOLE, NUMBERS = ("count", "distinct", "approx_distinct"), ("sum", "min", "max")
MEASURES = (*WHOLE, *NUMBERS)
"""Kinds of measures: those that count, and those whose value is a number of the messages."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_TAKEN = {"dt", "hr", "revision", *SECONDS}
_ASSETS = {"archive_view", "sealed_hours", "mysql_messages", "search_messages"}


def _check_source(text: str) -> str:
    if text not in COLUMNS:
        parse_type_rule(text)
    return text


def _check_measure(text: str) -> str:
    kind, _, rule = text.partition(" ")
    if kind not in MEASURES or (kind == "count") != (not rule):
        raise ValueError(f"{text!r} is no measure: count, or one of {', '.join(MEASURES[1:])} and a JSON path")
    if rule:
        parse_type_rule(rule.strip())
    return text


Source = Annotated[str, AfterValidator(_check_source)]
MeasureText = Annotated[str, AfterValidator(_check_measure)]


class Aggregate(BaseModel):
    """One aggregate.

    Attributes:
        name: of its view, its folder and its asset.
        window: minute, hour or day, in UTC.
        group_by: columns, each from a column of the message or a JSON path; a message without one is not counted. Of a
            text of more than 1,000 characters a column has the first 967, `…` and the MD5 of the whole in hex.
        measures: columns, each `count`, or `distinct`, `approx_distinct`, `sum`, `min` or `max` with a JSON path. What
            is no finite number is in no sum; a sum past the range of a double is infinite, in the results topic null.
        time: where the time of an event comes from: a JSON path (ISO text, or seconds, milliseconds or microseconds
            since 1970), or empty for the message's own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=f"^{_NAME.pattern}$")
    window: Literal["minute", "hour", "day"]
    group_by: dict[str, Source] = {}
    measures: dict[str, MeasureText] = Field(min_length=1)
    time: OptionalRule = ""

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if self.name in _ASSETS.union(VIEWS):
            raise ValueError(f"{self.name!r} is the name of another view or asset")
        columns = [*self.group_by, *self.measures]
        if wrong := [name for name in columns if not _NAME.fullmatch(name) or name in _TAKEN]:
            raise ValueError(f"{wrong[0]!r} cannot be a column: lower-case letters, digits and _, and not one of ours")
        if len(set(columns)) < len(columns):
            raise ValueError("a column is there twice")
        return self

    @property
    def seconds(self) -> int:
        """The length of its window."""
        return SECONDS[self.window]

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of each measure, by its column."""
        return {name: text.partition(" ")[0] for name, text in self.measures.items()}

    def parsed(self) -> list[tuple[str, TypeRule | None]]:
        """Each measure's kind, and where its value comes from."""
        parts = (text.partition(" ") for text in self.measures.values())
        return [(kind, parse_type_rule(rule.strip()) if rule else None) for kind, _, rule in parts]


def check_names(aggregates: tuple[Aggregate, ...]) -> tuple[Aggregate, ...]:
    """Check that each has a name of its own. Raises ValueError."""
    if twice := [name for name, count in Counter(item.name for item in aggregates).items() if count > 1]:
        raise ValueError(f"{twice[0]!r} is there twice")
    return aggregates


def built_in(user_path: str, users: str, time_path: str) -> tuple[Aggregate, ...]:
    """The aggregates that ship: events and users per minute, and views and visitors per page and hour."""
    distinct = f"{'distinct' if users == 'exact' else 'approx_distinct'} {user_path}"
    return (
        Aggregate(
            name=EVENTS_PER_MINUTE,
            window="minute",
            group_by={"topic": "topic", "type": "type"},
            measures={"events": "count", "users": distinct},
            time=time_path,
        ),
        Aggregate(
            name=PAGE_VIEWS,
            window="hour",
            group_by={"url": "$.url"},
            measures={"views": "count", "visitors": distinct},
            time=time_path,
        ),
    )
