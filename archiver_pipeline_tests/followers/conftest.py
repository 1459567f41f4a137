"""Fixtures of followers: each kit is one follower with all that it needs."""

from __future__ import annotations

import pytest

from archiver_pipeline_tests.followers.aggregate_kit import MinuteKit


@pytest.fixture
def minutes_kit() -> MinuteKit:
    """Events and users per minute."""
    return MinuteKit()
