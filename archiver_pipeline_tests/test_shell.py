"""The SQL shell: what it completes, remembers and prints, and how it goes on a terminal."""

from __future__ import annotations

import contextlib
import csv
import fcntl
import io
import json
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from archiver_pipeline.cli.catalog import Catalog, read_catalog
from archiver_pipeline.cli.completion import complete, is_complete
from archiver_pipeline.cli.examples import examples
from archiver_pipeline.cli.prompt import Shell
from archiver_pipeline.cli.results import print_all, rows_of
from archiver_pipeline.cli.shell import SqlError, View
from archiver_pipeline.cli.terminal import _completer, add_to_history, read_history
from archiver_pipeline.errors import ArchiveError
from archiver_pipeline.storage.base import Attached
from archiver_pipeline_tests.asked import asked
from archiver_pipeline_tests.processes import CHECKOUT

LIMIT_SECONDS = 60


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The DuckDB file of an archive of page views and orders."""
    return asked(tmp_path_factory.mktemp("asked"))


@pytest.fixture(scope="module")
def catalog(path: Path) -> Catalog:
    """The names in it."""
    with duckdb.connect(str(path), read_only=True) as connection:
        return read_catalog(connection)


@pytest.mark.parametrize(
    ("typed", "first"),
    [
        ("sel", ["SELECT"]),
        ("SELECT * FROM or", ["order_created"]),
        ("SELECT * FROM hours JOIN mess", ["messages", "messages_between("]),
        ("FROM hours, off", ["offsets"]),
        ("SELECT tot| FROM order_created", ["total"]),
        ("SELECT | FROM order_created", ["type_1", "uid", "order_id", "total", "topic"]),
        ("SELECT v.u| FROM order_created AS o JOIN page_view v USING (uid)", ["uid", "url"]),
        ("SELECT o.to| FROM order_created AS o JOIN page_view v USING (uid)", ["total", "topic"]),
        ("SELECT off", ['"offset"']),
        ('SELECT "off', ['"offset"']),
        ("SELECT max(offs| FROM messages_between('a', 'b')", ['"offset"']),
        ("SELECT time_buck", ["time_bucket("]),
        ("SELECT fiel", ["field", "field("]),
        ("FROM messages WHERE type = 'ord", ["order.created'"]),
        ("FROM latest('pa", ["page.view'"]),
        ("SELECT field(value, '$.to", ["$.total'"]),
        ("SELECT value->>'or", ["$.order_id'"]),
        ("FROM messages_between('a', 'b', of := 'pa", ["page_view'"]),
        ("FROM gaps; SELECT * FROM ga", ["gaps"]),
        (".sch", [".schema"]),
        (".schema pa", ["page_view", "page_views"]),
        (".mode c", ["csv"]),
        ("SELECT 'FROM ", []),
        ("SELECT 1 -- FROM '", []),
    ],
)
def test_completion_knows_where_it_is(catalog: Catalog, typed: str, first: list[str]) -> None:
    """Views behind FROM, the columns of those views elsewhere, types and JSON fields in quotes; | is the cursor."""
    before, _, after = typed.partition("|")
    assert [each.text for each in complete(before, after, catalog)][: max(1, len(first))] == first


@pytest.mark.parametrize(
    ("typed", "complete"),
    [
        *(("SELECT 1;", True), ("SELECT 1; -- done", True), ("SELECT ';';", True), (".help", True), ("quit", True)),
        *(("", True), ("SELECT 1", False), ("SELECT ';", False), ("SELECT 1 -- ;", False), ("/* ;", False)),
        *(('SELECT ";', False), ("SELECT $$;", False), ("SELECT 1;\nSELECT 2", False)),
    ],
)
def test_a_statement_ends_with_a_semicolon(typed: str, complete: bool) -> None:
    """One in a text, a name or a comment does not count."""
    assert is_complete(typed) is complete


def test_the_history_has_whole_statements(tmp_path: Path) -> None:
    """Those of several lines are one again, those of an older release stay, and nobody else can read the file."""
    file = tmp_path / "history"
    assert read_history(file) == []
    file.write_text("SELECT 1;\n\nFROM hours;\n")
    add_to_history(file, "SELECT\n  2;\n")
    assert read_history(file) == ["SELECT 1;", "FROM hours;", "SELECT\n  2;"]
    other = tmp_path / "new"
    add_to_history(other, "SELECT 1;")
    assert other.stat().st_mode & 0o777 == 0o600
    other.write_text("".join(f"SELECT {number};\n" for number in range(3_000)))
    assert read_history(other)[0] == "SELECT 2000;"
    assert len(other.read_text().splitlines()) == 1_000
    add_to_history(tmp_path / "no folder" / "history", "SELECT 1;")


def test_every_example_has_an_answer(path: Path) -> None:
    """They are made of the types that are there, and of the newest hour that has a time."""
    with duckdb.connect(str(path), read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        found = examples(connection)
        assert "page.view" in found[4].what
        assert all(connection.execute(each.sql).fetchall() for each in found)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        *((f"SELECT range, '├ ┤ └' AS t FROM range({rows})", said) for rows, said in ((0, "0 rows"), (1, "1 row"))),
        *(
            ("FROM range(20)", "20 rows"),
            ("FROM range(120)", "120 rows"),
            ("FROM range(20000)", "more than 9,999 rows"),
        ),
        *(("SELECT repeat('wide ', 60) AS t FROM range(3)", "3 rows"), ("SELECT repeat('wide ', 60) AS t", "")),
    ],
)
def test_rows_of_a_table_are_counted(query: str, said: str) -> None:
    """As DuckDB's last line says where it leaves something out, else by lines, and rather not than wrongly."""
    with duckdb.connect() as connection, contextlib.redirect_stdout(io.StringIO()) as shown:
        connection.sql(query).show(max_width=80, max_rows=100)
    assert rows_of(shown.getvalue().rstrip("\n"), 80) == said


def test_a_line_for_each_column(capsys: pytest.CaptureFixture[str]) -> None:
    """The form for rows that are wider than a terminal: nothing is cut."""
    with duckdb.connect() as connection:
        print_all(connection, "SELECT 1 AS n, repeat('x', 500) AS text UNION ALL SELECT 2, NULL", "line")
    assert capsys.readouterr().out == f"   n = 1\ntext = {'x' * 500}\n\n   n = 2\ntext = NULL\n"


AWKWARD = """SELECT histogram(TIMESTAMPTZ '2020-01-01 10:00') AS hours, 1 AS x, 2 AS x, 3 AS x_1, [MAP {1: 2}] AS maps,
    'nan'::DOUBLE AS no, ['-inf'::FLOAT] AS least, TIMESTAMPTZ 'infinity' AS ever,
    TIMESTAMPTZ '2020-01-01 10:00' AS at"""


def test_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Keys of maps are text, no column is left out, and what is not finite is text, too."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        print_all(connection, AWKWARD, "json")
        (row,) = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
        assert list(row) == ["hours", "x", "x_2", "x_1", "maps", "no", "least", "ever", "at"]
        assert [*row.values()][:5] == [{"2020-01-01T10:00:00Z": 1}, 1, 2, 3, [{"1": 2}]]
        assert [*row.values()][5:] == ["nan", ["-inf"], "infinity", "2020-01-01T10:00:00Z"]
        print_all(connection, AWKWARD, "csv")
        (_, values) = csv.reader(io.StringIO(capsys.readouterr().out))
        assert values[:5] == ['{"2020-01-01T10:00:00Z": 1}', "1", "2", "3", '[{"1": 2}]']
        assert values[5:] == ["nan", '["-inf"]', "infinity", "2020-01-01T10:00:00Z"]
        print_all(connection, AWKWARD, "line")
        assert 'hours = {"2020-01-01T10:00:00Z": 1}' in capsys.readouterr().out


def test_a_file_that_is_gone_or_not_ours_is_an_error(tmp_path: Path, path: Path) -> None:
    """Completion has nothing to offer, dot commands and the banner say what is wrong."""
    file = tmp_path / "archive.duckdb"
    shutil.copyfile(path, file)
    view = View(file, lambda _: Attached())
    shell = Shell(view, "table", tmp_path / "history")
    completer = _completer(shell.catalog)

    def offered(typed: str) -> list[str]:
        return [each.text for each in completer.get_completions(Document(typed), CompleteEvent())]

    assert "page_view" in offered("FROM page_v")
    file.unlink()
    assert offered("FROM page_v") == []
    duckdb.connect(str(tmp_path / "foreign")).close()
    (tmp_path / "foreign").rename(file)
    assert offered("FROM page_v") == []
    with pytest.raises(SqlError, match="does not exist"):
        shell._do(".examples")
    with pytest.raises(ArchiveError, match=r"it is no DuckDB file of this release: .* Check BASE_DIR"):
        shell.run()
    view.close()
    file.write_text("nonsense")
    assert offered("FROM page_v") == []


def test_a_result_that_was_left_is_in_nobodys_way(capsys: pytest.CaptureFixture[str]) -> None:
    """What Ctrl-C leaves unread does not keep the next statement from running."""
    with duckdb.connect() as connection:
        connection.execute("FROM range(100000)").fetchmany(1)
        print_all(connection, "SELECT 42 AS answer", "table")
    assert "42" in capsys.readouterr().out


class Terminal:
    """A terminal of 100 columns on which the shell runs."""

    def __init__(self, leader: int, process: subprocess.Popen[bytes]) -> None:
        self._leader = leader
        self.process = process
        self.shown = ""

    def type(self, keys: str, until: str) -> str:
        """Type keys, wait until the terminal shows something of that pattern, and return what it shows since then."""
        os.write(self._leader, keys.encode())
        return self.wait(until)

    def wait(self, until: str) -> str:
        """Wait for a pattern in what is shown, colours and movements left out."""
        new, deadline = "", time.monotonic() + LIMIT_SECONDS
        while not re.search(until, new):
            assert time.monotonic() < deadline, new
            if select.select([self._leader], [], [], 0.5)[0]:
                try:
                    self.shown += os.read(self._leader, 65536).decode(errors="replace")
                except OSError:
                    break
                new = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.shown)
        self.shown = ""
        return new


@contextmanager
def terminal(path: Path, home: Path) -> Iterator[Terminal]:
    """The shell on a terminal that can move its cursor."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    variables = {
        "TERM": "xterm-256color",
        "HOME": str(home),
        "BASE_DIR": str(path.parent),
        "PROMPT_TOOLKIT_NO_CPR": "1",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "archiver_pipeline.cli", "sql"],
        cwd=CHECKOUT, env={**os.environ, **variables}, stdin=follower, stdout=follower, stderr=follower,
        start_new_session=True,
    )  # fmt: skip
    os.close(follower)
    try:
        yield Terminal(leader, process)
    finally:
        process.kill()
        process.wait()
        os.close(leader)


def test_a_session(path: Path, tmp_path: Path) -> None:
    """Several lines, completion, examples, forms, errors, Ctrl-C, the history, and Ctrl-D."""
    with terminal(path, tmp_path) as screen:
        assert "page_view" in screen.wait("archive>")
        screen.type("SELECT 40 +\r", r"\.\.\.>")
        assert re.search(r"│ +42 │", screen.type("2 AS answer;\r", r"1 row in [0-9.]+ s[\s\S]*archive>"))
        screen.type("SELECT max(order_i", "order_id +column")
        screen.type("\t) FROM order_cr", "order_created +view")
        screen.type("\t WHERE dt = '2026-11-20';\r", r"1 row in[\s\S]*archive>")
        screen.type("SELECT nonsense", "nonsense")
        screen.type("\x03", "archive>")
        assert 'Did you mean "messages"' in screen.type("FROM messags;\r", r"Did you mean[\s\S]*archive>")
        screen.type(".mode line\r", r"archive>[\s\S]*archive>")
        assert "url = /" in screen.type("FROM page_view LIMIT 1;\r", r"1 row in[\s\S]*archive>")
        assert "dt = '2026-11-20'" in screen.type(".examples\r", r"most frequent[\s\S]*archive>")
        screen.type(".nonsense\r", r"is no command[\s\S]*archive>")
        screen.type("\x04", "$")
        assert screen.process.wait(LIMIT_SECONDS) == 0
    assert "SELECT 40 +\n2 AS answer;" in read_history(tmp_path / ".archiver_sql_history")
