"""The guide `docs/sql.md` and the notebook are run as they stand, on an archive of the types that they speak of."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from archiver_pipeline.view.macros import NAMES
from archiver_pipeline_tests.asked import asked
from archiver_pipeline_tests.processes import CHECKOUT
from archiver_pipeline_tests.server import running
from archiver_pipeline_tests.spark.connect import SparkConnect

GUIDE = (CHECKOUT / "docs" / "sql.md").read_text()
NOTEBOOK = CHECKOUT / "examples" / "archive.ipynb"


def snippets(language: str) -> list[str]:
    """The code of the guide in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


def run(code: str) -> None:
    """Run a snippet as a reader of the guide does; warnings of libraries of each other's next releases are theirs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(code, "docs/sql.md", "exec"), {})  # noqa: S102, code of the repository


SQL = [statement for text in snippets("sql") for statement in re.findall(r".+?;\n", text, re.DOTALL)]
PYTHON = [text for text in snippets("python") if "pyspark" not in text]
(SPARK,) = (text for text in snippets("python") if "pyspark" in text)
COMMANDS = [line for text in snippets("sh") for line in text.splitlines() if line.startswith("archiver ")]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive, as `data` in the folder that is returned."""
    folder = tmp_path_factory.mktemp("asked")
    asked(folder)
    return folder


@pytest.mark.parametrize("statement", SQL)
def test_sql_of_the_guide(archive: Path, statement: str) -> None:
    """Each statement runs on the DuckDB file as anyone opens it, and has an answer."""
    with duckdb.connect(str(archive / "data" / "archive.duckdb"), read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        assert connection.execute(statement).fetchall()


@pytest.mark.parametrize("code", PYTHON)
def test_python_of_the_guide(
    archive: Path, code: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each snippet runs by itself, beside `data`, and prints something of the hour."""
    monkeypatch.chdir(archive)
    run(code)
    assert re.search(r"\b(24|120|361)\b", capsys.readouterr().out)


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_of_the_guide(archive: Path, line: str) -> None:
    """Each command of the archiver runs and prints what it finds."""
    command, *arguments = shlex.split(line.partition("#")[0].partition(">")[0])
    assert command == "archiver"
    environment = {**os.environ, "BASE_DIR": str(archive / "data")}
    done = subprocess.run(
        [sys.executable, "-m", "archiver_pipeline.cli", *arguments],
        env=environment, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "order.created" in done.stdout


def test_the_guide_names_every_macro() -> None:
    """And the table of its macros has no other."""
    section = GUIDE.partition("## Macros")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"^\| `(\w+)\(", section, re.MULTILINE)) == sorted(NAMES)


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Spark Connect server that reads Delta tables."""
    with running(SparkConnect(tmp_path_factory.mktemp("spark")), "work") as server:
        yield server.address


@pytest.mark.slow
def test_spark_of_the_guide(archive: Path, spark: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Spark reads the table, and opens the files of the hour alone."""
    monkeypatch.chdir(archive)
    monkeypatch.setenv("SPARK_REMOTE", spark)
    # A program as a reader's: in a process that tests share, pyspark takes itself for a doctest.
    (tmp_path / "guide.py").write_text(f"{SPARK}\nspark.stop()")
    program = [sys.executable, "-W", "ignore", str(tmp_path / "guide.py")]
    shown = subprocess.run(program, capture_output=True, text=True, timeout=240, check=True).stdout
    assert "page.view" in shown
    assert shown.endswith("2 files\n")


def test_the_notebook(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs from its first cell to its last on an archive of any types, and is in the repository without outputs."""
    import nbformat
    from nbclient import NotebookClient

    # The kernel of this Python, whatever kernels a user has.
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("BASE_DIR", str(archive / "data"))
    stored = json.loads(NOTEBOOK.read_text())
    assert all(not cell["outputs"] for cell in stored["cells"] if cell["cell_type"] == "code")
    book = nbformat.read(NOTEBOOK, as_version=4)  # type: ignore[no-untyped-call]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that talk to the kernel
        NotebookClient(book, timeout=120, kernel_name="python3").execute()
    shown = json.dumps([cell.get("outputs") for cell in book.cells])
    assert "order.created" in shown
