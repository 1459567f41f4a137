"""The messages whose type was not found: how many of the newest hours', and what to do about them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from archiver_pipeline import envelope
from archiver_pipeline.amounts import counted

if TYPE_CHECKING:
    import polars as pl

SHARE = 0.01
"""More of them than that are worth a warning."""

HOURS = 24
"""Only the newest hours count, so that what was set right long ago is no longer told of."""

_ADVICE = {
    envelope.MALFORMED: "If their payload is no JSON, set header:NAME or constant:NAME as their type, or their format",
    envelope.UNTYPED: "If their type stands elsewhere, set ARCHIVER_TYPE_PATH (or [types] in archiver.toml)",
    envelope.OTHER: "If their type is no id, raise ARCHIVER_MAX_TYPES",
}


@dataclass(frozen=True)
class Untyped:
    """Messages whose type was not found.

    Attributes:
        what: how many of how many, and of which reserved types.
        remedy: what to do.
    """

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}. {self.remedy}"


def untyped(files: pl.DataFrame) -> Untyped | None:
    """What there is to say of the newest hours that are there, None where most messages have a type.

    Args:
        files: the table's (the frame of `Archive.files`).
    """
    import polars as pl

    dated = files.filter(pl.col("dt") != envelope.UNKNOWN_TIME)
    newest = dated.select("dt", "hr").unique().sort("dt", "hr", descending=True).head(HOURS)
    live = pl.col("type") != envelope.ERASED
    within = dated.filter(live).join(newest, on=["dt", "hr"], how="semi")
    messages = dict(within.group_by("type").agg(pl.col("messages").sum()).iter_rows())
    counts = {name: messages.get(name, 0) for name in _ADVICE}
    every, few = sum(messages.values()), sum(counts.values())
    if few <= SHARE * every:
        return None
    which = ", ".join(f"{name} {count:,}" for name, count in counts.items() if count)
    span = "hour" if newest.height == 1 else counted(newest.height, "hour")
    what = f"no type was found for {few:,} of {counted(every, 'message')} in the newest {span}: {which}"
    worst = max(counts, key=lambda name: counts[name])
    return Untyped(what, f"{_ADVICE[worst]}, then `archiver backfill --from-archive`")
