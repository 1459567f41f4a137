"""The settings of those who keep it running: logs, and how long Dagster's history of runs is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_settings import BaseSettings

RunKind = Literal["archive", "view", "seal", "backfill", "follow"]
"""The jobs, and `view`: runs of `archive` that only bring the DuckDB file of the sensor's machine up to date."""

OWN_TAGS = "archiver/"
"""How the archiver's own tags begin, by which it knows its runs again."""


def check_tags(tags: Any) -> Any:
    """Check the tags of runs; a value that is a table becomes its JSON, as Dagster takes it. Raises ValueError."""
    if not isinstance(tags, Mapping):
        raise ValueError("this is no table of tags")
    for name, value in tags.items():
        if name.startswith(OWN_TAGS):
            raise ValueError(f"{name!r} is a tag of the archiver's own")
        if not isinstance(value, str | int | Mapping):
            raise ValueError(f"the tag {name!r} has neither text nor a table")
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in tags.items()}


RunTags = Annotated[dict[str, str], BeforeValidator(check_tags)]


class OperationSettings(BaseSettings):
    """What of `Settings` operation is about."""

    log_format: Literal["text", "json"] = Field("text", description="text or json")
    keep_runs_days: float = Field(30, ge=0, le=3650, description="a number from 0 to 3650; 0 is for ever")
    view: Literal["on", "off"] = Field("on", description="on or off")
    run_tags: dict[RunKind, RunTags] = Field(
        {}, description="archive, view, seal, backfill or follow, and for each the tags of its runs"
    )

    def tags_of(self, kind: RunKind) -> dict[str, str]:
        """The tags that runs of a kind are to have beside the archiver's own; Dagster's launchers go by some."""
        return dict(self.run_tags.get(kind, {}))
