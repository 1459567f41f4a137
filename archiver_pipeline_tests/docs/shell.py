"""Blocks of shell as their commands, and what can be told of a command without running it."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

from archiver_pipeline.errors import SettingsError
from archiver_pipeline.settings import properties
from archiver_pipeline.settings.settings import ENV_PREFIX, Settings
from archiver_pipeline_tests.docs.pages import Block
from archiver_pipeline_tests.processes import CHECKOUT

_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)
_ENDS = {"&&", "||", "|", ";", "&", "do", "done", "then", "fi"}
_EXIT_CODE = re.compile(r"#.*\bexit code (\d+)")
_OWN = ".venv/bin/"
_ONLY_IN_FILE = ("kafka", "types", "formats", "aggregates", "run_tags")


@dataclass(frozen=True)
class Line:
    """A line of a block, with those that a backslash continues it by.

    Attributes:
        block: where it stands.
        number: its line in the page.
        text: what the shell is given.
        exit_code: the one that its comment names, 0 where it names none.
    """

    block: Block
    number: int
    text: str
    exit_code: int

    @property
    def name(self) -> str:
        """Where it is, for errors."""
        return f"{self.block.page}:{self.number}: {self.text.strip()}"


def lines_of(block: Block) -> Iterator[Line]:
    """The logical lines of a block: with what a backslash, an open quote or a loop continues them by."""
    held: list[str] = []
    begun = 0
    for number, text in enumerate(block.text.splitlines(), block.line + 1):
        begun = begun if held else number
        held.append(text)
        whole = "\n".join(held)
        if text.strip() and _is_whole(whole):
            found = _EXIT_CODE.search(whole)
            yield Line(block, begun, whole, int(found[1]) if found else 0)
        if not text.strip() or _is_whole(whole):
            held = []


def _is_whole(text: str) -> bool:
    try:
        words = [*_lexed(text)]
    except ValueError:  # A quote is open.
        return False
    return not text.endswith("\\") and words.count("do") == words.count("done")


def _lexed(text: str) -> Iterator[str]:
    lexer = shlex.shlex(text.replace("\\\n", " ").replace("\ndone", "; done"), posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    return iter(lexer)


def commands(line: Line) -> list[list[str]]:
    """The simple commands of a line, each as its assignments and words; what a substitution runs is not among them."""
    found: list[list[str]] = [[]]
    is_file = False
    for word in _lexed(line.text):
        if word in _ENDS:
            found.append([])
        elif word and set(word) <= set("<>&"):
            is_file = True
        elif is_file:
            is_file = False
        else:
            found[-1].append(word)
    return [words for words in found if words]


def words_of(command: list[str]) -> list[str]:
    """A command without assignments in front; the programs of `.venv/bin` by their names."""
    words = list(command)
    while words and _ASSIGNMENT.fullmatch(words[0]):
        words.pop(0)
    return [words[0].removeprefix(_OWN), *words[1:]] if words else []


def assignments_of(command: list[str]) -> dict[str, str]:
    """The variables that a command sets or exports."""
    words = command[1:] if command[0] == "export" else command
    found = {}
    for word in words:
        if not _ASSIGNMENT.fullmatch(word):
            break
        name, _, value = word.partition("=")
        found[name] = value
    return found


def reason_of(words: list[str], reasons: Mapping[str, str]) -> str:
    """Why a command is not run, by the first words that a table names; empty where it is run."""
    text = " ".join(words)
    return next((why for start, why in reasons.items() if re.match(rf"{re.escape(start)}(?:[ .]|\Z)", text)), "")


def fault_of(command: list[str]) -> str:
    """What is wrong with a command, as far as that can be told without running it; empty for nothing."""
    for name in assignments_of(command):
        if fault := _variable_fault(name):
            return fault
    words = words_of(command)
    match words:
        case ["archiver", *arguments]:
            return _archiver_fault(arguments)
        case ["dagster", *arguments]:
            return _dagster_fault(arguments)
        case ["make", *arguments]:
            targets = [word for word in arguments if "=" not in word]
            return "".join(f"the Makefile has no target {word}" for word in targets if word not in _targets())
        case ["python", "-m", module, *_]:
            return "" if importlib.util.find_spec(module) else f"there is no module {module}"
    return ""


def _variable_fault(name: str) -> str:
    if name.startswith(ENV_PREFIX):
        fields = {ENV_PREFIX + field.upper() for field in Settings.model_fields if field not in _ONLY_IN_FILE}
        return "" if name in {*fields, "ARCHIVER_CONFIG"} else f"{name} is no setting"
    if name.startswith("KAFKA_"):
        try:
            _, unknown = properties.known(properties.from_environment({name: "1"}))
        except SettingsError:  # The property is there, and takes another value.
            return ""
        return f"{name} is no property of librdkafka" if unknown else ""
    return ""


def _archiver_fault(arguments: list[str]) -> str:
    from click.exceptions import ClickException
    from typer.main import get_command

    from archiver_pipeline.cli.main import app

    group = get_command(app)
    name = next((word for word in arguments if not word.startswith("-")), "")
    command = group.commands.get(name)  # type: ignore[attr-defined]
    if command is None:
        return f"archiver has no command {name!r}"
    given = arguments[arguments.index(name) + 1 :]
    try:
        command.make_context(name, given, parent=group.make_context("archiver", ["--", name], resilient_parsing=True))
    except ClickException as error:
        return f"archiver {name}: {error.format_message()}"
    return ""


def _dagster_fault(arguments: list[str]) -> str:
    import click
    from dagster._cli import cli

    command: click.Command = cli
    rest = list(arguments)
    while isinstance(command, click.Group):
        if not rest or rest[0] not in command.commands:
            return f"dagster has no command {' '.join(arguments)}"
        command = command.commands[rest.pop(0)]
    try:
        command.make_context(command.name, rest)
    except click.ClickException as error:
        # A file of the page is not here; where the command is run, it is there.
        return "" if "does not exist" in error.message else f"dagster: {error.format_message()}"
    return ""


@cache
def _targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (CHECKOUT / "Makefile").read_text("utf-8"), re.MULTILINE))
