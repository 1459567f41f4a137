"""The SQL shell: a banner, statements and dot commands one after the other, until `.quit` or Ctrl-D."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from archiver_pipeline.cli.catalog import Catalog, read_catalog
from archiver_pipeline.cli.completion import COMMANDS
from archiver_pipeline.cli.examples import Example, banner_examples, examples
from archiver_pipeline.cli.output import say
from archiver_pipeline.cli.results import FORMS, Form
from archiver_pipeline.cli.shell import SqlError, View, translated
from archiver_pipeline.cli.terminal import HISTORY, reader
from archiver_pipeline.errors import ArchiveError
from archiver_pipeline.view.macros import MACROS

_KEYS = """\
A statement ends with ; and may take several lines. Tab completes, Ctrl-R searches what was typed before, Ctrl-C drops
what is typed or stops what runs, Alt-Enter runs what is there, Ctrl-D leaves."""
_NAMED_VIEWS = 8


def _some(names: list[str]) -> str:
    """A few names, and how many more there are; those of the archive's own types, which begin with _, come last."""
    names = sorted(names, key=lambda name: name.startswith("_"))
    more = f" and {len(names) - _NAMED_VIEWS} more" if len(names) > _NAMED_VIEWS else ""
    return (", ".join(names[:_NAMED_VIEWS]) or "none yet") + more


class Shell:
    """Reads statements from a terminal and shows their results."""

    def __init__(self, view: View, form: Form, history: Path = HISTORY) -> None:
        """Talk about a view; results are printed in that form until `.mode` changes it."""
        self._view = view
        self._form = form
        self._timed = sys.stdout.isatty()
        self._history = history
        self._catalog: tuple[object, Catalog] | None = None

    def run(self) -> None:
        """Talk until the user leaves. Raises ArchiveError where there is no archive yet."""
        self._greet()
        read = reader(self.catalog, self._history)
        while True:
            try:
                if self._do(read()) == "leave":
                    return
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                print()
            except ArchiveError as error:
                say(error, file=sys.stderr)

    def catalog(self) -> Catalog:
        """The names that a statement may have, read again where a batch has replaced the file."""
        with self._view.lock:
            connection, opened = self._view.connection(), self._view.opened
            if self._catalog is None or self._catalog[0] != opened:
                self._catalog = opened, read_catalog(connection)
            return self._catalog[1]

    def _greet(self) -> None:
        connection = self._view.connection()
        try:
            with translated():
                ((version,),) = connection.execute("SELECT version FROM meta.state").fetchall()
                types = [name for (name,) in connection.execute('SELECT "view" FROM types ORDER BY type').fetchall()]
                shown = banner_examples(examples(connection))
        except SqlError as error:
            what = "it is no DuckDB file of this release: " + str(error).split("\n")[0].partition("Error: ")[2]
            hint = "Check BASE_DIR; `archiver sql --refresh` makes it anew"
            raise ArchiveError(what, path=str(self._view.path), hint=hint) from None
        say(f"The archive as of table version {version}, times in UTC.")
        say(f"  messages; one view a type: {_some(types)}; hours, offsets, batches, gaps …")
        for each in shown:
            say("  " + each.sql.replace("\n", "\n  "))
        say("A statement ends with ; and Tab completes. .examples has more, .help the commands, .quit leaves.")

    def _do(self, typed: str) -> Literal["leave", "stay"]:
        words = typed.split()
        if [word.lower() for word in words] in (["quit"], ["exit"], [".quit"], [".exit"]):
            return "leave"
        if words and words[0].startswith("."):
            self._command(*words)
        elif words:
            self._view.run(typed, self._form, timed=self._timed)
        return "stay"

    def _command(self, command: str, *rest: str) -> None:
        """Do what a line that begins with a dot asks for. Raises SqlError where that makes no sense."""
        match (command, *rest):
            case (".tables",):
                say("\n".join(self._view.names()))
            case (".schema",):
                for name in self._view.names():
                    self._show_columns(name)
            case (".tables" | ".schema" | ".columns", _, *_):
                self._show_columns(" ".join(rest).strip('";'))
            case (".macros",):
                say("\n".join(f"{call}\n    {what}" for call, what in MACROS.items()))
            case (".examples",):
                for number, each in enumerate(self._examples(), 1):
                    say(f"{number}  {each.what}\n   {each.sql}".replace("\n  F", "\n     F"))
            case (".example" | ".examples", number):
                self._run_example(number)
            case (".mode", form) if form in FORMS:
                self._form = form
            case (".mode", *_):
                say(f"results are printed as {self._form}; .mode takes {', '.join(FORMS)}")
            case (".timer", "on" | "off" as switch):
                self._timed = switch == "on"
            case (".help",):
                say("\n".join(f"{name:<10} {what}" for name, what in COMMANDS.items()) + f"\n{_KEYS}")
            case _:
                raise SqlError(f"{' '.join((command, *rest))} is no command: .help has the list")

    def _examples(self) -> list[Example]:
        with translated():
            return examples(self._view.connection())

    def _run_example(self, number: str) -> None:
        found = self._examples()
        if not number.isdecimal() or not 1 <= int(number) <= len(found):
            raise SqlError(f"there is no example {number}: .examples has {len(found)}, from 1 on")
        sql = found[int(number) - 1].sql
        say(sql)
        self._view.run(sql, self._form, timed=self._timed)

    def _show_columns(self, name: str) -> None:
        columns = self._view.columns(name)
        if not columns:
            raise SqlError(f"there is no view {name}: .tables has their names")
        say(f"{name}\n" + "\n".join(f"  {self.catalog().quoted(column)} {kind}" for column, kind in columns))
