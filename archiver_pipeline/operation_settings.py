"""The settings of those who keep it running: logs, and how long Dagster's history of runs is kept."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings


class OperationSettings(BaseSettings):
    """What of `Settings` operation is about."""

    log_format: Literal["text", "json"] = Field("text", description="text or json")
    keep_runs_days: float = Field(30, ge=0, le=3650, description="a number from 0 to 3650; 0 is for ever")
