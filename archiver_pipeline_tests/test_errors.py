"""Rules of what is said where something is wrong: the table of causes, and every place where an error is raised."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from archiver_pipeline import errors
from archiver_pipeline.amounts import counted, duration
from archiver_pipeline_tests.error_causes import CAUSES, Ground
from archiver_pipeline_tests.errors_table import DOCUMENT, TABLE, Row, document
from archiver_pipeline_tests.processes import CHECKOUT

PACKAGE = CHECKOUT / "archiver_pipeline"

SAYS_WHAT_IS_ALLOWED = {"SettingsError", "WrongUsage"}
"""Their text has the name, the value and what is allowed, and the command adds where its help is."""

WITHOUT_REMEDY = {
    "cli/prompt.py: SqlError": "it names the command that lists what there is",
    "cli/shell.py: SqlError": "the text is DuckDB's own, of a statement that somebody has just typed",
    "cli/shell.py: ArchiveError": "the text is DuckDB's own, of a file that it cannot open",
}
"""Where an error is raised without a hint, and why."""

JARGON = re.compile(
    r"Error:|Exception|Traceback|\[Errno|^\s|\s$|\n|\.\.|\. \.| object at 0x|<[a-z_]+\.[\w.]+ "
    r"|\b1 (?:hours|files|messages|topics|partitions|runs|days|seconds|minutes|types|offsets|rows|batches|bytes)\b"
)
"""What no text has: a prefix or representation of Python's, two lines, two full stops, or a wrong number."""


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """A small archive, without a server."""
    return Ground(tmp_path_factory.mktemp("errors"))


def test_the_table_has_each_cause_once() -> None:
    """Every fault that is brought about has its row, and no row is without one."""
    assert [(row.group, row.cause) for row in TABLE] == list(CAUSES)
    assert len({row.cause for row in TABLE}) == len(TABLE)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.cause)
def test_what_is_wrong_is_said_in_these_words(ground: Ground, row: Row) -> None:
    """One line says what failed and where, and what to do; it begins with a small letter or a name."""
    said = CAUSES[row.group, row.cause](ground)
    assert said.startswith("archiver: ")
    assert ground.normal(said) == row.text
    assert not JARGON.search(row.text)
    assert re.match(r"[a-z'/-]|[A-Z]+_|MySQL|MariaDB|DAGSTER|127", row.says)


def test_the_page_of_errors_is_that_of_the_table() -> None:
    """docs/errors.md is what `python -m archiver_pipeline_tests.errors_table` writes."""
    assert DOCUMENT.read_text("utf-8") == document()


def kinds() -> set[str]:
    """The names of all errors that are raised on purpose, wherever they are defined."""
    found = {name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, Exception)}
    while True:
        more = {
            node.name
            for path in PACKAGE.rglob("*.py")
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.ClassDef) and {base.id for base in node.bases if isinstance(base, ast.Name)} & found
        }
        if more <= found:
            return found
        found |= more


def raised() -> Iterator[tuple[Path, ast.Call]]:
    """Every place where such an error is made."""
    names = kinds()
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names:
                yield path, node


PLACES = list(raised())


def fixed(node: ast.expr) -> str:
    """The text of an expression, with … for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(fixed(part) for part in node.values)
    if isinstance(node, ast.IfExp):
        return fixed(node.body)
    return "…"


def name_of(path: Path, call: ast.Call) -> str:
    """A place as `WITHOUT_REMEDY` has it."""
    assert isinstance(call.func, ast.Name)
    return f"{path.relative_to(PACKAGE)}: {call.func.id}"


def test_every_error_says_what_to_do() -> None:
    """Wherever an error is raised it has a remedy, or says what is allowed; those without one are listed with why."""
    assert len(PLACES) > 100
    bare = {
        name_of(path, call)
        for path, call in PLACES
        if not {"hint", None} & {keyword.arg for keyword in call.keywords}
        and isinstance(call.func, ast.Name)
        and call.func.id not in SAYS_WHAT_IS_ALLOWED
    }
    assert bare == set(WITHOUT_REMEDY)


def test_every_text_keeps_to_the_style() -> None:
    """A text begins with a small letter or a name and ends without a full stop, and so does a remedy end; both are free
    of what only programmers understand."""
    wrong = []
    for path, call in PLACES:
        hints = [keyword.value for keyword in call.keywords if keyword.arg == "hint"]
        for text in map(fixed, [*call.args[:1], *hints]):
            shown = text.replace("CHARACTER", "")
            if JARGON.search(shown) or (shown.endswith(".") and not shown.endswith("…")):
                wrong.append(f"{name_of(path, call)}: {text}")
        what = fixed(call.args[0]) if call.args else "…"
        if not re.match(r"[a-z'…*-]|[A-Z]{2}|DAGSTER_HOME|Kafka |MySQL |Dagster's ", what):
            wrong.append(f"{name_of(path, call)}: {what}")
    assert wrong == []


def test_counts_and_nouns_go_through_one_helper() -> None:
    """No text puts an s behind a number by itself, which is wrong for 1."""
    nouns = "hours|files|messages|topics|partitions|runs|offsets|bytes|batches"
    found = [
        f"{path.name}: {line.strip()}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for line in path.read_text("utf-8").splitlines()
        if re.search(rf"\{{[^{{}}]*:,\}} ({nouns})\b", line) and " of {" not in line
    ]
    assert found == []


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 hours"), (1, "1 hour"), (2, "2 hours"), (1200, "1,200 hours")], ids=str
)
def test_a_count_has_its_noun_in_the_right_number(number: int, text: str) -> None:
    """One is one hour, all else are hours."""
    assert counted(number, "hour") == text
    assert counted(number, "batch", "batches").endswith("batch" if number == 1 else "batches")


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.24, "4.2 s"), (59, "59 s"), (92, "1 min 32 s"), (11520, "3 h 12 min"), (200_000, "2 days")]
)
def test_a_span_of_time_is_as_exact_as_it_is_short(seconds: float, text: str) -> None:
    """Seconds, then minutes and seconds, then hours and minutes, then days."""
    assert duration(seconds) == text
