"""Rules of the commands and snippets of the pages: they run, or are checked as far as that goes."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from archiver_pipeline.settings import settings
from archiver_pipeline_tests.debian import installed
from archiver_pipeline_tests.docs import reasons
from archiver_pipeline_tests.docs.pages import Block, blocks, pages
from archiver_pipeline_tests.docs.sandbox import Sandbox
from archiver_pipeline_tests.docs.shell import commands, fault_of, lines_of, reason_of, words_of
from archiver_pipeline_tests.kafka.broker import KafkaBroker

BLOCKS = [block for page in pages() for block in blocks(page)]
RUN = [page for page in pages() if page not in reasons.PAGES and any(block.language == "sh" for block in blocks(page))]


def of_language(*languages: str) -> list[Block]:
    """The blocks of these languages."""
    return [block for block in BLOCKS if block.language in languages]


@pytest.fixture(scope="module")
def sandbox(kafka: KafkaBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A checkout with an archive; each page has a copy of it."""
    made = Sandbox(tmp_path_factory.mktemp("pages"), kafka.bootstrap_servers)
    yield made
    made.close()


# The longest page has forty commands, and the first one waits for the sandbox, too.
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", RUN)
def test_a_page_runs_from_top_to_bottom(sandbox: Sandbox, page: str) -> None:
    """Its commands end with exit code 0, or with the one that is named beside them."""
    if any(" jq " in block.text for block in blocks(page)):
        installed("jq", "jq")
    ran = sandbox.run(page)
    assert ran.code == 0, ran.said
    assert "Traceback" not in ran.said


def test_every_block_is_in_a_language_that_is_checked() -> None:
    """A block says what it is, so that none is passed over by mistake."""
    known = {"sh", "sql", "python", "toml", "json", "yaml", *reasons.UNCHECKED}
    assert [block.name for block in BLOCKS if block.language not in known] == []


def test_the_shell_takes_every_block() -> None:
    """Quotes, loops and continued lines are closed."""
    scripts = "\n".join(f"f{number}() {{\n{block.text}\n}}" for number, block in enumerate(of_language("sh")))
    done = subprocess.run(["bash", "-n"], input=scripts, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_settings_commands_and_options_exist() -> None:
    """Of a command that is not run it is still known that there is one, and that it takes what it is given."""
    lines = [line for block in of_language("sh") for line in lines_of(block)]
    found = [(line, fault_of(command)) for line in lines if "$(" not in line.text for command in commands(line)]
    assert [f"{line.name}: {fault}" for line, fault in found if fault] == []


def test_each_reason_is_needed() -> None:
    """A command or page that is not run any more needs no reason."""
    words = [words_of(command) for block in of_language("sh") for line in lines_of(block) for command in commands(line)]
    used = {reason_of(each, {start: start}) for each in words for start in reasons.COMMANDS}
    assert reasons.COMMANDS.keys() - used == set()
    with_code = {block.page for block in BLOCKS if block.language not in reasons.UNCHECKED}
    assert reasons.PAGES.keys() - with_code == set()
    assert reasons.SQL.keys() - {(block.page, block.heading) for block in of_language("sql")} == set()


@pytest.mark.parametrize("block", of_language("sql"), ids=lambda block: f"{block.page}:{block.line}")
def test_sql_is_answered(sandbox: Sandbox, block: Block) -> None:
    """DuckDB answers each statement on an archive of today's format."""
    if block.page in reasons.PAGES or (block.page, block.heading) in reasons.SQL:
        assert block.text.strip().endswith((";", "*/")) or ";" in block.text
        return
    with sandbox.archived.view() as connection:
        for statement in filter(str.strip, re.sub(r"--.*", "", sandbox.translated(block.text)).split(";")):
            connection.execute(statement).fetchall()


@pytest.mark.parametrize("block", of_language("python"), ids=lambda block: f"{block.page}:{block.line}")
def test_python_runs(sandbox: Sandbox, block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    """What other programs are shown to do, they do."""
    code = compile(block.text, block.name, "exec")
    if block.page not in reasons.PAGES:
        monkeypatch.chdir(sandbox.folder)
        exec(code, {})  # noqa: S102


@pytest.mark.parametrize("block", of_language("toml"), ids=lambda block: f"{block.page}:{block.line}")
def test_toml_is_what_the_settings_take(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is shown of `archiver.toml` can be put there."""
    assert tomllib.loads(block.text)
    path = tmp_path / "archiver.toml"
    path.write_text(block.text, "utf-8")
    monkeypatch.setenv("ARCHIVER_CONFIG", str(path))
    settings.load()


@pytest.mark.parametrize("block", of_language("json", "yaml"), ids=lambda block: f"{block.page}:{block.line}")
def test_json_and_yaml_can_be_read(block: Block) -> None:
    """They are whole; some statements of a policy, one after the other, are so in a list."""
    assert json.loads(f"[{block.text}]") if block.language == "json" else yaml.safe_load(block.text)
