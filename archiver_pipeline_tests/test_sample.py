"""Samples of messages: small whatever comes, and spread over all of it."""

from __future__ import annotations

import polars as pl
import pyarrow as pa
import pytest

from archiver_pipeline.rewrites.sample import Sample
from archiver_pipeline.stored.parquet import size_of, table_of
from archiver_pipeline_tests.test_sealed_files import frame_of

MiB = 1024**2


def values(sample: Sample) -> list[str]:
    """What is in a sample."""
    return list(pl.DataFrame(sample.table())["value"])


def test_few_messages_are_all_in_it() -> None:
    """Nothing is left out as long as it is neither much nor large, and the order stays."""
    sample = Sample(MiB)
    for first in range(0, 300, 100):
        sample.add(table_of(frame_of(100, first)))
    assert values(sample) == list(frame_of(300)["value"])


@pytest.mark.parametrize("tables", [400, 4])
def test_of_many_messages_some_of_each_part_are_in_it(tables: int) -> None:
    """However many come, and in whatever pieces, a share of each part stays, within the limit."""
    sample = Sample(64 * MiB, most_rows=1000)
    for number in range(tables):
        # The same offsets again and again, as those of many partitions are.
        sample.add(table_of(frame_of(40_000 // tables, value=f"part {number * 4 // tables}")))
    found = values(sample)
    assert 250 < len(found) <= 1000
    assert all(found.count(f"part {part}") > len(found) / 8 for part in range(4))


def test_large_messages_behind_tiny_ones_stay_within_the_limit() -> None:
    """What comes first tells nothing of what follows."""
    sample = Sample(8 * MiB)
    sample.add(table_of(frame_of(100, value="{}")))
    for first in range(100):
        sample.add(table_of(frame_of(1, first, value="x" * MiB)))
    assert size_of(sample.table()) <= 8 * MiB
    assert values(sample)[0] == "{}"


def test_one_message_is_always_in_it() -> None:
    """Also where a single one is larger than the limit."""
    sample = Sample(1)
    for first in range(5):
        sample.add(table_of(frame_of(1, first, value=f"{first}" * 1000)))
    assert values(sample) == ["0" * 1000]
    assert isinstance(sample.table(), pa.Table)
