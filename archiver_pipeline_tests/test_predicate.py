"""Rules for the condition of an erasure: SQL over messages, judged message by message."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from archiver_pipeline.errors import PredicateRefused
from archiver_pipeline.rewrites.predicate import IDENTITY, Matches, Predicate
from archiver_pipeline.storage.folder import Folder
from archiver_pipeline_tests.batches import event
from archiver_pipeline_tests.sealable import Sealable


@pytest.fixture
def filled(tmp_path: Path) -> Sealable:
    """Messages of two types with a user and a number each, one that is no JSON, and one without a payload."""
    found = Sealable(tmp_path / "data")
    found.add("x", "y", count=5, uid="u1")
    found.add("x", count=3, hour=1, uid="u2")
    found.write([b"no JSON: u1", None, event("x", uid="it's")])
    return found


def find(filled: Sealable, text: str) -> tuple[Matches, pl.DataFrame]:
    """What a condition finds, and the plan that it writes."""
    target = filled.path.parent / "plan.parquet"
    paths = filled.target.files()["path"].to_list()
    matches = Predicate(text).find(filled.target.storage, paths, target, filled.path.parent / "spilled")
    return matches, pl.read_parquet(target, hive_partitioning=False)


@pytest.mark.parametrize(
    ("text", "messages", "unjudged"),
    [
        ("type = 'x'", 9, 0),
        ("value->>'$.uid' = 'u2'", 3, 1),
        ("TRY(value->>'$.uid') = 'u2'", 3, 0),
        ("field(value, '$.uid') = 'u2'", 3, 0),
        ("field(value, '$.uid') IN (SELECT field(value, '$.uid') FROM messages WHERE hr = '04')", 3, 0),
        ("value LIKE '%u1%'", 11, 0),
        ("value IS NULL", 1, 0),
        ("value->>'$.uid' = 'it''s' -- a comment", 1, 1),
        ("value->>'$.uid' = 'u2' /* a comment", 0, -1),
        ("type = 'x' OR value->>'$.uid' = 'u1'", 14, 1),
        ("dt = '2019-08-01' AND hr = '04'", 3, 0),
        ("key = 'key'::BLOB", 16, 0),
        ('topic = \'orders\' AND "partition" = 0 AND "offset" BETWEEN 2 AND 4', 3, 0),
        ("\"timestamp\" < '2019-08-01 04:00'", 13, 0),
        ('"offset" IN (SELECT max("offset") FROM messages)', 1, 0),
        (
            'EXISTS (SELECT 1 FROM messages AS m WHERE m."offset" = messages."offset" + 1 AND m.type = \'_tombstone\')',
            1,
            0,
        ),
        ("TRY(value->>'$.uid') IN (SELECT TRY(value->>'$.uid') FROM messages WHERE hr = '04')", 3, 0),
        ("NULL::BOOLEAN", 0, 0),
        ("type = '_erased'", 0, 0),
        ("len(headers) > 0", 0, 0),
    ],
)
def test_what_it_finds(filled: Sealable, text: str, messages: int, unjudged: int) -> None:
    """Any SQL over the columns of messages goes, subqueries, comments and `field` too; where it fails is counted."""
    if unjudged < 0:
        with pytest.raises(PredicateRefused):
            find(filled, text)
        return
    matches, plan = find(filled, text)
    assert (matches.messages, matches.unjudged, matches.judged) == (messages, unjudged, 16)
    assert plan.height == messages
    assert plan.columns == [*IDENTITY, "timestamp", "type", "dt", "hr"]
    assert not matches.everything or messages == 16


@pytest.mark.parametrize(
    "text",
    [
        "selec",
        "uid = 'u1'",
        "type = 'x'; DROP VIEW messages",
        "type = 'x') OR (",
        "value",
        "1",
        "count(*) > 1",
        "type = ?",
        "()",
        "value->>'$.uid' IN (SELECT value->>'$.uid' FROM messages)",
        "type IN (SELECT nothing FROM nowhere)",
        'error(value) IS NULL AND "offset" IN (SELECT 1)',
    ],
)
def test_what_is_no_condition(filled: Sealable, text: str) -> None:
    """It is refused in one line that says so, and nothing is written."""
    with pytest.raises(PredicateRefused, match="--where ") as caught:
        find(filled, text)
    assert "\n" not in str(caught.value)
    assert "LINE " not in str(caught.value)


def test_everything(filled: Sealable) -> None:
    """All that could be judged is everything, for a condition that fails on some."""
    assert find(filled, "true")[0].everything
    assert find(filled, "value->>'$.uid' IS NULL OR value->>'$.uid' <> 'nobody'")[0].everything
    assert not find(filled, "type = 'x'")[0].everything


def test_an_hour_after_the_other(filled: Sealable) -> None:
    """The plan is in the order of hours, types and offsets, so that an hour's part of it is read alone."""
    _, plan = find(filled, "true")
    assert plan.equals(plan.sort("dt", "hr", "type", "topic", "topic_id", "partition", "offset"))


def test_the_hash_tells_conditions_apart() -> None:
    """Spaces around it do not matter, anything else does."""
    assert Predicate(" type = 'x'\n").digest == Predicate("type = 'x'").digest
    assert Predicate("type = 'x'").digest != Predicate("type = 'y'").digest


@pytest.mark.parametrize(
    "text",
    [
        "true) OR (true",
        "true AS hit FROM messages; COPY (SELECT 42) TO '{folder}/leak.csv'; SELECT true",
        "true) AS hit FROM messages; COPY (SELECT 42) TO '{folder}/leak.csv'; SELECT (true",
        "key = ?",
    ],
)
def test_more_than_a_condition_is_refused(tmp_path: Path, text: str) -> None:
    """Brackets that do not match, other statements and parameters are refused before anything is executed."""
    with pytest.raises(PredicateRefused):
        Predicate(text.format(folder=tmp_path)).find(
            Folder(tmp_path), [], tmp_path / "found.parquet", tmp_path / "spilled"
        )
    assert not (tmp_path / "leak.csv").exists()
