"""Rules for readers in the midst of a query: an hour may be sealed meanwhile, and they come to the right end."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import deltalake
import duckdb
import polars as pl
import pytest

from archiver_pipeline.hours import parse_hour
from archiver_pipeline.rewrites.seal import Sealer
from archiver_pipeline.settings.settings import Settings
from archiver_pipeline.table.archive import Archive
from archiver_pipeline.view import view
from archiver_pipeline_tests.batches import archive, event, files_in

HOUR = parse_hour("2019-08-01T03")
FILES, PER_FILE = 40, 300
MESSAGES = FILES * PER_FILE


class Filled:
    """A copy of an archive of many small files of one type and hour, and the view over it."""

    def __init__(self, original: Path, folder: Path) -> None:
        shutil.copytree(original, folder / "archive")
        self.folder = folder
        self.path = folder / "archive"
        self.view = folder / "archive.duckdb"
        self.target = Archive(str(self.path))
        view.refresh(self.view, self.target)
        self.old = files_in(self.path)

    def sealer(self, keep: float) -> Sealer:
        """A sealer that keeps replaced files for so many hours."""
        return Sealer(Settings(BASE_DIR=self.folder, keep_replaced_hours=keep, topics="orders"))

    def seal(self, keep: float = 1) -> int:
        """Seal the hour, bring the view up to date, clean up, and return how many files went."""
        assert self.sealer(keep).seal(HOUR) is not None
        view.refresh(self.view, self.target)
        return self.sealer(keep).clean()

    def let_pass(self, minutes: int) -> None:
        """Let the files that the newest commit replaced have been replaced so many minutes ago."""
        path = self.path / "_delta_log" / f"{deltalake.DeltaTable(self.path).version():020}.json"
        actions = [json.loads(line) for line in path.read_text().splitlines()]
        for action in actions:
            if "remove" in action:
                action["remove"]["deletionTimestamp"] -= minutes * 60_000
        path.write_text("".join(json.dumps(action, separators=(",", ":")) + "\n" for action in actions))


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive that each test copies."""
    chance = random.Random(3)
    path = tmp_path_factory.mktemp("original") / "archive"
    for _ in range(FILES):
        archive(Archive(str(path)), [event(text=chance.randbytes(100).hex()) for _ in range(PER_FILE)])
    return path


@pytest.fixture
def filled(original: Path, tmp_path: Path) -> Filled:
    """An archive that has not been sealed."""
    return Filled(original, tmp_path)


def duckdb_query(filled: Filled) -> Callable[[], int]:
    """Begin a query on the DuckDB file that hands out its rows as they are asked for; return how to count the rest."""
    connection = duckdb.connect(str(filled.view), read_only=True)
    connection.execute("SET threads = 1")
    connection.execute("SET streaming_buffer_size = '10KB'")
    cursor = connection.execute('SELECT "offset", value FROM messages')
    begun = len(cursor.fetchmany(10))

    def rest() -> int:
        try:
            return begun + sum(len(rows) for rows in iter(lambda: cursor.fetchmany(1000), []))
        finally:
            connection.close()

    return rest


def polars_query(filled: Filled) -> Callable[[], int]:
    """Begin a query on the table by Polars, which has read the log and no file."""
    frame = pl.scan_delta(deltalake.DeltaTable(filled.path)).filter(pl.col("value").str.len_bytes() > 10)
    return lambda: frame.collect().height


QUERIES = pytest.mark.parametrize("begin", [duckdb_query, polars_query])


@QUERIES
def test_a_query_goes_on_while_its_files_are_replaced(
    filled: Filled, begin: Callable[[Filled], Callable[[], int]]
) -> None:
    """A query that began before the hour was sealed finds all its files, for they stay for an hour; and the next query
    reads the sealed file."""
    rest = begin(filled)
    assert filled.seal(keep=1) == 0
    assert filled.old < files_in(filled.path)
    assert rest() == MESSAGES
    assert begin(filled)() == MESSAGES


@QUERIES
def test_without_that_time_a_query_says_what_it_lacks(
    filled: Filled, begin: Callable[[Filled], Callable[[], int]]
) -> None:
    """With ARCHIVER_KEEP_REPLACED_HOURS=0 the files of such a query are gone: it fails with the name of one, and never
    ends early with a wrong count."""
    rest = begin(filled)
    assert filled.seal(keep=0) == FILES
    with pytest.raises((duckdb.Error, OSError, pl.exceptions.PolarsError), match=r"lane0-[0-9a-f]{12}-00000"):
        rest()
    assert begin(filled)() == MESSAGES


def test_replaced_files_go_in_their_time(filled: Filled) -> None:
    """Cleaning up takes no file before ARCHIVER_KEEP_REPLACED_HOURS have passed, a part of an hour counting as a whole
    one, and all of them afterwards."""
    filled.seal(keep=1)
    for minutes in (30, 29):
        filled.let_pass(minutes)
        assert filled.sealer(keep=1).clean() == 0
        assert filled.sealer(keep=0.5).clean() == 0
    assert filled.old < files_in(filled.path)
    filled.let_pass(2)
    assert filled.sealer(keep=1.5).clean() == 0
    assert filled.sealer(keep=1).clean() == FILES
    assert files_in(filled.path) == set(filled.target.files()["path"])


def test_an_open_view_stays_right(filled: Filled) -> None:
    """Whoever has opened archive.duckdb before the seal has the same answers from it afterwards, query after query, and
    so has whoever opens it then."""
    query = 'SELECT count(*), count(DISTINCT "offset"), sum("offset")::BIGINT FROM messages'
    right = (MESSAGES, MESSAGES, MESSAGES * (MESSAGES - 1) // 2)
    with duckdb.connect(str(filled.view), read_only=True) as before:
        assert before.execute(query).fetchone() == right
        filled.seal(keep=1)
        assert before.execute(query).fetchone() == right
        assert before.execute("SELECT sum(files)::INT FROM hours").fetchone() == (FILES,)
    with duckdb.connect(str(filled.view), read_only=True) as after:
        assert after.execute(query).fetchone() == right
        assert after.execute("SELECT sum(files)::INT, bool_and(sealed) FROM hours").fetchone() == (1, True)


def test_a_view_that_nobody_refreshed_stays_right(filled: Filled) -> None:
    """A seal that was killed before it had brought the view up to date leaves one that is right for an hour, and the
    next run brings it up to date before it removes a file."""
    query = "SELECT count(*) FROM messages"
    filled.sealer(keep=1).seal(HOUR)
    with duckdb.connect(str(filled.view), read_only=True) as connection:
        assert connection.execute(query).fetchone() == (MESSAGES,)
    view.refresh(filled.view, filled.target)
    assert filled.sealer(keep=0).clean() == FILES
    with duckdb.connect(str(filled.view), read_only=True) as connection:
        assert connection.execute(query).fetchone() == (MESSAGES,)
